"""From a conversation to what its user likes in general and looks for today: by rules, or by a language model.

An annotator sees plain strings from which the target's title has been taken out. The language model is a callable from
prompts to replies, so that nothing here knows a backend.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Protocol

from interplay.corpora.attributes import speaks_of, spoken_genres
from interplay.corpora.messages import sentences

MAX_WORDS = 60
"""Of a general-preferences summary."""
MIN_ATTRIBUTES, MAX_ATTRIBUTES = 2, 5

_NEGATIVE = re.compile(
    r"\b(?:hate[ds]?|dislike[ds]?|boring|terrible|awful|worst|(?:don'?t|do not|didn'?t|did not|not|never) (?:\w+ ){0,2}?"
    r"(?:like|liked|enjoy|care|fan|into|interested|love|watch|good)|can'?t stand|not my)\b",
    re.IGNORECASE,
)
_OPINION = re.compile(
    r"\b(?:i(?:'m| am)?|we) (?:[\w']+ ){0,3}?(?:like|love|enjoy|prefer|hate|dislike|into|fan of|care for|watch|read|"
    r"can'?t stand)"
    r"\b|\bmy favou?rite|\b(?:big|huge) fan\b",
    re.IGNORECASE,
)
# Says something only beside the turn it answers.
_POINTING = re.compile(
    r"\b(?:it|its|it's|this|that|those|these|them|they|he|she|him|her|ones?|both|either|all of)\b", re.IGNORECASE
)
_POSITIVE = re.compile(
    r"\b(?:like[ds]?|love[ds]?|enjoy\w*|great|good|awesome|favou?rites?|amazing|fan|excellent)\b", re.IGNORECASE
)


@dataclass(slots=True, frozen=True)
class AnnotationRequest:
    """What an annotator is told about one conversation. No string names the target."""

    noun: str
    plural: str
    user_turns: tuple[str, ...]
    """The user's turns up to the end, a sentence per line."""
    num_before_target: int
    """How many of them were spoken before the target was first recommended; all, when there is none."""
    known_items: tuple[tuple[str, str], ...] = ()
    """Title and review of the items that the user brought up."""
    liked_genres: tuple[str, ...] = ()
    """Genres of those the user likes, one entry per item and genre."""
    disliked_genres: tuple[str, ...] = ()
    """The same for those the user dislikes."""
    target_facts: tuple[tuple[str, str], ...] = ()
    """Kind and value, for example ("genre", "crime"); empty when nothing was accepted."""


@dataclass(slots=True, frozen=True)
class Annotation:
    """What an annotator found."""

    general_preferences: str
    target_attributes: tuple[str, ...]


class Annotator(Protocol):
    """Summarises users."""

    name: str

    def annotate(self, requests: Sequence[AnnotationRequest]) -> list[Annotation | None]:
        """One result per request, in order; None where it failed (the rules' result is used instead, and counted)."""
        ...


def is_negative(text: str) -> bool:
    """Whether a text speaks against something, by cue words."""
    return _NEGATIVE.search(text) is not None


def is_positive(text: str) -> bool:
    """Whether a text speaks for something, by cue words."""
    return not is_negative(text) and _POSITIVE.search(text) is not None


class RuleAnnotator:
    """Summaries from the user's own sentences and the genres of what they brought up; needs no model."""

    name = "rules"

    def annotate(self, requests: Sequence[AnnotationRequest]) -> list[Annotation | None]:
        """See `Annotator`; never None."""
        return [self.one(request) for request in requests]

    def one(self, request: AnnotationRequest) -> Annotation:
        """The annotation of one conversation."""
        return Annotation(_general(request), _attributes(request))


def _general(request: AnnotationRequest) -> str:
    before = request.user_turns[: request.num_before_target]
    said = [turn[a:b] for turn in before for a, b in sentences(turn)]
    opinions = [
        s
        for s in dict.fromkeys(said)
        if _OPINION.search(s) and not _POINTING.search(s) and "?" not in s and 3 <= len(s.split()) <= 25
    ]
    liked = [*request.liked_genres]
    disliked = [*request.disliked_genres]
    for sentence in opinions:
        (disliked if is_negative(sentence) else liked).extend(spoken_genres(sentence) * 2)
    top = _most_common([g for g in liked if g not in set(disliked) - set(request.liked_genres)], 3)
    against = _most_common([g for g in disliked if g not in liked], 2)
    parts = []
    if top:
        parts.append(f"Likes {_listed(top)} {request.plural}.")
    if against:
        parts.append(f"Does not care for {_listed(against)} {request.plural}.")
    known = [title.casefold() for title, _ in request.known_items]
    words = sum(len(p.split()) for p in parts)
    for sentence in opinions:
        # What is said about a known item is its review already.
        if any(t in sentence.casefold() for t in known):
            continue
        if words + len(sentence.split()) + 1 > MAX_WORDS - 10:
            break
        if len(parts) >= 5:
            break
        parts.append(f'Says: "{sentence}"')
        words += len(sentence.split()) + 1
    return " ".join(parts)


