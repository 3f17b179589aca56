"""What is said about items in words: a Catalog's attribute values, found in running text by keyword rules.

The agenda-based user and the rule-based recommender talk about facets: pairs of an attribute's kind and one of its
values, ("genre", "crime"). Reading is a longest-match look-up of word sequences with a few rules for negation; it is
meant for the wording of those two agents and is a modest listener to anybody else.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from interplay.simulation.wording import load_wording
from interplay.titles import title_key
from interplay.types import Catalog, Item, Mention

KINDS = ("genre", "decade", "mood", "theme", "director", "cast")
"""The kinds of attributes that the two agents have words for, in the order in which an ambiguous value is read."""

OTHER = "other"
"""Kind of a wish that is no value of the catalog: it can be said, but no item can be judged by it."""

_TOKEN = re.compile(r"[^\W_]+|[.,;!?()]")
_CUTS = frozenset(".,;!?()")
_LONGEST = 5
_NEGATIONS = frozenset(
    [
        "not",
        "no",
        "isnt",
        "dont",
        "doesnt",
        "didnt",
        "arent",
        "wasnt",
        "cant",
        "wont",
        "never",
        "without",
        "tired",
        "sick",
        "less",
        "too",
        "skip",
        "hate",
        "nothing",
        "aint",
        "instead_of",
        "rather_than",
        "enough_of",
    ]
)
# Words after which a new wish begins even where no comma was typed.
_FRESH_STARTS = frozenset(
    [
        "but",
        "more",
        "rather",
        "something",
        "prefer",
        "looking",
        "hoping",
        "id",
        "ill",
        "lets",
        "instead",
        "give",
        "make",
        "needs",
    ]
)
_THEME_CUES = frozenset(["about", "around", "involving", "featuring", "with", "theme", "themes", "based"])
_THEME_NOUNS = frozenset(["movie", "movies", "film", "films", "story", "stories", "theme", "themes", "plot"])
_LINKS = frozenset(["and", "or", "nor"])
_FILLERS = frozenset(
    [
        *_THEME_NOUNS,
        "genre",
        "genres",
        "stuff",
        "thing",
        "things",
        "one",
        "ones",
        "flick",
        "flicks",
        "just",
        "really",
        "definitely",
        "usually",
        "honestly",
        "today",
        "tonight",
    ]
)
"""Words that may stand between a facet and the negation that is meant for it."""
_NOT_AFTER = re.compile(
    r"(?:is|are|ai|was|were)(?: ?nt| not| never| no longer) (?:really |exactly |quite |usually |so much |necessarily )*"
    r"(?:my (?!only\b|main\b|first\b)\w+(?: of \w+)?|for (?:me|us)\b|doing it for \w+|up my \w+"
    r"|(?:what|something) (?:i|im|ive|we|were) (?:am |was |had |really )*(?:want|wanted|like|enjoy|need|needed|prefer|meant|"
    r"asked for|looking for|hoping for|after|into|in mind|in the mood for|feel like)\b)"
    r"|(?:do|does|did) ?(?:nt|not) (?:really |quite |usually )*"
    r"(?:do (?:it|much) for \w+|interest \w+|appeal(?: to \w+)?|excite \w+|work for \w+|grab \w+)"
    r"|(?:i|we) (?:really |just |usually )*(?:(?:do|could|would) ?(?:nt|not)|cant|can ?not|wont|never) (?:really |ever )*"
    r"(?:like|enjoy|want|watch|stand|care for|get into|do)(?: much| at all| anymore| today| tonight)*(?= [.,;!?()]|$)"
    r"|(?:i|we) (?:can|could) (?:do|live) without(?= [.,;!?()]|$)"
)
"""A negation behind what it is meant for ("crime isn't my thing", "horror I can't stand"), in words as `read` has them."""
_NEWER = ("too old", "newer", "more recent", "more modern", "old for me", "older than i")
_OLDER = ("too new", "too recent", "older", "more classic", "new for me", "newer than i")


class Facet(NamedTuple):
    """One attribute value."""

    kind: str
    value: str


@dataclass(slots=True, frozen=True)
class Heard:
    """What a text says about facets."""

    wants: tuple[Facet, ...] = ()
    dislikes: tuple[Facet, ...] = ()
    newer: bool = False
    """Something newer than the last proposal is asked for."""
    older: bool = False
    """Something older than the last proposal is asked for."""


@dataclass(slots=True)
class FacetIndex:
    """The facets of a Catalog and the items that have them.

    Args:
        catalog: items whose `attributes` may have the kinds `KINDS`; other kinds can be judged but are not talked about.
    """

    catalog: Catalog
    items: tuple[Item, ...] = field(init=False)
    _having: dict[Facet, frozenset[int]] = field(init=False)
    _words: dict[tuple[str, ...], tuple[Facet, ...]] = field(init=False)
    _position: dict[str, int] = field(init=False)
    careful: frozenset[str] = field(init=False)
    """Words, in lower case, that reading depends on."""

    def __post_init__(self) -> None:
        self.items = tuple(self.catalog)
        self._position = {item.id: i for i, item in enumerate(self.items)}
        having: dict[Facet, set[int]] = {}
        for i, item in enumerate(self.items):
            for facet in facets_of(item):
                having.setdefault(facet, set()).add(i)
        self._having = {facet: frozenset(places) for facet, places in having.items()}
        self._words = self._vocabulary()
        cues = ["instead", "than", "enough", "newer", "older", "recent", "modern", "classic", "old", "new"]
        vocabulary = {word for key in self._words for word in key}
        self.careful = frozenset({*vocabulary, *_NEGATIONS, *_FRESH_STARTS, *_THEME_CUES, *_THEME_NOUNS, *cues})

    def _vocabulary(self) -> dict[tuple[str, ...], tuple[Facet, ...]]:
        wording = load_wording("facets")
        words: dict[tuple[str, ...], dict[Facet, None]] = {}
        plain = {title_key(f.value) for f in self._having if f.kind in ("genre", "mood")}
        for facet in self._having:
            # Names of one word ("Cher") are too often everyday words; "war" and "family" are genres before themes.
            if facet.kind not in KINDS or (facet.kind == "theme" and title_key(facet.value) in plain):
                continue
            forms = [facet.value]
            if facet.kind == "decade":
                forms += [facet.value[2:], *wording.get(f"decade.{facet.value}")]
            elif facet.kind in ("genre", "mood", "theme"):
                forms += wording.get(f"{facet.kind}.{facet.value}")
            for form in forms:
                key = tuple(_TOKEN.findall(_fold(form)))
                if key and (len(key) > 1 or facet.kind not in ("director", "cast")):
                    words.setdefault(key, {})[facet] = None
        for facets in words.values():
            # "sports" is how the genre sport is said, whatever themes there are.
            if any(f.kind in ("genre", "mood") for f in facets):
                for facet in [f for f in facets if f.kind == "theme"]:
                    del facets[facet]
        return {key: tuple(facets) for key, facets in words.items() if facets}

    def facet(self, value: str) -> Facet:
        """The facet that a plain value ("1990s") means: the first of `KINDS` that has it, or kind `OTHER`."""
        for kind in KINDS:
            if Facet(kind, value) in self._having:
                return Facet(kind, value)
        found = [f for f in self._having if f.value.casefold() == value.casefold()]
        return min(found, key=lambda f: KINDS.index(f.kind) if f.kind in KINDS else len(KINDS), default=Facet(OTHER, value))

    def having(self, facets: Iterable[Facet]) -> frozenset[int]:
        """Positions in `items` of the items that have all of the facets."""
        found: frozenset[int] | None = None
        for facet in facets:
            places = self._having.get(facet, frozenset())
            found = places if found is None else found & places
        return frozenset(range(len(self.items))) if found is None else found

    def has(self, item: Item, facet: Facet) -> bool:
        """Whether the item has the facet; a facet that is no catalog value (kind `OTHER`) can't be judged and counts as had."""
        return facet.kind == OTHER or self._position[item.id] in self._having.get(facet, frozenset())

    def sayable(self, facet: Facet) -> bool:
        """Whether `read` finds the facet when it is named."""
        return facet in self._words.get(tuple(_TOKEN.findall(_fold(facet.value))), ())

    def values(self, kind: str) -> tuple[str, ...]:
        """All values of a kind, in the order of the catalog."""
        return tuple(f.value for f in self._having if f.kind == kind)

    def read(self, text: str, mentions: Sequence[Mention] = (), asked: str | None = None) -> Heard:
        """What a turn says about facets.

        Args:
            text: the turn's text.
            mentions: titles in it; their words are not read.
            asked: the kind that the other side has just asked for, so that a bare theme ("pirates") is understood.
        """
        for mention in reversed(mentions):
            text = f"{text[: mention.start]} ; {text[mention.end :]}"
        folded = _fold(text).replace("instead of", "instead_of").replace("rather than", "rather_than")
        tokens = re.findall(r"instead_of|rather_than|[^\W_]+|[.,;!?()]", folded.replace("enough of", "enough_of"))
        wants: dict[Facet, None] = {}
        dislikes: dict[Facet, None] = {}
        negated, i = False, 0
        turned_down = 0
        while i < len(tokens):
            token = tokens[i]
            facets, length = self._longest(tokens, i)
            facets = [f for f in facets if f.kind != "theme" or asked == "theme" or _theme_is_meant(tokens, i, length)]
            if facets:
                turned_down = max(turned_down, self._negation_after(tokens, i))
                (dislikes if negated or i < turned_down else wants).update(dict.fromkeys(facets))
                i += length
                continue
            if i < turned_down:
                i += 1
                continue
            if token in _CUTS or token in _FRESH_STARTS:
                negated = False
            elif token in _NEGATIONS:
                negated = True
            i += 1
        flat = " ".join(tokens)
        return Heard(
            tuple(wants),
            tuple(f for f in dislikes if f not in wants),
            newer=any(cue in flat for cue in _NEWER),
            older=any(cue in flat for cue in _OLDER),
        )

    def _negation_after(self, tokens: list[str], start: int) -> int:
        """Where the words end that turn down the facet at `start`, and what is named together with it; 0 where none do."""
        # In a list that begins a sentence commas link too; elsewhere a comma may end a wish: "a drama, crime isn't my thing".
        begins = start == 0 or tokens[start - 1] in ".;!?"
        i = start
        while i < len(tokens):
            facets, length = self._longest(tokens, i)
            if facets:
                i += length
            elif tokens[i] in _LINKS or tokens[i] in _FILLERS or (begins and tokens[i] == ","):
                i += 1
            else:
                break
        match = _NOT_AFTER.match(" ".join(tokens[i:]))
        return 0 if match is None else i + len(match[0].split())

    def _longest(self, tokens: list[str], start: int) -> tuple[list[Facet], int]:
        for length in range(min(_LONGEST, len(tokens) - start), 0, -1):
            facets = self._words.get(tuple(tokens[start : start + length]))
            if facets:
                return _one_kind_of_person(facets, tokens[max(0, start - 2) : start]), length
        return [], 1


