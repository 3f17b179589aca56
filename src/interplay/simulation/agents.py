"""What an agent is: a role and how it speaks. User and recommender are the same kind of thing.

An agent is shared by all conversations; `begin` gives the Speaker that holds its side of one conversation. A Speaker
gets a View, never a Scenario, so it can't hold a reference to the hidden target. The one exception is in the open: see
`TOLD_TARGET`.
"""

from typing import Protocol

from interplay.types import Parts, Role, Scenario, Turn, View, view_of

TOLD_TARGET = "told_target"
"""Attribute by which a user agent says that its View must tell the target's title (iEvaLM). Absent or False: it is hidden."""

DRAWN = "drawn"
"""Attribute by which a Speaker says the name of the agent that holds its conversation, where several stand behind one."""
NOISY_TURNS = "noisy_turns"
"""Attribute by which a Speaker says which of its turns say the opposite of what it meant; see `simulation.noise`."""
TRAITS = "traits"
"""Attribute by which a Speaker says what its agent was told of itself: see `types.View.traits`."""


class Speaker(Protocol):
    """One agent's side of one conversation."""

    async def speak(self) -> Turn:
        """The agent's next turn; the Speaker remembers it itself.

        Raises:
            FormatError: the output can't be read as a turn.
            ContextOverflow: the conversation no longer fits.
            BackendError: no answer could be had.
        """
        ...

    def hear(self, turn: Turn) -> None:
        """Take in the other side's turn."""
        ...

    def end(self) -> None:
        """The conversation is over: give back what it holds."""
        ...


class Agent(Protocol):
    """A role and how it speaks."""

    role: Role
    name: str
    """Written into every Dialogue, for example "agenda" or a checkpoint's directory name."""

    def begin(self, view: View, seed: int, session: str) -> Speaker:
        """A Speaker for one conversation.

        Args:
            view: what this role may see; `view.turns` are turns already spoken, by either side.
            seed: of this conversation; each of the agent's random choices derives from it and the turn's index.
            session: names this conversation side, distinct among those under way.
        """
        ...


def is_told_target(agent: Agent) -> bool:
    """Whether the agent is told the target's title: what it accepts then says little. See `View.told_targets`."""
    return bool(getattr(agent, TOLD_TARGET, False))


def drawn_name(agent: Agent, speaker: Speaker | None) -> str:
    """Who holds a conversation: the agent's name, or that of the one that was drawn among several."""
    return str(getattr(speaker, DRAWN, agent.name))


def noisy_turns_of(speaker: Speaker | None) -> tuple[int, ...]:
    """Indexes of the conversation's turns that noise has turned round; empty for most speakers."""
    return tuple(getattr(speaker, NOISY_TURNS, ()))


def traits_of(speaker: Speaker | None) -> Parts:
    """What the agent was told of itself for this conversation; empty for most speakers."""
    return tuple(getattr(speaker, TRAITS, ()))


def view_for(agent: Agent, scenario: Scenario, *, with_persona: bool) -> View:
    """What the agent may see of the scenario before the first turn: `types.view_of`, with what it says it must be told."""
    return view_of(scenario, agent.role, with_persona=with_persona, tell_target=is_told_target(agent))
