"""What each verb does, in the order of the pipeline: from a config to files, with progress and a summary."""

import asyncio
import gc
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from interplay import __version__
from interplay.cli.progress import Progress
from interplay.config import DataConfig, ReportConfig, SimulateConfig, SimulationFlags, TrainConfig
from interplay.corpora.corpus import Corpus, read_catalog, stream_dialogues, stream_scenarios
from interplay.errors import ConfigError, DataError
from interplay.simulation.agents import is_told_target
from interplay.simulation.specs import LoadedAgent, load_from_spec, split_server
from interplay.store import Run, read_lines, read_records, write_records
from interplay.types import Catalog, Dialogue, Ending, Role, Scenario, ScoreRow, Split

if TYPE_CHECKING:
    from interplay.evaluation.exposure import Ints
    from interplay.items.vectors import ItemVectors

CATALOG, SCENARIOS = "catalog.jsonl", "scenarios.jsonl"
"""What a Run keeps beside its dialogues, so that it is a corpus in its own right."""
LABELLED_BY = "conversations with strategies by the classifier"
"""In a corpus's notes, before the name of a classifier: whose strategies are not those of its annotators."""
TOLD_TARGET = "told_target"
"""In a Run's config: its user was told the target."""


# ---- data ------------------------------------------------------------------------------------------------------------


def make_data(config: DataConfig) -> int:
    """`interplay data`: a corpus becomes a data directory."""
    from interplay.store import prepare_output

    prepare_output(config.out, overwrite=config.overwrite, marker="corpus.json")
    corpus = make_agenda(config) if config.corpus == "agenda" else load_real(config)
    if config.strategies is not None:
        label_strategies(corpus, config.strategies)
    if not corpus.dialogues:
        reasons = ", ".join(f"{n} {reason}" for reason, n in corpus.counts.dropped.items())
        raise DataError(f"no conversation of {config.corpus} was left: {corpus.counts.dialogues_read} read, dropped: {reasons}")
    corpus.write(config.out)
    print_corpus(corpus, config.out)
    return 0


def label_strategies(corpus: Corpus, path: Path) -> None:
    """Give the recommenders' turns of conversations without any label those that a classifier finds.

    Raises:
        DataError: there is no such classifier.
    """
    from interplay.evaluation.strategies import StrategyClassifier

    model = StrategyClassifier.read(path)
    bare = [k for k, dialogue in enumerate(corpus.dialogues) if not any(turn.strategies for turn in dialogue.turns)]
    for place, found in zip(bare, model.predict([corpus.dialogues[k].turns for k in bare]), strict=True):
        dialogue, rest = corpus.dialogues[place], iter(found)
        turns = tuple(
            turn.model_copy(update={"strategies": next(rest)}) if turn.role is Role.RECOMMENDER else turn
            for turn in dialogue.turns
        )
        corpus.dialogues[place] = dialogue.model_copy(update={"turns": turns})
    corpus.counts.note(f"{LABELLED_BY} {model.card.name}", len(bare))


def make_agenda(config: DataConfig) -> Corpus:
    """The bundled corpus: agenda-based user and rule-based recommender talk; their Run, kept in OUT/run, is the corpus."""
    from interplay.corpora import load_corpus
    from interplay.corpora.bundled import bundled_movies
    from interplay.simulation.agenda import agenda_scenarios
    from interplay.simulation.agenda_user import AgendaRates, AgendaUser
    from interplay.simulation.batch import Plan
    from interplay.simulation.batch import simulate as hold
    from interplay.simulation.rule_recommender import RuleRecommender

    catalog = bundled_movies()
    if config.num_items is not None and config.num_items < len(catalog):
        chosen_items = random.Random(config.seed).sample(list(catalog), config.num_items)
        catalog = Catalog(chosen_items, catalog.domain)
    fractions = (1 - config.valid_fraction - config.test_fraction, config.valid_fraction, config.test_fraction)
    scenarios = agenda_scenarios(catalog, config.num_dialogues, seed=config.seed, split_fractions=fractions)
    user, recommender = AgendaUser(catalog, AgendaRates(**config.talk.model_dump())), RuleRecommender(catalog)
    with TemporaryDirectory() as folder, Progress("converse", config.num_dialogues, "dialogues") as progress:
        run = new_run(Path(folder) / "run", config.record(), catalog, scenarios)
        done = 0

        def keep(dialogue: Dialogue) -> None:
            nonlocal done
            done += 1
            run.append(dialogue)
            progress.update(done)

        plan = Plan(seed=config.seed, concurrency=32)
        asyncio.run(hold(scenarios, user, recommender, plan, on_dialogue=keep))
        corpus = load_corpus(
            "run",
            run.path,
            split_by=config.split_by,
            valid_fraction=config.valid_fraction,
            test_fraction=config.test_fraction,
            seed=config.seed,
        )
        shutil.copytree(run.path, config.out / "run")
    return replace(corpus, name="agenda")


