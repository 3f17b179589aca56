"""Where the cues of an agent's turns come from while it talks: what it is told of itself, and of each turn before it speaks.

A source reads nothing but the View, and its chance comes from the conversation's seed. What was told is kept in the record,
as the labels of what was said: `Dialogue.traits` and `Turn.cues`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from interplay.types import Cue, Parts, View, cues_for

LENGTH = "length"
"""The kind of cue that asks for a number of words."""


class CueSource(Protocol):
    """Gives cues of some kinds (`types.cues_for`)."""

    def traits(self, view: View, seed: int) -> Parts:
        """Those of the whole conversation.

        Args:
            view: of the role, before the first turn or later.
            seed: of the conversation.
        """
        ...

    def parts(self, view: View, seed: int) -> Parts:
        """Those of the turn after the View's, whose `traits` are set.

        Args:
            view: of the role.
            seed: of the conversation.
        """
        ...


def begin_cues(sources: Sequence[CueSource], view: View, seed: int) -> View:
    """The View with its traits, and with the cues that its own past turns were spoken with where their records tell."""
    if not sources:
        return view
    told = {cue.turn for cue in view.cues}
    past = [Cue(n, t.cues) for n, t in enumerate(view.turns) if t.role is view.role and t.cues and n not in told]
    traits = view.traits or _in_order(view, [part for source in sources for part in source.traits(view, seed)])
    return replace(view, traits=traits, cues=tuple(sorted((*view.cues, *past), key=lambda cue: cue.turn)))


def next_cue(sources: Sequence[CueSource], view: View, seed: int) -> Cue:
    """The cue of the turn after the View's; without parts where no source has anything to say."""
    return Cue(len(view.turns), _in_order(view, [part for source in sources for part in source.parts(view, seed)]))


def words_around(length: int, tolerance: float) -> tuple[int, int]:
    """Fewest and most words of a turn that is asked for `length`, give or take a share of it.

    >>> words_around(4, 0.15), words_around(30, 0.15)
    ((4, 4), (26, 34))
    """
    return max(1, math.ceil(length * (1 - tolerance))), max(length, math.floor(length * (1 + tolerance)))


def _in_order(view: View, parts: Sequence[tuple[str, str]]) -> Parts:
    order = {kind: place for place, kind in enumerate(cues_for(view.role))}
    return tuple(sorted(parts, key=lambda part: order.get(part[0], len(order))))
