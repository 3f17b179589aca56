"""`interplay evaluate`: its forms, and the protocols that measure an agent against logged conversations."""

import asyncio
import difflib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from interplay import __version__
from interplay.cli.pipeline import (
    check_servers,
    chosen,
    close,
    new_run,
    print_retries,
    print_rows,
    prompts_of,
    read_vectors,
    retries_of,
    told_target_record,
)
from interplay.cli.progress import Progress
from interplay.config import (
    CalibrateJudgeConfig,
    CompareConfig,
    Config,
    CounterfactualConfig,
    EvaluateConfig,
    GoalsConfig,
    HolisticConfig,
    JudgeConfig,
    JudgePairsConfig,
    LatentsConfig,
    LeakageConfig,
    ListsConfig,
    MatrixConfig,
    MultiturnConfig,
    NoiseConfig,
    PersuasionConfig,
    RealismConfig,
    StrategiesConfig,
    SystemRankingConfig,
    TrainJudgeConfig,
    TrainStrategiesConfig,
    TransferConfig,
    parse_config,
)
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError
from interplay.simulation.agents import is_told_target
from interplay.simulation.specs import LoadedAgent, load_from_spec, require_recommender_for
from interplay.types import Dialogue, Role, Scenario, ScoreRow, Split


class Form(NamedTuple):
    """One form of `evaluate`."""

    config: type[Config]
    run: str
    """MODULE:FUNCTION of `interplay.cli`, imported when it is asked for; takes the config and returns the exit code."""
    what: str


FORMS = {
    "replay": Form(EvaluateConfig, "evaluate:protocol", "does a user accept the right item of a log? --controls beside it"),
    "turns": Form(EvaluateConfig, "evaluate:protocol", "single turns of either side beside what people said"),
    "recommendation": Form(EvaluateConfig, "evaluate:protocol", "is the item that people went for named, or ranked high?"),
    "lists": Form(ListsConfig, "lists:evaluate_lists", "lists of titles that any recommender wrote to a file"),
    "multiturn": Form(
        MultiturnConfig, "multiturn:multiturn", "turn by turn: recall, preference coverage; rounds that were accepted"
    ),
    "matrix": Form(MatrixConfig, "matrix:matrix", "every user simulator with every recommender"),
    "compare": Form(CompareConfig, "compare:compare", "Runs on the same scenarios: differences, and whether they are noise"),
    "noise": Form(NoiseConfig, "compare:noise", "how far two Runs of the same agents lie apart"),
    "leakage": Form(LeakageConfig, "leakage:leakage", "what gives the target away in conversations"),
    "realism": Form(RealismConfig, "realism:realism", "can simulated users be told from people, and by what?"),
    "counterfactual": Form(
        CounterfactualConfig, "counterfactual:counterfactual", "does a user mind a recommender that is made worse?"
    ),
    "strategies": Form(StrategiesConfig, "strategies:strategies", "which sociable strategies a recommender uses, and then?"),
    "train-strategies": Form(
        TrainStrategiesConfig, "strategies:train_strategies", "learn to tell strategies from INSPIRED's labels"
    ),
    "holistic": Form(HolisticConfig, "holistic:holistic", "several acts in one turn, small talk, off the topic and back"),
    "latents": Form(LatentsConfig, "latents:latents", "what kinds of users speak, and can their words be told apart?"),
    "system-ranking": Form(
        SystemRankingConfig, "system_ranking:system_ranking", "do simulated users rank recommenders as people do?"
    ),
    "goals": Form(
        GoalsConfig, "goals:goals", "does the user keep its goal, turn by turn? drift, contradictions, wrong endings"
    ),
    "persuasion": Form(PersuasionConfig, "persuasion:persuasion", "does praise talk a user out of what it wants?"),
    "transfer": Form(TransferConfig, "transfer:transfer", "recommenders trained on one thing, tested on every other"),
    "judge": Form(JudgeConfig, "judging:judge", "grades by a learned judge or a chat model"),
    "judge-pairs": Form(JudgePairsConfig, "judging:judge_pairs", "which of two Runs a chat model prefers"),
    "train-judge": Form(TrainJudgeConfig, "judging:train_judge", "learn a judge from what people graded"),
    "calibrate-judge": Form(CalibrateJudgeConfig, "judging:calibrate_judge", "how far a judge agrees with people"),
}

_HELP = f"""usage: interplay evaluate FORM [flags]        interplay evaluate FORM --help tells a form's flags

{chr(10).join(f"  {name:<18}{form.what}" for name, form in FORMS.items())}
"""


