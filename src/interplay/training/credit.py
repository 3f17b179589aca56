"""From the rewards of a round to what each choice of the policy gets: one way per algorithm, all over `advantages`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interplay.config import OptimizeConfig
from interplay.formats.tags import BECAUSE, RANKING, REASONING_CLOSE, title_tags
from interplay.formats.tokens import TokenFormat
from interplay.training.advantages import (
    best_of_n,
    group_advantages,
    preference_pairs,
    rank_advantages,
    reward_array,
    turn_advantages,
    with_list_shaping,
)
from interplay.training.rewards.rollouts import Rollout
from interplay.training.rewards.scoring import Scored
from interplay.training.rewards.terms import list_relevance
from interplay.training.rollouts import Row, Spoken

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


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


def list_places(form: TokenFormat, ids: Sequence[int]) -> tuple[Ints, Flags]:
    """Of which place of a ranked list each token is, from 0, -1 for tokens of none; and which tokens end a list.

    Both of shape (len(ids),). A place is the number of a candidate, one token, or a title written out with its tags.
    """
    ranking, ends = form.tag_id(RANKING), {form.tag_id(BECAUSE), form.tag_id(REASONING_CLOSE)}
    opening, closing = map(form.tag_id, title_tags(form.domain))
    out, is_end = np.full(len(ids), -1), np.zeros(len(ids), dtype=bool)
    place, is_list, is_title = -1, False, False
    for at, index in enumerate(ids):
        if index == ranking:
            place, is_list = -1, True
        elif index in ends:
            is_end[at], is_list = is_list, False
        elif is_list:
            place += not is_title
            is_title = index != closing and (is_title or index == opening)
            out[at] = place
    return out, is_end


def list_advantages(groups: Sequence[Sequence[Rollout]], list_length: int) -> tuple[list[list[Floats]], int]:
    """Rank-GRPO (arXiv 2510.20150) turn by turn: each place against the same place of the group's lists of that turn.

    The paper has one list per conversation; here each turn of the policy has one, and a turn is compared among the
    conversations that got to it. A title named before in the conversation pays nothing.

    Args:
        groups: of each scenario, its conversations.
        list_length: places.

    Returns:
        Of each conversation an array (num_turns, list_length), 0 where there is nothing to compare; and how many groups of
        places (scenario, turn, place) are flat.
    """
    out: list[list[Floats]] = []
    num_flat = 0
    for group in groups:
        longest = max((len(rollout.steps) for rollout in group), default=0)
        rewards = np.full((longest, len(group), list_length), np.nan)
        for column, rollout in enumerate(group):
            if rollout.is_faulty:
                continue
            for turn, step in enumerate(rollout.steps):
                seen = [title for before in rollout.before(step) for title in before.titles]
                ranking = None if step.answer is None else step.answer.ranking
                rewards[turn, column] = list_relevance(
                    ranking, rollout.scenario.targets, rollout.catalog, seen, num_ranks=list_length
                )
        found = rank_advantages(rewards)
        num_flat += found.num_flat
        out.append([found.values[: len(rollout.steps), column] for column, rollout in enumerate(group)])
    return out, num_flat


def give_credit(
    config: OptimizeConfig,
    groups: Sequence[Sequence[Spoken]],
    scored: Sequence[Sequence[Scored]],
    outlooks: Sequence[Sequence[Sequence[float | None]]] | None = None,
    lists: Sequence[Sequence[Floats]] | None = None,
    form: TokenFormat | None = None,
) -> Lessons:
    """What each choice of each conversation gets.

    Args:
        config: the algorithm and its constants.
        groups: of each scenario, its conversations.
        scored: their rewards.
        outlooks: of each conversation, a multi-turn-aware reward per turn of the policy, in place of what really followed.
        lists: for rank: see `list_advantages`.
        form: for rank: tells the tokens of a list.

    Every choice is a segment of its own with the advantage of its conversation (grpo, best-of-n) or turn (turn); in
    best-of-n that advantage is 1 for the conversations learned from and 0 for the others, whose gradient is that of their
    log-likelihood. With rank, the tokens of one place of a list are one segment, with that place's advantage, and every
    other choice is one of its own, with its turn's.
    """
    totals = reward_array([[one.total for one in group] for group in scored])
    if config.algorithm == "dpo":
        return _pairs(config, groups, totals)
    num_close = num_alone = 0
    values: list[list[Floats]]
    if config.algorithm in ("turn", "rank"):
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
            for place, columns in enumerate(selected.columns):
                weights[place, list(columns)] = 1.0
            num_flat, num_missing, num_close = 0, int(np.isnan(totals).sum()), selected.num_below
        else:
            grouped = group_advantages(totals)
            weights, num_flat, num_missing = grouped.values, grouped.num_flat, grouped.num_missing
        values = [
            [np.full(len(one.steps), weight) for one, weight in zip(group, own, strict=True)]
            for group, own in zip(scored, weights, strict=True)
        ]
    lessons = []
    for number, (group, own, rewards_of) in enumerate(zip(groups, values, scored, strict=True)):
        for column, (spoken, turns, one) in enumerate(zip(group, own, rewards_of, strict=True)):
            if one.total is None:
                continue
            for row in spoken.rows:
                lesson = Lesson(row, np.arange(len(row.turns)), turns[row.turns], spoken.dialogue.key)
                if lists is not None and form is not None:
                    places, is_end = list_places(form, row.ids)
                    shaped = is_end[row.places] & (not config.constrained)  # a constrained list has its length by force
                    _take_places(lesson, places[row.places], shaped, lists[number][column])
                lessons.append(lesson)
    if not config.kl_weight:
        lessons = [lesson for lesson in lessons if lesson.advantages.any()]
    return Lessons(lessons, [], num_flat, num_missing, num_close, num_alone)


def _take_places(lesson: Lesson, places: Ints, ends: Flags, advantages: Floats) -> None:
    """Make one segment of the tokens of each place of each list, and pay for the list's length where `ends` are given."""
    turns = lesson.row.turns
    for turn in np.unique(turns[(places >= 0) | ends]):
        at = np.flatnonzero((turns == turn) & ((places >= 0) | ends))
        segments, paid = with_list_shaping(places[None, at], ends[None, at], advantages[None, turn])
        for segment in np.unique(segments[0]):
            tokens = at[segments[0] == segment]
            lesson.segments[tokens] = tokens[0]
            lesson.advantages[tokens] = paid[0, segment]


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
