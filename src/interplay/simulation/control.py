"""What a user simulator is told of itself and of its turns: drawn as people's conversations were, or fixed.

The people's side is a small file of counts beside the checkpoint, made in training: how often their sessions had each
combination of latents, and how long their turns were, by verbosity, place in the conversation, what they had heard and what
they did. No sentence is in it.

What a turn does is left to the model unless it is fixed: whether to accept is for the user to decide on what it hears, not
for a schedule.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from interplay.config import ControlFlags
from interplay.errors import CheckpointError
from interplay.metrics.latents import DialogueLatents, nearest_length, verbosity_of
from interplay.store import first_problem, write_lines
from interplay.types import SESSION_CUES, Dialogue, Parts, Record, Role, View, derive_seed

CUE_COUNTS = "cues.json"
"""Name of the file beside a user's checkpoint."""
FEWEST = 30
"""Turns of people that a length is drawn from at least: with fewer, what they had heard is no longer told apart, and so on."""
_NOTHING = "-"
"""Heard before the first turn, where the user opens."""
_PLACES = ((1, "1"), (2, "2"), (4, "3-4"))


class SessionCount(Record):
    """How many conversations of people had a combination of latents."""

    values: tuple[str | None, ...]
    """Those of SESSION_CUES, in order; None where it could not be told."""
    count: int


class TurnCount(Record):
    """How many turns of people were alike."""

    verbosity: str
    """Of the conversation."""
    place: str
    """Which of the user's turns it was: "1", "2", "3-4" or "5+"."""
    heard: str
    """The recommender's action before it, or "-"."""
    intent: str
    off_topic: str
    length: int
    """One of `metrics.latents.LENGTHS`."""
    count: int


class CueCounts(Record):
    """What the sessions and the turns of people were like."""

    sessions: tuple[SessionCount, ...] = ()
    turns: tuple[TurnCount, ...] = ()


def place_of(number: int) -> str:
    """The place of a user's turn, counted from 1.

    >>> place_of(1), place_of(4), place_of(9)
    ('1', '3-4', '5+')
    """
    return next((name for last, name in _PLACES if number <= last), "5+")


def count_cues(logs: Iterable[tuple[Dialogue, DialogueLatents]]) -> CueCounts:
    """What conversations of people were like.

    Args:
        logs: conversations with the latents of their users.
    """
    sessions: Counter[tuple[str | None, ...]] = Counter()
    turns: Counter[tuple[str, str, str, str, str, int]] = Counter()
    for dialogue, latents in logs:
        session = latents.session
        sessions[tuple(getattr(session, kind) for kind in SESSION_CUES)] += 1
        for number, turn in enumerate(latents.turns, start=1):
            heard = dialogue.turns[turn.turn - 1].action.value if turn.turn else _NOTHING
            small_talk = "yes" if turn.off_topic else "no"
            length = nearest_length(turn.num_words)
            turns[(session.verbosity, place_of(number), heard, turn.intent.value, small_talk, length)] += 1
    return CueCounts(
        sessions=tuple(SessionCount(values=values, count=n) for values, n in sorted(sessions.items(), key=str)),
        turns=tuple(
            TurnCount(verbosity=v, place=p, heard=h, intent=i, off_topic=o, length=words, count=n)
            for (v, p, h, i, o, words), n in sorted(turns.items())
        ),
    )


def write_counts(counts: CueCounts, checkpoint: Path) -> None:
    """Write counts beside a checkpoint."""
    write_lines(checkpoint / CUE_COUNTS, [counts.model_dump_json()])


def read_counts(checkpoint: Path) -> CueCounts:
    """The counts beside a checkpoint.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    file = checkpoint / CUE_COUNTS
    try:
        return CueCounts.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing: what people's turns were like is unknown; pass --control.policy none"
        ) from None
    except ValidationError as error:
        raise CheckpointError(f"{file}: {first_problem(error)}") from None


class Control:
    """Tells a user simulator what people like it were told (`cues.CueSource`).

    Args:
        kinds: of cues that the model knows.
        flags: what is fixed.
        counts: what people were like; None where nothing is drawn.
    """

    def __init__(self, kinds: Sequence[str], flags: ControlFlags, counts: CueCounts | None) -> None:
        self.kinds = frozenset(kinds)
        self.flags = flags
        self.fixed = {kind: value for kind, value in flags.fixed.items() if kind in self.kinds}
        if flags.length and "verbosity" in self.kinds:
            # Who is asked for turns of 30 words is not terse.
            self.fixed.setdefault("verbosity", verbosity_of(sum(flags.length) / len(flags.length)))
        self._sessions = counts.sessions if counts is not None else ()
        self._turns = counts.turns if counts is not None else ()
        self._like = cache(self._like_uncached)

    def traits(self, view: View, seed: int) -> Parts:
        """Session-level cues: those of one conversation of people, among those that agree with what is fixed."""
        fixed = {kind: value for kind, value in self.fixed.items() if kind in SESSION_CUES}
        drawn: Mapping[str, str | None] = {}
        agreeing = [
            s for s in self._sessions if all(s.values[SESSION_CUES.index(kind)] == value for kind, value in fixed.items())
        ]
        if found := agreeing or self._sessions:
            rng = random.Random(derive_seed(seed, "traits"))
            (session,) = rng.choices(found, [s.count for s in found])
            drawn = dict(zip(SESSION_CUES, session.values, strict=True))
        told = {**drawn, **fixed}
        return tuple((kind, value) for kind in SESSION_CUES if kind in self.kinds and (value := told.get(kind)) is not None)

    def parts(self, view: View, seed: int) -> Parts:
        """Cues of the turn to come: small talk or not, and its length."""
        told = {kind: value for kind, value in self.fixed.items() if kind not in SESSION_CUES}
        rng = random.Random(derive_seed(seed, "cues", len(view.turns)))
        if self._turns:
            number = 1 + sum(turn.role is Role.USER for turn in view.turns)
            heard = view.turns[-1].action.value if view.turns else _NOTHING
            verbosity = dict(view.traits).get("verbosity")
            like = self._like(verbosity, place_of(number), heard, told.get("intent"), told.get("off-topic"))
            (turn,) = rng.choices(like, [t.count for t in like])
            told = {"off-topic": turn.off_topic, "length": str(turn.length)} | told
        if self.flags.length:
            told["length"] = str(nearest_length(rng.choice(self.flags.length)))
        return tuple((kind, value) for kind, value in told.items() if kind in self.kinds)

    def _like_uncached(
        self, verbosity: str | None, place: str, heard: str, intent: str | None, off_topic: str | None
    ) -> list[TurnCount]:
        """Turns of people to draw from: conditions are given up one by one, the last first, while there are too few."""
        conditions = {"verbosity": verbosity, "off_topic": off_topic, "intent": intent, "place": place, "heard": heard}
        given = [(field, value) for field, value in conditions.items() if value is not None]
        for number in range(len(given), 0, -1):
            found = [t for t in self._turns if all(getattr(t, field) == value for field, value in given[:number])]
            if sum(t.count for t in found) >= FEWEST:
                return found
        return list(self._turns)
