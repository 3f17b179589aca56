"""Words for acts: phrasings from data files, filled, styled, and turned into a Turn whose Mentions are in the right place.

A phrasing is a template of `str.format`; "{title}" stays open until the end, so that no styling ever touches a title.
"a(n) " becomes the article that fits the next word.
"""

import random
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from interplay.types import Action, Item, Mention, Role, Turn, content_hash

TITLE = "\x00"
"""Stands for a title until the Turn is made."""

_ARTICLE = re.compile(r"\b([Aa])\(n\) (?=\W*(\w))")
_SENTENCE = re.compile(r"(^|[.!?]\s+)([a-z])")
_NEIGHBOURS = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        [
            "sq",
            "vn",
            "xv",
            "sf",
            "wr",
            "dg",
            "fh",
            "gj",
            "uo",
            "hk",
            "jl",
            "k;",
            "nk",
            "bm",
            "ip",
            "ol",
            "wa",
            "et",
            "ad",
            "ry",
            "yi",
            "cb",
            "qe",
            "zc",
            "tu",
            "xs",
        ],
        strict=True,
    )
)


@dataclass(slots=True, frozen=True)
class Wording:
    """The phrasings of one file: a dotted key such as "accept.short" maps to alternatives."""

    name: str
    phrasings: Mapping[str, tuple[str, ...]]

    def get(self, key: str) -> tuple[str, ...]:
        """The alternatives under a key; empty when there are none."""
        return self.phrasings.get(key, ())

    def pick(self, rng: random.Random, key: str, **slots: str) -> str:
        """One of the alternatives under a key, at random, filled.

        Raises:
            KeyError: the file has no such key, or the template needs another slot.
        """
        return rng.choice(self.phrasings[key]).format(title=TITLE, **slots)

    @property
    def digest(self) -> str:
        """Content hash, for a Run's config."""
        return content_hash(dict(self.phrasings))


@cache
def load_wording(name: str) -> Wording:
    """The wording file of this name: "user", "recommender", "scenario" or "facets"."""
    text = resources.files("interplay.simulation").joinpath("wording", f"{name}.toml").read_text(encoding="utf-8")
    return Wording(name, dict(_flatten(tomllib.loads(text), "")))


def _flatten(table: Mapping[str, object], prefix: str) -> list[tuple[str, tuple[str, ...]]]:
    out: list[tuple[str, tuple[str, ...]]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            out += _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            out.append((f"{prefix}{key}", tuple(str(v) for v in value)))
        else:
            out.append((f"{prefix}{key}", (str(value),)))
    return out


def join(before: str, text: str) -> str:
    """Two pieces of a turn in one; what follows a comma or "but" does not begin with a capital.

    >>> join("Hey,", "Could you help?"), join("Hey!", "Could you help?")
    ('Hey, could you help?', 'Hey! Could you help?')
    """
    if before.endswith((",", " but")) and not re.match(r"I\b|.?\x00", text):
        text = text[:1].lower() + text[1:]
    return f"{before} {text}".strip()


def tidy(text: str, *, capitals: bool = True) -> str:
    """Articles chosen, spaces single, sentences begun with a capital (unless `capitals` is off).

    >>> tidy("how about a(n) eerie  movie? a(n) good one.")
    'How about an eerie movie? A good one.'
    """
    text = _ARTICLE.sub(lambda m: f"{m[1]}{'n' if m[2].lower() in 'aeiou8' else ''} ", text)
    text = re.sub(r"\s+([.,!?])", r"\1", " ".join(text.split()))
    return text if not capitals else _SENTENCE.sub(lambda m: m[1] + m[2].upper(), text)


def list_of(values: Sequence[str], last: str = "and") -> str:
    """Values in running text.

    >>> list_of(["heist", "police", "money"])
    'heist, police and money'
    """
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} {last} {values[-1]}"


def plainly(text: str, rng: random.Random) -> str:
    """As somebody types who uses neither capitals nor full stops; apostrophes go half of the time."""
    text = re.sub(r"[.!]+$", "", text.lower())
    text = re.sub(r"(?<=\w)[.!]+(?=\s)", rng.choice((",", ",", "", " -", ".")), text)
    if rng.random() < 0.5:
        text = text.replace("'", "")
    return text if rng.random() < 0.6 else text.replace(",", "")


def with_typos(text: str, rng: random.Random, rate: float, spare: Collection[str]) -> str:
    """`text` with a slip of the finger in about `rate` of its words of four letters or more.

    Args:
        text: what was meant.
        rng: draws the slips.
        rate: probability per word, [0, 1].
        spare: words, in lower case, that are spelled with care.
    """

    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if word.lower() in spare or rng.random() >= rate:
            return word
        i = rng.randrange(1, len(word) - 1)
        kind = rng.randrange(4)
        if kind == 0:
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if kind == 1:
            return word[:i] + word[i + 1 :]
        if kind == 2:
            return word[:i] + word[i] + word[i:]
        return word[:i] + rng.choice(_NEIGHBOURS[word[i].lower()].replace(";", "l")) + word[i + 1 :]

    return re.sub(r"(?<![\w'’-])[A-Za-z]{4,}(?![\w'’-])", slip, text)


def make_turn(
    role: Role,
    action: Action,
    text: str,
    items: Sequence[Item | Mention] = (),
    titles: Sequence[str] = (),
    acts: Sequence[Action] = (),
) -> Turn:
    """A Turn from a text in which `TITLE` stands for each title.

    Args:
        role: who speaks.
        action: the act.
        text: tidied and styled, without titles.
        items: one Item or heard Mention for each `TITLE`, in order.
        titles: how each is written; an Item's label when left out.
        acts: what the turn does beside its action.

    Raises:
        ValueError: the numbers of titles and items differ.
    """
    written = list(titles) or [item.label for item in items if isinstance(item, Item)]
    parts = text.split(TITLE)
    if not len(parts) - 1 == len(items) == len(written):
        raise ValueError(f"{len(parts) - 1} places for titles, but {len(items)} items and {len(written)} titles")
    out = parts[0]
    mentions = []
    for part, item, title in zip(parts[1:], items, written, strict=True):
        item_id = item.id if isinstance(item, Item) else item.item_id
        mentions.append(Mention(start=len(out), end=len(out) + len(title), item_id=item_id))
        out += title + part
    return Turn(role=role, action=action, acts=tuple(acts), text=out, items=tuple(mentions))
