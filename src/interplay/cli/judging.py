"""`interplay evaluate judge`, `judge-pairs`, `train-judge` and `calibrate-judge`."""

import asyncio
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interplay import __version__
from interplay.cli.progress import Progress
from interplay.config import CalibrateJudgeConfig, JudgeConfig, JudgePairsConfig, TrainJudgeConfig
from interplay.errors import ConfigError, DataError
from interplay.provenance import code_version
from interplay.store import Run, read_json

if TYPE_CHECKING:
    from interplay.backends.backend import Backend
    from interplay.corpora.talks import Talk
    from interplay.evaluation.judges.judging import LoadedJudge
    from interplay.evaluation.judges.verdicts import JudgeCard, Verdict


def judge(config: JudgeConfig) -> int:
    """`interplay evaluate judge`: conversations become verdicts and mean grades.

    Raises:
        InputError: there is no such judge, nothing to judge, or no server.
        RunError: the output can't be written.
    """
    from interplay.cli.pipeline import print_rows
    from interplay.corpora.talks import read_talks
    from interplay.evaluation.judges.judging import agreement_rows, load_judge, talks_digest
    from interplay.evaluation.judges.verdicts import read_card, verdict_rows
    from interplay.evaluation.scoring import About

    found = read_talks(config.source, split=config.split)
    talks = found.talks[: config.num_dialogues]
    calibration = None if config.calibration is None else read_card(config.calibration)
    loaded = load_judge(config.judge, level=config.level, concurrency=config.concurrency, calibration=calibration)
    digest = talks_digest(talks)
    run = _output(config, "judge", loaded.judge.fingerprint, digest)
    verdicts = asyncio.run(_give(loaded, {t.id: t for t in talks}, run, config.seed, config.concurrency))
    subject, simulator = _speakers(config.source)
    about = About(subject, config.split or "all", config.seed, digest, simulator=simulator, condition=f"by {loaded.judge.name}")
    scores = verdict_rows(verdicts, about, clusters={talk.id: found.scenario_of(talk) for talk in talks})
    run.write_scores([*scores, *(row for card in loaded.cards for row in agreement_rows(card))])
    print_rows(scores)
    _print_left_out(found.dropped)
    for card in loaded.cards:
        print_agreement(card)
    if not loaded.cards:
        print(
            "how far this judge agrees with people has not been measured; interplay evaluate calibrate-judge does, "
            "and --calibration shows it here"
        )
    print(f"{len(verdicts)} conversations judged; written to {run.path}")
    return _code(verdicts)


def judge_pairs(config: JudgePairsConfig) -> int:
    """`interplay evaluate judge-pairs`: two Runs become shares of wins, ties and losses.

    Raises:
        InputError: not two Runs, no pair, a judge that can't compare, or no server.
        RunError: the output can't be written.
    """
    from interplay.cli.pipeline import print_rows
    from interplay.corpora.talks import read_talks
    from interplay.evaluation.judges.judging import (
        LEARNED,
        VERDICTS,
        compare_all,
        finished_verdicts,
        load_chat,
        pair_rows,
        pairs_of,
        talks_digest,
    )
    from interplay.evaluation.judges.llm import PairJudge, PairVerdict
    from interplay.evaluation.scoring import About

    if len(config.runs) != 2:
        raise ConfigError(f"judge-pairs compares two Runs; got {len(config.runs)}")
    if config.judge.startswith(LEARNED):
        raise ConfigError("a learned judge grades single conversations: run interplay evaluate judge on each Run instead")
    one, two = (read_talks(path) for path in config.runs)
    pairs, alone = pairs_of(one.talks, two.talks)
    pairs = dict(list(pairs.items())[: config.num_dialogues])
    backend = load_chat(config.judge, config.concurrency)
    comparer = PairJudge(backend, config.judge)
    digest = talks_digest([talk for pair in pairs.values() for talk in pair])
    run = _output(config, "judge-pairs", comparer.fingerprint, digest)
    finished = finished_verdicts(run.path / VERDICTS, PairVerdict)

    async def compare() -> list[PairVerdict]:
        try:
            await _check(backend)
            with Progress("compare", len(pairs), "pairs", done=len(pairs.keys() & finished)) as progress:
                done = len(pairs.keys() & finished)
                return await compare_all(
                    pairs,
                    comparer,
                    run.path / VERDICTS,
                    finished,
                    seed=config.seed,
                    concurrency=config.concurrency,
                    on_progress=lambda now, _: progress.update(done + now),
                )
        finally:
            await backend.close()

    verdicts = asyncio.run(compare())
    subject = f"{_speakers(config.runs[0])[0]} against {_speakers(config.runs[1])[0]}"
    about = About(subject, "all", config.seed, digest, condition=f"by {config.judge}")
    scores = pair_rows(verdicts, about)
    run.write_scores(scores)
    print_rows(scores)
    if alone:
        print(f"{alone} conversations have no partner in the other and were left out")
    print("how far this judge's choices agree with people's has not been measured: read the swayed rates first")
    print(f"{len(verdicts)} pairs compared; written to {run.path}")
    return _code(verdicts)