def run_evaluate(args: Sequence[str], resolved: Callable[[Config], int | None]) -> int:
    """Run one form of `evaluate`. Returns the exit code.

    Args:
        args: the command line after "evaluate".
        resolved: prints the config and ends where --dry-run is given.

    Raises:
        InterplayError: see the forms.
    """
    if args and args[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if not args:
        raise ConfigError(f"evaluate WHAT? accepted: {', '.join(FORMS)}; see interplay evaluate --help")
    name = args[0] if not args[0].startswith("-") else None  # a --config file may name the protocol
    if name is not None and name not in FORMS:
        close = difflib.get_close_matches(name, FORMS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"evaluate knows no {name}{hint}; accepted: {', '.join(FORMS)}")
    form = FORMS["replay" if name is None else name]
    has_own_config = form.config is not EvaluateConfig
    config = parse_config(
        form.config,
        args[1:] if has_own_config else args,
        f"interplay evaluate {name}" if has_own_config else "interplay evaluate",
    )
    module, function = form.run.split(":")
    shown = resolved(config)
    if shown is not None:
        return shown
    code: int = getattr(importlib.import_module(f"interplay.cli.{module}"), function)(config)
    return code


def protocol(config: EvaluateConfig) -> int:
    """A protocol over logs: of an agent, or of all methods of a ranker."""
    if config.ranker is not None:
        from interplay.cli.ranking import evaluate_ranker

        return evaluate_ranker(config)
    return evaluate(config)


def evaluate(config: EvaluateConfig) -> int:
    """`interplay evaluate`: one protocol, one agent, one Run with scores."""
    if config.predictions is not None:
        raise ConfigError("--predictions are of a ranker: pass --ranker RANKER with it")
    spec, role = subject_of(config)
    corpus = Corpus.read(config.data)
    pairs = chosen(corpus, config.split, config.num_dialogues)
    loaded = load_from_spec(
        spec,
        role,
        sampling=config.sampling,
        catalog=corpus.catalog,
        max_batch=config.concurrency,
        memory_gib=config.memory_gib,
        kv_cache=config.kv_cache,
        constrained=config.constrained,
        exclude_rejected=config.exclude_rejected,
        slots=config,
    )
    if config.controls:
        from interplay.cli.controls import evaluate_controls

        return evaluate_controls(config, corpus, pairs, loaded)
    rows, path = evaluate_run(config, corpus, pairs, loaded)
    print_rows(rows)
    print_retries(loaded)
    print(f"written to {path}")
    return 0


def subject_of(config: EvaluateConfig) -> tuple[str, Role]:
    """Which agent a protocol measures.

    Raises:
        ConfigError: the flag for it is missing, or there is one too many.
    """
    roles = {"replay": (Role.USER,), "turns": (Role.USER, Role.RECOMMENDER), "recommendation": (Role.RECOMMENDER,)}[
        config.protocol
    ]
    given = {role: spec for role, spec in ((Role.USER, config.user), (Role.RECOMMENDER, config.recommender)) if spec}
    flags = " or ".join(f"--{role}" for role in roles)
    if len(given) != 1 or next(iter(given)) not in roles:
        got = " and ".join(f"--{role}" for role in given) or "neither --user nor --recommender"
        raise ConfigError(f"evaluate {config.protocol} measures one agent: pass {flags}; got {got}")
    role, spec = next(iter(given.items()))
    if config.vectors is not None and config.protocol != "recommendation":
        raise ConfigError(f"--vectors are for Match Scores of recommendation, not of {config.protocol}")
    require_recommender_for(config, role)
    if config.shuffle_attributes and config.protocol != "replay":
        raise ConfigError(f"--shuffle-attributes is a control of replay, not of {config.protocol}")
    if config.controls and (config.protocol != "replay" or config.shuffle_attributes):
        other = "--shuffle-attributes is one of them" if config.shuffle_attributes else f"not of {config.protocol}"
        raise ConfigError(f"--controls are all controls of replay; {other}")
    return spec, role


def evaluate_run(
    config: EvaluateConfig, corpus: Corpus, pairs: list[tuple[Scenario, Dialogue]], loaded: LoadedAgent
) -> tuple[list[ScoreRow], Path]:
    """Run one protocol and write its Run."""
    from interplay.evaluation.exposure import (
        exposure_rows,
        exposure_values,
        gold_rank_rows,
        recommended_counts,
        shown_at_gold_turns,
    )
    from interplay.evaluation.faults import fault_rows
    from interplay.evaluation.leak_scores import leak_rows, recommendation_part_rows, replay_part_rows
    from interplay.evaluation.leakage import LeakChecker, gold_turn_reports, replay_reports, write_leaks
    from interplay.evaluation.match import gold_turn_cases, match_rows
    from interplay.evaluation.recommendation import recommend_at_gold_turn
    from interplay.evaluation.replay import replay, shuffled_attributes
    from interplay.evaluation.scoring import (
        About,
        data_digest,
        recommendation_rows,
        recommendation_values,
        replay_rows,
        replay_values,
        retry_rows,
    )
    from interplay.evaluation.turn_scores import score_turns
    from interplay.evaluation.turns import predict_turns
    from interplay.evaluation.values import write_values

    vectors = read_vectors(config.vectors, corpus.catalog)
    scenarios = [s for s, _ in pairs]
    condition = "standard"
    if config.shuffle_attributes:
        condition = "shuffled-attributes"
        scenarios = shuffled_attributes(scenarios, config.seed)
        pairs = [(s, d) for s, (_, d) in zip(scenarios, pairs, strict=True)]
    record = config.record() | {
        "verb": "evaluate",
        "agent": loaded.fingerprint,
        **prompts_of(loaded),
        "data_digest": corpus.digest,
        "package_version": __version__,
        **told_target_record(loaded),
    }
    run = new_run(config.out, record, corpus.catalog, scenarios, config.overwrite)
    about = About(loaded.agent.name, config.split, config.seed, data_digest(scenarios), condition=condition)
    persona = bool(loaded.with_persona)

    async def measure() -> list[ScoreRow]:
        await check_servers(loaded)
        with Progress(f"evaluate {config.protocol}", len(pairs), "units") as progress:

            def on_progress(done: int, total: int) -> None:
                progress.total(total)
                progress.update(done)

            options: dict[str, Any] = {"seed": config.seed, "concurrency": config.concurrency, "on_progress": on_progress}
            try:
                if config.protocol == "replay":
                    dialogues, outcomes = await replay(
                        pairs, loaded.agent, condition=condition, history=config.history, **options
                    )
                    for dialogue in dialogues:
                        run.append(dialogue)
                    write_values(run, replay_values(outcomes))
                    checker = LeakChecker(corpus.catalog, tell_target=is_told_target(loaded.agent))
                    reports = replay_reports(checker, pairs, dialogues, logged_history=config.history == "logged")
                    checked = [report for report in reports if report is not None]
                    write_leaks(run.path, checked)
                    scored = replay_rows(outcomes, about) + replay_part_rows(outcomes, reports, about)
                    return scored + leak_rows(checked, about)
                if config.protocol == "turns":
                    predictions = await predict_turns(pairs, loaded.agent, with_persona=persona, **options)
                    scored, values = score_turns(predictions, about, encoder=config.encoder)
                    write_values(run, values)
                    return scored + fault_rows("turns", (p.failure for p in predictions), about)
                gold = await recommend_at_gold_turn(pairs, loaded.agent, with_persona=persona, **options)
                shown = shown_at_gold_turns(pairs, gold, corpus.catalog)
                popularity = recommended_counts((d for _, d in corpus.pairs(Split.TRAIN)), corpus.catalog)
                write_values(run, recommendation_values(gold) | exposure_values("recommendation.", shown, popularity))
                found = recommendation_rows(gold, about, catalog=corpus.catalog)
                found += gold_rank_rows(pairs, gold, about, catalog=corpus.catalog)
                leaks = gold_turn_reports(LeakChecker(corpus.catalog), pairs, gold)
                found += recommendation_part_rows(pairs, gold, leaks, about, catalog=corpus.catalog)
                checked = [report for report in leaks if report is not None]
                found += leak_rows(checked, about)
                write_leaks(run.path, checked)
                found += exposure_rows("recommendation", shown, popularity, len(corpus.catalog), about)
                found += fault_rows("recommendation", (g.failure for g in gold if g.failure or not g.skipped), about)
                if vectors is not None:
                    cases = gold_turn_cases(pairs, gold, corpus.catalog)
                    found += match_rows({about.subject: cases}, vectors, corpus.catalog, about)
                return found
            finally:
                await close(loaded)

    rows = asyncio.run(measure())
    if config.protocol == "replay":
        rows += fault_rows("replay", (dialogue.failure for dialogue in run.dialogues()), about)
    rows += retry_rows(config.protocol, retries_of(loaded), about, num_units=len(pairs))
    run.write_scores(rows)
    return rows, run.path
