"""An agent that says given turns: for tests, demonstrations, and as the simplest example of an Agent."""

from collections.abc import Sequence

from interplay.types import Role, Turn, View


class ScriptedAgent:
    """Says the turns of a script one after another, and its last one again and again.

    Args:
        role: who it is.
        script: at least one turn, all of `role`.
        name: written into the Dialogue.

    Raises:
        ValueError: the script is empty or holds a turn of the other role.
    """

    def __init__(self, role: Role, script: Sequence[Turn], name: str = "scripted") -> None:
        if not script or any(turn.role is not role for turn in script):
            raise ValueError(f"the script of a {role} needs at least one turn, all by the {role}")
        self.role = role
        self.name = name
        self._script = tuple(script)

    def begin(self, view: View, seed: int, session: str) -> "ScriptedSpeaker":
        """A Speaker at the script's place after the turns this role has already spoken."""
        return ScriptedSpeaker(self._script, sum(turn.role is self.role for turn in view.turns))


class ScriptedSpeaker:
    """One conversation's place in a script."""

    def __init__(self, script: tuple[Turn, ...], place: int) -> None:
        self._script = script
        self._place = place

    async def speak(self) -> Turn:
        """The next turn of the script."""
        turn = self._script[min(self._place, len(self._script) - 1)]
        self._place += 1
        return turn

    def hear(self, turn: Turn) -> None:
        """Nothing that is heard changes a script."""

    def end(self) -> None:
        """Holds nothing."""