def load_real(config: DataConfig) -> Corpus:
    """A corpus from files, with the action tagger where the corpus has no labels of its own."""
    from interplay.corpora import load_corpus
    from interplay.corpora.annotators import LLMAnnotator

    annotator = LLMAnnotator(server_completions(config.annotate_with)) if config.annotate_with else None
    return load_corpus(
        config.corpus,
        config.source,
        annotator=annotator,
        split_by=config.split_by,
        valid_fraction=config.valid_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        whole=config.whole,
    )


def server_completions(spec: str) -> Any:
    """A function that answers prompts with the model of URL#MODEL; None stands for an answer that could not be had."""
    from interplay.backends.backend import Message, Request
    from interplay.backends.http import HttpBackend
    from interplay.config import Sampling
    from interplay.errors import InterplayError
    from interplay.types import derive_seed

    url, model = split_server(spec)

    def complete(prompts: list[str]) -> list[str | None]:
        async def ask_all() -> list[str | None]:
            backend = HttpBackend(url, model)
            await backend.check()
            answers: list[str | None] = [None] * len(prompts)
            done = 0
            with Progress("annotate", len(prompts), "conversations") as progress:

                async def ask(index: int) -> None:
                    nonlocal done
                    sampling = Sampling(temperature=0.0, max_new_tokens=400)
                    messages = (Message("user", prompts[index]),)
                    try:
                        request = Request(messages, sampling, derive_seed("annotate", index), f"annotate.{index}")
                        answers[index] = (await backend.complete(request)).text
                    except InterplayError as error:
                        print(f"annotate: conversation {index}: {error}", file=sys.stderr)
                    done += 1
                    progress.update(done)

                await asyncio.gather(*(ask(i) for i in range(len(prompts))))
            await backend.close()
            return answers

        return asyncio.run(ask_all())

    return complete


def print_corpus(corpus: Corpus, path: Path) -> None:
    """What was read, kept and dropped, and how the splits overlap."""
    counts = corpus.counts
    print(f"{corpus.name}: {counts.dialogues_kept} of {counts.dialogues_read} conversations kept", end="")
    removed = counts.dialogues_read - counts.dialogues_kept
    print(f" ({removed / counts.dialogues_read:.2%} removed)" if counts.dialogues_read else "")
    for reason, number in sorted(counts.dropped.items(), key=lambda entry: -entry[1]):
        print(f"  dropped, {reason}: {number}")
    for what, number in counts.notes.items():
        print(f"  {what}: {number}")
    sizes = Counter(s.split.value for s in corpus.scenarios)
    with_target = Counter(s.split.value for s in corpus.scenarios if s.targets)
    for split in Split:
        print(f"  {split.value}: {sizes[split.value]} conversations, {with_target[split.value]} with a target")
    for what, value in corpus.overlap.items():
        if isinstance(value, dict):
            print(f"  {what.replace('_', ' ')} in train and test: {value.get('shared')}")
    print(f"  {len(corpus.catalog)} items, digest {corpus.digest}")
    print(f"written to {path}")


# ---- train -----------------------------------------------------------------------------------------------------------


