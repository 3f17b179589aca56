"""Single turns: at every logged turn of a role, the model speaks once on the logged history before it.

Generated and human turns answer the same situations, so their diversity and length can be laid side by side.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from interplay.evaluation.asking import CONCURRENCY, Pair, Progress, in_order, is_fault, speak_once
from interplay.simulation.agents import Agent
from interplay.types import Failure, Scenario, Turn, derive_seed, view_of


@dataclass(slots=True, frozen=True)
class TurnPrediction:
    """One logged turn and what the model said in its place."""

    scenario_key: str
    index: int
    """Of the turn in the logged Dialogue."""
    logged: Turn
    generated: Turn | None
    """None when there was no readable turn: see `failure`."""
    failure: Failure | None = None

    @property
    def observed(self) -> bool:
        """Whether the model answered at all, readably or not."""
        return self.failure is None or not is_fault(self.failure)


async def predict_turns(
    pairs: Sequence[Pair],
    agent: Agent,
    *,
    seed: int,
    with_persona: bool = False,
    max_turns: int | None = None,
    concurrency: int = CONCURRENCY,
    on_progress: Progress | None = None,
) -> list[TurnPrediction]:
    """Let the agent speak in the place of every logged turn of its role.

    Args:
        pairs: scenarios with their logs.
        agent: user or recommender; its role decides which turns.
        seed: of the evaluation; draws the sample, and each turn's seed derives from it.
        with_persona: whether a recommender's View shows the persona; a user's always does.
        max_turns: at most this many turns, drawn without replacement; None takes all.
        concurrency: turns asked for at once.
        on_progress: called with (finished, total).

    Returns:
        One prediction per turn, in the order of the pairs and their turns.
    """
    places = [
        (scenario, log.turns, index)
        for scenario, log in pairs
        for index, turn in enumerate(log.turns)
        if turn.role is agent.role
    ]
    if max_turns is not None and max_turns < len(places):
        chosen = random.Random(derive_seed(seed, "turns")).sample(range(len(places)), max_turns)
        places = [places[i] for i in sorted(chosen)]

    async def do(job: tuple[int, tuple[Scenario, tuple[Turn, ...], int]]) -> TurnPrediction:
        number, (scenario, turns, index) = job
        view = view_of(scenario, agent.role, with_persona=with_persona).after(*turns[:index])
        said = await speak_once(agent, view, derive_seed(seed, scenario.corpus, scenario.source_id, index), f"turns.{number}")
        if isinstance(said, Failure):
            return TurnPrediction(scenario.key, index, turns[index], None, said)
        return TurnPrediction(scenario.key, index, turns[index], said)

    return await in_order(list(enumerate(places)), do, concurrency=concurrency, on_progress=on_progress)