def facets_of(item: Item) -> list[Facet]:
    """All facets of an item."""
    return [Facet(kind, value) for kind, values in item.attributes.items() for value in values]


def by_kind(facets: Iterable[Facet]) -> Mapping[str, list[str]]:
    """The values of each kind."""
    out: dict[str, list[str]] = {}
    for facet in facets:
        out.setdefault(facet.kind, []).append(facet.value)
    return out


def asked_kind(text: str) -> str | None:
    """The kind that the last question of a turn asks for; None when it leaves that open."""
    # What was repeated before the question ("A movie about nature, nice. What mood?") is not asked.
    sentences = [s for s in re.findall(r"[^.!?]+[.!?]*", text) if "?" in s]
    return _first_cue("asked", sentences[-1] if sentences else text, {"open"})


def asked_fact(text: str) -> str | None:
    """What a question about an item asks for: "director", "cast", "plot", "good", "year", or None."""
    return _first_cue("fact", text, set())


def _first_cue(table: str, text: str, ignored: set[str]) -> str | None:
    low = text.casefold().replace("’", "'")
    for key, cues in load_wording("facets").phrasings.items():
        if key.startswith(f"{table}.") and any(cue in low for cue in cues):
            kind = key.removeprefix(f"{table}.")
            return None if kind in ignored else kind
    return None


def _one_kind_of_person(facets: Sequence[Facet], before: Sequence[str]) -> list[Facet]:
    """Of somebody who directs and acts, what the words before the name say."""
    kinds = {f.kind for f in facets}
    if not {"director", "cast"} <= kinds:
        return list(facets)
    other = "cast" if {"by", "director"}.intersection(before) else "director"
    return [f for f in facets if f.kind != other]


def _theme_is_meant(tokens: list[str], start: int, length: int) -> bool:
    before = tokens[max(0, start - 3) : start]
    after = tokens[start + length] if start + length < len(tokens) else ""
    return bool(_THEME_CUES.intersection(before)) or after in _THEME_NOUNS


def _fold(text: str) -> str:
    flat = unicodedata.normalize("NFKD", text.casefold())
    flat = "".join(c for c in flat if not unicodedata.combining(c))
    return re.sub(r"['’`]", "", flat).replace("-", " ")
