"""The reasoning of a recommender and its ranked list, as tags and texts: what stands before `<action>` in its own view.

    reasoning = "<reasoning>" wants* match* "<ranking>" ref* ("<because>" text)? "</reasoning>"
    wants     = "<wants>" text "<is>" text                       kind and value
    match     = "<match>" ref ("<has>" text)* "<score-S>"        S from 0 to MOST_SCORE
    ref       = "<candidate-K>" | "<movie_title>" text "</movie_title>"

The five stages of SMTPO (arXiv 2604.03671): preference inference (wants), attribute matching and scoring (match), ranking,
explanation (because). `<candidate-K>` is the K-th title that the recommender was told to choose from, one token for a trained
model: to choose is one decision, and a tiny model need not copy a title to make it. Chat models write the titles.

    <reasoning><wants> genre<is> crime<match><candidate-2><has> crime<score-1><ranking><candidate-2><candidate-1><because> crime
    </reasoning><action><recommend></action><response>Try <movie_title>Heat (1995)</movie_title>.</response>

White space around texts is not part of them. How long a list must be is no matter of the grammar: see `keeps_form`.
"""

import re
from collections.abc import Sequence

from interplay.errors import FormatError
from interplay.formats.parsing import Event, events_of_text, parse_turn, pieces_of_turn
from interplay.formats.tags import (
    ACTION_OPEN,
    BECAUSE,
    HAS,
    IS,
    MATCH,
    RANKING,
    REASONING_CLOSE,
    REASONING_OPEN,
    SCORES,
    WANTS,
    candidate_tag,
    reasoning_tags,
    title_tags,
)
from interplay.types import Domain, Listed, Match, Preference, Reasoning, Role, Turn

_NUMBERED = re.compile(r"<candidate-(\d+)>")
_SCORE_OF = {tag: score for score, tag in enumerate(SCORES)}


def pieces_of_reasoning(reasoning: Reasoning, domain: Domain, *, numbered: bool) -> list[Event]:
    """The tags and texts that spell a reasoning, from `<reasoning>` to `</reasoning>`; the inverse of `parse_reasoning`.

    Args:
        reasoning: scores beyond MOST_SCORE are written as that.
        domain: tells the title tags.
        numbered: write titles that are candidates by their number.
    """
    opening, closing = title_tags(domain)
    number_of = {title: number for number, title in enumerate(reasoning.candidates, 1)} if numbered else {}

    def ref(title: str) -> list[Event]:
        number = number_of.get(title)
        if number is not None:
            return [Event(True, candidate_tag(number))]
        return [Event(True, opening), Event(False, title), Event(True, closing)]

    pieces = [Event(True, REASONING_OPEN)]
    for wanted in reasoning.preferences:
        # A blank before each text: the words get the same ids that they have within a sentence.
        pieces += [Event(True, WANTS), Event(False, f" {wanted.kind}"), Event(True, IS), Event(False, f" {wanted.value}")]
    for match in reasoning.matches:
        pieces += [Event(True, MATCH), *ref(match.title)]
        pieces += [event for value in match.values for event in (Event(True, HAS), Event(False, f" {value}"))]
        pieces.append(Event(True, SCORES[min(match.score, len(SCORES) - 1)]))
    pieces.append(Event(True, RANKING))
    for listed in reasoning.ranking:
        pieces += ref(listed.title)
    if reasoning.explanation:
        pieces += [Event(True, BECAUSE), Event(False, f" {reasoning.explanation}")]
    return [*pieces, Event(True, REASONING_CLOSE)]


def text_of_reasoned_turn(turn: Turn, domain: Domain) -> str:
    """A turn as one string with its tags, and before it its reasoning, where it has one, with titles written out."""
    reasoning = [] if turn.reasoning is None else pieces_of_reasoning(turn.reasoning, domain, numbered=False)
    return "".join(event.value for event in [*reasoning, *pieces_of_turn(turn, domain)])


class _Reader:
    """Walks over the tags and texts of a reasoning. Every step raises FormatError where it meets something else."""

    def __init__(self, events: Sequence[Event], domain: Domain, candidates: Sequence[str], raw: str) -> None:
        self._events = [(n, e) for n, e in enumerate(events) if e.is_tag or e.value.strip()]
        self._at = 0
        self._raw = raw
        self._candidates = candidates
        self._opening, self._closing = title_tags(domain)

    def fail(self, reason: str) -> FormatError:
        return FormatError(reason, self._raw)

    @property
    def place(self) -> int:
        """Index among the events given, of the next one; their number at the end."""
        return self._events[self._at][0] if self._at < len(self._events) else -1

    def tag(self) -> str:
        """The tag that comes next."""
        if self._at == len(self._events):
            raise self.fail("cut-off")
        event = self._events[self._at][1]
        if not event.is_tag:
            raise self.fail("stray-text")
        return event.value

    def take(self) -> str:
        tag = self.tag()
        self._at += 1
        return tag

    def text(self) -> str:
        """The text that comes next; without white space around it."""
        if self._at == len(self._events):
            raise self.fail("cut-off")
        event = self._events[self._at][1]
        if event.is_tag:
            raise self.fail("empty-text")
        self._at += 1
        return event.value.strip()

    def is_ref(self) -> bool:
        return (tag := self.tag()) == self._opening or _NUMBERED.fullmatch(tag) is not None

    def ref(self) -> str:
        """The title that is referred to."""
        tag = self.take()
        if tag == self._opening:
            if self._at < len(self._events) and self._events[self._at][1] == Event(True, self._closing):
                raise self.fail("empty-title")
            title = self.text()
            if self.take() != self._closing:
                raise self.fail("unclosed-title")
            return title
        found = _NUMBERED.fullmatch(tag)
        if found is None:
            raise self.fail("stray-tag")
        number = int(found[1])
        if not 1 <= number <= len(self._candidates):
            raise self.fail("unknown-candidate")
        return self._candidates[number - 1]


