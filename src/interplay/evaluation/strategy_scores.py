"""How often a recommender uses each strategy, and how often its user accepts in the next turn, with and without it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from interplay.evaluation.scoring import About, rows
from interplay.evaluation.strategies import STRATEGIES
from interplay.metrics.bootstrap import Estimate, Floats, cluster_interval, estimate_ratio
from interplay.simulation.strategy_cues import STRATEGY, told_strategies
from interplay.types import Action, Dialogue, Role, ScoreRow

DEFINITIONS: dict[str, str] = {
    "strategies.share": "share of recommender turns that use the strategy",
    "strategies.any": "share of recommender turns that use one of the ten",
    "strategies.per_turn": "mean number of the ten in a recommender turn",
    "strategies.accept_with": "of turns with the strategy and an item on offer, share that the user accepts in the next turn",
    "strategies.accept_without": "the same of turns without it",
    "strategies.accept_difference": "accept_with minus accept_without: a correlation, no effect",
    "strategies.accept_difference_stratified": "the same within turns that name an item and within those that don't, pooled",
}
"""The metrics; all but `any` and `per_turn` are followed by a dot and the strategy."""

TOLD: dict[str, str] = {
    "strategies.recovered": "of strategies that turns were told to use, share that the classifier finds there",
    "strategies.recovered_chance": "the share it would find had every turn been told what another was told",
    "strategies.recovered_lift": "recovered minus the share found in turns that were told something else",
    "strategies.accept_told": "of turns that were told the strategy, with an item on offer, share accepted in the next turn",
    "strategies.accept_told_other": "the same of turns that were told another, or none of the ten",
    "strategies.accept_effect": "accept_told minus accept_told_other: an effect where the strategy was drawn at random",
}
"""The metrics of recommenders that were told their strategies; all but the chance by strategy, the first also in all."""


MIN_TURNS = 20
"""With fewer turns with the strategy, or without it, acceptance is not measured: resampling them tells too little."""


@dataclass(slots=True, frozen=True)
class MarkedTurn:
    """One recommender turn."""

    scenario_key: str
    strategies: frozenset[str]
    names_item: bool
    offered: bool
    """Whether an item has been named by the recommender, in this turn or before: without one nothing can be accepted."""
    accepted: bool | None
    """Whether the user's next turn is an `accept`; None where none follows."""
    told: frozenset[str] | None = None
    """The strategies that it was told to use; None where it was told nothing."""


def marked_turns(dialogues: Iterable[Dialogue], strategies: Sequence[Sequence[Sequence[str]]]) -> list[MarkedTurn]:
    """The recommender's turns with what came of them.

    Args:
        dialogues: the conversations.
        strategies: of each conversation, of each of its recommender turns in order.

    Raises:
        ValueError: the numbers of conversations or turns differ.
    """
    out = []
    for dialogue, given in zip(dialogues, strategies, strict=True):
        turns = dialogue.turns
        places = [k for k, turn in enumerate(turns) if turn.role is Role.RECOMMENDER]
        offered = False
        for place, names in zip(places, given, strict=True):
            offered = offered or bool(turns[place].items)
            after = turns[place + 1] if place + 1 < len(turns) else None
            out.append(
                MarkedTurn(
                    scenario_key=dialogue.scenario_key,
                    strategies=frozenset(names).intersection(STRATEGIES),
                    names_item=bool(turns[place].items),
                    offered=offered,
                    accepted=None if after is None or after.role is not Role.USER else after.action is Action.ACCEPT,
                    told=None if (text := dict(turns[place].cues).get(STRATEGY)) is None else frozenset(told_strategies(text)),
                )
            )
    return out


