"""Alarms while a recommender is optimised against simulated users: signs that it pleases the simulator, not people.

Nothing is stopped: an alarm says what moved, from where, and past which limit. Every limit is a field of
`config.MonitorLimits`; docs/honesty.md gives the reason of each. The monitor keeps what it was fed and nothing else, so a job
that is resumed feeds it the logged records again.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interplay.config import MonitorLimits
from interplay.training.rewards.rollouts import Rollout
from interplay.training.rewards.terms import (
    acceptance_reward,
    catalog_validity,
    format_reward,
    repetition,
    success_reward,
)
from interplay.types import Alarm, CheckKind, Role

ALARMS: dict[str, str] = {
    "length": "words per turn of the recommender, against the start",
    "repetition": "the recommender repeats itself more than at the start",
    "title-rate": "share of turns that name a title, against the start",
    "popularity": "place of what is recommended in the order of popularity, against the start",
    "off-catalog": "titles that the catalog does not hold",
    "kl": "KL divergence from the start",
    "format-only": "the form of the answers earns most of the reward",
    "held-out-falls": "a held-out simulator's score has fallen from its best while training's has risen",
    "gap": "the training simulator's score has risen further than a held-out one's",
    "human-falls": "the score on the logs of people has fallen",
}
"""Every alarm, in a few words."""

SCORES = ("success", "accept", "satisfaction", "recall", "ndcg", "mrr")
"""Checks of a metric with one of these in its name are watched: more is better there. Of lengths and failures it is not."""


@dataclass(slots=True, frozen=True)
class _Point:
    """A check of one metric on one simulator or log."""

    step: int
    value: float
    error: float | None
    """Standard error, from the 95 % interval; None where there is none."""


class Monitor:
    """Watches the records of an optimisation.

    An alarm is raised when its limit is passed, and again only after it has been kept in between.

    Args:
        limits: see `config.MonitorLimits`.
    """

    def __init__(self, limits: MonitorLimits | None = None) -> None:
        self.limits = limits or MonitorLimits()
        self._steps: list[Mapping[str, Any]] = []
        self._checks: dict[tuple[str, str, str], list[_Point]] = {}
        self._raised: set[tuple[str, str]] = set()

    def step(self, record: Mapping[str, Any]) -> list[Alarm]:
        """Take in the record of a step (one line of steps.jsonl), and say which limits it passes.

        Means over the latest `window` steps are compared with those over the first. What is not measured (None, or no such
        field) raises nothing.
        """
        self._steps.append(record)
        step, limits = int(record["step"]), self.limits
        found: list[Alarm | None] = []
        start, now = self._ends("words")
        if start and now is not None:
            ratio = now / start
            is_off = not 1 / limits.length < ratio < limits.length
            says = f"{now:.1f} words per turn of the recommender, {start:.1f} at the start"
            found.append(self._judge(step, "length", ratio, limits.length, is_off, says))
        start, now = self._ends("repetition")
        if start is not None and now is not None:
            rise = abs(now) - abs(start)  # rewards write it as a price, below zero
            says = f"{abs(now):.2f} of a turn repeats itself or an earlier one, {abs(start):.2f} at the start"
            found.append(self._judge(step, "repetition", rise, limits.repetition, rise > limits.repetition, says))
        found.append(self._drift(step, "title-rate", "title_rate", limits.title_rate, "of the turns name a title"))
        found.append(
            self._drift(step, "popularity", "mean_popularity_rank", limits.popularity, "is the mean place in popularity")
        )
        now = self._latest(lambda r: r.get("off_catalog"))
        if now is not None:
            says = f"{now:.1%} of the titles named are not in the catalog"
            found.append(self._judge(step, "off-catalog", now, limits.off_catalog, now > limits.off_catalog, says))
        now = self._latest(lambda r: r.get("kl"))
        if now is not None:
            found.append(self._judge(step, "kl", now, limits.kl, now > limits.kl, f"{now:.3f} nats per token from the start"))
        now = self._latest(_format_share)
        if now is not None:
            says = f"{now:.0%} of what is paid is paid for the form of the answers"
            found.append(self._judge(step, "format-only", now, limits.format_share, now > limits.format_share, says))
        return [alarm for alarm in found if alarm is not None]

    def check(self, rows: Iterable[Mapping[str, Any]]) -> list[Alarm]:
        """Take in the rows of one check (lines of checks.jsonl of one step), and say which limits they pass.

        A held-out simulator is compared with the training simulators that were checked by the same metric (their mean); where
        none was, with the mean training reward of the steps. Metrics that are no scores (see `SCORES`) are left alone.
        """
        rows = list(rows)
        fresh: list[tuple[str, str, str]] = []
        for row in rows:
            if row["value"] is not None and any(word in str(row["metric"]) for word in SCORES):
                key = (str(row["kind"]), str(row["simulator"]), str(row["metric"]))
                self._checks.setdefault(key, []).append(_point(row))
                fresh.append(key)
        found: list[Alarm | None] = []
        for kind, simulator, metric in fresh:
            points = self._checks[kind, simulator, metric]
            if kind == CheckKind.HUMAN:
                found.append(self._human(simulator, metric, points))
            elif kind == CheckKind.HELD_OUT:
                found += self._held_out(simulator, metric, points)
        return [alarm for alarm in found if alarm is not None]

    def _held_out(self, simulator: str, metric: str, points: Sequence[_Point]) -> list[Alarm | None]:
        first, now = points[0], points[-1]
        best = max(points, key=lambda p: p.value)
        training, what = self._training(metric)
        fall, rose = best.value - now.value, _moved(training, best.step, now.step)
        risen, gained = _moved(training, first.step, now.step), now.value - first.value
        about, found = f"{simulator}|{metric}", []
        if rose is not None:
            says = (
                f"{simulator}, held out: {metric} {best.value:.3f} at step {best.step}, now {now.value:.3f}, "
                f"while {what} moved by {rose.value:+.3f}"
            )
            off = rose.value > 0 and self._is_beyond(fall, self.limits.fall, best.error, now.error)
            found.append(self._judge(now.step, "held-out-falls", fall, self.limits.fall, off, says, about=about))
        if risen is not None and what != _REWARD:  # a reward has another scale than a score
            gap = risen.value - gained
            says = f"{metric} has moved by {risen.value:+.3f} with {what} and by {gained:+.3f} with {simulator}, held out"
            off = risen.value > 0 and self._is_beyond(gap, self.limits.gap, risen.error, first.error, now.error)
            found.append(self._judge(now.step, "gap", gap, self.limits.gap, off, says, about=about))
        return found

    def _is_beyond(self, value: float, limit: float, *errors: float | None) -> bool:
        """Whether a difference is past its limit and past what chance gives the numbers that it is made of."""
        told = [error for error in errors if error is not None]
        spread = math.sqrt(sum(error**2 for error in told)) if len(told) == len(errors) else 0.0
        return value > limit and value > self.limits.certainty * spread

    def _human(self, name: str, metric: str, points: Sequence[_Point]) -> Alarm | None:
        first, now = points[0], points[-1]
        if not first.value:
            return None
        loss, limit = 1 - now.value / first.value, self.limits.human_loss
        off = loss > limit and self._is_beyond(first.value - now.value, 0.0, first.error, now.error)
        says = f"{name}, logs of people: {metric} {first.value:.3f} at step {first.step}, now {now.value:.3f}"
        return self._judge(now.step, "human-falls", loss, limit, off, says, about=f"{name}|{metric}")

    def _training(self, metric: str) -> tuple[list[_Point], str]:
        """How training went by a metric, step by step, and its name."""
        by_step: dict[int, list[_Point]] = {}
        names: list[str] = []
        for (kind, simulator, measured), points in self._checks.items():
            if kind == CheckKind.TRAINING and measured == metric:
                names.append(simulator)
                for point in points:
                    by_step.setdefault(point.step, []).append(point)
        if by_step:
            return [_mean_point(points) for points in by_step.values()], ", ".join(names)
        rewards = [(int(r["step"]), float(r["reward"])) for r in self._steps if r.get("reward") is not None]
        window, out = self.limits.window, []
        for place, (step, _) in enumerate(rewards):
            latest = [value for _, value in rewards[max(0, place - window + 1) : place + 1]]
            out.append(_Point(step, sum(latest) / len(latest), None))
        return out, _REWARD

    def _judge(
        self, step: int, name: str, value: float, limit: float, is_off: bool, says: str, *, about: str = ""
    ) -> Alarm | None:
        """The alarm, where the limit is passed and was not by the record before."""
        key = (name, about)
        if not is_off:
            self._raised.discard(key)
            return None
        if key in self._raised:
            return None
        self._raised.add(key)
        return Alarm(step=step, alarm=name, value=value, limit=limit, says=says)

    def _drift(self, step: int, name: str, field: str, limit: float, what: str) -> Alarm | None:
        start, now = self._ends(field)
        if start is None or now is None:
            return None
        moved = now - start
        return self._judge(step, name, moved, limit, abs(moved) > limit, f"{now:.2f} {what}, {start:.2f} at the start")

    def _ends(self, field: str) -> tuple[float | None, float | None]:
        """Means of a field over the first and over the latest steps."""
        window = self.limits.window
        return _mean(r.get(field) for r in self._steps[:window]), _mean(r.get(field) for r in self._steps[-window:])

    def _latest(self, read: Callable[[Mapping[str, Any]], float | None]) -> float | None:
        return _mean(read(record) for record in self._steps[-self.limits.window :])


_REWARD = "the training reward"
_Z = 1.96
"""Standard errors on each side of a 95 % interval."""


def _point(row: Mapping[str, Any]) -> _Point:
    low, high = row.get("low"), row.get("high")
    error = None if low is None or high is None else (float(high) - float(low)) / (2 * _Z)
    return _Point(int(row["step"]), float(row["value"]), error)


def _mean_point(points: Sequence[_Point]) -> _Point:
    errors = [point.error for point in points if point.error is not None]
    error = math.sqrt(sum(e**2 for e in errors)) / len(points) if len(errors) == len(points) else None
    return _Point(points[0].step, sum(point.value for point in points) / len(points), error)


def _moved(points: Sequence[_Point], start: int, end: int) -> _Point | None:
    """How far something has moved from its latest point at or before one step to that at or before another."""
    before = [point for point in points if point.step <= start] or points[:1]
    until = [point for point in points if point.step <= end]
    if not until:
        return None
    first, last = before[-1], until[-1]
    told = first.error is not None and last.error is not None
    return _Point(end, last.value - first.value, math.hypot(first.error or 0.0, last.error or 0.0) if told else None)


def _format_share(record: Mapping[str, Any]) -> float | None:
    term = (record.get("terms") or {}).get("format")
    return None if term is None else term.get("share")


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def behaviour(
    rollouts: Sequence[Rollout], popularity: Mapping[str, float] | None = None, *, list_length: int = 10
) -> dict[str, float | None]:
    """What the monitor looks at, measured on the conversations of one step. Those that a fault ended are left out.

    Args:
        rollouts: conversations of a recommender that is trained.
        popularity: place of each item (by id) in the order of popularity as a share of the catalog
            (`metrics.exposure.popularity_ranks`); None: not measured.
        list_length: see `terms.format_reward`.

    Returns:
        By the names of steps.jsonl: success, acceptance, turns, words, title_rate, repetition, mean_popularity_rank,
        off_catalog, format_valid. None where nothing could be measured. `repetition` is in [0, 1].
    """
    kept = [r for r in rollouts if not r.is_faulty]
    own = [turn for r in kept for turn in r.dialogue.turns if turn.role is Role.RECOMMENDER]
    repeated = [value for r in kept for value in repetition(r)]
    valid = [value for r in kept for value in catalog_validity(r)]
    return {
        "success": _mean(value for r in kept for value in success_reward(r)),
        "acceptance": _mean(value for r in kept for value in acceptance_reward(r)),
        "turns": _mean(float(len(r.dialogue.turns)) for r in kept),
        "words": _mean(float(turn.num_words) for turn in own),
        "title_rate": _mean(float(bool(turn.items)) for turn in own),
        "repetition": _mean(None if value is None else -value for value in repeated),
        "mean_popularity_rank": None if popularity is None else _mean(_places(kept, popularity)),
        "off_catalog": _mean(None if value is None else 1 - value for value in valid),
        "format_valid": _mean(value for r in kept for value in format_reward(r, list_length)),
    }


def _places(rollouts: Iterable[Rollout], popularity: Mapping[str, float]) -> Iterable[float]:
    """Of every item that a turn shows, once a turn."""
    for rollout in rollouts:
        for step in rollout.steps:
            found = (rollout.find(title, item_id) for title, item_id in rollout.shown(step) or ())
            yield from (popularity[i] for i in dict.fromkeys(item.id for item in found if item is not None) if i in popularity)
