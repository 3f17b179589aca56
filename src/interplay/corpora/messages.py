"""The form between a source file and a Dialogue: messages with titles written out, merged per speaker, cut into sentences."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from interplay.titles import title_key
from interplay.types import Item, Mention, Role

_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$|[A-Z])|\.{3,}|\n+")
_WORD_CHARACTER = re.compile(r"\w")


@dataclass(slots=True, frozen=True)
class Spoken:
    """One speaker's words before an Action is known: one source message, or several merged ones."""

    role: Role
    text: str
    """Titles are written as `Item.label`; white space is single blanks."""
    mentions: tuple[Mention, ...] = ()
    """Titles in `text`, in order."""
    raw: tuple[str, ...] = ()
    """The source messages, unchanged."""
    strategies: tuple[str, ...] = ()
    """Labels of the source, without repetition."""
    breaks: tuple[int, ...] = ()
    """Offsets in `text` at which a merged message begins (the first is not listed); people end messages without a stop."""

    @property
    def titles(self) -> tuple[str, ...]:
        """The titles as written, in order."""
        return tuple(self.text[m.start : m.end] for m in self.mentions)

    @property
    def things(self) -> tuple[str, ...]:
        """What is mentioned, comparable across turns: the item's id, or the title's key where none was linked."""
        return tuple(m.item_id or title_key(t) for m, t in zip(self.mentions, self.titles, strict=True))


@dataclass(slots=True, frozen=True)
class Span:
    """A stretch of source text that names an item."""

    start: int
    end: int
    item: Item


def write_titles(text: str, spans: Sequence[Span]) -> tuple[str, tuple[Mention, ...]]:
    """`text` with every span written as its item's label and white space made single.

    A year in brackets that follows a span in the source is swallowed when the label brings its own.

    Args:
        text: source text.
        spans: in order, not overlapping; offsets into `text`.
    """
    pieces: list[tuple[str, Item | None]] = []
    at = 0
    for span in spans:
        pieces.append((text[at : span.start], None))
        pieces.append((span.item.label, span.item))
        at = span.end
        if span.item.year is not None:
            year = re.match(rf"\s*\(\s*{span.item.year}\s*\)", text[at:])
            at += year.end() if year else 0
    pieces.append((text[at:], None))

    out = ""
    mentions: list[Mention] = []
    for piece, item in pieces:
        if item is None:
            words = re.sub(r"\s+", " ", piece)
            if mentions and mentions[-1].end == len(out):
                # Sources that mark a title with an id need a blank after it: "@123 ." is "Heat (1995)."
                words = re.sub(r"^ (?=[.,!?;:)])", "", words)
            out += words.lstrip() if not out or out.endswith(" ") else words
        else:
            if out and (out[-1].isalnum() or (mentions and mentions[-1].end == len(out))):
                out += " "
            mentions.append(Mention(start=len(out), end=len(out) + len(item.label), item_id=item.id))
            out += item.label
    # Labels never end in white space, so cutting the end can't reach into a mention.
    return out.rstrip(), tuple(mentions)


def merge_messages(messages: Iterable[Spoken]) -> tuple[list[Spoken], int, int]:
    """Join consecutive messages of one speaker with a blank; empty messages are left out.

    Returns:
        The turns, the number of empty messages removed, and the number of messages that were joined to the one before.
    """
    turns: list[Spoken] = []
    num_empty = num_joined = 0
    for message in messages:
        if not message.text.strip():
            num_empty += 1
            continue
        if not turns or turns[-1].role is not message.role:
            turns.append(message)
            continue
        num_joined += 1
        before = turns[-1]
        shift = len(before.text) + 1
        turns[-1] = Spoken(
            role=before.role,
            text=f"{before.text} {message.text}",
            mentions=before.mentions
            + tuple(m.model_copy(update={"start": m.start + shift, "end": m.end + shift}) for m in message.mentions),
            raw=before.raw + message.raw,
            strategies=tuple(dict.fromkeys(before.strategies + message.strategies)),
            breaks=(*before.breaks, shift),
        )
    return turns, num_empty, num_joined


def sentences(text: str, mentions: Sequence[Mention] = (), breaks: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Start and end of each sentence of a text; a title is never cut.

    Args:
        text: the text.
        mentions: the titles in it.
        breaks: offsets at which a new sentence begins in any case.

    >>> text = "I saw Mr. Nobody (2009). Great!"
    >>> [text[a:b] for a, b in sentences(text, [Mention(start=6, end=23)])]
    ['I saw Mr. Nobody (2009).', 'Great!']
    """
    ends = {m.end() for m in _SENTENCE_END.finditer(text) if not any(t.start < m.end() < t.end for t in mentions)}
    cuts = sorted(ends | set(breaks))
    out: list[tuple[int, int]] = []
    start = 0
    for cut in [*cuts, len(text)]:
        while start < cut and text[start].isspace():
            start += 1
        if start < cut:
            end = cut
            while text[end - 1].isspace():
                end -= 1
            if _WORD_CHARACTER.search(text, start, end):
                out.append((start, end))
            elif out:
                out[-1] = (out[-1][0], end)
        start = max(start, cut)
    return out