def strategy_rows(turns: Sequence[MarkedTurn], about: About, *, min_turns: int = MIN_TURNS) -> list[ScoreRow]:
    """Shares and differences of each strategy, with 95 % intervals over scenarios.

    The acceptance of a turn is looked at where an item is on offer and a user's turn follows; the others are `num_skipped`.
    The stratified difference is that of Mantel and Haenszel (Rothman, Greenland and Lash 2008, chapter 15): with n turns of a
    stratum, n1 of them with the strategy and n0 without, the stratum's difference weighs n1 n0 / n.

    Args:
        turns: the recommender's turns.
        about: the fields that the rows share.
        min_turns: of either kind, below which acceptance is None.
    """
    rng = np.random.default_rng(about.seed)
    keys = {key: k for k, key in enumerate(dict.fromkeys(t.scenario_key for t in turns))}

    def sums(values: Iterable[float], which: Sequence[MarkedTurn]) -> list[float]:
        owners = [keys[t.scenario_key] for t in which]
        return np.bincount(owners, list(values), len(keys)).tolist() if owners else [0.0] * len(keys)

    sizes = [int(n) for n in sums([1.0] * len(turns), turns)]

    def share(values: Iterable[float]) -> Estimate:
        return estimate_ratio(sums(values, turns), sizes, rng)

    judged = [t for t in turns if t.offered and t.accepted is not None]
    skipped = len(turns) - len(judged)
    found = {
        "strategies.any": share([float(bool(t.strategies)) for t in turns]),
        "strategies.per_turn": share([float(len(t.strategies)) for t in turns]),
    }
    for strategy in STRATEGIES:
        found[f"strategies.share.{strategy}"] = share([float(strategy in t.strategies) for t in turns])
        columns: list[list[float]] = []
        for named in (True, False):
            for has in (True, False):
                part = [t for t in judged if t.names_item is named and (strategy in t.strategies) is has]
                columns += [sums([float(bool(t.accepted)) for t in part], part), sums([1.0] * len(part), part)]
        both = np.array(columns).reshape(2, 4, -1).sum(0)
        num_with, num_without = int(both[1].sum()), int(both[3].sum())
        enough = min(num_with, num_without) >= min_turns
        for which, (top, bottom) in (("with", both[:2]), ("without", both[2:])):
            found[f"strategies.accept_{which}.{strategy}"] = (
                estimate_ratio(top.tolist(), [int(n) for n in bottom], rng, skipped)
                if enough
                else Estimate(None, None, None, int(bottom.sum()), skipped)
            )
        for name, data in (("", both.tolist()), ("_stratified", columns)):
            found[f"strategies.accept_difference{name}.{strategy}"] = (
                _estimate_difference(data, rng, num_with, skipped) if enough else Estimate(None, None, None, num_with, skipped)
            )
    return rows(found, about)


