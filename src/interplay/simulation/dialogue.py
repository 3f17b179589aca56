"""One conversation is one coroutine: ask the recommender, ask the user, until an Ending.

The environment: it owns the Scenario, gives each agent its View and nothing else, and records what was said. Replay,
simulation, the terminal chat and training rollouts all drive this coroutine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from interplay.errors import BackendError, ContextOverflow, FormatError, InterplayError
from interplay.simulation.agents import Agent, Speaker, drawn_name, noisy_turns_of, traits_of, view_for
from interplay.types import Action, Dialogue, Ending, Failure, Role, Scenario, Turn, derive_seed


@dataclass(slots=True, frozen=True)
class Limits:
    """When the environment ends a conversation that the user does not end."""

    max_turns: int = 20
    """Turns of both sides together; reaching it ends the conversation as turn-limit."""
    max_repeats: int = 3
    """A speaker who says the same thing this many times in a row ends the conversation as loop."""


def conversation_seed(run_seed: int, scenario: Scenario, sample: int) -> int:
    """The seed of one conversation: a function of the run's seed, the scenario and the sample index, and nothing else."""
    return derive_seed(run_seed, scenario.key, sample)


async def converse(
    scenario: Scenario,
    user: Agent,
    recommender: Agent,
    *,
    seed: int,
    sample: int = 0,
    limits: Limits | None = None,
    with_persona: bool = False,
    first: Role = Role.RECOMMENDER,
    begun: Sequence[Turn] = (),
    session: str | None = None,
) -> Dialogue:
    """Let two agents talk.

    Args:
        scenario: what the conversation starts from; the only holder of the target.
        user: the user simulator (or a person).
        recommender: the recommender (or a person).
        seed: of this conversation.
        sample: index among conversations of one scenario.
        limits: see Limits.
        with_persona: whether the recommender's View shows the persona.
        first: who opens.
        begun: turns already spoken; the other side of the last one speaks next. The limits count them too.
        session: names the conversation to the agents, distinct among those under way; by default by scenario and sample.

    Returns:
        The record. Faults of the format, the context or a backend are endings, not exceptions.
    """
    limits = limits or Limits()
    key = f"{scenario.key}.{sample}" if session is None else session
    turns: list[Turn] = list(begun)
    speakers: dict[Role, Speaker] = {}

    def record(ending: Ending, failure: Failure | None = None) -> Dialogue:
        return Dialogue(
            scenario_key=scenario.key,
            sample=sample,
            corpus=scenario.corpus,
            domain=scenario.domain,
            user=drawn_name(user, speakers.get(Role.USER)),
            recommender=drawn_name(recommender, speakers.get(Role.RECOMMENDER)),
            seed=seed,
            turns=tuple(turns),
            ending=ending,
            failure=failure,
            noisy_turns=noisy_turns_of(speakers.get(Role.USER)),
            traits=traits_of(speakers.get(Role.USER)),
        )

    role = begun[-1].role.other if begun else first
    try:
        for agent in (user, recommender):
            view = view_for(agent, scenario, with_persona=with_persona).after(*begun)
            speakers[agent.role] = agent.begin(view, derive_seed(seed, agent.role), f"{key}/{agent.role}")
        while True:
            turn = await speakers[role].speak()
            turns.append(turn)
            ending = ending_of(turns, limits)
            if ending is not None:
                return record(ending)
            role = role.other
            speakers[role].hear(turn.heard)
    except FormatError as error:
        return record(Ending.FORMAT_FAILURE, Failure(boundary="format", role=role, reason=error.reason, raw=error.raw))
    except ContextOverflow as error:
        return record(Ending.CONTEXT_OVERFLOW, _failure("context", role, error))
    except BackendError as error:
        return record(Ending.BACKEND_FAILURE, _failure("backend", role, error))
    finally:
        for speaker in speakers.values():
            speaker.end()


def _failure(boundary: str, role: Role, error: InterplayError) -> Failure:
    return Failure(boundary=boundary, role=role, reason=str(error), kind=getattr(error, "kind", None))


def ending_of(turns: list[Turn], limits: Limits) -> Ending | None:
    """The Ending that the latest turn brings about, or None while the conversation goes on."""
    latest = turns[-1]
    if latest.action is Action.ACCEPT:
        return Ending.ACCEPTED
    if latest.action is Action.GIVE_UP:
        return Ending.GAVE_UP
    if _is_loop(turns, latest, limits.max_repeats):
        return Ending.LOOP
    if len(turns) >= limits.max_turns:
        return Ending.TURN_LIMIT
    return None


def _is_loop(turns: list[Turn], latest: Turn, max_repeats: int) -> bool:
    """Whether the latest speaker's last `max_repeats` turns say the same."""
    said: str | None = None
    count = 0
    for turn in reversed(turns):
        if turn.role is not latest.role:
            continue
        text = " ".join(turn.text.casefold().split())
        if said is not None and text != said:
            return False
        said = text
        count += 1
        if count == max_repeats:
            return True
    return False