def train(config: TrainConfig) -> int:
    """`interplay train`: a checkpoint from data directories."""
    if config.show_masks:
        from interplay.cli.masks import show_masks

        return show_masks(config)
    from interplay.training.sft import train as run_training

    with Progress(f"train {config.role}", config.max_steps or 0, "steps") as progress:

        def on_progress(step: int, steps: int, latest: dict[str, float]) -> None:
            progress.total(steps)
            progress.update(step, "  ".join(f"{name} {value:.3g}" for name, value in latest.items() if "loss" in name))

        summary = run_training(config, on_progress=on_progress)
    losses = (summary["valid_loss_first"], summary["valid_loss_last"])
    print(
        f"{config.role}: {summary['parameters'] / 1e6:.1f} M parameters, {summary['steps']} steps, {summary['seconds']:.0f} s"
    )
    print(f"  {summary['rows']} conversations, {summary['tokens']} tokens, {summary['labelled_tokens']} of them learned")
    if summary["shortened"] or summary["dropped"]:
        print(f"  {summary['shortened']} cut to --max-length, {summary['dropped']} left out")
    if summary["mixture"] is not None:
        print_mixture(summary["mixture"])
    if summary["advised"]:
        print(
            f"  {summary['advised']} turns with candidates; {summary['advised_held_out']} are of conversations that the ranker"
        )
        print("  was trained on and got those of its views that were not")
    if losses[1] is not None:
        print(f"  validation loss {losses[0]:.3f} -> {losses[1]:.3f} nats per learned token")
    print(f"written to {config.out} (curves: {config.out / 'report' / 'curves.png'})")
    return 0


def print_mixture(mixture: dict[str, Any]) -> None:
    """What a user simulator was trained on beside its next turn, and what could not be used."""
    shares = mixture["shares"]
    print(f"  mixture: {', '.join(f'{task} {num} rows ({shares[task]:.1%})' for task, num in mixture['rows'].items())}")
    num_gold, skipped = mixture["conversations_with_gold"], mixture["skipped"]
    print(f"  {num_gold} conversations with a gold item", end="")
    print("".join(f"; {number} left out: {reason}" for reason, number in skipped.items()))
    if mixture["lists"]:
        print(
            f"  {mixture['lists']} lists, {mixture['gold_listed']} of them with the gold item;\n"
            f"  {mixture['from_log']} are the log's with the person's answer; "
            f"{mixture['no_difference']} differ from the gold item in no attribute that is known"
        )
    if mixture["too_long"]:
        print(f"  longer than --max-length: {', '.join(f'{task} {number}' for task, number in mixture['too_long'].items())}")


# ---- simulate --------------------------------------------------------------------------------------------------------


def load_agent(spec: str, role: Role, config: SimulationFlags, catalog: Catalog, *, any_domain: bool = False) -> LoadedAgent:
    """One agent of a side, loaded once however many Runs it takes part in. Raises InputError as `load_from_spec`."""
    return load_from_spec(
        spec,
        role,
        sampling=config.sampling,
        catalog=catalog,
        max_batch=config.concurrency,
        memory_gib=config.memory_gib,
        kv_cache=config.kv_cache,
        constrained=config.constrained,
        exclude_rejected=config.exclude_rejected,
        slots=config,
        control=config.control,
        any_domain=any_domain,
    )


def simulate(config: SimulateConfig) -> int:
    """`interplay simulate`: two agents talk on scenarios; the Run is scored."""
    from interplay.evaluation.exposure import recommended_counts

    catalog = read_catalog(config.scenarios)
    vectors = read_vectors(config.vectors, catalog)
    popularity = recommended_counts(stream_dialogues(config.scenarios, Split.TRAIN), catalog)
    user, recommender = (
        load_agent(spec, role, config, catalog)
        for spec, role in ((config.user, Role.USER), (config.recommender, Role.RECOMMENDER))
    )
    run, held = simulate_run(config, catalog, user, recommender)
    endings = count_endings(run.dialogues())
    rows = score_simulation(run, catalog, user, recommender, config.seed, num_held=held, vectors=vectors, popularity=popularity)
    print(f"{endings.total()} conversations ({held} held now): {endings_text(endings)}")
    print_rows(rows)
    print_retries(user, recommender)
    print(f"written to {run.path}")
    return 2 if endings[Ending.BACKEND_FAILURE] else 0


def simulate_run(config: SimulateConfig, catalog: Catalog, user: LoadedAgent, recommender: LoadedAgent) -> tuple[Run, int]:
    """Hold the conversations that a Run owes. Scenarios stream from disk, dialogues to it: memory does not grow with either.

    Returns:
        The Run and how many were held.

    Raises:
        DataError: the split is empty.
    """
    run = begin_simulation(config, catalog, user, recommender)
    finished, total = frozenset(run.finished_keys()), num_owed(run, config)
    done = len(finished)
    endings: Counter[Ending] = Counter(d.ending for d in run.dialogues() if d.ending is not None and d.key in finished)

    async def talk(progress: Progress) -> int:
        def count(dialogue: Dialogue) -> None:
            nonlocal done
            done += 1
            if dialogue.ending is not None:
                endings[dialogue.ending] += 1
            progress.update(done, endings_text(endings))

        await check_servers(user, recommender)
        try:
            return await hold_owed(run, config, user, recommender, finished, on_dialogue=count)
        finally:
            await close(user, recommender)

    with Progress("simulate", total, "dialogues", done=done) as progress:
        held = asyncio.run(talk(progress))
    return run, held


