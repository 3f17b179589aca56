"""Attributes of items in one vocabulary, and whether somebody has spoken of them.

Sources name one genre in many ways ("sci-fi", "Science Fiction", "Romance Film"); personas and comparisons need one.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache

_SAME = {
    "sci-fi": "science fiction",
    "scifi": "science fiction",
    "film-noir": "film noir",
    "animated": "animation",
    "historical": "history",
    "historical period drama": "history",
    "historical novel": "historical fiction",
    "biographical": "biography",
    "romantic": "romance",
    "romance novel": "romance",
    "indie": "independent",
    "sports": "sport",
    "children's literature": "children's",
    "coming of age": "coming-of-age",
    "young-adult fiction": "young adult",
    "crime fiction": "crime",
    "gothic fiction": "gothic",
    "mystery fiction": "mystery",
    "horror fiction": "horror",
    "thriller novel": "thriller",
    "musicals": "musical",
    "backstage musical": "musical",
    "family (film genre) #395": "family",
    "vampire": "vampires",
    "slasher": "horror",
}
_ONE_WORD = (
    "action adventure animation biography comedy crime documentary drama family fantasy history horror music musical "
    "mystery romance sport thriller war western superhero dystopia satire parody suspense classics gothic children's "
    "vampires supernatural independent christmas"
)
GENRES = frozenset(_ONE_WORD.split()) | {
    "science fiction",
    "film noir",
    "romantic comedy",
    "black comedy",
    "comedy-drama",
    "psychological thriller",
    "historical fiction",
    "young adult",
    "coming-of-age",
    "time travel",
    "speculative fiction",
    "martial arts",
}
"""The genres that are kept; sources with free tags also list places, prizes and studios."""

_CUES: dict[str, str] = {
    "comedy": r"comed\w+|funny|hilarious|laughs?",
    "action": r"action\w*",
    "adventure": r"adventur\w+",
    "animation": r"animat\w+|cartoons?|pixar",
    "biography": r"biograph\w+|biopics?|true stor\w+",
    "children's": r"child\w*|kids?",
    "crime": r"crimes?|gangsters?|mafia|mob|heists?",
    "documentary": r"documentar\w+",
    "drama": r"dramas?|dramatic",
    "family": r"famil\w+|kids?|child\w*",
    "fantasy": r"fantas\w+|magic\w*",
    "history": r"histor\w+",
    "historical fiction": r"histor\w+",
    "horror": r"horr?or\w*|scary|scare[sd]?|slashers?",
    "musical": r"musicals?",
    "mystery": r"myster\w+|whodunn?it",
    "romance": r"roman\w+|love stor\w+|rom-?coms?|chick flicks?",
    "romantic comedy": r"romantic comed\w+|rom-?coms?",
    "science fiction": r"sci-?\s?fi|science fiction|space",
    "sport": r"sports?|football|baseball|basketball|boxing",
    "superhero": r"super-?\s?hero\w*|marvel|dc",
    "superheroes": r"super-?\s?hero\w*|marvel|dc",
    "thriller": r"thrill\w+|suspense\w*",
    "suspense": r"suspense\w*|thrill\w+",
    "war": r"wars?|military",
    "western": r"westerns?|cowboys?",
    "dystopia": r"dystopia\w*",
    "vampires": r"vampires?",
    "classics": r"classics?",
}


def normal_genre(name: str) -> str | None:
    """The genre in our vocabulary, or None when the tag is no genre.

    >>> normal_genre("Sci-Fi"), normal_genre("Action Film"), normal_genre("United Kingdom")
    ('science fiction', 'action', None)
    """
    low = name.strip().casefold()
    for form in (low, re.sub(r"\s+(?:films?|movies?|fiction|novels?)$", "", low)):
        genre = _SAME.get(form, form)
        if genre in GENRES:
            return genre
    return None


def normal_genres(names: Iterable[str]) -> tuple[str, ...]:
    """The genres of a list of tags, without repetition, in order."""
    return tuple(dict.fromkeys(g for n in names if (g := normal_genre(n)) is not None))


def decade(year: int | None) -> tuple[str, ...]:
    """("1990s",) for 1994; empty when the year is unknown."""
    return () if year is None else (f"{year // 10 * 10}s",)


def without_empty(attributes: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """The attributes that have a value; repeated and blank values taken out."""
    out = {k: tuple(dict.fromkeys(v.strip() for v in values if v.strip())) for k, values in attributes.items()}
    return {k: v for k, v in out.items() if v}


@lru_cache(maxsize=20_000)
def _cue(value: str) -> re.Pattern[str]:
    years = re.fullmatch(r"(?:(\d\d))(\d)0s", value)
    if years:
        return re.compile(rf"\b(?:{years.group(1)})?{years.group(2)}0'?s\b|(?<!\()\b{years.group(1)}{years.group(2)}\d\b")
    body = _CUES.get(value) or re.escape(value.casefold())
    words = value.split()
    if value not in _CUES and len(words) > 1 and value[0].isupper() and len(words[-1]) > 3:
        # People are often named by the family name alone.
        body = rf"{body}|{re.escape(words[-1].casefold())}"
    return re.compile(rf"\b(?:{body})\b")


def speaks_of(text: str, value: str) -> bool:
    """Whether a text, in any case, speaks of an attribute value.

    >>> speaks_of("any good sci fi from the 90's?", "1990s"), speaks_of("something scary", "horror")
    (True, True)
    """
    low = text.casefold()
    return _may_be_in(low, value) and _cue(value).search(low) is not None


def _may_be_in(low: str, value: str) -> bool:
    """False only where `_cue` can't match: the last word of most names is nowhere in a text, which then needs no pattern."""
    if value in _CUES or value[:1].isdecimal():
        return True
    return "".join(value.casefold().split()[-1:]) in low


def spoken_genres(text: str) -> tuple[str, ...]:
    """The genres that a text speaks of, in the order of their first naming."""
    low = text.casefold()
    if _any_genre().search(low) is None:
        return ()
    found = [(m.start(), g) for g in sorted(GENRES) if (m := _cue(g).search(low)) is not None]
    return tuple(g for _, g in sorted(found))


@cache
def _any_genre() -> re.Pattern[str]:
    return re.compile("|".join(_cue(genre).pattern for genre in sorted(GENRES)))
