"""What a recommender would reason, written by rules.

What the user said that it wants, which candidates have it, how well each fits, their order, and why the first is first.
Made of the turns spoken and of what the View shows of the candidates, and of nothing else; so the same rules write the traces
that a recommender learns from and stand in for the reasoning that the turns of a log lack.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from interplay.formats.reasoning_constraint import MOST_VALUES, MOST_WANTS
from interplay.formats.tags import MOST_SCORE
from interplay.simulation.beliefs import EXCLUSIVE, stances_of
from interplay.simulation.facets import Facet, FacetIndex
from interplay.titles import title_key
from interplay.types import Advice, Catalog, Item, Listed, Match, Preference, Reasoning, Role, Turn

KINDS = ("genre", "decade", "mood")
"""Kinds of attributes that are shown beside a candidate, unless a trained model's card says otherwise."""
MOST_SHOWN = 6
"""Values that are shown beside a candidate."""
MOST_LIKED = 2
"""Genres that the titles a user has named stand for."""


def shown_values(item: Item, kinds: Collection[str] = KINDS) -> tuple[str, ...]:
    """Attribute values of an item, at most MOST_SHOWN, kind by kind; with its decade ("1990s") where the year is known.

    >>> shown_values(Item(id="1", title="Heat", year=1995, attributes={"genre": ("crime", "drama")}))
    ('crime', 'drama', '1990s')
    """
    values: dict[str, None] = {}
    for kind in kinds:
        own = item.attributes.get(kind, ())
        if kind == "decade" and not own and item.year is not None:
            own = (f"{item.year // 10 * 10}s",)
        values.update(dict.fromkeys(own))
    return tuple(values)[:MOST_SHOWN]


@dataclass(slots=True, frozen=True)
class Wish:
    """A preference and the turn that supports it."""

    facet: Facet
    turn: int
    """Index of the user's turn that said it last."""


class Wishes:
    """What a user wants by its turns so far: at most MOST_WANTS, the latest, in the order in which they came up last.

    Wants and dislikes are read by `beliefs.stances_of`. Titles that the user brought up by itself count as liked: the genres
    that most of them have are wanted too.

    Args:
        index: of the catalog that is talked about.
    """

    def __init__(self, index: FacetIndex) -> None:
        self._index = index
        self._wanted: dict[Facet, int] = {}
        self._liked: Counter[Facet] = Counter()
        self._liked_at = 0
        self._offered: set[str] = set()
        self._before: Turn | None = None
        self._place = 0

    @property
    def now(self) -> tuple[Wish, ...]:
        """The wishes after the turns taken in."""
        likes = [facet for facet, _ in self._liked.most_common() if facet not in self._wanted][:MOST_LIKED]
        both = [Wish(facet, self._liked_at) for facet in likes] + [Wish(f, place) for f, place in self._wanted.items()]
        return tuple(both[-MOST_WANTS:])

    def take(self, turn: Turn) -> None:
        """Take in the next turn, of either side."""
        place, before = self._place, self._before
        self._place, self._before = place + 1, turn
        if turn.role is Role.RECOMMENDER:
            self._offered.update(title_key(title) for title in turn.titles)
            return
        said = stances_of(self._index, turn, before)
        for facet in said.wants:
            for other in [f for f in self._wanted if f == facet or (f.kind in EXCLUSIVE and f.kind == facet.kind)]:
                del self._wanted[other]
            self._wanted[facet] = place
        for facet in said.dislikes:
            self._wanted.pop(facet, None)
            self._liked.pop(facet, None)
        for title, mention in zip(turn.titles, turn.items, strict=True):
            item = self._index.catalog.get(mention.item_id)
            if item is not None and title_key(title) not in self._offered:
                self._liked.update(Facet("genre", value) for value in item.attributes.get("genre", ()))
                self._liked_at = place