def begin_simulation(config: SimulateConfig, catalog: Catalog, user: LoadedAgent, recommender: LoadedAgent) -> Run:
    """The Run of a simulation, made or, with --resume, opened again.

    Raises:
        DataError: the split is empty.
        RunError: see `Run.create` and `Run.resume`.
    """
    record = config.record() | {
        "verb": "simulate",
        "agents": {"user": user.fingerprint, "recommender": recommender.fingerprint},
        **prompts_of(user, recommender),
        **told_target_record(user),
        "catalog_digest": catalog.digest,
        "package_version": __version__,
    }
    # How many conversations run at once, and in how much memory, does not change any of them.
    for field in ("concurrency", "memory_gib"):
        record.pop(field)
    overwrite = config.overwrite
    if config.resume and (config.out / Run.MARKER).is_file():
        run = Run.resume(config.out, record)
        if (run.path / SCENARIOS).is_file():
            return run
        overwrite = True  # killed before its scenarios were written, so nothing was held
    source = stream_scenarios(config.scenarios, Split(config.split))
    first = next(source, None)
    if first is None:
        raise empty_split(config.split, config.scenarios)
    return new_run(config.out, record, catalog, islice(chain([first], source), config.num_dialogues), overwrite)


def num_owed(run: Run, config: SimulateConfig) -> int:
    """How many dialogues a whole Run holds."""
    return sum(1 for _ in read_lines(run.path / SCENARIOS)) * config.num_samples


async def hold_owed(
    run: Run,
    config: SimulateConfig,
    user: LoadedAgent,
    recommender: LoadedAgent,
    finished: frozenset[str],
    *,
    on_dialogue: Callable[[Dialogue], None],
) -> int:
    """Hold what a Run owes and write it; the agents stay open.

    Args:
        run: of `begin_simulation`.
        config: the Run's.
        user: the user simulator.
        recommender: the recommender.
        finished: keys of the dialogues that are not owed any more.
        on_dialogue: called with each dialogue once it is written.

    Returns:
        How many were held.
    """
    from interplay.simulation.batch import Plan
    from interplay.simulation.batch import simulate as hold

    plan = Plan(
        seed=config.seed,
        num_samples=config.num_samples,
        concurrency=config.concurrency,
        limits=limits_of(config.max_turns, config.max_repeats),
        with_persona=config.with_persona if recommender.with_persona is None else recommender.with_persona,
        first=Role(config.first),
    )

    def keep(dialogue: Dialogue) -> None:
        run.append(dialogue)
        on_dialogue(dialogue)

    gc.freeze()  # models, catalogs and libraries are here to stay; looking through them again and again is a tenth of a turn
    try:
        return await hold(scenarios_of(run), user.agent, recommender.agent, plan, on_dialogue=keep, finished=finished)
    finally:
        gc.unfreeze()


def scenarios_of(run: Run) -> Iterator[Scenario]:
    """The scenarios a Run plays, one at a time."""
    return read_records(run.path / SCENARIOS, Scenario)


def new_run(
    path: Path, record: dict[str, Any], catalog: Catalog, scenarios: Iterable[Scenario], overwrite: bool = False
) -> Run:
    """A Run that keeps its catalog and scenarios, so that it can be read as a corpus."""
    run = Run.create(path, record, overwrite=overwrite)
    write_records(path / CATALOG, catalog)
    write_records(path / SCENARIOS, scenarios)
    return run


def limits_of(max_turns: int, max_repeats: int) -> Any:
    """The environment's limits, imported late."""
    from interplay.simulation.dialogue import Limits

    return Limits(max_turns=max_turns, max_repeats=max_repeats)


def chosen(corpus: Corpus, split: str, num_dialogues: int | None) -> list[tuple[Scenario, Dialogue]]:
    """The first conversations of a split.

    Raises:
        DataError: the split is empty.
    """
    pairs: Iterator[tuple[Scenario, Dialogue]] = corpus.pairs(Split(split))
    out = list(islice(pairs, num_dialogues))
    if not out:
        raise empty_split(split, corpus.name)
    return out


