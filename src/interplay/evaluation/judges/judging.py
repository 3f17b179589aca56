"""Judging many conversations: resumable, with what was judged written at once.

OUT/config.json      what was asked for, which a resume must match
OUT/verdicts.jsonl   one Verdict (or PairVerdict) per line, in the order they finished
OUT/scores.jsonl     ScoreRows: mean grades, failures, and the judge's agreement with people
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from interplay.backends.backend import Backend
from interplay.corpora.talks import Talk
from interplay.errors import DataError, InputError
from interplay.evaluation.asking import Progress, in_order
from interplay.evaluation.judges.aspects import CRITERIA
from interplay.evaluation.judges.learned import LearnedJudge
from interplay.evaluation.judges.llm import Level, LlmJudge, PairJudge, PairVerdict
from interplay.evaluation.judges.verdicts import Agreement, Judge, JudgeCard, Verdict, failures_of
from interplay.evaluation.scoring import About, rows
from interplay.metrics.bootstrap import Estimate, estimate_mean, estimate_ratio
from interplay.simulation.specs import split_server
from interplay.store import append_record, cut_torn_line, read_records
from interplay.types import ScoreRow, content_hash

VERDICTS = "verdicts.jsonl"
LEARNED = "learned:"
"""Before the path of a learned judge."""
CHAT = "chat:"
"""Before the path of a chat model in this process."""

VerdictT = TypeVar("VerdictT", Verdict, PairVerdict)
JobT = TypeVar("JobT")


@dataclass(slots=True, frozen=True)
class LoadedJudge:
    """A judge, and what must be closed after it."""

    judge: Judge
    backend: Backend | None
    """None for a learned judge."""
    cards: tuple[JudgeCard, ...]
    """What is known of its agreement with people; empty where nobody has measured it."""


def load_judge(spec: str, *, level: Level = "both", concurrency: int = 64, calibration: JudgeCard | None = None) -> LoadedJudge:
    """The judge that `spec` names.

    Args:
        spec: learned:PATH, URL#MODEL (or URL,URL#MODEL), or chat:PATH.
        level: what an LLM judge grades.
        concurrency: requests under way at once at most.
        calibration: the card of its calibration; a learned judge has one of its own besides.

    Raises:
        InputError: there is no such judge, or the calibration is another judge's.
    """
    judge: LearnedJudge | LlmJudge
    backend: Backend | None = None
    cards: tuple[JudgeCard, ...] = ()
    if spec.startswith(LEARNED):
        if level != "both":
            raise InputError("a learned judge grades conversations and turns at once; leave out --level")
        judge = LearnedJudge.read(Path(spec.removeprefix(LEARNED)))
        cards = (judge.card,)
    else:
        backend = load_chat(spec, concurrency)
        judge = LlmJudge(backend, spec, level=level)
    if calibration is not None:
        if calibration.fingerprint != judge.fingerprint:
            raise InputError(
                f"the calibration is of {calibration.fingerprint}, not of {judge.fingerprint}; make one with: "
                "interplay evaluate calibrate-judge"
            )
        cards += (calibration,)
    return LoadedJudge(judge, backend, cards)


def load_chat(spec: str, concurrency: int) -> Backend:
    """The chat model that URL#MODEL or chat:PATH names.

    Raises:
        InputError: it is none of these, or can't be loaded.
    """
    if spec.startswith(CHAT):
        from interplay.backends.local import LocalBackend
        from interplay.backends.local_chat import LocalChat
        from interplay.simulation.checkpoint import load_tokenizer

        path = spec.removeprefix(CHAT)
        tokenizer = load_tokenizer(path)
        return LocalChat(LocalBackend.load(path, max_batch=concurrency), tokenizer)
    if spec.startswith(("http://", "https://")):
        from interplay.backends.http import MAX_CONCURRENCY, HttpBackend

        url, model = split_server(spec)
        return HttpBackend(url, model, max_concurrency=min(concurrency, MAX_CONCURRENCY))
    raise InputError(f"{spec} names no judge; accepted: learned:PATH, URL#MODEL, chat:PATH")


def finished_verdicts(path: Path, kind: type[VerdictT]) -> dict[str, VerdictT]:
    """The verdicts that need not be given again, by id: all but those that a server's fault left unfinished."""
    cut_torn_line(path)
    if not path.is_file():
        return {}
    return {v.id: v for v in read_records(path, kind) if not v.is_owed}


async def give_verdicts(
    jobs: Mapping[str, JobT],
    give: Callable[[JobT], Awaitable[VerdictT]],
    path: Path,
    finished: Mapping[str, VerdictT],
    *,
    concurrency: int,
    on_progress: Progress | None = None,
) -> list[VerdictT]:
    """Give every verdict that is owed; each is written as soon as it is there.

    Args:
        jobs: what is judged, by id.
        give: judges one.
        path: the file to append to.
        finished: verdicts of an earlier invocation.
        concurrency: under way at once at most.
        on_progress: called with (given now, owed).

    Returns:
        All verdicts, the finished ones too, in the order of the jobs.
    """

    async def work(job: JobT) -> VerdictT:
        verdict = await give(job)
        append_record(path, verdict)
        return verdict

    owed = [job for key, job in jobs.items() if key not in finished]
    given = {v.id: v for v in await in_order(owed, work, concurrency=concurrency, on_progress=on_progress)}
    return [finished[key] if key in finished else given[key] for key in jobs]