def told_rows(turns: Sequence[MarkedTurn], about: About, *, min_turns: int = MIN_TURNS) -> list[ScoreRow]:
    """Whether telling a strategy steers, and what users do then; 95 % intervals over scenarios.

    The chance of being recovered is that of shuffling what was told over the turns: the sum over strategies of the share of
    turns that were told it times the number in which it is found, divided by the number of strategies told.

    Args:
        turns: the recommender's turns; those that were told nothing are left out.
        about: the fields that the rows share.
        min_turns: of either kind, below which a difference is None.
    """
    rng = np.random.default_rng(about.seed)
    cued = [t for t in turns if t.told is not None]
    keys = {key: k for k, key in enumerate(dict.fromkeys(t.scenario_key for t in cued))}

    def sums(values: Iterable[tuple[MarkedTurn, float]]) -> list[float]:
        out = [0.0] * len(keys)
        for turn, value in values:
            out[keys[turn.scenario_key]] += value
        return out

    def ratio(which: Sequence[MarkedTurn], hits: Iterable[bool], skipped: int = 0) -> Estimate:
        sizes = [int(n) for n in sums((t, True) for t in which)]
        return estimate_ratio(sums(zip(which, hits, strict=True)), sizes, rng, skipped)

    def difference(told: Sequence[MarkedTurn], other: Sequence[MarkedTurn], hit: Callable[[MarkedTurn], bool]) -> Estimate:
        skipped = len(cued) - len(told) - len(other)
        if min(len(told), len(other)) < min_turns:
            return Estimate(None, None, None, len(told), skipped)
        columns = [sums((t, value(t)) for t in part) for part in (told, other) for value in (hit, _counts)]
        return _estimate_difference(columns, rng, len(told), skipped)

    num_told = sum(len(t.told or ()) for t in cued)
    both = sums((t, len(t.strategies.intersection(t.told or ()))) for t in cued)
    sizes = [int(n) for n in sums((t, len(t.told or ())) for t in cued)]
    by_chance = sum(
        sum(s in (t.told or ()) for t in cued) * sum(s in t.strategies for t in cued) / max(len(cued), 1) for s in STRATEGIES
    )
    found = {
        "strategies.recovered": estimate_ratio(both, sizes, rng),
        "strategies.recovered_chance": Estimate(by_chance / num_told if num_told else None, None, None, num_told, 0),
    }
    judged = [t for t in cued if t.offered and t.accepted is not None]
    for strategy in STRATEGIES:
        told, other = _parted(cued, strategy)
        if not told:
            continue
        found[f"strategies.recovered.{strategy}"] = ratio(told, [strategy in t.strategies for t in told])
        found[f"strategies.recovered_lift.{strategy}"] = difference(told, other, partial(_uses, strategy))
        told, other = _parted(judged, strategy)
        skipped = len(cued) - len(judged)
        found[f"strategies.accept_told.{strategy}"] = ratio(told, [bool(t.accepted) for t in told], skipped)
        found[f"strategies.accept_told_other.{strategy}"] = ratio(other, [bool(t.accepted) for t in other], skipped)
        found[f"strategies.accept_effect.{strategy}"] = difference(told, other, _is_accepted)
    return rows(found, about)


def _counts(turn: MarkedTurn) -> bool:
    del turn
    return True


def _uses(strategy: str, turn: MarkedTurn) -> bool:
    return strategy in turn.strategies


def _is_accepted(turn: MarkedTurn) -> bool:
    return bool(turn.accepted)


def _parted(turns: Sequence[MarkedTurn], strategy: str) -> tuple[list[MarkedTurn], list[MarkedTurn]]:
    """Those that were told a strategy, and those that were told something else."""
    told = [t for t in turns if t.told is not None and strategy in t.told]
    return told, [t for t in turns if t.told is not None and strategy not in t.told]


def _estimate_difference(columns: Sequence[Sequence[float]], rng: np.random.Generator, n: int, skipped: int) -> Estimate:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(pooled_difference(*[np.asarray(column) for column in columns], axis=-1))
    if not np.isfinite(value):
        return Estimate(None, None, None, n, skipped)
    low, high = cluster_interval(columns, pooled_difference, rng) or (None, None)
    return Estimate(value, low, high, n, skipped)


def pooled_difference(*columns: Floats, axis: int) -> Floats:
    """Mantel and Haenszel's difference of two rates: sum((a1 n0 - a0 n1) / n) / sum(n1 n0 / n) over strata, n = n1 + n0.

    Args:
        columns: of each stratum a1, n1 (with), a0, n0 (without), each of shape (..., clusters).
        axis: the clusters, summed.

    Returns:
        In [-1, 1]; NaN where no stratum has turns of both kinds.

    >>> one = [np.array([float(x)]) for x in (3, 4, 1, 4)]
    >>> float(pooled_difference(*one, axis=-1))  # 3/4 - 1/4
    0.5
    """
    sums = np.stack([column.sum(axis=axis) for column in columns])
    top, bottom = np.zeros(sums.shape[1:]), np.zeros(sums.shape[1:])
    for a1, n1, a0, n0 in sums.reshape(-1, 4, *sums.shape[1:]):
        size = np.maximum(n1 + n0, 1.0)
        top = top + (a1 * n0 - a0 * n1) / size
        bottom = bottom + n1 * n0 / size
    return np.asarray(top / bottom)
