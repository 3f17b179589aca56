"""Finding titles in text where the source has none or only noisy links (INSPIRED, OpenDialKG, PEARL).

Not the linking of generated text (that is `items/`): here the source proposes titles per dialogue, and a link is made
only where the words stand in the text and are not likely to be meant as ordinary words.
"""

import re
from collections.abc import Collection

from interplay.corpora.messages import Span
from interplay.titles import EVERYDAY_WORDS, title_key
from interplay.types import Catalog, Item

_WORD = re.compile(r"\w+(?:['’]\w+)*|&")
_MAX_WORDS = 16
_MORE_WORDS = (
    "too much very well hi hello hey there again okay ok sure great awesome nice bye welcome have has been were oh "
    "really sounds sound right back going know think made make way end last first next best bad better some any all both "
    "same lot kind type movies film films show series trailer theater marvel disney netflix dc perfect beautiful "
    "interesting exactly greetings alright mine stan taken classic christmas halloween"
)
_COMMON = EVERYDAY_WORDS | frozenset(_MORE_WORDS.split())
_SPEAKS_OF_TITLE = re.compile(
    r"\b(?:movies?|films?|books?|called|named|titled|seen|see|saw|watch(?:ed|ing)?|read|recommend)\s+$", re.IGNORECASE
)
_ARTICLES = ("the", "a", "an")
_PLACES = frozenset({"san francisco", "new york", "los angeles", "las vegas", "hong kong", "north carolina"})


class TitleLinker:
    """Finds the titles of a catalog in text.

    Args:
        catalog: what may be found.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._keys = {title_key(item.title) for item in catalog}
        # Beginnings of keys, word by word: most words of a text begin no title, and few that do go on as one.
        self._begun = {
            " ".join(parts[:num]) for key in self._keys for parts in [key.split()] for num in range(1, len(parts) + 1)
        }

    def find(self, text: str, proposed: Collection[str] = ()) -> list[Span]:
        """The titles in a text, longest first where they overlap, in order.

        Args:
            text: one message.
            proposed: ids of the items that the source says are mentioned in it (or in its dialogue). Of items that share
                a title, a proposed one is taken; and a proposed title may be written in lower case.
        """
        words = list(_WORD.finditer(text))
        by_key: dict[str, Item] = {}
        for item_id in proposed:
            item = self._catalog.get(item_id)
            if item is not None:
                by_key.setdefault(title_key(item.title), item)
        spans: list[Span] = []
        at = 0
        first = [title_key("and" if w.group() == "&" else w.group()) for w in words]
        while at < len(words):
            for num in reversed(self._lengths(first, at)):
                found = self._link(text, words[at : at + num], by_key)
                if found is not None:
                    spans.append(found)
                    at += num
                    break
            else:
                at += 1
        return spans

    def _lengths(self, first: list[str], at: int) -> list[int]:
        """How many words from `at` on may be a title, ascending; an article before it may be none of its own."""
        lengths = [1] if first[at] in self._keys else []
        begins = at + 1 if first[at] in _ARTICLES and at + 1 < len(first) else at
        for end in range(begins + 1, min(len(first), begins + _MAX_WORDS) + 1):
            key = " ".join(first[begins:end])
            if key not in self._begun:
                break
            if key in self._keys and end > at + 1:
                lengths.append(end - at)
        return lengths

    def _link(self, text: str, words: list[re.Match[str]], proposed: dict[str, Item]) -> Span | None:
        start, end = words[0].start(), words[-1].end()
        written = text[start:end]
        # A title does not go over a sentence's end; "Mr. Nobody", "Dr. No", "vs. the" are none.
        ends = re.search(r"[.!?]\s+\S|[\n|;]|\.\.", written)
        if ends and not re.fullmatch(r"(?:(?:mr|mrs|ms|dr|st|vs|vol|jr)\.\s|[^.!?\n|;])*", written, re.IGNORECASE):
            return None
        key = title_key(written)
        item = proposed.get(key)
        if item is None:
            if key not in self._keys:
                return None
            year = re.match(r"\s*\(\s*(\d{4})\s*\)", text[end:])
            item = self._catalog.find(f"{written} ({year.group(1)})" if year else written)
            if item is None or not (year or self._looks_like_title(text, words, key)):
                return None
        elif not self._proposed_fits(text, words, key):
            return None
        # "a Thriller" is not the film "Thriller"; the word alone is tried next.
        if len(words) > 1 and words[0].group().casefold() in _ARTICLES and not item.title.casefold().startswith(_ARTICLES):
            return None
        return Span(start, end, item)

    @staticmethod
    def _looks_like_title(text: str, words: list[re.Match[str]], key: str) -> bool:
        """Without a proposal of the source: several words, capitalised, not a common phrase at a sentence's start."""
        parts = [w.group() for w in words]
        content = [p for p in parts if len(p) > 3 or p.isdigit()]
        if len(key.split()) < 2 or all(p.casefold() in _COMMON for p in parts):
            return False
        if len(key.split()) >= 4:
            return parts[0][0].isupper() or sum(len(p) for p in parts) > 16
        if text.isupper():
            return False
        capitals = [p for p in parts if p[0].isupper() or p[0].isdigit()]
        return len(capitals) >= 2 and all(p[0].isupper() or p[0].isdigit() for p in content)

    @staticmethod
    def _proposed_fits(text: str, words: list[re.Match[str]], key: str) -> bool:
        """With a proposal: all but everyday words, which need a capital inside a sentence, or quotes, or a year."""
        parts = [w.group() for w in words]
        start, end = words[0].start(), words[-1].end()
        if re.match(r"\s*\(\s*\d{4}", text[end:]) or (start and text[start - 1] in "\"'“‘"):
            return True
        if len(parts) == 2 and not any(p.isdigit() for p in parts):
            # "real life", "new york": two words in lower case, or a place, are mostly no title.
            return key not in _PLACES and all(p[0].isupper() for p in parts if p.casefold() not in ("the", "of", "a"))
        if len(parts) > 1:
            return not all(p.casefold() in _COMMON for p in parts) or all(p[0].isupper() for p in parts)
        word = parts[0]
        inside = re.search(r"[\w,:;'\"]\s+$", text[:start]) is not None
        # "Stan Lee", "Guillermo del Toro": a lone word beside another capitalised one is part of a name.
        named = re.match(r"\s+[A-Z][a-z]+", text[end:]) or re.search(r"\b(?:[A-Z][a-z]+|del|de|van)\s+$", text[:start])
        if named or text.isupper() or not (word[0].isupper() or word[0].isdigit()):
            return False
        if word.casefold() in _COMMON or word.isdigit():
            return _SPEAKS_OF_TITLE.search(text[:start]) is not None
        return inside or re.match(r"\s*(?:$|[.,!?:;)\"]|(?:is|was|has|looks|sounds)\b)", text[end:]) is not None
