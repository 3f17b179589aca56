"""Recall at the gold turn: where the log's recommender first names the target, does ours name it first?

Source: Interplay (arXiv 2603.18573), section 4. A pair is left out, and counted, when it has no target, when no
recommender turn names it, or when the user has named it before: repeating it would be no recommendation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from interplay.evaluation.asking import CONCURRENCY, Pair, Progress, in_order, is_fault, speak_once
from interplay.metrics.matching import is_any_target
from interplay.simulation.agents import Agent
from interplay.titles import names_title
from interplay.types import Dialogue, Failure, Role, Scenario, Turn, derive_seed, view_of


@dataclass(slots=True, frozen=True)
class GoldTurn:
    """What came of one pair; one per pair given, in their order."""

    scenario_key: str
    rank: int | None = None
    """Place of the target among the titles the recommender named, from 1; None when it did not name it."""
    generated: Turn | None = None
    """None when there was no readable turn."""
    failure: Failure | None = None
    skipped: str | None = None
    """Why nothing was observed: "no target", "target never recommended", "named by the user before", "context", "backend"."""
    list_rank: int | None = None
    """Place of the target in the ranked list of a recommender that reasons; None when it is not in it, or there is none."""
    candidate_rank: int | None = None
    """Place of the target among the candidates that such a recommender was told, in their order; None likewise."""


def gold_turn(scenario: Scenario, log: Dialogue) -> int | str:
    """Index of the recommender turn that first names a target, or the reason why there is none to be scored."""
    if not scenario.targets:
        return "no target"
    for index, turn in enumerate(log.turns):
        linked = any(is_any_target(t, m.item_id, scenario.targets) for t, m in zip(turn.titles, turn.items, strict=True))
        if turn.role is Role.RECOMMENDER and linked:
            return index
        if turn.role is Role.USER and (linked or any(names_title(turn.text, t.title) for t in scenario.targets)):
            return "named by the user before"
    return "target never recommended"


async def recommend_at_gold_turn(
    pairs: Sequence[Pair],
    recommender: Agent,
    *,
    seed: int,
    with_persona: bool = False,
    concurrency: int = CONCURRENCY,
    on_progress: Progress | None = None,
) -> list[GoldTurn]:
    """Let the recommender speak at the gold turn of every pair that has one.

    Args:
        pairs: scenarios with their logs.
        recommender: who speaks.
        seed: of the evaluation.
        with_persona: whether its View shows the persona.
        concurrency: turns asked for at once.
        on_progress: called with (finished, total).

    Returns:
        One per pair, in their order.
    """

    async def do(job: tuple[int, Pair]) -> GoldTurn:
        number, (scenario, log) = job
        index = gold_turn(scenario, log)
        if isinstance(index, str):
            return GoldTurn(scenario.key, skipped=index)
        view = view_of(scenario, Role.RECOMMENDER, with_persona=with_persona).after(*log.turns[:index])
        own_seed = derive_seed(seed, scenario.corpus, scenario.source_id, index)
        said = await speak_once(recommender, view, own_seed, f"recommendation.{number}")
        if isinstance(said, Failure):
            return GoldTurn(scenario.key, failure=said, skipped=said.boundary if is_fault(said) else None)
        rank = rank_of([(title, m.item_id) for title, m in zip(said.titles, said.items, strict=True)], scenario)
        if said.reasoning is None:
            return GoldTurn(scenario.key, rank, said)
        listed = rank_of([(entry.title, entry.item_id) for entry in said.reasoning.ranking], scenario)
        told = rank_of([(title, None) for title in said.reasoning.candidates], scenario)
        return GoldTurn(scenario.key, rank, said, list_rank=listed, candidate_rank=told)

    return await in_order(list(enumerate(pairs)), do, concurrency=concurrency, on_progress=on_progress)


def rank_of(named: Sequence[tuple[str, str | None]], scenario: Scenario) -> int | None:
    """The place, from 1, of the first of some titles (with the ids of their items) that is a target; None when none is."""
    return next((n for n, (title, item_id) in enumerate(named, 1) if is_any_target(title, item_id, scenario.targets)), None)