def talks_digest(talks: Sequence[Talk]) -> str:
    """Content hash of what is judged, in order."""
    return content_hash([[t.id, [[line.role.value, line.text] for line in t.lines]] for t in talks])


# ---- what is printed beside the scores -------------------------------------------------------------------------------


def own_agreements(card: JudgeCard) -> list[Agreement]:
    """The agreements of the judge itself, without the baselines it was measured beside."""
    return [a for a in card.agreements if a.scorer == card.judge]


def agreement_rows(card: JudgeCard) -> list[ScoreRow]:
    """The judge's agreement with people as scores, so that they stand wherever its grades do."""
    return [
        ScoreRow(
            metric=f"judge.{a.aspect}.spearman",
            value=a.spearman,
            low=a.low,
            high=a.high,
            n=a.n,
            num_skipped=a.num_skipped,
            split=a.labels,
            subject=card.judge,
            condition=f"{a.level} level, {a.scheme}",
            seed=card.seed,
            data_digest=card.data_digest,
            package_version=card.package_version,
        )
        for a in own_agreements(card)
    ]


# ---- pairs -----------------------------------------------------------------------------------------------------------


def pairs_of(first: Sequence[Talk], second: Sequence[Talk]) -> tuple[dict[str, tuple[Talk, Talk]], int]:
    """Conversations of one id in both, and how many stand in one alone.

    Raises:
        DataError: no id is in both.
    """
    others = {talk.id: talk for talk in second}
    pairs = {talk.id: (talk, others[talk.id]) for talk in first if talk.id in others}
    if not pairs:
        raise DataError("no conversation of one began from the same scenario as one of the other: there is nothing to compare")
    return pairs, len(first) + len(second) - 2 * len(pairs)


async def compare_all(
    pairs: Mapping[str, tuple[Talk, Talk]],
    judge: PairJudge,
    path: Path,
    finished: Mapping[str, PairVerdict],
    *,
    seed: int,
    concurrency: int,
    on_progress: Progress | None = None,
) -> list[PairVerdict]:
    """Every pair that is owed; see `give_verdicts`."""

    async def give(pair: tuple[Talk, Talk]) -> PairVerdict:
        return await judge.compare(*pair, seed)

    return await give_verdicts(pairs, give, path, finished, concurrency=concurrency, on_progress=on_progress)


def pair_rows(verdicts: Sequence[PairVerdict], about: About) -> list[ScoreRow]:
    """Shares of wins, ties and losses of the first by each criterion, and how the order of showing swayed the judge.

    `shown_first_rate` is the share of single answers that chose the conversation shown first among those that chose one; a
    judge without a bias for the place is at .5. `swayed_rate` is the share of pairs whose two orders chose opposite sides.
    """
    rng = np.random.default_rng(about.seed)
    found: dict[str, Estimate] = {}
    for criterion in (c.name for c in CRITERIA):
        choices = [v.choices[criterion] for v in verdicts]
        made = [c for c in choices if c is not None]
        skipped = len(choices) - len(made)
        for name, side in (("win_rate", "first"), ("tie_rate", "tie"), ("loss_rate", "second")):
            found[f"judge.pairs.{criterion}.{name}"] = estimate_mean([float(c == side) for c in made], rng, skipped)
        both = [(v.shown[0][criterion], v.shown[1][criterion]) for v in verdicts if v.choices[criterion] is not None]
        swayed = [float({one, two} == {"first", "second"}) for one, two in both]
        found[f"judge.pairs.{criterion}.swayed_rate"] = estimate_mean(swayed, rng, skipped)
        # Two answers of one pair are no two observations.
        answers = [((v.shown[0][criterion], "first"), (v.shown[1][criterion], "second")) for v in verdicts]
        chosen = [[choice == place for choice, place in pair if choice in ("first", "second")] for pair in answers]
        sizes = [len(pair) for pair in chosen]
        found[f"judge.pairs.{criterion}.shown_first_rate"] = estimate_ratio(
            [float(sum(pair)) for pair in chosen], sizes, rng, 2 * len(verdicts) - sum(sizes)
        )
    failures = failures_of(verdicts)
    for kind in ("unparsable", "server", "too_long"):
        found[f"judge.failures.{kind}"] = Estimate(float(failures[kind]), None, None, len(verdicts))
    found["judge.retries"] = Estimate(float(sum(v.num_retried for v in verdicts)), None, None, len(verdicts))
    return rows(found, about)
