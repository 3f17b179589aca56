"""Several user simulators as one: each conversation is held by one of them, drawn by its seed.

Simulators err in different ways, so what pleases all of them is less likely to be the error of one. The record names the
one that spoke (`Dialogue.user`).
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from interplay.errors import ConfigError
from interplay.simulation.agents import Agent, Speaker, drawn_name, is_told_target, noisy_turns_of, traits_of
from interplay.types import Parts, Role, Turn, View, derive_seed

NAME = "ensemble"


class Ensemble:
    """Several user simulators as one Agent.

    Args:
        agents: at least one, all users, with names of their own; each is as likely as any other.
        name: of all of them together.

    Raises:
        ConfigError: two have one name, or some are told the target and others are not.
        ValueError: there is none, or one of them is a recommender.
    """

    role = Role.USER

    def __init__(self, agents: Sequence[Agent], name: str = NAME) -> None:
        if not agents or any(agent.role is not Role.USER for agent in agents):
            raise ValueError("an ensemble is made of at least one agent, all of them users")
        names = Counter(agent.name for agent in agents)
        if twice := [one for one, number in names.items() if number > 1]:
            raise ConfigError(f"two user simulators of an ensemble are called {twice[0]!r}: records could not tell them apart")
        if len({is_told_target(agent) for agent in agents}) > 1:
            raise ConfigError("some user simulators of the ensemble are told the target and others are not: choose one kind")
        self.agents = tuple(agents)
        self.name = name
        self.told_target = is_told_target(agents[0])
        backends = {id(found): found for agent in agents if (found := getattr(agent, "backend", None)) is not None}
        self.backend = Backends(list(backends.values())) if backends else None
        """What has to answer, and be closed."""

    @property
    def retries(self) -> Counter[str]:
        """Answers that were asked for again, of all together."""
        return sum((Counter(getattr(agent, "retries", {})) for agent in self.agents), Counter())

    def drawn(self, seed: int) -> Agent:
        """Who holds the conversation whose user side has this seed."""
        return random.Random(derive_seed(seed, NAME)).choice(self.agents)

    def begin(self, view: View, seed: int, session: str) -> "DrawnSpeaker":
        """A Speaker of the one that is drawn."""
        agent = self.drawn(seed)
        return DrawnSpeaker(agent, agent.begin(view, seed, session))


class DrawnSpeaker:
    """One conversation's side, held by the agent that was drawn."""

    def __init__(self, agent: Agent, inner: Speaker) -> None:
        self._agent, self._inner = agent, inner

    @property
    def drawn(self) -> str:
        """See `agents.DRAWN`."""
        return drawn_name(self._agent, self._inner)

    @property
    def noisy_turns(self) -> tuple[int, ...]:
        """See `agents.NOISY_TURNS`."""
        return noisy_turns_of(self._inner)

    @property
    def traits(self) -> Parts:
        """See `agents.TRAITS`."""
        return traits_of(self._inner)

    async def speak(self) -> Turn:
        """The drawn agent's turn.

        Raises:
            InterplayError: as the drawn agent's.
        """
        return await self._inner.speak()

    def hear(self, turn: Turn) -> None:
        """Take in the recommender's turn."""
        self._inner.hear(turn)

    def end(self) -> None:
        """The drawn agent's Speaker gives back what it holds."""
        self._inner.end()


class Backends:
    """The backends of several agents, to be asked whether they answer and to be closed."""

    def __init__(self, backends: Sequence[Any]) -> None:
        self.backends = tuple(backends)

    async def check(self) -> None:
        """Ask each that can be asked.

        Raises:
            BackendError: one does not answer.
        """
        for backend in self.backends:
            if hasattr(backend, "check"):
                await backend.check()

    async def close(self) -> None:
        """Close each."""
        for backend in self.backends:
            await backend.close()
