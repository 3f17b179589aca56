"""Whether a text names a title, and how well hidden: the string part of leak detection.

Levels as in SPEC G1: the label as it is written in conversation, the title in any spelling (case, accents, article, year
aside), and a misspelling. iEvaLM (arXiv 2305.13112) drops sentences whose partial ratio with the title is above 90; here the
same similarity is asked of whole words, because a short title lies inside many longer words.
"""

from collections.abc import Container
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise

from interplay.metrics.matching import YEAR_TOLERANCE
from interplay.titles import EVERYDAY_WORDS, loosely_spelt, needed_words, split_year, title_key, title_spans

MIN_RATIO = 90.0
"""Least similarity of a misspelling, 0 to 100: 100 * 2 * (common characters in order) / (characters of both)."""
AROUND = 3
"""Words before and after a naming that may belong to a longer title ("Labyrinth" in "Pan's Labyrinth")."""
MIN_FUZZY = 8
"""Characters that a title's key must have for misspellings to be looked for; shorter ones resemble ordinary words."""


class Naming(StrEnum):
    """How a text names a title."""

    EXACT = "exact"
    """As it is written in conversation, year included."""
    NORMALISED = "normalised"
    """In another spelling: `titles.names_title`."""
    FUZZY = "fuzzy"
    """Misspelt: whole words at least `MIN_RATIO` alike."""


def how_named(text: str, title: str, other_titles: Container[str] = ()) -> Naming | None:
    """How `text` names `title`; None when it does not.

    A title that is one everyday word ("Up") counts only with its year: see `titles.EVERYDAY_WORDS`. A year that is written
    must agree, and a title that is part of a longer one is not meant by it.

    Args:
        text: what was shown or said.
        title: `Item.label`, with or without a year.
        other_titles: `titles.title_key` of titles that a text may mean instead ("Toy Story 2", asked for "Toy Story 3").

    >>> heat, matrix = "Heat (1995)", "The Matrix Reloaded (2003)"
    >>> how_named("Try Heat (1995)!", heat).value, how_named("the matrix reloaded?", matrix).value
    ('exact', 'normalised')
    >>> how_named("matrix relaoded", matrix).value, how_named("what heats up", heat), how_named("Heat (1986)", heat)
    ('fuzzy', None, None)
    """
    if not text or not _may_name(text, title):
        return None
    spans = title_spans(text, title)
    if spans:
        meant = [text[a:b] for a, b in spans if _agrees(text[a:b], title) and not _in_longer(text, a, b, title, other_titles)]
        return None if not meant else Naming.EXACT if title in meant else Naming.NORMALISED
    at = text.find(title)
    if at >= 0 and split_year(title)[1] is not None:  # "Them! (1954)", an everyday word with a mark before its year
        return None if _in_longer(text, at, at + len(title), title, other_titles) else Naming.EXACT
    wanted, spoken = title_key(title), title_key(text)
    # Accents, apostrophes and "&" are gone from keys, which `title_spans` does not see through.
    at = f" {spoken} ".find(f" {wanted} ")
    if at >= 0 and wanted not in EVERYDAY_WORDS and not wanted.isdigit():
        return None if _in_longer(spoken, at, at + len(wanted), title, other_titles) else Naming.NORMALISED
    return Naming.FUZZY if _misspells(spoken, wanted, other_titles) else None


def _may_name(text: str, title: str) -> bool:
    """False only where nothing of the title is in the text: of most texts, which then need no pattern and no key."""
    loose = loosely_spelt(text)
    if loose is None:
        return True
    for words in _hints(title):
        for word in words:
            if word not in loose:
                break
        else:
            return True
    return False


@lru_cache(maxsize=50_000)
def _hints(title: str) -> tuple[list[str], ...]:
    """Groups of words one of which stands in every text that names the title, as `loosely_spelt`.

    What `title_spans` finds has the needed words; what has the title's key in its own, or a misspelling, has a piece of it.
    """
    needed = [word.replace("'", "") for word in needed_words(title)]
    return needed, *(piece.split() for piece in pieces_of(title_key(title)))


def _agrees(written: str, title: str) -> bool:
    year, wanted = split_year(written)[1], split_year(title)[1]
    return year is None or wanted is None or abs(year - wanted) <= YEAR_TOLERANCE


def _in_longer(text: str, start: int, end: int, title: str, other_titles: Container[str]) -> bool:
    own = title_key(title)
    before, after = text[:start].split()[-AROUND:], text[end:].split()[:AROUND]
    words = text[start:end]
    for left in range(len(before) + 1):
        for right in range(len(after) + 1):
            key = title_key(" ".join([*before[len(before) - left :], words, *after[:right]]))
            if key != own and key in other_titles:
                return True
    return False


def _misspells(spoken: str, wanted: str, other_titles: Container[str]) -> bool:
    if len(wanted) < MIN_FUZZY or len(spoken) < MIN_FUZZY or not any(piece in spoken for piece in pieces_of(wanted)):
        return False
    from rapidfuzz import fuzz

    found = fuzz.partial_ratio_alignment(wanted, spoken, score_cutoff=MIN_RATIO - 10)
    if found is None:
        return False
    # The alignment may begin inside a word; only whole words are compared.
    start = spoken.rfind(" ", 0, found.dest_start + 1) + 1
    end = spoken.find(" ", max(found.dest_end - 1, start))
    window = spoken[start : end if end >= 0 else len(spoken)].strip()
    return _digits(window) == _digits(wanted) and fuzz.ratio(wanted, window) >= MIN_RATIO and window not in other_titles


@lru_cache(maxsize=50_000)
def pieces_of(wanted: str) -> tuple[str, ...]:
    """Pieces of a key of which every misspelling holds one.

    Of `num` characters, a window of `others` is similar enough with at most (1 - MIN_RATIO / 100) * (num + others) edits, and
    others <= num + edits. An edit breaks one piece at most, so of edits + 1 pieces one is whole.
    """
    share = 1 - MIN_RATIO / 100
    num_pieces = int(2 * share * len(wanted) / (1 - share) + 1e-9) + 1
    ends = [len(wanted) * n // num_pieces for n in range(num_pieces + 1)]
    return tuple(wanted[a:b] for a, b in pairwise(ends))


def _digits(key: str) -> list[str]:
    return [word for word in key.split() if any(c.isdigit() for c in word)]