def wishes_of(index: FacetIndex, turns: Sequence[Turn]) -> tuple[Wish, ...]:
    """What the user wants by all of the turns so far; see `Wishes`."""
    found = Wishes(index)
    for turn in turns:
        found.take(turn)
    return found.now


@dataclass(slots=True)
class Reasoner:
    """Writes reasoning by rules.

    Args:
        catalog: the items that are talked about.
        kinds: see `KINDS`.
        list_length: titles of the ranked list.
    """

    catalog: Catalog
    kinds: tuple[str, ...] = KINDS
    list_length: int = 10
    index: FacetIndex = field(init=False)
    _item_of: dict[str, Item] = field(init=False)

    def __post_init__(self) -> None:
        self.index = FacetIndex(self.catalog)
        self._item_of = {}
        for item in self.catalog:
            self._item_of.setdefault(item.label, item)

    @property
    def labels_of_catalog(self) -> tuple[str, ...]:
        """How the items of the catalog are written, each once."""
        return tuple(self._item_of)

    def attributes(self, titles: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """What is shown beside candidates, given by `Item.label`."""
        return tuple(shown_values(self._item_of[t], self.kinds) if t in self._item_of else () for t in titles)

    def wishes(self, turns: Sequence[Turn]) -> tuple[Wish, ...]:
        """What the user wants by its turns so far; see `Wishes`."""
        return wishes_of(self.index, turns)

    def reason(self, wishes: Sequence[Wish], advice: Advice, first: Sequence[str] = ()) -> Reasoning:
        """The reasoning for a turn.

        Args:
            wishes: what is wanted by the turns before it.
            advice: the candidates and what is shown of them.
            first: titles that the list begins with, those of them that are candidates; behind them, and without them, the
                order is by score and then that of the candidates.
        """
        values = {wish.facet.value for wish in wishes}
        shown = advice.attributes or ((),) * len(advice.candidates)
        matching = [tuple(v for v in own if v in values)[:MOST_VALUES] for own in shown]
        scores = [min(len(own), MOST_SCORE) for own in matching]
        titles = advice.candidates
        put_first = [titles.index(title) for title in dict.fromkeys(first) if title in titles]
        rest = sorted((n for n in range(len(titles)) if n not in put_first), key=lambda n: -scores[n])
        order = [*put_first, *rest][: self.list_length]
        return Reasoning(
            preferences=tuple(Preference(kind=wish.facet.kind, value=wish.facet.value) for wish in wishes),
            matches=tuple(Match(title=titles[n], values=own, score=scores[n]) for n, own in enumerate(matching) if own),
            ranking=tuple(self._listed(titles[n]) for n in order),
            explanation=", ".join(matching[order[0]]) if order else "",
            candidates=titles,
        )

    def fill(self, turns: Sequence[Turn], role: Role, advice: Sequence[Advice]) -> tuple[Turn, ...]:
        """The turns with reasoning before those of a role that have none; each list begins with what its turn names.

        Args:
            turns: of a conversation, from the first.
            role: whose turns.
            advice: of these turns; those without are left as they are.
        """
        by_turn = {a.turn: a for a in advice}
        out = list(turns)
        wishes = Wishes(self.index)
        for place, turn in enumerate(turns):
            if turn.role is role and turn.reasoning is None and place in by_turn:
                reasoning = self.reason(wishes.now, by_turn[place], self.labels(turn))
                out[place] = turn.model_copy(update={"reasoning": reasoning})
            wishes.take(turn)
        return tuple(out)

    def labels(self, turn: Turn) -> tuple[str, ...]:
        """The titles that a turn names, as candidates are written (`Item.label`)."""
        items = [(self.catalog.get(m.item_id), title) for title, m in zip(turn.titles, turn.items, strict=True)]
        return tuple(title if item is None else item.label for item, title in items)

    def _listed(self, title: str) -> Listed:
        item = self._item_of.get(title)
        return Listed(title=title, item_id=None if item is None else item.id)
