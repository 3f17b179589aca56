"""What a judge says of a conversation, how that becomes scores, and how well the judge agrees with people."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from interplay.corpora.quality_labels import ASPECT_RANGES, TURN_ASPECTS, RatedTalk
from interplay.corpora.talks import Talk
from interplay.errors import DataError
from interplay.evaluation.scoring import About, rows
from interplay.evaluation.values import values_by_scenario
from interplay.metrics.bootstrap import NUM_RESAMPLES, Estimate, estimate_ratio
from interplay.metrics.correlation import estimate_agreement, group_spearman, spearman, within_spearman
from interplay.store import read_json
from interplay.types import Record, ScoreRow

CARD = "card.json"
"""File that holds a judge's card."""

FAILURES: dict[str, str] = {
    "unparsable": "grades that could not be read, also when asked again",
    "server": "questions that no server answered",
    "too_long": "questions that exceed the model's context",
    "no_reply": "conversations without a recommender turn",
}
"""Why a grade is missing; each is counted in a row of its own."""


class Verdict(Record):
    """One conversation as a judge sees it: one line of `verdicts.jsonl`."""

    id: str
    scores: dict[str, float | None] = Field(default_factory=dict)
    """Aspect of the conversation to grade; None where there is none."""
    turn_scores: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    """Aspect of turns to the grades of the recommender's turns, in order."""
    failures: dict[str, int] = Field(default_factory=dict)
    """See FAILURES."""
    num_retried: int = 0
    """Answers that could not be read and were asked for again."""
    reason: str = ""
    """What the server said when it failed."""

    @property
    def is_owed(self) -> bool:
        """Whether a fault of the server left it unfinished."""
        return bool(self.failures.get("server"))


Level = Literal["turn", "dialogue", "system", "within"]
"""What is put in order: recommender turns; conversations; systems by their mean; conversations of one system (mean)."""


class Agreement(Record):
    """How a scorer's order agrees with people's."""

    scorer: str
    """The judge, or a baseline in words."""
    scheme: str
    """How it was kept from seeing what it is measured on."""
    labels: str
    """Which labels; see `quality_labels.FILES`."""
    aspect: str
    level: Level
    spearman: float | None
    low: float | None
    """95 % interval over persons."""
    high: float | None
    n: int
    """Turns, conversations, or (system) systems."""
    num_skipped: int = 0
    """Labelled turns or conversations that the scorer gave no grade."""


class JudgeCard(Record):
    """What is known of a judge."""

    judge: str
    """Its name, as scores carry it."""
    fingerprint: str
    """See Judge."""
    trained_on: tuple[str, ...] = ()
    """Names of labels; empty for a model that was only asked."""
    data_digest: str
    """Of the labels."""
    seed: int
    package_version: str
    settings: dict[str, str] = Field(default_factory=dict)
    """What was chosen on the way, in words."""
    trained_texts: tuple[str, ...] = ()
    """Hashes of the conversations it has learned from; see `text_hash`."""
    agreements: tuple[Agreement, ...] = ()
    failures: dict[str, int] = Field(default_factory=dict)
    """Of the calibration; see FAILURES."""


class HasFailures(Protocol):
    """A verdict of any kind."""

    @property
    def failures(self) -> dict[str, int]:
        """See FAILURES."""
        ...


class Judge(Protocol):
    """Grades conversations, many at once."""

    name: str
    fingerprint: str
    """Changes when the judge changes."""

    async def judge(self, talk: Talk, seed: int) -> Verdict:
        """The verdict on one conversation; what can't be graded is counted in it, not raised."""
        ...


