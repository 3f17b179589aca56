"""Conversations as a ranker reads them: words and items of the turns so far, as arrays; and the cases it is measured on.

Nothing after the turn to be spoken is read, and nothing of the scenario: no persona, no target, no form filled in later.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from interplay.types import Catalog, Dialogue, Item, Role, Turn

MAX_WORDS, MAX_ITEMS = 128, 32
"""What is kept of a context: its latest words, and its latest distinct items."""
NUM_SLOTS = 12
"""Places that a word or an item can have: six steps back in time, times two speakers."""

Ints = NDArray[np.int32]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
STOP_WORDS = frozenset(
    "i you a the to and it is of in that was for have my me so do what but on be this with are not like one just yes no".split()  # noqa: SIM905
)
NAMED_ATTRIBUTES = ("genre", "director", "author")
"""Attributes whose values are words of their own ("genre=comedy"), for items and for the contexts that name the items."""
MAX_VALUES = 3
"""Values of an attribute that become such words."""


def plain_words(text: str) -> list[str]:
    """The words of a text in lower case, without the most common ones.

    >>> plain_words("I'd like a scary one!")
    ["i'd", 'scary']
    """
    return [w for w in _WORD.findall(text.lower().replace("’", "'")) if w not in STOP_WORDS]


def attribute_words(item: Item) -> list[str]:
    """Values of an item's attributes as words of their own."""
    return [f"{name}={value}" for name in NAMED_ATTRIBUTES for value in item.attributes.get(name, ())[:MAX_VALUES]]


@dataclass(slots=True, frozen=True)
class Case:
    """One recommender turn that names items: what a ranker is asked, and what was right."""

    dialogue: str
    """Which dialogue: the cluster for intervals."""
    turn: int
    """Index of the recommender turn."""
    context: tuple[Turn, ...]
    """All turns before it."""
    gold: tuple[str, ...]
    """Ids of the items it names, in order, each once."""
    mentioned: frozenset[str]
    """Ids of the items that the context names."""


def cases_of(dialogue: Dialogue, key: str) -> list[Case]:
    """The cases of a dialogue: one per recommender turn with at least one linked item.

    Args:
        dialogue: a log.
        key: what the cases call it.
    """
    out = []
    mentioned: set[str] = set()
    for index, turn in enumerate(dialogue.turns):
        named = tuple(dict.fromkeys(m.item_id for m in turn.items if m.item_id is not None))
        if turn.role is Role.RECOMMENDER and named:
            out.append(Case(key, index, dialogue.turns[:index], named, frozenset(mentioned)))
        mentioned.update(named)
    return out


