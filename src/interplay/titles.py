"""Titles of items as people write them: splitting off the year, comparing, finding and removing them in text.

Knows nothing of catalogs or models. Linking free text to a catalog is the job of `items/`; here is only what the
records themselves need: two spellings of one title compare equal, and a hidden title can be found and taken out.
"""

import re
import unicodedata
from functools import lru_cache

YEARS = range(1000, 2100)
"""Those that a number in brackets behind a title can mean; books are older than films."""
_DIGITS = r"(?:1\d|20)\d\d"
"""A year of YEARS in a pattern."""
# "Heat (1995)", "Heat  (1995)", "Heat (1995/I)", "Heat (1995 film)"
_YEAR = re.compile(rf"\s*\(({_DIGITS})(?:/[IVX]+|\s+film)?\)\s*$")
_ARTICLE_AT_END = re.compile(r"^(.*),\s+(the|a|an|le|la|les|il|el|der|die|das)$", re.IGNORECASE)
_LEADING_ARTICLES = ("the ", "a ", "an ")
_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\S)", re.IGNORECASE)
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_APOSTROPHE = re.compile(r"['’`]")
_NO_LETTER = re.compile(r"[\W_]+")
# What the two do to ASCII, in one pass.
_ASCII_KEY = {n: None if chr(n) in "'`" else chr(n) if chr(n).isalnum() else " " for n in range(128)}

# One-word titles that are everyday words. In running text they are not evidence that the film is meant, so they count
# as named only when written as a title: followed by the year. ("It", "Up", "Her" head the list of false alarms.)
EVERYDAY_WORDS = frozenset(
    """
    a about after alive all am an and anything are as at be before big but by can day do down dreams enough ever family for
    friend friends from fun get girl go good happy he heat her here him his hook house how i if in is it it's joker just kids
    life like look looking love lucky man me more mother movie movies my new night no not now of old on once one only or other
    our out over people play please ran ray red run saw see seen seven she sing so some soon speed split still stop take ten
    thanks that the them then they thing things this time to today tonight up us want war was watch water we what when where who
    why wild will with woman wonder yes you your action comedy drama horror thriller fantasy romance mystery musical western
    crime animation adventure funny dark young
    """.split()  # noqa: SIM905  # as a list it would be a line per word
)


@lru_cache(maxsize=100_000)
def split_year(title: str) -> tuple[str, int | None]:
    """Split a trailing year off a title.

    >>> split_year("Heat  (1995)")
    ('Heat', 1995)
    >>> split_year("2001: A Space Odyssey")
    ('2001: A Space Odyssey', None)
    """
    return _split_year(title)


def _split_year(title: str) -> tuple[str, int | None]:
    match = _YEAR.search(title) if title.rstrip().endswith(")") else None
    if match is None:
        return " ".join(title.split()), None
    return " ".join(title[: match.start()].split()), int(match.group(1))


@lru_cache(maxsize=200_000)
def title_key(title: str) -> str:
    """The form in which two spellings of one title compare equal; the year is not part of it.

    Case, accents, punctuation, a leading or trailing article and "&" do not matter. An empty key means that nothing
    but punctuation was given.

    >>> title_key("Matrix, The (1999)") == title_key("the  matrix")
    True
    """
    name = _split_year(title)[0]
    moved = _ARTICLE_AT_END.match(name) if "," in name else None
    if moved:
        name = f"{moved.group(2)} {moved.group(1)}"
    folded = name.casefold().replace("&", " and ")
    if folded.isascii():
        folded = folded.translate(_ASCII_KEY)
    else:
        folded = "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c))
        folded = _NO_LETTER.sub(" ", _APOSTROPHE.sub("", folded))
    words = " ".join(folded.split())
    return words[words.index(" ") + 1 :] if words.startswith(_LEADING_ARTICLES) else words


def loosely_spelt(text: str) -> str | None:
    """A text in which every word of `title_key(text)` stands, at a tenth of the cost; None beyond ASCII.

    What it does not hold need not be looked for in the key.

    >>> loosely_spelt("Don't, Lilo & Stitch!")
    'dont, lilo  and  stitch!'
    """
    return text.lower().replace("&", " and ").replace("'", "").replace("`", "") if text.isascii() else None


def is_title(text: str, title: str) -> bool:
    """Whether `text` is nothing but `title`, in any spelling and with any year.

    >>> is_title("the heat", "Heat (1995)"), is_title("the heat is on", "Heat (1995)")
    (True, False)
    """
    key = title_key(title)
    loose = loosely_spelt(text)
    if loose is not None and not all(word in loose for word in key.split()):
        return False
    return title_key(text) == key


def _without_article(title: str) -> str:
    name = split_year(title)[0]
    moved = _ARTICLE_AT_END.match(name)
    return _ARTICLE.sub("", moved.group(1) if moved else name)


@lru_cache(maxsize=50_000)
def _pattern(title: str) -> re.Pattern[str] | None:
    name = _without_article(title)
    words = _WORD.findall(name)
    if not words:
        escaped = re.escape(name.strip())
        return re.compile(escaped) if escaped else None
    body = r"\W{1,3}".join(re.escape(w) for w in words)
    body = rf"(?:(?:the|a|an)\s+)?(?<!\w){body}(?!\w)"
    if len(words) == 1 and (words[0].casefold() in EVERYDAY_WORDS or words[0].isdigit()):
        return re.compile(rf"{body}\s*\({_DIGITS}\)", re.IGNORECASE)
    return re.compile(rf"{body}(?:\s*\({_DIGITS}\))?", re.IGNORECASE)


@lru_cache(maxsize=50_000)
def needed_words(title: str) -> tuple[str, ...]:
    """Words, in lower case, an ASCII text must hold for `names_title`. Beyond ASCII, ignoring the case is more than that."""
    return tuple(word.lower() for word in _WORD.findall(_without_article(title)) if word.isascii())


def _may_name(text: str, title: str) -> bool:
    """False only where `_pattern` can't match: in most texts, which then need no pattern."""
    if not text.isascii():
        return True
    lower = text.lower()
    return all(word in lower for word in needed_words(title))


def names_title(text: str, title: str) -> bool:
    """Whether `text` names `title`, with or without its year or article, whatever the case.

    A title that is one everyday word ("Up") counts only when its year follows: see `EVERYDAY_WORDS`.

    >>> names_title("have you seen the matrix?", "Matrix, The (1999)"), names_title("Look it up", "Up (2009)")
    (True, False)
    """
    if not _may_name(text, title):
        return False
    pattern = _pattern(title)
    return pattern is not None and pattern.search(text) is not None


def title_spans(text: str, title: str) -> list[tuple[int, int]]:
    """Where `text` names `title` in the sense of `names_title`: start and end of each naming, its year included.

    >>> title_spans("The Matrix (1999) is no Matrix", "Matrix, The")
    [(0, 17), (24, 30)]
    """
    pattern = _pattern(title) if _may_name(text, title) else None
    return [] if pattern is None else [match.span() for match in pattern.finditer(text)]


def remove_title(text: str, title: str, replacement: str = "it") -> str:
    """`text` with every naming of `title` replaced, so that `names_title` is false of the result.

    >>> remove_title("I loved The Matrix (1999) so much", "The Matrix")
    'I loved it so much'
    """
    pattern = _pattern(title) if _may_name(text, title) else None
    if pattern is None:
        return text
    out = pattern.sub(replacement, text)
    return "" if pattern.search(out) else out
