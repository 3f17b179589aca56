"""Thousands of conversations on one event loop.

Scenarios stream from an iterator into a bounded number of conversations; a finished one is written at once and its
place taken by the next. Knows nothing of models: a backend gathers the requests outstanding at any moment.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from interplay.simulation.agents import Agent
from interplay.simulation.dialogue import Limits, conversation_seed, converse
from interplay.types import Dialogue, Role, Scenario


@dataclass(slots=True, frozen=True)
class Plan:
    """Which conversations to hold, and how."""

    seed: int = 0
    num_samples: int = 1
    """Conversations per scenario."""
    concurrency: int = 256
    """Conversations under way at once at most."""
    limits: Limits = field(default_factory=Limits)
    with_persona: bool = False
    """Whether the recommender's View shows the persona."""
    first: Role = Role.RECOMMENDER
    """Who opens."""


async def simulate(
    scenarios: Iterable[Scenario],
    user: Agent,
    recommender: Agent,
    plan: Plan,
    *,
    on_dialogue: Callable[[Dialogue], None],
    finished: frozenset[str] = frozenset(),
) -> int:
    """Hold every conversation that is owed.

    Args:
        scenarios: read one at a time, as places become free.
        user: the user simulator.
        recommender: the recommender.
        plan: see Plan.
        on_dialogue: called with each finished dialogue, in the order they finish; what it raises stops the simulation.
        finished: keys of dialogues not to be held again.

    Returns:
        How many conversations were held.
    """
    owed = _owed(scenarios, plan.num_samples, finished)
    held = 0
    is_stopped = False

    async def work() -> None:
        nonlocal held, is_stopped
        for scenario, sample in owed:  # one iterator shared by all workers
            dialogue = await converse(
                scenario,
                user,
                recommender,
                seed=conversation_seed(plan.seed, scenario, sample),
                sample=sample,
                limits=plan.limits,
                with_persona=plan.with_persona,
                first=plan.first,
            )
            if is_stopped:
                return
            try:
                on_dialogue(dialogue)
            except BaseException:
                is_stopped = True  # the others learn of it only at their next wait, and must not write until then
                raise
            held += 1
            # Agents that never wait (rules, scripts) would keep the loop from seeing an interrupt or drawing progress.
            await asyncio.sleep(0)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrency):
                group.create_task(work())
    except* Exception as errors:
        raise errors.exceptions[0] from None  # workers fail for one reason: on_dialogue could not write
    return held


def _owed(scenarios: Iterable[Scenario], num_samples: int, finished: frozenset[str]) -> Iterator[tuple[Scenario, int]]:
    for scenario in scenarios:
        for sample in range(num_samples):
            if f"{scenario.key}.{sample}" not in finished:
                yield scenario, sample
