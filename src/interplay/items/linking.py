"""Which item a text means: titles given as such, and titles found in running text.

A title is looked up by `names.name_words` in a prefix tree of titles, aliases and the parts by which long titles are named.
In running text a match alone is no proof ("it's a thriller"), so evidence is added up in powers of ten: how unlikely the
words are as ordinary words (`ordinary.surprise`), capitals, quotes, a year, what stands before and after, how well known the
item is. `ACCEPT` is the least sum that makes a link. The weights were set by hand on the training part of INSPIRED.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interplay.errors import MissingExtra
from interplay.items.names import ARTICLES, BEFORE_A_NUMBER, Word, base_titles, fold, forms, name_words, read_title, words_of
from interplay.items.ordinary import counts, surprise
from interplay.types import Catalog, Item

How = Literal["exact", "normalised", "alias", "part", "fuzzy", "none"]
ACCEPT = 6.2
"""Evidence (powers of ten) from which a match in running text is a link."""
MIN_RATIO = 85.0
"""Least similarity (0 to 100) of a misspelt title to the one it is taken for."""
_TOO_CLOSE = 2.0
"""Two titles whose similarities differ by less are equally good readings of a misspelling."""
_SHORT, _MIDDLE, _LONG = 5, 7, 8
"""Words shorter than the first are not corrected, nor words of other titles shorter than the second; from the third on two
letters may differ instead of one."""

_YEAR_AFTER = re.compile(r"\s*[(\[]\s*((?:1[89]|20)\d\d)\b[^)\]]{0,12}[)\]]")
_BARE_YEAR_AFTER = re.compile(r",?\s+(?:(?:from|of|in)\s+)?((?:19|20)\d\d)\b(?!\s*(?:movies|films|s\b))")
_YEAR_BEFORE = re.compile(
    r"\b((?:19|20)\d\d)(?:'s)?\s+(?:(?:version|film|movie|remake|one|original|classic)\s+)?(?:of\s+|called\s+)?(?:the\s+)?$",
    re.IGNORECASE,
)
_OLDEST = re.compile(r"\b(?:original|old|older|classic)\s+$", re.IGNORECASE)
_NEWEST = re.compile(r"\b(?:new|newest|newer|latest|recent|remake of(?: the)?|live[- ]action)\s+$", re.IGNORECASE)
_STRONG = re.compile(
    r"\b(?:seen|saw|(?:re)?watch(?:ed|ing)?|recommend(?:ed)?|suggest(?:ed)?|called|titled|named|entitled|check(?:ed)? out"
    r"|heard of|such as|try|favou?rites? (?:is|are|was)|movie (?:is|was)|films? like|movies? like|read)\s+$",
    re.IGNORECASE,
)
_WEAK = re.compile(
    r"\b(?:like[ds]?|loved?|loves|enjoy(?:ed)?|about|thought|prefer|remember|maybe|perhaps|also|than|how about|what about)\s+$",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\b(?:in|from|at|near|to|into)\s+$", re.IGNORECASE)
_NUMBER_AFTER = re.compile(r"\s+(?:\d|II|III|IV|VI{0,3}|IX)\b(?!\s*(?:times?|years?|hours?|stars?|or\b))")
_STARRING = re.compile(r"\s*,?\s*(?:starring|directed by|by director)\b", re.IGNORECASE)
_SAID_OF_FILMS = re.compile(
    r"\s+(?:is|was|has|with|looks|sounds|movies?|films?|trailer|franchise|series|trilogy)\b", re.IGNORECASE
)
_KIND_AFTER = re.compile(r"\s+(?:movies?|films?|genre|stuff|flicks?|trailer)\b", re.IGNORECASE)
_DETERMINERS = frozenset(
    "a an my your his her our their this that these those some any no more other another every each good great".split()  # noqa: SIM905
)
_SENTENCE_BREAK = re.compile(r"[!?;\n|]|\.\.|\.\s")
_ABBREVIATIONS = frozenset({"mr", "mrs", "ms", "dr", "st", "v", "volume", "jr", "sr", "lt", "sgt", "part"})
_OPENING, _CLOSING = "\"“‘'*«", "\"”’'*»"
_PEOPLE = ("director", "cast", "writer", "actor", "author", "artist")
_END = ""
_KINDS: tuple[How, ...] = ("normalised", "alias", "part")


@dataclass(slots=True, frozen=True)
class Link:
    """What a stretch of text means."""

    start: int
    end: int
    """Offsets into the text; a year that follows in brackets is inside."""
    item_id: str | None
    """None: a title stands here, or seems to, but no item could be settled on."""
    how: How
    """How it was found; "exact" is letter by letter but for case."""
    why: str
    """In words: what decided, or why there is no link."""
    score: float
    """0 to 1: how sure; comparable between links of one Linker, not a probability."""
    candidates: tuple[str, ...] = ()
    """Ids of all items that the title may mean, the best first."""


@dataclass(slots=True, frozen=True)
class _Found:
    """A title in the tree that words of a text spell."""

    at: int
    num: int
    key: tuple[str, ...]
    corrected: bool


class Linker:
    """Finds the items of a catalog in text.

    Args:
        catalog: what may be found.
        aliases: other titles by item id.
        weights: how well known an item is, 1 for hardly; decides between items of one title, and counts as evidence where
            it is given. Without weights all are equal and the most recent is taken.
        year_tolerance: years by which a written year may differ from the item's.
        fuzzy: whether misspelt titles are found too.

    Raises:
        MissingExtra: `fuzzy` without rapidfuzz.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        aliases: Mapping[str, Sequence[str]] | None = None,
        weights: Mapping[str, float] | None = None,
        year_tolerance: int = 2,
        fuzzy: bool = True,
    ) -> None:
        self._catalog = catalog
        self._weights = weights or {}
        self._tolerance = year_tolerance
        self._entries: dict[tuple[str, ...], dict[str, int]] = {}
        self._tree: dict[str, Any] = {}
        self._corrections: dict[str, tuple[str, ...]] = {}
        self._fuzzy = _rapidfuzz() if fuzzy else None
        people: set[str] = set()
        for item in catalog:
            self._add_item(item, (aliases or {}).get(item.id, ()))
            for kind in _PEOPLE:
                people.update(item.attributes.get(kind, ()))
        folded = (tuple(fold(part) for part in name.split()) for name in people)
        self._people = {name for name in folded if len(name) > 1}
        self._buckets: dict[str, list[str]] = {}
        self._vocabulary = {w for key in self._entries for w in key}
        for word in sorted(self._vocabulary):
            if len(word) >= _SHORT:
                self._buckets.setdefault(word[0], []).append(word)
        self._spelled = [" ".join(key) for key in self._entries]
        self._keys = list(self._entries)

    # ---- the index ---------------------------------------------------------------------------------------------------

    def _add_item(self, item: Item, aliases: Sequence[str]) -> None:
        for kind, title in [(0, item.title), *((1, a) for a in aliases)]:
            words = name_words(title)
            self._add(words, item.id, kind)
            for variant in _variants(title, words):
                self._add(variant, item.id, max(kind, 1))
        for part in base_titles(item.title):
            self._add(name_words(part), item.id, 2)

    def _add(self, words: tuple[str, ...], item_id: str, kind: int) -> None:
        if not words:
            return
        kinds = self._entries.get(words)
        if kinds is None:
            kinds = self._entries[words] = {}
            node = self._tree
            for word in words:
                node = node.setdefault(word, {})
            node[_END] = words
        kinds[item_id] = min(kinds.get(item_id, kind), kind)

    def _ids(self, key: tuple[str, ...], year: int | None = None) -> tuple[list[str], How]:
        """The items of a key; those it is the title of hide those it is only a part of, unless the year says otherwise."""
        kinds = self._entries.get(key, {})
        best = min(kinds.values(), default=0)
        if year is not None:
            fitting = [k for i, k in kinds.items() if self._fits(i, year)]
            best = min(fitting, default=best)
        return [i for i, k in kinds.items() if k == best], _KINDS[best]

    def _fits(self, item_id: str, year: int) -> bool:
        own = self._catalog[item_id].year
        return own is not None and abs(own - year) <= self._tolerance

    # ---- a title given as such ---------------------------------------------------------------------------------------

    def link(self, title: str, *, context: Collection[str] = ()) -> Link:
        """The item that a title means: "Matrix, The (1999)", "rocky II", "Termnator".

        Args:
            title: with or without a year; nothing else.
            context: ids of items spoken of before; of several items of one title, one of these is taken.
        """
        end = len(title)
        name, year, also = read_title(title)
        for written in (name, *also):
            key = name_words(written)
            if key in self._entries:
                return self._settled(title, 0, end, key, year, "", context, 1.0)
        bare = re.fullmatch(r"(.*\S)[\s,]+((?:19|20)\d\d)", name)
        if bare and year is None and name_words(bare[1]) in self._entries:
            return self._settled(title, 0, end, name_words(bare[1]), int(bare[2]), "", context, 1.0)
        if self._fuzzy is None or not name_words(name):
            return Link(0, end, None, "none", "no item has this title", 0.0)
        close = self._close_keys(name_words(name))
        if not close:
            return Link(0, end, None, "none", "no item has this title or one spelled alike", 0.0)
        ratio, key = close[0]
        rivals = [k for r, k in close[1:] if r > ratio - _TOO_CLOSE and set(self._ids(k)[0]) != set(self._ids(key)[0])]
        if rivals:
            spelled = ", ".join(repr(self._catalog[self._ids(k)[0][0]].title) for k in [key, *rivals][:4])
            ids = tuple(i for k in [key, *rivals] for i in self._ids(k)[0])
            return Link(0, end, None, "none", f"several titles are spelled alike: {spelled}", 0.0, ids)
        return self._settled(title, 0, end, key, year, "", context, ratio / 100, fuzzy=ratio)

    def close_titles(self, title: str, num: int = 5) -> list[Item]:
        """The items whose titles are spelled most alike, for "did you mean". At most `num`, best first; may be empty."""
        if self._fuzzy is None:
            return []
        query = " ".join(name_words(title))
        found = self._fuzzy.process.extract(
            query, self._spelled, scorer=self._fuzzy.fuzz.WRatio, score_cutoff=70, limit=4 * num
        )
        ids = dict.fromkeys(i for _, _, place in found for i in self._ids(self._keys[place])[0])
        return [self._catalog[i] for i in list(ids)[:num]]

    def _close_keys(self, words: tuple[str, ...]) -> list[tuple[float, tuple[str, ...]]]:
        if sum(map(len, words)) < _SHORT or self._fuzzy is None:
            return []
        numbers = sorted(w for w in words if w.isdigit())
        found = self._fuzzy.process.extract(
            " ".join(words), self._spelled, scorer=self._fuzzy.fuzz.ratio, score_cutoff=MIN_RATIO, limit=8
        )
        # "Rocky 2" and "Rocky 3" are spelled alike and are not misspellings of each other.
        close = [(ratio, self._keys[place]) for _, ratio, place in found]
        return [(ratio, key) for ratio, key in close if sorted(w for w in key if w.isdigit()) == numbers]

    # ---- running text ------------------------------------------------------------------------------------------------

    def find(self, text: str, *, context: Collection[str] = (), refused: bool = False) -> list[Link]:
        """The titles in a text, in order, not overlapping.

        Args:
            text: an utterance.
            context: ids of items spoken of before; their titles need less evidence.
            refused: also the matches that have too little evidence, with `item_id` None and the reason.

        Returns:
            Links with an item, and those where a title surely stands (quotes, a year) but none could be settled on.
        """
        words = words_of(text)
        if not words:
            return []
        spellings = [self._spellings(words, i) for i in range(len(words))]
        told = _case_of(text, words)
        out: list[Link] = []
        at = 0
        while at < len(words):
            step = 1
            passed: Link | None = None
            for found in self._matches(spellings, at):
                link, accepted = self._judge(text, words, found, told, out, context)
                if accepted:
                    out.append(link)
                    step = found.num
                    passed = None
                    break
                passed = passed or link
            if passed is not None and refused:
                out.append(passed)
            at += step
        return out if not refused else _not_overlapping(out)

    def _spellings(self, words: Sequence[Word], at: int) -> tuple[str, ...]:
        """The forms a word may have in a title, its own first."""
        own = words[at].form
        out = [own]
        number = forms((words[at - 1].form, own))[1] if at and own != "i" else own
        if at and words[at - 1].form in BEFORE_A_NUMBER:
            number = forms(("part", own))[1]
        if number != own:
            out.append(number)
        if self._fuzzy is not None and len(own) >= (_MIDDLE if own in self._vocabulary else _SHORT) and own not in counts():
            out += [w for w in self._corrected(own) if w != own]
        return tuple(out)

    def _corrected(self, word: str) -> tuple[str, ...]:
        if word not in self._corrections:
            assert self._fuzzy is not None
            bucket = self._buckets.get(word[0], ())
            allowed = 2 if len(word) >= _LONG else 1
            found = self._fuzzy.process.extract(
                word, bucket, scorer=self._fuzzy.distance.OSA.distance, score_cutoff=allowed, limit=3
            )
            self._corrections[word] = tuple(w for w, _, _ in found)
        return self._corrections[word]

    def _matches(self, spellings: Sequence[tuple[str, ...]], at: int) -> list[_Found]:
        """The titles that begin at a word, the longest first."""
        found: list[_Found] = []

        def walk(node: dict[str, Any], index: int, corrected: bool) -> None:
            key = node.get(_END)
            if key is not None:
                found.append(_Found(at, index - at, key, corrected))
            if index < len(spellings):
                for place, form in enumerate(spellings[index]):
                    below = node.get(form)
                    if below is not None and form != _END:
                        walk(below, index + 1, corrected or (place > 0 and not form.isdigit()))

        walk(self._tree, at, False)
        if len(found) > 1:
            found.sort(key=lambda f: (-f.num, f.corrected))
        return found

    def _judge(
        self, text: str, words: Sequence[Word], found: _Found, told: bool, links: Sequence[Link], context: Collection[str]
    ) -> tuple[Link, bool]:
        """The link that a match would be, and whether the evidence is enough."""
        first, last = words[found.at], words[found.at + found.num - 1]
        start, end = first.start, last.end
        before, after = text[max(0, start - 40) : start], text[end : end + 40]
        spaced = before.rstrip() + " "
        article = words[found.at - 1] if found.at and words[found.at - 1].form in ARTICLES else None
        if article is not None and text[article.end : start].strip():
            article = None
        lead = text[max(0, article.start - 40) : article.start] if article else before
        year, year_end, sure_year = self._year(found.key, before, after, end)
        ids, how = self._ids(found.key, year)
        item = self._catalog[ids[0]]
        titled = [self._catalog[i] for i in ids]
        own_article = any(t.title.casefold().startswith(article.form + " ") for t in titled) if article else False
        if article is not None and own_article:
            start = article.start

        # What no other evidence outweighs.
        gaps = [
            text[a.end : b.start] for a, b in zip(words[found.at :], words[found.at + 1 : found.at + found.num], strict=False)
        ]
        for gap, word in zip(gaps, words[found.at :], strict=False):
            ends = _SENTENCE_BREAK.search(gap)
            if ends and word.form not in _ABBREVIATIONS and ends.group()[0] not in item.title:
                return self._no(start, end, "the words belong to two sentences", 0.0, ids), False
        if year is None and _NUMBER_AFTER.match(after):
            return self._no(start, end, "a number follows that is not in the title", 0.0, ids), False
        person = self._person(words, found)
        if person:
            return self._no(start, end, f"part of the name {person!r}", 0.0, ids), False

        evidence: list[tuple[float, str]] = []
        rare = surprise(found.key)
        evidence.append((rare, "everyday words" if rare < ACCEPT - 1 else "rare words"))
        written = [text[w.start : w.end] for w in words[found.at : found.at + found.num]]
        quoted = bool(spaced.strip()) and before.rstrip()[-1:] in _OPENING and after[:1] in _CLOSING and before[-1:] != "s"
        if quoted and before[-1:] and before[-1:] in _OPENING:
            evidence.append((4.0, "in quotes"))
        if year is not None and sure_year:
            evidence.append((6.0, "with its year"))
        evidence.append(self._capitals(text, words, found, written, told))
        evidence += self._around(words, found, lead, after, article, own_article, item, rare)
        if (
            links
            and links[-1].item_id
            and re.fullmatch(r"\s*(?:,|,?\s*(?:and|or|&|,))\s*(?:the\s+)?", text[links[-1].end : start])
        ):
            evidence.append((1.5, "listed after another title"))
        if found.num == len(words) or (article is not None and found.num == len(words) - 1):
            evidence.append((2.0, "nothing else is said"))
        if any(i in context for i in ids):
            evidence.append((3.0, "spoken of before"))
        known = max((self._weights[i] for i in ids if i in self._weights), default=None)
        if known is not None:
            evidence.append((0.5 * math.log2(max(known, 1.0)) - 0.5, "well known" if known > 2 else "hardly known"))
        if how == "part":
            evidence.append((-2.0, "only part of a title"))
        if found.corrected:
            ratio = self._similar(words, found)
            if ratio < MIN_RATIO:
                return self._no(start, end, f"spelled {ratio:.0f} % like {item.title!r}", 0.0, ids), False
            evidence.append((-2.0 if found.num == 1 else -0.5, "misspelt"))
        if tuple(found.key) in self._people:
            evidence.append((-1.5, "also a person's name"))

        total = sum(points for points, _ in evidence)
        reasons = sorted((e for e in evidence if e[0]), key=lambda e: -abs(e[0]))
        if total < ACCEPT:
            against = [w for p, w in reasons if p < 0 or w == "everyday words"][:3] or ["no sign that a title is meant"]
            why = f"may mean {item.label!r}, but {' and '.join(against)} ({total:.1f} of {ACCEPT})"
            return self._no(start, end, why, _sure(total), ids), False
        for_it = ", ".join(w for p, w in reasons if p > 0)
        fuzzy = self._similar(words, found) if found.corrected else None
        link = self._settled(
            text, start, year_end, found.key, year, lead, context, _sure(total), fuzzy=fuzzy, told=for_it, sure_year=sure_year
        )
        certain = quoted or (year is not None and sure_year)
        return link, link.item_id is not None or certain

    @staticmethod
    def _no(start: int, end: int, why: str, score: float, ids: Sequence[str]) -> Link:
        return Link(start, end, None, "none", why, round(score, 3), tuple(ids))

    def _year(self, key: tuple[str, ...], before: str, after: str, end: int) -> tuple[int | None, int, bool]:
        """The year written beside a title, where the span then ends, and whether it is surely the film's."""
        inside = _YEAR_AFTER.match(after)
        if inside:
            return int(inside[1]), end + inside.end(), True
        for found, stop in ((_BARE_YEAR_AFTER.match(after), None), (_YEAR_BEFORE.search(before), end)):
            if found:
                year = int(found[1])
                # A bare number beside a title may be anything; it counts where it fits.
                if any(self._fits(i, year) for i in self._entries[key]):
                    return year, end + found.end() if stop is None else end, True
        return None, end, False

    def _person(self, words: Sequence[Word], found: _Found) -> str | None:
        """The name of a known person that the match is a part of."""
        after = found.at + found.num
        for low in range(max(0, found.at - 2), found.at + 1):
            for high in range(after, min(len(words), after + 2) + 1):
                if high - low > found.num and tuple(w.form for w in words[low:high]) in self._people:
                    return " ".join(w.form for w in words[low:high])
        return None

    @staticmethod
    def _capitals(text: str, words: Sequence[Word], found: _Found, written: Sequence[str], told: bool) -> tuple[float, str]:
        first = found.at == 0 or bool(re.search(r"[.!?:\n\"“]", text[words[found.at - 1].end : words[found.at].start]))
        # "I do" has a capital that says nothing.
        content = [w for w in written if (len(w) > 3 or w[0].isdigit()) and w[:2] not in ("I'", "I’")]
        content = content or [w for w in written if w != "I" and w[:2] not in ("I'", "I’")] or list(written)
        raised = [w for w in content if w[0].isupper() or w[0].isdigit()]
        if text.isupper():
            return 0.0, "capitals throughout"
        if len(raised) == len(content) and any(w[0].isupper() for w in written):
            if not first or sum(w[0].isupper() for w in content) > 1:
                return (2.5 if len(written) > 1 else 2.0), "capitals"
            return 0.5, "a capital at the beginning"
        if told and not any(w[0].isupper() for w in written):
            return (-1.2 if len(written) > 1 else -1.5), "no capitals"
        return 0.0, ""

    @staticmethod
    def _around(
        words: Sequence[Word],
        found: _Found,
        lead: str,
        after: str,
        article: Word | None,
        own_article: bool,
        item: Item,
        rare: float,
    ) -> Iterator[tuple[float, str]]:
        """Evidence from the words before and after."""
        single = found.num == 1
        if _PLACE.search(lead):
            yield -1.5, "after a word of place"
        elif _STRONG.search(lead):
            yield 1.5, "after a word of watching or recommending"
        elif _WEAK.search(lead):
            yield 0.8, "after a word of liking"
        if _STARRING.match(after):
            yield 1.5, "before a name"
        elif _KIND_AFTER.match(after):
            yield (1.0, "before 'movie'") if rare > ACCEPT - 1 else (-1.5, "a kind of movie")
        elif _SAID_OF_FILMS.match(after):
            yield 0.4, "something is said of it"
        before = words[found.at - 1].form if found.at else ""
        if article is not None and own_article:
            yield 0.7, "with its article"
        elif article is not None and article.form == "the" and single:
            yield -1.0, "with an article it has not"
        elif (before in _DETERMINERS) and (single or article is not None):
            yield -2.0, f"after {before!r}"
        elif article is None and single and item.title.casefold().startswith(("the ", "a ", "an ")):
            yield -0.7, "without its article"
        if single:
            neighbour = re.match(r"\s[A-Z][a-z]+", after) or re.search(r"\b(?:[A-Z][a-z]+|del|de|van)\s$", lead)
            if neighbour and fold(neighbour.group().strip()) not in counts():
                yield -3.0, "part of a longer name"

    def _similar(self, words: Sequence[Word], found: _Found) -> float:
        assert self._fuzzy is not None
        written = " ".join(w.form for w in words[found.at : found.at + found.num])
        return float(self._fuzzy.fuzz.ratio(written, " ".join(found.key)))

    # ---- which item --------------------------------------------------------------------------------------------------

    def _settled(
        self,
        text: str,
        start: int,
        end: int,
        key: tuple[str, ...],
        year: int | None,
        lead: str,
        context: Collection[str],
        score: float,
        *,
        fuzzy: float | None = None,
        told: str = "",
        sure_year: bool = True,
    ) -> Link:
        """The link to the one item that a title, its year and what was said before point at."""
        ids, how = self._ids(key, year)
        items = sorted((self._catalog[i] for i in ids), key=lambda i: (-self._weights.get(i.id, 1.0), -(i.year or 0), i.id))
        known = ", ".join(str(i.year or "year unknown") for i in sorted(items, key=lambda i: i.year or 0))
        why = told
        share = 1.0
        if year is not None and sure_year:
            near = [i for i in items if i.year is not None and abs(i.year - year) <= self._tolerance]
            near = near or [i for i in items if i.year is None]
            if not near:
                reason = f"no {items[0].title!r} within {self._tolerance} years of {year}; known: {known}"
                return Link(start, end, None, "none", reason, 0.0, tuple(i.id for i in items))
            gap = min(abs((i.year or year) - year) for i in near)
            items = [i for i in near if abs((i.year or year) - year) == gap]
            if gap:
                why = ", ".join(p for p in (why, f"its year is {items[0].year}, {gap} off") if p)
        if len(items) > 1:
            chosen, reason, share = self._one_of(items, lead, context)
            if chosen is None:
                return Link(start, end, None, "none", reason, 0.0, tuple(i.id for i in items))
            items = [chosen, *(i for i in items if i is not chosen)]
            why = ", ".join(p for p in (why, reason) if p)
        best = items[0]
        if fuzzy is not None:
            how = "fuzzy"
            why = ", ".join(p for p in (why, f"spelled {fuzzy:.0f} % like {best.title!r}") if p)
        elif how == "normalised" and best.title.casefold() in text[start:end].casefold():
            how = "exact"
        if how == "part":
            why = ", ".join(p for p in (why, f"part of the title {best.title!r}") if p)
        return Link(
            start, end, best.id, how, why or "the only item of this title", round(score * share, 3), tuple(i.id for i in items)
        )

    def _one_of(self, items: Sequence[Item], lead: str, context: Collection[str]) -> tuple[Item | None, str, float]:
        """One of several items of a title, the best known first; why it; and by how much that lessens the score."""
        years = ", ".join(str(i.year or "year unknown") for i in sorted(items, key=lambda i: i.year or 0))
        several = f"{len(items)} items of this title ({years})"
        before = [i for i in items if i.id in context]
        if len(before) == 1:
            return before[0], f"{several}: the one spoken of before", 0.95
        if len({name_words(i.title) for i in items}) > 1:
            return None, f"the first words of several titles: {', '.join(repr(i.title) for i in items[:4])}", 0.0
        dated = [i for i in items if i.year is not None]
        if dated and _OLDEST.search(lead):
            return min(dated, key=lambda i: i.year or 0), f"{several}: the oldest, as is said", 0.9
        if dated and _NEWEST.search(lead):
            return max(dated, key=lambda i: i.year or 0), f"{several}: the most recent, as is said", 0.9
        weights = [self._weights.get(i.id, 1.0) for i in items]
        if weights[0] > weights[1]:
            return items[0], f"{several}: the one that most sources know; a year would settle it", 0.7
        return items[0], f"{several}: the most recent of the best known; a year would settle it", 0.5


