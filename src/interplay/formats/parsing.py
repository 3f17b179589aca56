"""Reading a model's output as a Turn: one grammar, two ways in (token ids, text of a chat model).

    turn     = "<action>" "<NAME>" "<ACT>"* "</action>" "<response>" body "</response>"
    body     = (text | "<movie_title>" text "</movie_title>")*

The first name is the action, which decides; what else the turn does follows it (`Turn.acts`), in the output of chat models
and of models that were trained so.

A user that was trained on flipped conversations may say "<end>" instead: it leaves without a word, which is a `give-up`
(an accept ends the conversation by itself, so nobody who has accepted is asked again).

White space between tags does not matter. Text of chat models is forgiven more (`events_of_text`): prose before the
first tag, a code fence, the action's name without angle brackets, and a missing `</response>` at the very end.
Whatever can't be read raises a FormatError that keeps the raw output; nothing is guessed.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from interplay.errors import FormatError
from interplay.formats.tags import (
    ACTION_CLOSE,
    ACTION_OPEN,
    END,
    END_OF_TURN,
    RESPONSE_OPEN,
    action_tag,
    structural_tags,
    title_tags,
)
from interplay.types import ACTIONS, FURTHER_ACTS, Action, Domain, Mention, Role, Turn


class Event(NamedTuple):  # a tuple: compared by the million, and equality of a dataclass runs in Python
    """A structural tag or a stretch of text, as met in an output."""

    is_tag: bool
    value: str


_ACTIONS_BY_TAG = {action_tag(action): action for action in Action}


def events_of_text(text: str, domain: Domain) -> list[Event]:
    """Split the text of a chat model's output at the tags of the domain, forgiving its habits."""
    start = text.lower().find(ACTION_OPEN)
    if start > 0:
        text = text[start:]
    text = re.sub(r"\s*```\s*$", "", text)
    names = "|".join(re.escape(a.value) for a in Action)
    bare = rf"(?i)({ACTION_OPEN})\s*[*`\"]*((?:{names})(?:\s*[,+&/]\s*(?:{names}))*)[*`\"]*\s*({ACTION_CLOSE})"
    text = re.sub(bare, lambda m: f"{m[1]}<{re.sub(r'[^A-Za-z-]+', '><', m[2])}>{m[3]}", text)
    tags = "|".join(re.escape(tag) for tag in structural_tags(domain))
    events = [
        Event(True, piece.lower()) if index % 2 else Event(False, piece)
        for index, piece in enumerate(re.split(f"(?i)({tags})", text))
        if piece
    ]
    tag_values = [e.value for e in events if e.is_tag]
    if RESPONSE_OPEN in tag_values and END_OF_TURN not in tag_values:
        events.append(Event(True, END_OF_TURN))
    return events


def parse_turn(events: Sequence[Event], role: Role, domain: Domain, raw: str, *, acts: bool = True) -> Turn:
    """The Turn that an output spells.

    Args:
        events: the output, split at tags.
        role: who spoke.
        domain: tells the title tags.
        raw: the exact output, kept in the Turn and in the error.
        acts: whether further acts may follow the action; one that is named twice counts once.

    Returns:
        The turn; its mentions are not linked to items yet.

    Raises:
        FormatError: the output does not follow the grammar of this module; `reason` says where it left it.
    """
    rest = [e for e in events if e.is_tag or e.value.strip()]
    if not rest:
        raise FormatError("empty-output", raw)
    if role is Role.USER and rest == [Event(True, END)]:
        return Turn(role=role, action=Action.GIVE_UP, text="", raw=(raw,))
    if rest[0] != Event(True, ACTION_OPEN):
        raise FormatError("no-action", raw)
    if len(rest) < 2:
        raise FormatError("cut-off", raw)
    action = _ACTIONS_BY_TAG.get(rest[1].value) if rest[1].is_tag else None
    if action is None:
        raise FormatError("unknown-action", raw)
    if action not in ACTIONS[role]:
        raise FormatError("action-of-other-role", raw)
    if len(rest) < 4:
        raise FormatError("cut-off", raw)
    further, at = _read_acts(rest, action, role, raw) if acts else ((), 2)
    if rest[at : at + 2] != [Event(True, ACTION_CLOSE), Event(True, RESPONSE_OPEN)]:
        raise FormatError("no-response", raw)
    # From here on white space counts: it stands between words and titles.
    body = list(events[events.index(Event(True, RESPONSE_OPEN)) + 1 :])
    if Event(True, END_OF_TURN) not in body:
        raise FormatError("cut-off", raw)
    end = body.index(Event(True, END_OF_TURN))
    if any(e.is_tag or e.value.strip() for e in body[end + 1 :]):
        raise FormatError("stray-tag", raw)
    text, spans = _read_body(body[:end], domain, raw)
    if not text:
        raise FormatError("empty-output", raw)
    return Turn(role=role, action=action, acts=further, text=text, items=spans, raw=(raw,))