def _most_common(values: Sequence[str], num: int) -> list[str]:
    counted = {v: values.count(v) for v in values}
    return sorted(counted, key=lambda v: -counted[v])[:num]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _attributes(request: AnnotationRequest) -> tuple[str, ...]:
    text = "\n".join(request.user_turns)
    if not request.target_facts:
        wanted = [s for turn in request.user_turns for s in _wishes(turn)]
        return tuple(dict.fromkeys(g for s in wanted for g in spoken_genres(s)))[:MAX_ATTRIBUTES]
    by_kind: dict[str, list[str]] = {}
    for kind, value in request.target_facts:
        by_kind.setdefault(kind, []).append(value)
    said = [v for kind, v in request.target_facts if kind in _SAYABLE and speaks_of(text, v)]
    chosen = dict.fromkeys(said[:4])
    rest = [
        *by_kind.get("genre", [])[:3],
        *by_kind.get("mood", [])[:1],
        *by_kind.get("theme", [])[:1],
        *by_kind.get("decade", []),
    ]
    for value in rest:
        if len(chosen) >= 4:
            break
        chosen.setdefault(value)
    people = [*by_kind.get("director", [])[:1], *by_kind.get("cast", [])[:1], *by_kind.get("writer", [])[:1]]
    for value in people:
        # A person narrows the choice to a few titles, so only to reach the minimum when the user did not say the name.
        if len(chosen) >= MIN_ATTRIBUTES:
            break
        chosen.setdefault(value)
    return tuple(chosen)[:MAX_ATTRIBUTES]


_SAYABLE = frozenset({"genre", "mood", "theme", "decade", "director", "cast", "writer"})


def _wishes(turn: str) -> list[str]:
    return [turn[a:b] for a, b in sentences(turn) if not is_negative(turn[a:b])]


@lru_cache(maxsize=1)
def annotation_prompt() -> str:
    """The prompt's text with its `{placeholders}`; part of what a config digest should cover."""
    return files("interplay.corpora").joinpath("prompts/annotate.txt").read_text(encoding="utf-8")


def render_request(request: AnnotationRequest) -> str:
    """The prompt for one conversation."""

    def listed(lines: Sequence[str]) -> str:
        return "\n".join(f"- {line}" for line in lines) or "- (nothing)"

    return annotation_prompt().format(
        noun=request.noun,
        plural=request.plural,
        user_turns=listed([" ".join(turn.split()) for turn in request.user_turns]),
        known_items=listed([f"{title}: {review}" for title, review in request.known_items]),
        target_facts=listed([f"{kind}: {value}" for kind, value in request.target_facts]),
    )


def parse_annotation(reply: str) -> Annotation | None:
    """The annotation in a model's reply, or None when there is none.

    Text and code fences around the JSON object are tolerated; a summary that is too long is cut at a sentence.

    >>> parse_annotation('Sure: {"general_preferences": "Likes crime.", "target_attributes": ["crime", "tense"]}')
    Annotation(general_preferences='Likes crime.', target_attributes=('crime', 'tense'))
    """
    start, end = reply.find("{"), reply.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        value = json.loads(reply[start : end + 1])
    except (json.JSONDecodeError, RecursionError):
        return None
    general, attributes = value.get("general_preferences"), value.get("target_attributes")
    if not isinstance(general, str) or not isinstance(attributes, list) or not all(isinstance(a, str) for a in attributes):
        return None
    kept = tuple(dict.fromkeys(" ".join(a.split()) for a in attributes if a.strip()))[:MAX_ATTRIBUTES]
    return Annotation(shorten(" ".join(general.split()), MAX_WORDS), kept)


def shorten(text: str, max_words: int) -> str:
    """The leading whole sentences of a text that fit into so many words; at least its first words."""
    out = ""
    for start, end in sentences(text):
        if len(text[:end].split()) > max_words:
            return out or " ".join(text[start:end].split()[:max_words])
        out = text[:end]
    return out


class LLMAnnotator:
    """Summaries by a language model.

    Args:
        complete: replies to prompts, in order; None where no reply could be had.
    """

    name = "llm"

    def __init__(self, complete: Callable[[list[str]], list[str | None]]) -> None:
        self._complete = complete

    def annotate(self, requests: Sequence[AnnotationRequest]) -> list[Annotation | None]:
        """See `Annotator`."""
        replies = self._complete([render_request(r) for r in requests])
        return [None if reply is None else parse_annotation(reply) for reply in replies]
