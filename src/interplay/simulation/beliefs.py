"""What a user wants and does not want, how surely, and since which turn: a preference state that can be read at any moment.

A belief is about a facet ("genre", "crime"). Its strength lies in [-1, 1]: the sign is the valence, the size the confidence.
Evidence moves the strength s towards its direction d (+1 or -1) by a rate r: s <- s + r (d - s). All rates are ours:

- the View says it: target attributes start at .9, general preferences at .5, with no source turn;
- the user says it (r .6), or accepts an item with it (r .3);
- the recommender offers an item that contradicts it (r .15): nothing, where the confidence is `HELD` or more. So another side's
  persuasion may move a weak belief and never a strong one; only the user's own words and acts move that.

The state follows from the View and the turns alone, so replaying a log gives it again.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import Field

from interplay.simulation.facets import OTHER, Facet, FacetIndex, asked_kind
from interplay.types import BELIEF, Action, Item, Parts, Record, Role, Turn, View, accepted_mentions

HELD = 0.7
"""Confidence from which on a belief is strongly held."""
FROM_GOAL = 0.9
"""Confidence of a target attribute at the outset."""
FROM_PERSONA = 0.5
"""Confidence of a general preference at the outset."""
EXCLUSIVE = ("decade",)
"""Kinds of which an item has one value: to want one is not to want another."""
LEAST_TOLD, MOST_TOLD = 0.15, 6
"""Confidence from which on a belief is told in words, and how many are told at most, the surest first."""

_DISLIKES = re.compile(
    r"\b(?:dislik\w*|hates?|hated|not|never|rarely|skips?|avoids?|hard to sit through|(?:do|does|did|is|are|ca|wo)n['’]?t)\b",
    re.IGNORECASE,
)
_COMPLAINT = re.compile(
    r"(?:\b(?:that|this|it)|;)\s*(?:['’]?s|is|was)?\s*(?:not|isn['’]?t|wasn['’]?t)\b[^.,;!?]*", re.IGNORECASE
)
"""Of an offer, whose title is a semicolon by then: "that's not a drama" asks for a drama."""
_NEW_CLAUSE = re.compile(
    r"\bi (?:(?:still|do|really|also) )*(?:need|want|wanted|asked|was hoping|would|prefer|love|like|enjoy)\b"
    r"|\b(?:do|can|could|would) you\b",
    re.IGNORECASE,
)
"""Where a wish begins though no comma was typed: "not this one i need a drama"."""
_CLAUSE = re.compile(r"[.;!?\"“”]|\bbut\b", re.IGNORECASE)
_SILENT = (Action.INQUIRE, Action.CHAT, Action.GIVE_UP)
"""Acts of a user whose words are about something else than wishes: a question about an item names its genre too."""


class Source(StrEnum):
    """Where evidence comes from."""

    GOAL = "goal"
    """A target attribute of the View."""
    PERSONA = "persona"
    """The general preferences of the View."""
    SAID = "said"
    ACCEPTED = "accepted"
    HEARD = "heard"
    """The other side's offer."""


RATES = {Source.SAID: 0.6, Source.ACCEPTED: 0.3, Source.HEARD: 0.15}
"""How far one piece of evidence moves a belief."""


class Belief(Record):
    """What is thought of one aspect."""

    kind: str
    value: str
    valence: Literal[-1, 1]
    """1: wanted, -1: not wanted."""
    confidence: float = Field(ge=0, le=1)
    source: Source
    """Of what has moved it last."""
    source_turn: int | None
    """Index of the turn that has moved it last; None: the View."""

    @property
    def facet(self) -> Facet:
        """The aspect."""
        return Facet(self.kind, self.value)

    @property
    def strength(self) -> float:
        """Valence times confidence, in [-1, 1]."""
        return self.valence * self.confidence

    @property
    def is_held(self) -> bool:
        """Whether it is strongly held."""
        return self.confidence >= HELD