def _rapidfuzz() -> Any:
    try:
        import rapidfuzz
        import rapidfuzz.distance
        import rapidfuzz.fuzz
        import rapidfuzz.process
    except ImportError:
        raise MissingExtra("rapidfuzz", "items", "linking of misspelt titles") from None
    return rapidfuzz


def _variants(title: str, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Other ways a title is written: "Spiderman", "Godfather 2" for "Godfather: Part II"."""
    joined = re.sub(r"(?<=\w)[-·*.](?=\w)", "", title)
    if joined != title:
        glued = name_words(joined)
        if sum(map(len, glued)) > 2:
            yield glued
    elif len(words) == 2 and all(len(w) > 2 for w in words):
        yield ("".join(words),)
    if len(words) > 2 and words[-2] in ("part", "volume", "chapter", "episode") and words[-1].isdigit():
        yield (*words[:-2], words[-1])


def _case_of(text: str, words: Sequence[Word]) -> bool:
    """Whether the writer uses capitals where they belong: then their absence tells something."""
    return not text.isupper() and (text[words[0].start].isupper() or bool(re.search(r"[a-z,]\s+[A-Z][a-z]", text)))


def _sure(evidence: float) -> float:
    return 1 / (1 + math.exp(ACCEPT - 1 - evidence))


def _not_overlapping(links: Sequence[Link]) -> list[Link]:
    """Of overlapping links those with an item, then the earlier."""
    kept: list[Link] = []
    for link in sorted(links, key=lambda k: (k.item_id is None, k.start)):
        if not any(link.start < k.end and k.start < link.end for k in kept):
            kept.append(link)
    return sorted(kept, key=lambda k: k.start)