def train_judge(config: TrainJudgeConfig) -> int:
    """`interplay evaluate train-judge`: rated conversations become a judge and the card of its agreement with people.

    Raises:
        DataError: the labels can't be read.
        RunError: the output can't be written.
    """
    from interplay.corpora.quality_labels import read_labels
    from interplay.evaluation.judges.judging import LEARNED
    from interplay.evaluation.judges.learned import LearnedJudge
    from interplay.evaluation.judges.verdicts import CARD
    from interplay.store import prepare_output

    if len(set(config.labels)) < len(config.labels) or not config.labels:
        raise ConfigError("--labels takes each set of labels once, and one at least")
    sets = [read_labels(name, config.labels_dir) for name in config.labels]
    prepare_output(config.out, overwrite=config.overwrite, marker=CARD)
    with Progress("train judge", 1, "parts") as progress:

        def on_step(done: int, total: int) -> None:
            progress.total(total)
            progress.update(done)

        made = LearnedJudge.fit(
            f"{LEARNED}{config.out.name}",
            sets[0],
            sets[1:],
            seed=config.seed,
            num_folds=config.num_folds,
            on_step=on_step,
        )
    made.write(config.out)
    for labels in sets:
        print(f"{labels.name}: {len(labels.talks)} rated conversations")
        _print_left_out(labels.dropped)
    for what, chosen in made.card.settings.items():
        print(f"  {what}: {chosen}")
    print_agreement(made.card, with_baselines=True)
    print(f"written to {config.out}; use it with --judge {LEARNED}{config.out}")
    return 0


def calibrate_judge(config: CalibrateJudgeConfig) -> int:
    """`interplay evaluate calibrate-judge`: a judge's grades beside people's.

    Raises:
        InputError: there is no such judge, it has learned from all of the labels, or there is no server.
        RunError: the output can't be written.
    """
    import numpy as np

    from interplay.corpora.quality_labels import read_labels
    from interplay.evaluation.judges.judging import agreement_rows, load_judge
    from interplay.evaluation.judges.learned import TRANSFER, simple_baselines, text_hash
    from interplay.evaluation.judges.verdicts import CARD, JudgeCard, agreements, failures_of
    from interplay.store import write_lines

    labels = read_labels(config.labels, config.labels_dir)
    loaded = load_judge(config.judge, level=config.level, concurrency=config.concurrency)
    known = {text for card in loaded.cards for text in card.trained_texts}
    rated = [r for r in labels.talks if text_hash(r.talk) not in known]
    if not rated:
        raise DataError(
            f"{config.judge} has learned from all of {config.labels}; its card holds what it reaches there by cross-validation"
        )
    if config.num_dialogues is not None and config.num_dialogues < len(rated):
        kept = sorted(random.Random(config.seed).sample(range(len(rated)), config.num_dialogues))
        rated = [rated[k] for k in kept]
    run = _output(config, "calibrate-judge", loaded.judge.fingerprint, labels.digest)
    jobs = {r.talk.id: r.talk for r in rated}
    verdicts = asyncio.run(_give(loaded, jobs, run, config.seed, config.concurrency))
    rng = np.random.default_rng(config.seed)
    name = loaded.judge.name
    scorers: dict[str, Mapping[str, Verdict]] = {name: {v.id: v for v in verdicts}}
    found = []
    for scorer, given in (scorers | simple_baselines(rated)).items():
        scheme = "nothing learned" if scorer != name or not known else TRANSFER
        found += agreements(rated, given, scorer=scorer, scheme=scheme, labels=labels.name, rng=rng)
    card = JudgeCard(
        judge=name,
        fingerprint=loaded.judge.fingerprint,
        trained_on=loaded.cards[0].trained_on if loaded.cards else (),
        data_digest=labels.digest,
        seed=config.seed,
        package_version=code_version(),
        agreements=tuple(found),
        failures=dict(failures_of(verdicts)),
    )
    run.write_scores(agreement_rows(card))
    write_lines(run.path / CARD, [card.to_json()])
    if len(rated) < len(labels.talks):
        print(f"{len(rated)} of {len(labels.talks)} conversations of {labels.name} used; {len(known)} texts were learned from")
    print_agreement(card, with_baselines=True)
    for kind, number in card.failures.items():
        print(f"  {kind}: {number}")
    print(f"written to {run.path}; show it beside grades with --calibration {run.path}")
    return _code(verdicts)