@dataclass(slots=True, frozen=True)
class Contexts:
    """Contexts as arrays, one row each; the latest word or item comes first and the rest is padding."""

    words: Ints
    """Numbers of words from 1; 0 is padding; shape (num_contexts, MAX_WORDS)."""
    word_slots: Ints
    """min(turns back, 5) * 2 + (1 if the recommender said it); same shape."""
    items: Ints
    """Rows of the catalog, each once; `num_items` is padding; shape (num_contexts, MAX_ITEMS)."""
    item_slots: Ints
    """min(items named after it, 5) * 2 + (1 if the recommender named it last); same shape."""
    ages: Ints
    """Turns since an item was last named, from 1; same shape."""
    speakers: Ints
    """Who named an item: 1 the user, 2 the recommender, 3 both; same shape."""
    counts: Ints
    """How often an item was named; same shape."""

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: slice | NDArray[np.integer]) -> Self:
        """Some of the contexts."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))


class Reader:
    """Turns texts into numbers: the words that are known, and which row of the catalog an id is.

    Args:
        items: the catalog's items in order, with everything known of them.
        words: the known words; word i has the number i + 1.
    """

    def __init__(self, items: Sequence[Item], words: Sequence[str]) -> None:
        self.words = list(words)
        self.number = {w: n for n, w in enumerate(self.words, start=1)}
        self.row = {item.id: n for n, item in enumerate(items)}
        self.num_items = len(items)
        self._named = [self._numbers([*plain_words(i.title), *attribute_words(i)]) for i in items]

    @property
    def num_words(self) -> int:
        """Numbers of words, the padding included."""
        return len(self.words) + 1

    def _numbers(self, words: Iterable[str]) -> list[int]:
        return [n for n in map(self.number.get, words) if n is not None]

    def read(self, contexts: Sequence[Sequence[Turn]]) -> Contexts:
        """The contexts as arrays. What is no known word and no item of the catalog is passed over."""
        shape_words, shape_items = (len(contexts), MAX_WORDS), (len(contexts), MAX_ITEMS)
        words, word_slots = np.zeros(shape_words, np.int32), np.zeros(shape_words, np.int32)
        items = np.full(shape_items, self.num_items, np.int32)
        item_slots, ages, speakers, counts = (np.zeros(shape_items, np.int32) for _ in range(4))
        said: dict[int, tuple[list[int], list[int]]] = {}  # contexts of one dialogue share their turns
        for n, turns in enumerate(contexts):
            used = 0
            places: dict[int, int] = {}
            num_named = 0
            for back, turn in enumerate(reversed(turns)):
                if id(turn) not in said:
                    said[id(turn)] = self._hear(turn)
                numbers, rows = said[id(turn)]
                by_recommender = int(turn.role is Role.RECOMMENDER)
                room = numbers[: MAX_WORDS - used]
                words[n, used : used + len(room)] = room
                word_slots[n, used : used + len(room)] = min(back, 5) * 2 + by_recommender
                used += len(room)
                for row in reversed(rows):
                    at = places.setdefault(row, len(places))
                    if at < MAX_ITEMS:
                        if items[n, at] == self.num_items:
                            items[n, at], ages[n, at] = row, back + 1
                            item_slots[n, at] = min(num_named, 5) * 2 + by_recommender
                        speakers[n, at] |= 1 + by_recommender
                        counts[n, at] += 1
                    num_named += 1
        return Contexts(words, word_slots, items, item_slots, ages, speakers, counts)

    def _hear(self, turn: Turn) -> tuple[list[int], list[int]]:
        rows = [self.row[m.item_id] for m in turn.items if m.item_id in self.row]
        numbers = self._numbers(plain_words(_outside(turn)))
        for row in rows:
            numbers += self._named[row]
        return numbers, rows


def _outside(turn: Turn) -> str:
    """The text without its linked titles: those come back as the words of the item."""
    parts, at = [], 0
    for mention in turn.items:
        if mention.item_id is not None:
            parts.append(turn.text[at : mention.start])
            at = mention.end
    return " ".join([*parts, turn.text[at:]])


def document(item: Item) -> list[str]:
    """Everything known of an item as words; title, genre, director, author and tags twice."""
    words = 2 * plain_words(item.title) + plain_words(item.text)
    for name, values in item.attributes.items():
        twice = 2 if name in (*NAMED_ATTRIBUTES, "tag") else 1
        words += twice * plain_words(" ".join(values))
    if item.year is not None:
        words.append(str(item.year))
    return words + 2 * attribute_words(item)


def known_words(items: Sequence[Item], contexts: Sequence[Sequence[Turn]], min_count: int = 2) -> list[str]:
    """The words worth knowing: in at least `min_count` distinct turns of the contexts, or in at least three items.

    Args:
        items: of the catalog.
        contexts: of the training cases.
        min_count: see above.
    """
    in_turns: dict[str, int] = {}
    turns = {id(t): t for context in contexts for t in context}
    by_id = {i.id: i for i in items}
    for turn in turns.values():
        named = [by_id[m.item_id] for m in turn.items if m.item_id in by_id]
        extra = [w for i in named for w in (*plain_words(i.title), *attribute_words(i))]
        for word in {*plain_words(_outside(turn)), *extra}:
            in_turns[word] = in_turns.get(word, 0) + 1
    in_items: dict[str, int] = {}
    for item in items:
        for word in set(document(item)):
            in_items[word] = in_items.get(word, 0) + 1
    return sorted({w for w, n in in_turns.items() if n >= min_count} | {w for w, n in in_items.items() if n >= 3})


def enriched(catalog: Catalog, known: Mapping[str, Item]) -> list[Item]:
    """The items of a catalog in order, with what another catalog knows of them; their own values come first.

    Args:
        catalog: whose items are ranked.
        known: item ids of `catalog` to what is known elsewhere.
    """
    out = []
    for item in catalog:
        other = known.get(item.id)
        if other is not None:
            names = dict.fromkeys((*item.attributes, *other.attributes))
            attributes = {n: tuple(dict.fromkeys((*item.attributes.get(n, ()), *other.attributes.get(n, ())))) for n in names}
            update = {"attributes": attributes, "text": item.text or other.text, "year": item.year or other.year}
            out.append(item.model_copy(update=update))
        else:
            out.append(item)
    return out