def empty_split(split: str, where: Path | str) -> DataError:
    """What to say when nothing is there to work on."""
    return DataError(f"the {split} split of {where} holds no conversation; choose another with --split")


async def check_servers(*agents: LoadedAgent) -> None:
    """Make sure that servers answer before thousands of conversations fail one by one."""
    for loaded in agents:
        backend = getattr(loaded.agent, "backend", None)
        if backend is not None and hasattr(backend, "check"):
            await backend.check()


async def close(*agents: LoadedAgent) -> None:
    """Close the agents' backends."""
    for loaded in agents:
        backend = getattr(loaded.agent, "backend", None)
        if backend is not None:
            await backend.close()


def score_simulation(
    run: Run,
    catalog: Catalog,
    user: LoadedAgent,
    recommender: LoadedAgent,
    seed: int,
    *,
    num_held: int | None = None,
    vectors: "ItemVectors | None" = None,
    popularity: "Ints | None" = None,
) -> list[ScoreRow]:
    """Score a simulated Run and write the rows into it.

    Args:
        run: the Run; its dialogues and scenarios are read one at a time.
        catalog: of their domain.
        user: who spoke as the user.
        recommender: who spoke as the recommender.
        seed: of the intervals.
        num_held: how many of the dialogues these very agents held, as far as they have counted; all by default.
        vectors: of the catalog, for Match Scores.
        popularity: of the catalog's items, see `exposure.recommended_counts`; None: not measured.
    """
    from interplay.evaluation.exposure import exposure_rows, exposure_values, shown_in_dialogues
    from interplay.evaluation.faults import fault_rows
    from interplay.evaluation.leak_scores import leak_rows, simulation_part_rows
    from interplay.evaluation.leakage import LeakChecker, LeakReport, write_leaks
    from interplay.evaluation.scoring import About, data_digest, retry_rows, simulation_rows, simulation_values
    from interplay.evaluation.simulation import summarise
    from interplay.evaluation.values import write_values

    about = About(
        subject=recommender.agent.name,
        simulator=user.agent.name,
        split=next(scenarios_of(run)).split.value,
        seed=seed,
        data_digest=data_digest(scenarios_of(run)),
    )
    checker = LeakChecker(catalog, tell_target=is_told_target(user.agent))
    checker.take(scenarios_of(run))
    reports: list[LeakReport] = []
    run.put_in_order(f"{s.key}.{sample}" for s in scenarios_of(run) for sample in range(run.config.get("num_samples", 1)))
    summary = summarise(checker.watch(run.dialogues(), reports), scenarios_of(run), catalog)
    rows = simulation_rows(summary, about) + simulation_part_rows(summary, reports, about) + leak_rows(reports, about)
    write_leaks(run.path, reports)
    shown = shown_in_dialogues(run.dialogues(), catalog)
    rows += exposure_rows("simulation", shown, popularity, len(catalog), about)
    write_values(run, simulation_values(summary) | exposure_values("simulation.", shown, popularity))
    if vectors is not None:
        from interplay.evaluation.match import match_rows, simulated_cases

        cases = simulated_cases(run.dialogues(), scenarios_of(run), catalog)
        rows += match_rows({about.subject: cases}, vectors, catalog, about, metric="simulation.match_score")
    rows += fault_rows("simulation", (dialogue.failure for dialogue in run.dialogues()), about)
    num_dialogues = len(summary.endings) + summary.num_skipped
    num_held = num_dialogues if num_held is None else num_held
    for loaded in (user, recommender):
        rows += retry_rows(
            "simulation",
            retries_of(loaded),
            about,
            num_units=num_held,
            num_skipped=num_dialogues - num_held,
            subject=loaded.agent.name,
        )
    run.write_scores(rows)
    return rows


def prompts_of(*agents: LoadedAgent) -> dict[str, Any]:
    """What a Run says of the prompts of its chat models: their names by role. Empty without any."""
    chosen = {loaded.agent.role.value: loaded.prompt for loaded in agents if loaded.prompt is not None}
    return {"prompts": chosen} if chosen else {}


def told_target_record(user: LoadedAgent) -> dict[str, bool]:
    """What a Run's config says of a user that is told its target; nothing of any other."""
    return {TOLD_TARGET: True} if is_told_target(user.agent) else {}


def retries_of(loaded: LoadedAgent) -> Counter[str]:
    """Answers of the agent that could not be read and were asked for again, by reason."""
    return Counter(getattr(loaded.agent, "retries", {}))


