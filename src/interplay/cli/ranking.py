"""`interplay items train-ranker` and `interplay evaluate recommendation --ranker`."""

import json
import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interplay import __version__
from interplay.cli.progress import Progress
from interplay.config import EvaluateConfig, ItemsTrainRankerConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError, DataError
from interplay.types import Dialogue, Item, Scenario, ScoreRow, Split

if TYPE_CHECKING:
    from interplay.evaluation.title_ranking import Ranked
    from interplay.evaluation.written_lists import WrittenList
    from interplay.items.ranker import ItemRanker
    from interplay.simulation.checkpoint import CheckpointCard


def train_ranker(config: ItemsTrainRankerConfig) -> int:
    """`interplay items train-ranker`: conversations become a ranker.

    Raises:
        DataError: the data or the catalog can't be read, or there is nothing to learn from.
        RunError: the output can't be written.
    """
    from interplay.items.ranker import MARKER, ItemRanker, TrainingLog
    from interplay.store import prepare_output

    corpus = Corpus.read(config.data)
    known = {} if config.catalog is None else known_items(corpus, config.catalog)
    logs = [TrainingLog(d, s.recommender_id) for s, d in corpus.pairs(Split.TRAIN)]
    if config.num_dialogues is not None and config.num_dialogues < len(logs):
        kept = sorted(random.Random(config.seed).sample(range(len(logs)), config.num_dialogues))
        logs = [logs[n] for n in kept]
    prepare_output(config.out, overwrite=config.overwrite, marker=MARKER)
    with Progress("train ranker", 1, "steps") as progress:

        def on_step(done: int, total: int, following: str) -> None:
            progress.total(total)
            progress.update(done, following)

        ranker = ItemRanker.fit(corpus.catalog, logs, known=known, seed=config.seed, epochs=config.epochs, on_step=on_step)
    ranker.write(config.out)
    card = ranker.card
    print(f"ranker of {card['items']} {corpus.catalog.domain.plural}, {card['items_known_elsewhere']} known to --catalog")
    print(f"  learned from {card['cases']} turns in {card['dialogues']} conversations, {card['words']} words known")
    if not card["trees"]:
        print("  re-ranks by a linear model; for trees: pip install 'interplay[rank]'", file=sys.stderr)
    print(f"written to {config.out}")
    return 0


def known_items(corpus: Corpus, path: Path) -> dict[str, Item]:
    """What a catalog knows of the corpus's items: by the id it has from that corpus, else by title and year."""
    from interplay.items.catalogs import BuiltCatalog

    built = BuiltCatalog.read(path)
    if built.catalog.domain.name != corpus.domain.name:
        raise DataError(
            f"{path} is a catalog of {built.catalog.domain.plural}; the conversations are about {corpus.domain.plural}"
        )
    return built.counterparts(corpus.catalog, corpus.name)