class BeliefChange(Record):
    """One piece of evidence and what it did."""

    kind: str
    value: str
    source: Source
    turn: int | None
    """Index of the turn; None: the View."""
    before: float | None
    """Strength before; None for a new belief."""
    after: float


class Stances(NamedTuple):
    """What a text says of facets."""

    wants: tuple[Facet, ...]
    dislikes: tuple[Facet, ...]


def read_preferences(index: FacetIndex, text: str) -> Stances:
    """Likes and dislikes of a text about a person ("Likes dramas; dislikes thrillers."), clause by clause.

    Args:
        index: of the catalog whose values are looked for.
        text: for example `Persona.general_preferences`.
    """
    likes: dict[Facet, None] = {}
    dislikes: dict[Facet, None] = {}
    for clause in _CLAUSE.split(text):
        heard = index.read(clause)
        found = dict.fromkeys((*heard.wants, *heard.dislikes))
        (dislikes if _DISLIKES.search(clause) else likes).update(found)
    return Stances(tuple(likes), tuple(f for f in dislikes if f not in likes))


def stances_of(index: FacetIndex, turn: Turn, before: Turn | None) -> Stances:
    """What a user turn says about wishes; nothing for questions, small talk and giving up.

    What an offer is said not to be ("that's not a drama") is wanted.

    Args:
        index: of the catalog whose values are looked for.
        turn: of the user.
        before: the recommender's turn that it answers, if any: after "what should it be about?" a bare theme is understood.
    """
    if turn.role is not Role.USER or turn.action in _SILENT:
        return Stances((), ())
    asked = asked_kind(before.text) if before is not None and before.action is Action.INQUIRE else None
    text = turn.text
    for mention in reversed(turn.items):
        text = f"{text[: mention.start]};{text[mention.end :]}"
    text = _NEW_CLAUSE.sub(r"; \g<0>", text)
    heard = index.read(text, asked=asked)
    missed = {f for part in _COMPLAINT.findall(text) for f in index.read(part).dislikes}
    asked_for = tuple(f for f in heard.dislikes if f in missed)
    return Stances(heard.wants + asked_for, tuple(f for f in heard.dislikes if f not in missed))


def contradicts(item: Item, facet: Facet, *, wanted: bool = True) -> bool:
    """Whether an item goes against a facet: it has other values of the kind and not this one, or has what is not wanted.

    An item of which no value of the kind is known tells nothing.
    """
    values = item.attributes.get(facet.kind, ())
    return (bool(values) and facet.value not in values) if wanted else facet.value in values