# ---- parts -----------------------------------------------------------------------------------------------------------


def _output(config: JudgeConfig | JudgePairsConfig | CalibrateJudgeConfig, form: str, fingerprint: str, digest: str) -> Run:
    record = config.record() | {
        "verb": f"evaluate {form}",
        "judge": fingerprint,
        "data_digest": digest,
        "package_version": __version__,
    }
    return Run.resume(config.out, record) if config.resume else Run.create(config.out, record, overwrite=config.overwrite)


async def _give(loaded: "LoadedJudge", talks: "Mapping[str, Talk]", run: Run, seed: int, concurrency: int) -> "list[Verdict]":
    from interplay.evaluation.judges.judging import VERDICTS, finished_verdicts, give_verdicts
    from interplay.evaluation.judges.verdicts import Verdict

    path = run.path / VERDICTS
    finished = finished_verdicts(path, Verdict)
    done = len(talks.keys() & finished)

    async def give(talk: "Talk") -> Verdict:
        return await loaded.judge.judge(talk, seed)

    try:
        if loaded.backend is not None:
            await _check(loaded.backend)
        with Progress("judge", len(talks), "conversations", done=done) as progress:
            return await give_verdicts(
                talks,
                give,
                path,
                finished,
                concurrency=concurrency,
                on_progress=lambda now, _: progress.update(done + now),
            )
    finally:
        if loaded.backend is not None:
            await loaded.backend.close()


async def _check(backend: "Backend") -> None:
    # Servers are asked before the first question, so that a wrong URL is one line and not a thousand.
    check = getattr(backend, "check", None)
    if check is not None:
        await check()


def _speakers(source: Path) -> tuple[str, str | None]:
    """Whose conversations a Run holds: the recommender, and the user on the other side; the path where it does not tell."""
    if not (source / Run.MARKER).is_file():
        return str(source), None
    config: dict[str, Any] = read_json(source / Run.MARKER)
    recommender, user = config.get("recommender"), config.get("user")
    return recommender if isinstance(recommender, str) else str(source), user if isinstance(user, str) else None


def _print_left_out(dropped: Mapping[str, int]) -> None:
    for reason, number in dropped.items():
        print(f"  {number} left out: {reason}")


def _code(verdicts: Sequence[Any]) -> int:
    """The exit code: 2 where a server left something unfinished, which is told."""
    owed = [v for v in verdicts if v.is_owed]
    if owed:
        print(
            f"{len(owed)} of {len(verdicts)} were left unfinished by the server ({owed[0].reason}); "
            "run the command again with --resume",
            file=sys.stderr,
        )
    return 2 if owed else 0


def print_agreement(card: "JudgeCard", *, with_baselines: bool = False) -> None:
    """How a judge's order agrees with people's: one table per scorer and way of measuring."""
    shown = [a for a in card.agreements if with_baselines or a.scorer == card.judge]
    tables = dict.fromkeys((a.scorer, a.scheme, a.labels) for a in shown)
    print(f"\nagreement of {card.judge} with people: Spearman's rho [95 % interval over persons]")
    for scorer, scheme, labels in tables:
        rows = [a for a in shown if (a.scorer, a.scheme, a.labels) == (scorer, scheme, labels)]
        print(f"{scorer}: {labels}, {scheme}")
        for aspect in dict.fromkeys(a.aspect for a in rows):
            cells = []
            for a in (a for a in rows if a.aspect == aspect):
                name = {"system": f"{a.n} systems", "within": "within a system"}.get(a.level, f"{a.n} {a.level}s")
                interval = "" if a.low is None or a.high is None else f" [{a.low:.2f}, {a.high:.2f}]"
                value = "undefined" if a.spearman is None else f"{a.spearman:.2f}{interval}"
                missing = f", {a.num_skipped} without a grade" if a.num_skipped and a.level in ("turn", "dialogue") else ""
                cells.append(f"{name} {value}{missing}")
            print(f"  {aspect:<18}{'; '.join(cells)}")
