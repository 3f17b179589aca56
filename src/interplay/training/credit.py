"""From the rewards of a round to what each choice of the policy gets: one way per algorithm, all over `advantages`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interplay.config import OptimizeConfig
from interplay.training.advantages import best_of_n, group_advantages, preference_pairs, reward_array, turn_advantages
from interplay.training.rewards.scoring import Scored
from interplay.training.rollouts import Row, Spoken

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class Lesson:
    """One row with what its choices get; see `advantages.segment_loss`."""

    row: Row
    segments: Ints
    """(num_choices,) of which segment each choice is; -1 for one that nothing is learned from."""
    advantages: Floats
    """(num_segments,)."""
    conversation: str
    """Key of the dialogue, for messages."""
    old: Floats | None = None
    """(num_choices,) log-probabilities under the policy that sampled them, where the weights have moved since."""
    reference: Floats | None = None
    """(num_choices,) under the model that training started from."""


@dataclass(slots=True, frozen=True)
class Lessons:
    """What is learned from one round."""

    lessons: list[Lesson]
    pairs: list[tuple[list[Lesson], list[Lesson]]]
    """For dpo: the lessons of the better conversation of a scenario, and those of the worse one. Else empty."""
    num_flat: int
    """Groups that teach nothing: rewards that are all equal, or fewer than two known."""
    num_missing: int
    """Conversations without a reward."""
    num_close: int = 0
    """For dpo: groups whose best and worst differ by less than the least gap. For best-of-n: those without a good one."""
    num_alone: int = 0
    """For turn: turns that no other conversation of the group got to."""


def give_credit(
    config: OptimizeConfig,
    groups: Sequence[Sequence[Spoken]],
    scored: Sequence[Sequence[Scored]],
    outlooks: Sequence[Sequence[Sequence[float | None]]] | None = None,
) -> Lessons:
    """What each choice of each conversation gets.

    Args:
        config: the algorithm and its constants.
        groups: of each scenario, its conversations.
        scored: their rewards.
        outlooks: of each conversation, a multi-turn-aware reward per turn of the policy, in place of what really followed.

    Every choice is a segment of its own with the advantage of its conversation (grpo, best-of-n) or turn (turn); in
    best-of-n that advantage is 1 for the conversations learned from and 0 for the others, whose gradient is that of their
    log-likelihood.
    """
    totals = reward_array([[one.total for one in group] for group in scored])
    if config.algorithm == "dpo":
        return _pairs(config, groups, totals)
    num_close = num_alone = 0
    values: list[list[Floats]]
    if config.algorithm == "turn":
        if outlooks is not None:
            rewards = [
                [None if one.total is None else list(outlook) for one, outlook in zip(group, own, strict=True)]
                for group, own in zip(scored, outlooks, strict=True)
            ]
            found = turn_advantages(rewards, discount=0.0)  # an outlook holds what follows already
        else:
            steps = [[None if one.total is None else one.steps for one in group] for group in scored]
            found = turn_advantages(steps, discount=config.discount)
        values = [list(group) for group in found.values]
        num_flat, num_missing, num_alone = found.num_flat, found.num_missing, found.num_alone
    else:
        if config.algorithm == "best-of-n":
            selected = best_of_n(totals, num=config.num_best, at_least=config.at_least)
            weights = np.zeros_like(totals)
            for row, columns in enumerate(selected.columns):
                weights[row, list(columns)] = 1.0
            num_flat, num_missing, num_close = 0, int(np.isnan(totals).sum()), selected.num_below
        else:
            grouped = group_advantages(totals)
            weights, num_flat, num_missing = grouped.values, grouped.num_flat, grouped.num_missing
        values = [
            [np.full(len(one.steps), weight) for one, weight in zip(group, own, strict=True)]
            for group, own in zip(scored, weights, strict=True)
        ]
    lessons = [
        Lesson(row, np.arange(len(row.turns)), turns[row.turns], spoken.dialogue.key)
        for group, own, rewards_of in zip(groups, values, scored, strict=True)
        for spoken, turns, one in zip(group, own, rewards_of, strict=True)
        if one.total is not None
        for row in spoken.rows
    ]
    if not config.kl_weight:
        lessons = [lesson for lesson in lessons if lesson.advantages.any()]
    return Lessons(lessons, [], num_flat, num_missing, num_close, num_alone)


def _pairs(config: OptimizeConfig, groups: Sequence[Sequence[Spoken]], totals: Floats) -> Lessons:
    found = preference_pairs(totals, min_gap=config.min_gap)
    pairs = []
    for pair in found.pairs:
        sides = [
            [Lesson(row, np.arange(len(row.turns)), np.zeros(len(row.turns)), spoken.dialogue.key) for row in spoken.rows]
            for spoken in (groups[pair.group][pair.chosen], groups[pair.group][pair.rejected])
        ]
        pairs.append((sides[0], sides[1]))
    lessons = [lesson for pair in pairs for side in pair for lesson in side]
    num_missing = int(np.isnan(totals).sum())
    return Lessons(lessons, pairs, found.num_ties + found.num_missing, num_missing, found.num_close)