class PreferenceState:
    """The beliefs of one user in one conversation.

    Args:
        index: of the catalog that is talked about.
        view: what the user sees; turns in it are taken in.
    """

    def __init__(self, index: FacetIndex, view: View) -> None:
        self._index = index
        self._beliefs: dict[Facet, Belief] = {}
        self._turns: list[Turn] = []
        self.changes: list[BeliefChange] = []
        """Every piece of evidence that moved something, in order."""
        for attribute in view.target_attributes:
            self._set(index.facet(attribute), FROM_GOAL, Source.GOAL, None)
        general = read_preferences(index, view.general_preferences)
        for facets, direction in ((general.wants, 1), (general.dislikes, -1)):
            for facet in facets:
                if facet not in self._beliefs:  # what is looked for today goes before what is liked in general
                    self._set(facet, direction * FROM_PERSONA, Source.PERSONA, None)
        for turn in view.turns:
            self.take(turn)

    @property
    def beliefs(self) -> tuple[Belief, ...]:
        """All beliefs, in the order in which they came up."""
        return tuple(self._beliefs.values())

    def get(self, facet: Facet) -> Belief | None:
        """The belief about a facet, if there is one."""
        return self._beliefs.get(facet)

    def take(self, turn: Turn) -> None:
        """Take in the next turn, of either side."""
        place = len(self._turns)
        before = self._turns[-1] if self._turns else None
        self._turns.append(turn)
        if turn.role is Role.RECOMMENDER:
            if turn.action is Action.RECOMMEND:
                self._hear(self._items(turn), place)
            return
        said = stances_of(self._index, turn, before)
        for facet in said.wants:
            self._move(facet, 1, Source.SAID, place)
            if facet.kind in EXCLUSIVE:
                wanted = {f for f in said.wants if f.kind == facet.kind}
                for other in [b.facet for b in self.beliefs if b.kind == facet.kind and b.valence > 0]:
                    if other not in wanted:
                        self._move(other, -1, Source.SAID, place)
        for facet in said.dislikes:
            self._move(facet, -1, Source.SAID, place)
        for item in accepted_items(self._index, self._turns):
            for belief in self.beliefs:
                if belief.value in item.attributes.get(belief.kind, ()):
                    self._move(belief.facet, 1, Source.ACCEPTED, place)
                elif contradicts(item, belief.facet):
                    self._move(belief.facet, -1, Source.ACCEPTED, place)

    def _hear(self, items: Sequence[Item], place: int) -> None:
        for item in items:
            for belief in self.beliefs:
                if not belief.is_held and contradicts(item, belief.facet, wanted=belief.valence > 0):
                    self._move(belief.facet, -belief.valence, Source.HEARD, place)

    def _items(self, turn: Turn) -> list[Item]:
        return [item for m in turn.items if (item := self._index.catalog.get(m.item_id)) is not None]

    def _move(self, facet: Facet, direction: int, source: Source, turn: int) -> None:
        old = self._beliefs.get(facet)
        before = 0.0 if old is None else old.strength
        self._set(facet, before + RATES[source] * (direction - before), source, turn)

    def _set(self, facet: Facet, strength: float, source: Source, turn: int | None) -> None:
        old = self._beliefs.get(facet)
        self._beliefs[facet] = Belief(
            kind=facet.kind,
            value=facet.value,
            valence=1 if strength >= 0 else -1,
            confidence=min(abs(strength), 1.0),
            source=source,
            source_turn=turn,
        )
        self.changes.append(
            BeliefChange(
                kind=facet.kind,
                value=facet.value,
                source=source,
                turn=turn,
                before=None if old is None else old.strength,
                after=strength,
            )
        )


def belief_text(state: PreferenceState) -> str | None:
    """A preference state in words: aspect, valence and confidence in tenths, the surest first; None where nothing is held.

    For example "crime +9, 1990s +9, horror -5".
    """
    told = sorted((b for b in state.beliefs if b.confidence >= LEAST_TOLD), key=lambda b: -b.confidence)[:MOST_TOLD]
    return ", ".join(f"{b.value} {'+' if b.valence > 0 else '-'}{round(10 * b.confidence)}" for b in told) or None


class BeliefCues:
    """Tells a user before each turn what it holds (`cues.CueSource`).

    Args:
        index: of the catalog that is talked about.
    """

    def __init__(self, index: FacetIndex) -> None:
        self._index = index

    def traits(self, view: View, seed: int) -> Parts:
        """None: what is held changes."""
        del view, seed
        return ()

    def parts(self, view: View, seed: int) -> Parts:
        """The state after the View's turns."""
        del seed
        text = belief_text(PreferenceState(self._index, view))
        return () if text is None else ((BELIEF, text),)


def accepted_items(index: FacetIndex, turns: Sequence[Turn]) -> list[Item]:
    """The catalog's items that the last of some turns accepts; items that the catalog does not hold are not among them."""
    accepted = accepted_mentions(tuple(turns))
    return [item for m in accepted if (item := index.catalog.get(m.item_id)) is not None]


def names_wish(facet: Facet, wants: Sequence[Facet], text: str) -> bool:
    """Whether a turn expresses a wish: its facet is read or, where it is no catalog value, its words stand in the text."""
    if facet.kind != OTHER:
        return facet in wants
    return re.search(rf"(?<!\w){re.escape(facet.value)}(?!\w)", text, re.IGNORECASE) is not None