def evaluate_ranker(config: EvaluateConfig) -> int:
    """`interplay evaluate recommendation --ranker`: every method of a ranker, and a recommender's titles, in one Run.

    Raises:
        ConfigError: a user is named too, the protocol is another, or the recommender can't be ranked.
        DataError: the ranker is of another catalog, or no case is left.
    """
    from interplay.cli.pipeline import chosen, new_run, print_rows
    from interplay.evaluation.exposure import recommended_counts
    from interplay.evaluation.match import match_rows, ranked_cases
    from interplay.evaluation.ranking import Heads, joined, place_cases, place_lists, ranking_rows
    from interplay.evaluation.scoring import About, data_digest
    from interplay.items.contexts import cases_of
    from interplay.items.ranker import ItemRanker
    from interplay.items.vectors import ItemVectors
    from interplay.store import write_lines

    if config.protocol != "recommendation" or config.user is not None:
        raise ConfigError("--ranker is measured by the protocol recommendation, alone or beside --recommender; got another")
    # How many candidates there are is for the ranker as well; the other slots are not.
    if config.model_copy(update={"num_candidates": None}).is_set:
        raise ConfigError(
            "with --ranker its candidates are the knowledge: leave out --knowledge, its form, --match-wishes, --guidance and "
            "--strategy"
        )
    corpus = Corpus.read(config.data)
    pairs = chosen(corpus, config.split, config.num_dialogues)
    ranker = ItemRanker.read(config.ranker, corpus.catalog) if config.ranker is not None else None
    assert ranker is not None
    vectors = None if config.vectors is None else ItemVectors.read(config.vectors, corpus.catalog)
    cases = [c for s, d in pairs for c in cases_of(d, s.source_id)]
    if not cases:
        raise DataError(f"no recommender turn of the {config.split} split of {config.data} names an item")
    model = None if config.recommender is None else Path(config.recommender)
    card = None if model is None else rankable(model, corpus)
    record = config.record() | {
        "verb": "evaluate",
        "ranker": ranker.card,
        "data_digest": corpus.digest,
        "package_version": __version__,
    }
    if card is not None:
        record["agent"] = card.model_dump(mode="json")
    scenarios = [s for s, _ in pairs]
    run = new_run(config.out, record, corpus.catalog, scenarios, config.overwrite)
    lines: list[str] = []
    heads = Heads()
    with Progress("rank", len(cases), "cases") as progress:
        placed = place_cases(
            ranker,
            cases,
            ranker.methods,
            on_progress=lambda done, _: progress.update(done),
            predictions=None if config.predictions is None else lambda p: lines.append(json.dumps(p)),
            heads=heads,
        )
    about = About(str(config.ranker), config.split, config.seed, data_digest(scenarios))
    subjects = {f"{about.subject} {m}": m for m in ranker.methods}
    rows = ranking_rows(placed, ranker.methods, about)
    popularity = recommended_counts((d for _, d in corpus.pairs(Split.TRAIN)), corpus.catalog)
    exposed = heads.rows(popularity, len(corpus.catalog), about)
    matched = (
        {} if vectors is None else {f"{about.subject} {m}": c for m, c in ranked_cases(ranker, cases, ranker.methods).items()}
    )
    if model is not None and card is not None and card.reasoning:
        from interplay.evaluation.written_lists import METHODS as WRITTEN
        from interplay.evaluation.written_lists import fit_rows, form_rows, ids_by_method
        from interplay.simulation.reasoning import Reasoner

        answers = written_lists(config, model, card, corpus, pairs)
        written = [ids_by_method(one, corpus.catalog) for one in answers]
        about = replace(about, subject=str(model))
        subjects |= {f"{about.subject} {m}": m for m in WRITTEN}
        rows += ranking_rows(joined(placed, place_lists(cases, written)), WRITTEN, about)
        heads = Heads()
        heads.add_lists(cases, written, ranker.item_ids)
        exposed += heads.rows(popularity, len(corpus.catalog), about)
        kinds = card.knowledge.attributes if card.knowledge is not None else ()
        others = fit_rows(cases, written, Reasoner(corpus.catalog, kinds, card.list_length), about)
        others += form_rows(cases, answers, card.list_length, about)
    elif model is not None and card is not None:
        from interplay.evaluation.title_ranking import METHODS, ids_of, match_cases, off_catalog_rows

        ranked = rank_titles(config, model, card, ranker, corpus, pairs)
        lists = [{m: ids_of(found, m) for m in METHODS} for found in ranked]
        about = replace(about, subject=str(model))
        subjects |= {f"{about.subject} {m}": m for m in METHODS}
        rows += ranking_rows(joined(placed, place_lists(cases, lists)), METHODS, about)
        heads = Heads()
        heads.add_lists(cases, lists, ranker.item_ids)
        exposed += heads.rows(popularity, len(corpus.catalog), about)
        others = off_catalog_rows(cases, ranked, about)
        if vectors is not None:
            matched |= {f"{about.subject} {m}": match_cases(cases, ranked, m) for m in METHODS}
    else:
        others = []
    if vectors is not None:
        others += match_rows(matched, vectors, corpus.catalog, replace(about, condition="new, seen removed"))
    run.write_scores(rows + exposed + others)
    if config.predictions is not None:
        write_lines(config.predictions, lines)
    print_table(rows, subjects)
    print_exposure(exposed, subjects)
    if others:
        print_rows(others)
    print(f"{len(placed)} items in {len(cases)} turns of {len(pairs)} conversations; written to {run.path}")
    return 0


def rankable(path: Path, corpus: Corpus) -> "CheckpointCard":
    """The card of a recommender whose titles can be ranked: a trained one of the corpus's domain.

    Raises:
        InputError: it is something else.
    """
    from interplay.simulation.checkpoint import require_role
    from interplay.types import Role

    if not path.is_dir():
        raise ConfigError(
            f"{path}: beside --ranker the titles of a trained recommender are ranked by their probabilities, which servers and "
            "rules do not tell; pass the directory of one, or measure this one without --ranker"
        )
    card = require_role(path, Role.RECOMMENDER)
    if card.domain != corpus.domain.name:
        raise ConfigError(f"{path} recommends {card.domain} items; the conversations are about {corpus.domain.plural}")
    return card