def _read_acts(rest: Sequence[Event], action: Action, role: Role, raw: str) -> tuple[tuple[Action, ...], int]:
    """The acts behind the action, and the place after them."""
    acts: dict[Action, None] = {}
    at = 2
    while at < len(rest) and rest[at].is_tag and (act := _ACTIONS_BY_TAG.get(rest[at].value)) is not None:
        if act not in ACTIONS[role]:
            raise FormatError("action-of-other-role", raw)
        if act is not action:
            if act not in FURTHER_ACTS[role]:
                raise FormatError("unknown-action", raw)
            acts[act] = None
        at += 1
    return tuple(acts), at


def _read_body(body: Sequence[Event], domain: Domain, raw: str) -> tuple[str, tuple[Mention, ...]]:
    opening, closing = title_tags(domain)
    text = ""
    spans: list[tuple[int, int]] = []
    opened: int | None = None
    for event in body:
        if not event.is_tag:
            text += event.value
        elif event.value == opening and opened is None:
            opened = len(text)
        elif event.value == closing and opened is not None:
            title = text[opened:]
            start = opened + len(title) - len(title.lstrip())
            stop = opened + len(title.rstrip())
            if start >= stop:
                raise FormatError("empty-title", raw)
            spans.append((start, stop))
            opened = None
        else:
            raise FormatError("unclosed-title" if opened is not None else "stray-tag", raw)
    if opened is not None:
        raise FormatError("unclosed-title", raw)
    shift = len(text) - len(text.lstrip())
    return text.strip(), tuple(Mention(start=a - shift, end=b - shift) for a, b in spans)


def pieces_of_turn(turn: Turn, domain: Domain, *, acts: bool = False) -> list[Event]:
    """The tags and texts that spell a turn, from `<action>` to `</response>`; the inverse of `parse_turn`.

    Args:
        turn: what is said.
        domain: tells the title tags.
        acts: whether its acts stand behind its action; else they are not told.
    """
    opening, closing = title_tags(domain)
    pieces = [
        Event(True, ACTION_OPEN),
        Event(True, action_tag(turn.action)),
        *([Event(True, action_tag(act)) for act in turn.acts] if acts else []),
        Event(True, ACTION_CLOSE),
        Event(True, RESPONSE_OPEN),
    ]
    at = 0
    for mention in turn.items:
        if mention.start > at:
            pieces.append(Event(False, turn.text[at : mention.start]))
        pieces += [Event(True, opening), Event(False, turn.text[mention.start : mention.end]), Event(True, closing)]
        at = mention.end
    if at < len(turn.text):
        pieces.append(Event(False, turn.text[at:]))
    pieces.append(Event(True, END_OF_TURN))
    return pieces


def text_of_turn(turn: Turn, domain: Domain) -> str:
    """The turn as one string with its tags."""
    return "".join(event.value for event in pieces_of_turn(turn, domain))