def parse_reasoning(events: Sequence[Event], domain: Domain, candidates: Sequence[str], raw: str) -> tuple[Reasoning, int]:
    """The Reasoning that an output begins with.

    Args:
        events: the output, split at tags.
        domain: tells the title tags.
        candidates: the titles that it was told to choose from, in the order of their numbers; they are kept in the Reasoning.
        raw: the exact output, for the error.

    Returns:
        The reasoning, whose list is not linked to items yet; and the index of the event behind it.

    Raises:
        FormatError: the output does not follow the grammar of this module; `reason` says where it left it.
    """
    reader = _Reader(events, domain, candidates, raw)
    if reader.place < 0:
        raise FormatError("empty-output", raw)
    if events[reader.place] != Event(True, REASONING_OPEN):
        raise FormatError("no-reasoning", raw)
    reader.take()
    preferences, matches, ranking, explanation = [], [], [], ""
    while reader.tag() == WANTS:
        reader.take()
        kind = reader.text()
        if reader.take() != IS:
            raise reader.fail("stray-tag")
        preferences.append(Preference(kind=kind, value=reader.text()))
    while reader.tag() == MATCH:
        reader.take()
        title, values = reader.ref(), []
        while reader.tag() == HAS:
            reader.take()
            values.append(reader.text())
        score = _SCORE_OF.get(reader.take())
        if score is None:
            raise reader.fail("no-score")
        matches.append(Match(title=title, values=tuple(values), score=score))
    if reader.take() != RANKING:
        raise reader.fail("no-ranking")
    while reader.is_ref():
        ranking.append(Listed(title=reader.ref()))
    if reader.tag() == BECAUSE:
        reader.take()
        explanation = reader.text()
    if reader.take() != REASONING_CLOSE:
        raise reader.fail("stray-tag")
    reasoning = Reasoning(
        preferences=tuple(preferences),
        matches=tuple(matches),
        ranking=tuple(ranking),
        explanation=explanation,
        candidates=tuple(candidates),
    )
    return reasoning, len(events) if reader.place < 0 else reader.place


def parse_reasoned_turn(events: Sequence[Event], role: Role, domain: Domain, raw: str, candidates: Sequence[str] = ()) -> Turn:
    """The Turn, with its reasoning, that an output of a recommender that reasons spells.

    Args:
        events: see `parse_reasoning`, as the rest.
        role: who spoke.
        domain: see there.
        raw: the exact output, kept in the Turn and in the error.
        candidates: see there.

    Raises:
        FormatError: see `parse_reasoning` and `parsing.parse_turn`.
    """
    reasoning, end = parse_reasoning(events, domain, candidates, raw)
    turn = parse_turn(events[end:], role, domain, raw)
    return turn.model_copy(update={"reasoning": reasoning})


def reasoned_events_of_text(text: str, domain: Domain) -> list[Event]:
    """Split the text of a chat model's output at the tags of the domain and of reasoning, forgiving its habits.

    Prose before the first tag, a code fence at the end, the action's name without angle brackets, and a missing
    `</response>` at the very end, as in `parsing.events_of_text`.
    """
    start = re.search(re.escape(REASONING_OPEN), text, re.IGNORECASE)
    stop = re.search(re.escape(ACTION_OPEN), text, re.IGNORECASE)
    if start is None or (stop is not None and stop.start() < start.start()):
        return events_of_text(text, domain)
    head = text[start.start() : len(text) if stop is None else stop.start()]
    tags = "|".join(re.escape(tag) for tag in (*reasoning_tags(), *title_tags(domain)))
    events = [
        Event(True, piece.lower()) if index % 2 else Event(False, piece)
        for index, piece in enumerate(re.split(f"(?i)({tags})", head))
        if piece
    ]
    return events if stop is None else [*events, *events_of_text(text[stop.start() :], domain)]


def keeps_form(reasoning: Reasoning, list_length: int) -> bool:
    """Whether the list has exactly as many titles as asked for, or as there are to choose from, all distinct candidates."""
    titles = [_spelling(listed.title) for listed in reasoning.ranking]
    wanted = min(list_length, len(reasoning.candidates)) if reasoning.candidates else list_length
    candidates = {_spelling(title) for title in reasoning.candidates}
    return len(titles) == len(set(titles)) == wanted and (not candidates or candidates.issuperset(titles))


def _spelling(title: str) -> str:
    return " ".join(title.casefold().split())