def rank_titles(
    config: EvaluateConfig,
    path: Path,
    card: "CheckpointCard",
    ranker: "ItemRanker",
    corpus: Corpus,
    pairs: "list[tuple[Scenario, Dialogue]]",
) -> "list[Ranked | None]":
    """What a trained recommender would name in every case; says how many were too long for it."""
    import torch
    from transformers import AutoModelForCausalLM

    from interplay.evaluation.title_ranking import TitleRanker, rank_turns
    from interplay.items.held_out import NUM_HELD_OUT
    from interplay.simulation.checkpoint import load_form
    from interplay.simulation.slots import Knowledge

    num_shown = 0 if card.knowledge is None else card.knowledge.num_candidates
    form = load_form(path, card)
    on_gpu = torch.cuda.is_available()
    loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16 if on_gpu else torch.float32)
    titles = TitleRanker(loaded.to("cuda" if on_gpu else "cpu"), form, corpus.catalog)
    # The View's candidates are the first of those that the titles are limited to.
    number = max(config.num_candidates or NUM_HELD_OUT, num_shown)
    with Progress("rank titles", 0, "turns") as progress:

        def on_progress(done: int, total: int) -> None:
            progress.total(total)
            progress.update(done)

        knowledge = Knowledge(ranker, corpus.catalog, number)
        found = rank_turns(
            titles, pairs, knowledge, with_persona=card.with_persona, num_shown=num_shown, on_progress=on_progress
        )
    cut = sum(bool(f.cut) for f in found if f is not None)
    if cut:
        print(
            f"in {cut} of {len(found)} turns a search for titles was cut short: far down, titles may be missing",
            file=sys.stderr,
        )
    too_long = sum(f is None for f in found)
    if too_long:
        print(f"{too_long} of {len(found)} turns are too long for {path} and count as misses", file=sys.stderr)
    return found


def written_lists(
    config: EvaluateConfig,
    path: Path,
    card: "CheckpointCard",
    corpus: Corpus,
    pairs: "list[tuple[Scenario, Dialogue]]",
) -> "list[WrittenList]":
    """The lists that a recommender that reasons writes in every case, by its likeliest tokens."""
    import asyncio

    from interplay.config import SlotFlags
    from interplay.evaluation.written_lists import write_lists
    from interplay.simulation.model_agents import TokenAgent
    from interplay.simulation.specs import load_from_spec
    from interplay.types import Role

    agent = load_from_spec(
        str(path),
        Role.RECOMMENDER,
        sampling=config.sampling.model_copy(update={"temperature": 0.0}),
        catalog=corpus.catalog,
        max_batch=config.concurrency,
        memory_gib=config.memory_gib,
        constrained=config.constrained,
        slots=SlotFlags(knowledge=f"ranker:{config.ranker}"),
    ).agent
    assert isinstance(agent, TokenAgent)
    assert agent.slots is not None
    knowledge, backend = agent.slots.knowledge, agent.backend
    assert knowledge is not None

    async def write() -> "list[WrittenList]":
        with Progress("write lists", 0, "turns") as progress:

            def on_progress(done: int, total: int) -> None:
                progress.total(total)
                progress.update(done)

            try:
                return await write_lists(
                    pairs,
                    agent,
                    knowledge,
                    seed=config.seed,
                    with_persona=card.with_persona,
                    concurrency=config.concurrency,
                    on_progress=on_progress,
                )
            finally:
                await backend.close()

    return asyncio.run(write())


def print_exposure(rows: list[ScoreRow], subjects: Mapping[str, str]) -> None:
    """Coverage, Gini, popularity rank, novelty and repeated rate of every method's first ten, for each filter.

    Args:
        rows: of `Heads.rows`.
        subjects: see `print_table`.
    """
    value = {(r.subject, r.condition, r.metric): r.value for r in rows}
    metrics = list(dict.fromkeys(r.metric for r in rows))
    for condition in dict.fromkeys(r.condition for r in rows):
        print(f"first ten, {condition}\n{'':<16}{'  '.join(m.removeprefix('ranking.') for m in metrics)}")
        for subject, method in subjects.items():
            cells = []
            for metric in metrics:
                found, width = value.get((subject, condition, metric)), len(metric.removeprefix("ranking."))
                cells.append(f"{'-' if found is None else f'{found:.3f}':<{width}}")
            print(f"{method:<16}{'  '.join(cells)}".rstrip())
        print()


def print_table(rows: list[ScoreRow], subjects: Mapping[str, str]) -> None:
    """Recall@1/10/50, NDCG@10 and MRR of every method for each kind and filter.

    Args:
        rows: of `ranking_rows`.
        subjects: what to call each subject, in the order of the lines.
    """
    value = {(r.subject, r.condition, r.metric): r for r in rows}
    for condition in dict.fromkeys(r.condition for r in rows):
        count = next(r.n for r in rows if r.condition == condition)
        print(f"\n{condition} (n = {count})\n{'':<16}recall@1            @10                 @50                 ndcg@10  mrr")
        for subject, method in subjects.items():
            cells = []
            for metric in ("recall@1", "recall@10", "recall@50"):
                row = value[subject, condition, f"ranking.{metric}"]
                if row.value is None or row.low is None or row.high is None:
                    cells.append(f"{'-' if row.value is None else f'{row.value:.3f}':<18}")
                else:
                    cells.append(f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]".replace("0.", "."))
            for metric in ("ndcg@10", "mrr"):
                found = value[subject, condition, f"ranking.{metric}"].value
                cells.append("-" if found is None else f"{found:.3f}  ".replace("0.", "."))
            print(f"{method:<16}{'  '.join(cells)}")
    print()
