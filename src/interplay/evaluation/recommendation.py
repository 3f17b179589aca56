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
        return GoldTurn(scenario.key, _rank(said, scenario), said)

    return await in_order(list(enumerate(pairs)), do, concurrency=concurrency, on_progress=on_progress)


def _rank(turn: Turn, scenario: Scenario) -> int | None:
    for place, (title, mention) in enumerate(zip(turn.titles, turn.items, strict=True), start=1):
        if is_any_target(title, mention.item_id, scenario.targets):
            return place
    return None