def print_retries(*agents: LoadedAgent) -> None:
    """One line per agent that was asked again."""
    for loaded in agents:
        retries = retries_of(loaded)
        if retries:
            reasons = ", ".join(f"{reason} {number}" for reason, number in retries.most_common())
            print(f"{loaded.agent.name}: {retries.total()} answers could not be read and were asked for again ({reasons})")


def count_endings(dialogues: Iterable[Dialogue]) -> Counter[Ending]:
    """How often each ending occurred."""
    return Counter(d.ending for d in dialogues if d.ending is not None)


def endings_text(endings: Counter[Ending]) -> str:
    """Endings with their numbers: "accepted 12, gave-up 3"."""
    return ", ".join(f"{ending.value} {number}" for ending, number in endings.most_common())


def read_vectors(path: Path | None, catalog: Catalog) -> "ItemVectors | None":
    """The item vectors at `path`, if one is given. Raises DataError when they are not those of the catalog."""
    if path is None:
        return None
    from interplay.items.vectors import ItemVectors

    return ItemVectors.read(path, catalog)


def print_rows(rows: list[ScoreRow]) -> None:
    """Scores as a table on stdout; the confusion of actions as a matrix below."""
    from rich.console import Console
    from rich.table import Table

    from interplay.evaluation.scoring import CONFUSION

    table = Table(box=None, pad_edge=False)
    for name in ("metric", "of", "value", "95% interval", "n", "skipped"):
        table.add_column(name, justify="left" if name in ("metric", "of") else "right")
    for row in rows:
        if row.metric == CONFUSION:
            continue
        interval = "" if row.low is None or row.high is None else f"{row.low:.3f} .. {row.high:.3f}"
        value = "not measured" if row.value is None else f"{row.value:.3f}"
        name = row.metric if row.condition == "standard" else f"{row.metric} [{row.condition}]"
        table.add_row(name.replace("[", r"\["), row.subject, value, interval, str(row.n), str(row.num_skipped))
    Console(width=max(100, shutil.get_terminal_size().columns)).print(table)
    _print_confusion(rows)


def _print_confusion(rows: list[ScoreRow]) -> None:
    """Per subject: turns, by the logged action (lines) and the model's (columns); a dot for none."""
    from rich.console import Console
    from rich.table import Table

    from interplay.evaluation.turn_scores import confusion_of, num_turns

    for subject in dict.fromkeys(row.subject for row in rows):
        matrix = confusion_of(row for row in rows if row.subject == subject)
        if not matrix:
            continue
        table = Table(box=None, pad_edge=False, title=f"turns by logged action and that of {subject}", title_justify="left")
        said = list(next(iter(matrix.values())))
        table.add_column("logged")
        for action in (*said, "skipped"):
            table.add_column(action, justify="right", no_wrap=True)
        for logged, row_of in matrix.items():
            skipped = next(iter(row_of.values())).num_skipped
            table.add_row(logged, *(str(num_turns(row_of[action]) or ".") for action in said), str(skipped or "."))
        Console(width=max(120, shutil.get_terminal_size().columns)).print("", table)


# ---- report ----------------------------------------------------------------------------------------------------------


def report(config: ReportConfig) -> int:
    """`interplay report`: a page and tables from Runs, or from the seeds of an optimisation.

    Raises:
        RunError: see `page.write_report` and `optimize_page.write_optimize_page`.
        ConfigError: a table of a paper is asked of an optimisation.
    """
    from interplay.evaluation.optimisation import is_optimisation
    from interplay.report.page import write_report

    if optimisations := [path for path in config.runs if is_optimisation(path)]:
        from interplay.report.optimize_page import require_alike, write_optimize_page

        require_alike(config.runs, optimisations)
        if config.table:
            raise ConfigError("--table fills tables of papers with Runs; an output of interplay optimize has its own")
        page = write_optimize_page(
            config.runs, config.out, num_dialogues=config.num_examples, seed=config.seed, overwrite=config.overwrite
        )
        print(f"open {page}")
        return 0
    page = write_report(
        config.runs,
        config.out,
        num_dialogues=config.num_examples,
        seed=config.seed,
        overwrite=config.overwrite,
        tables=tuple(dict.fromkeys(config.table)),
    )
    for name in dict.fromkeys(config.table):
        print((config.out / f"{name}.md").read_text(encoding="utf-8"))
    print(f"open {page}")
    return 0