def read_card(path: Path) -> JudgeCard:
    """The card of a judge.

    Args:
        path: a directory that `evaluate train-judge` or `evaluate calibrate-judge` wrote.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if not (path / CARD).is_file():
        raise DataError(
            f"{path} holds no {CARD}, so it is no judge and no calibration; make one with: "
            "interplay evaluate train-judge or calibrate-judge"
        )
    try:
        return JudgeCard.model_validate(read_json(path / CARD))
    except ValueError:
        raise DataError(f"{path / CARD} is not the card of a judge; make it again") from None


# ---- scores ----------------------------------------------------------------------------------------------------------


def verdict_rows(verdicts: Sequence[Verdict], about: About, *, clusters: Mapping[str, str] | None = None) -> list[ScoreRow]:
    """Mean grade of each aspect with its interval, and every kind of failure in a row of its own.

    Args:
        verdicts: one per conversation.
        about: the fields that the rows share.
        clusters: by the verdict's id, what was drawn independently (the scenario); each conversation by default.
    """

    def mean(grades: Sequence[tuple[Verdict, Sequence[float]]], num_skipped: int) -> Estimate:
        keys = [v.id if clusters is None else clusters[v.id] for v, _ in grades]
        values = values_by_scenario(keys, [sum(own) for _, own in grades], [len(own) for _, own in grades]).values()
        return estimate_ratio([v.total for v in values], [v.units for v in values], rng, num_skipped)

    rng = np.random.default_rng(about.seed)
    found: dict[str, Estimate] = {}
    for aspect in ASPECT_RANGES:
        if aspect in TURN_ASPECTS:
            graded = [(v, v.turn_scores[aspect]) for v in verdicts if aspect in v.turn_scores]
            kept = [(v, [g for g in grades if g is not None]) for v, grades in graded]
            if graded:
                skipped = sum(len(all_) - len(some) for (_, all_), (_, some) in zip(graded, kept, strict=True))
                found[f"judge.{aspect}"] = mean([(v, grades) for v, grades in kept if grades], skipped)
        elif any(aspect in v.scores for v in verdicts):
            scores = [(v, [s]) for v in verdicts if (s := v.scores.get(aspect)) is not None]
            found[f"judge.{aspect}"] = mean(scores, len(verdicts) - len(scores))
    failures = failures_of(verdicts)
    for kind in FAILURES:
        found[f"judge.failures.{kind}"] = Estimate(float(failures[kind]), None, None, len(verdicts))
    found["judge.retries"] = Estimate(float(sum(v.num_retried for v in verdicts)), None, None, len(verdicts))
    return rows(found, about)


def failures_of(verdicts: Iterable[HasFailures]) -> Counter[str]:
    """How often each kind of failure occurred."""
    total: Counter[str] = Counter()
    for verdict in verdicts:
        total.update(verdict.failures)
    return total


# ---- agreement with people -------------------------------------------------------------------------------------------


def agreements(
    rated: Sequence[RatedTalk],
    verdicts: Mapping[str, Verdict],
    *,
    scorer: str,
    scheme: str,
    labels: str,
    rng: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> list[Agreement]:
    """Spearman's rho of a scorer with people, at every level that the labels allow.

    Args:
        rated: the labels.
        verdicts: by id of the talk; what is missing or None is left out and counted.
        scorer: see Agreement, as the next two.
        scheme: see there.
        labels: see there.
        rng: draws the resamples.
        num_resamples: bootstrap draws.
    """
    out: list[Agreement] = []
    for aspect in ASPECT_RANGES:
        theirs: list[float] = []
        ours: list[float] = []
        persons: list[str] = []
        systems: list[str] = []
        skipped = 0
        for talk in rated:
            verdict = verdicts.get(talk.talk.id)
            for label, grade in _pairs(talk, verdict, aspect):
                if grade is None:
                    skipped += 1
                    continue
                theirs.append(label)
                ours.append(grade)
                persons.append(talk.person)
                systems.append(talk.system)
        if not theirs:
            continue
        level: Level = "turn" if aspect in TURN_ASPECTS else "dialogue"
        found: dict[Level, Estimate] = {
            level: estimate_agreement(spearman, (ours, theirs), persons, rng, num_resamples=num_resamples)
        }
        num_systems = len(set(systems))
        if num_systems > 2:
            levels: tuple[Level, ...] = ("system", "within")
            for name, statistic in zip(levels, (group_spearman, within_spearman), strict=True):
                found[name] = estimate_agreement(
                    statistic, (ours, theirs), persons, rng, groups=systems, num_resamples=num_resamples
                )
            found["system"] = replace(found["system"], n=num_systems)
        out += [
            Agreement(
                scorer=scorer,
                scheme=scheme,
                labels=labels,
                aspect=aspect,
                level=name,
                spearman=e.value,
                low=e.low,
                high=e.high,
                n=e.n,
                num_skipped=skipped,
            )
            for name, e in found.items()
        ]
    return out


def _pairs(rated: RatedTalk, verdict: Verdict | None, aspect: str) -> Iterable[tuple[float, float | None]]:
    if aspect not in TURN_ASPECTS:
        if aspect in rated.scores:
            yield rated.scores[aspect], None if verdict is None else verdict.scores.get(aspect)
        return
    grades = () if verdict is None else verdict.turn_scores.get(aspect, ())
    for place, labels in enumerate(rated.turn_scores):
        if aspect in labels:
            yield labels[aspect], grades[place] if place < len(grades) else None
