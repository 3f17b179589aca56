"""What an agent is: a role and how it speaks. User and recommender are the same kind of thing.

An agent is shared by all conversations; `begin` gives the Speaker that holds its side of one conversation. A Speaker
gets a View, never a Scenario, so it can't hold a reference to the hidden target.
"""

from typing import Protocol

from interplay.types import Role, Turn, View


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
