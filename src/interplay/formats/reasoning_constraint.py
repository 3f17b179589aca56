"""The grammar of `reasoning`, token by token: what a recommender that reasons may write so that its answer can be read.

What is drawn under it always parses; its list has as many titles as asked for, all distinct and, where it was told
candidates, all of them candidates; and the turn behind it is complete within the tokens it may have. Each text and the
number of entries are bounded, and an entry is begun only where the list, and a turn of some length, can still follow.

Where there are candidates they are told by their numbers. Where there are none, titles of the catalog are written out, and
there is no matching: nothing was shown that could be matched.
"""

from collections.abc import Collection, Iterable, Sequence
from enum import IntEnum
from functools import cached_property

import numpy as np

from interplay.constraints import Allowed
from interplay.errors import ConfigError
from interplay.formats.constraint import SHORTEST_TURN, TurnConstraint, TurnGrammar, TurnState
from interplay.formats.tags import (
    BECAUSE,
    HAS,
    IS,
    MATCH,
    MOST_CANDIDATES,
    RANKING,
    REASONING_CLOSE,
    REASONING_OPEN,
    SCORES,
    WANTS,
    candidate_tag,
)
from interplay.formats.tokens import TokenFormat
from interplay.formats.trie import TitlesLeft, TitleTrie
from interplay.types import Action, Role

MOST_WANTS = 8
"""Preferences that a reasoning may name."""
MOST_VALUES = 8
"""Values that a match may name."""
MOST_TEXT = 12
"""Tokens of a kind or a value at most."""
MOST_EXPLANATION = 24
"""Tokens of the explanation at most."""
REPLY = 48
"""Tokens that are kept for the turn behind the reasoning, where there are as many."""
_FREE_ENTRY = 3
"""Tokens that a title of any text needs: its tags and one token."""


class _At(IntEnum):
    """Where a reasoning has got to."""

    OPEN = 0
    STEP = 1
    KIND = 2
    VALUE = 3
    REF = 4
    REST_OF_MATCH = 5
    HAD = 6
    LIST = 7
    TITLE = 8
    FREE_TITLE = 9
    LISTED = 10
    BECAUSE = 11
    TURN = 12


class ReasonedGrammar(TurnGrammar):
    """What a recommender that reasons may say, for one tokenizer and one catalog. Shared by all requests.

    Args:
        form: tells the ids.
        titles: see TurnGrammar, as vocab_size.
        list_length: titles of the ranked list.
        vocab_size: see there.

    Raises:
        CheckpointError: see there.
    """

    def __init__(
        self, form: TokenFormat, titles: TitleTrie | None = None, *, list_length: int, vocab_size: int | None = None
    ) -> None:
        super().__init__(form, Role.RECOMMENDER, titles, vocab_size=vocab_size)
        self.list_length = list_length
        tags = (REASONING_OPEN, WANTS, IS, MATCH, HAS, RANKING, BECAUSE, REASONING_CLOSE)
        self.open, self.wants, self.what, self.match, self.has, self.ranking, self.because, self.close = map(form.tag_id, tags)
        self.scores = tuple(map(form.tag_id, SCORES))
        self.numbers = tuple(form.tag_id(candidate_tag(n)) for n in range(1, MOST_CANDIDATES + 1))
        self._only: dict[tuple[int, ...], Allowed] = {}
        self._texts: dict[tuple[int, ...], Allowed] = {}
        self._no_text = ~np.frombuffer(self.is_text, dtype=bool)

    @cached_property
    def _title_lengths(self) -> list[int]:
        """Tokens of every title of the catalog, closing tag included, ascending."""
        trie = self.titles
        assert trie is not None
        depth = np.zeros(len(trie.token), dtype=np.int64)
        for node in range(len(trie.token)):
            depth[trie.first[node] : trie.first[node + 1]] = depth[node] + 1
        return sorted(depth[trie.first[1:] == trie.first[:-1]].tolist())

    def only(self, *ids: int) -> Allowed:
        """These ids and no other; the same object each time."""
        if (found := self._only.get(ids)) is None:
            found = self._only[ids] = Allowed(np.array(ids, dtype=np.int64), only=True)
        return found

    def text_or(self, *ids: int) -> Allowed:
        """Any text, or one of these ids; the same object each time."""
        if (found := self._texts.get(ids)) is None:
            forbidden = self._no_text.copy()
            forbidden[list(ids)] = False
            found = self._texts[ids] = Allowed(np.flatnonzero(forbidden), only=False)
        return found

    def constraint(
        self,
        *,
        only: Collection[str] | None = None,
        excluding: Iterable[str] = (),
        action: Action | None = None,
        num_words: tuple[int, int] | None = None,
        candidates: Sequence[str] = (),
        only_first: bool = False,
    ) -> "ReasonedConstraint":
        """What one answer may be made of.

        Args:
            only: see TurnGrammar.constraint, as the rest; limits the words of the turn, not the list.
            excluding: titles that neither the words nor a list without candidates may name.
            action: of the turn.
            num_words: of the turn; the reasoning has bounds of its own.
            candidates: what the list is chosen from; empty: the catalog.
            only_first: the words of the turn can name nothing but the first title of the list.

        Raises:
            ValueError: see there; or there are more than MOST_CANDIDATES candidates.
        """
        if len(candidates) > MOST_CANDIDATES:
            raise ValueError(f"{len(candidates)} candidates; at most {MOST_CANDIDATES} can be told by their number")
        excluded = list(excluding)
        turn = super().constraint(only=only, excluding=excluded, action=action, num_words=num_words)
        if candidates:
            first_of = self.form.encode_texts([title.strip() for title in candidates]) if only_first else ()
            return ReasonedConstraint(self, turn, len(candidates), (), min(self.list_length, len(candidates)), 1, first_of)
        if self.titles is None:
            return ReasonedConstraint(self, turn, 0, (), self.list_length, _FREE_ENTRY)
        trie = self.titles
        rows = self.form.encode_texts([title.strip() for title in excluded])
        paths = tuple(p for row in rows if (p := trie.path((*row, self.closing))) is not None)
        number = min(self.list_length, max(0, trie.num_titles - len(paths)))
        # However the shorter ones are chosen, one title of this length is left for each place.
        entry = 1 + int(self._title_lengths[number + len(paths) - 1]) if number else 0
        return ReasonedConstraint(self, turn, 0, paths, number, entry)


class ReasonedConstraint(TurnConstraint):
    """What one answer may be made of; made by `ReasonedGrammar.constraint`."""

    __slots__ = ("entry", "excluded", "first_of", "list_length", "num_candidates", "reasoned")

    def __init__(
        self,
        grammar: ReasonedGrammar,
        turn: TurnConstraint,
        num_candidates: int,
        excluded: tuple[list[int], ...],
        list_length: int,
        entry: int,
        first_of: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__(grammar, turn.titles, turn.action, turn.num_words)
        self.reasoned = grammar
        self.num_candidates = num_candidates
        self.excluded = excluded
        self.list_length = list_length
        self.entry = entry
        self.first_of = first_of

    @property
    def shortest(self) -> int:
        """Tokens of the shortest answer for sure."""
        return 3 + self.list_length * self.entry + SHORTEST_TURN

    def start(self, max_new_tokens: int) -> "ReasoningState":  # type: ignore[override]  # both are ConstraintStates
        """The state before the first token.

        Raises:
            ConfigError: no answer fits into `max_new_tokens`.
        """
        if max_new_tokens < self.shortest:
            raise ConfigError(
                f"max_new_tokens is {max_new_tokens}; a list of {self.list_length} titles and the shortest turn need up to "
                f"{self.shortest} tokens: raise it, or pass --no-constrained"
            )
        return ReasoningState(self, max_new_tokens)


class ReasoningState:
    """How far one answer has got (`interplay.constraints.ConstraintState`)."""

    __slots__ = (
        "_at",
        "_constraint",
        "_count",
        "_first",
        "_grammar",
        "_has_words",
        "_left",
        "_length",
        "_matched",
        "_node",
        "_places",
        "_tail",
        "_titles",
        "_turn",
        "_unlisted",
        "_written",
    )

    def __init__(self, constraint: ReasonedConstraint, max_new_tokens: int) -> None:
        self._constraint = constraint
        self._grammar = constraint.reasoned
        self._left = max_new_tokens
        self._at = _At.OPEN
        # What must be left when the reasoning closes, and when the list begins.
        self._tail = max(SHORTEST_TURN, min(REPLY, max_new_tokens - constraint.shortest + SHORTEST_TURN))
        self._places = constraint.list_length
        self._count = 0
        self._length = 0
        self._has_words = False
        numbers = self._grammar.numbers[: constraint.num_candidates]
        self._matched, self._unlisted = list(numbers), list(numbers)
        self._written: list[int] = []
        self._first: int | None = None
        self._titles: TitlesLeft | None = None
        self._node = 0
        self._turn: TurnState | None = None

    def _needed(self) -> int:
        """Tokens that the rest needs from before `<ranking>` on."""
        return 2 + self._constraint.list_length * self._constraint.entry + self._tail

    def allowed(self) -> Allowed:
        """Which ids may come next."""
        grammar = self._grammar
        match self._at:
            case _At.TURN:
                assert self._turn is not None
                return self._turn.allowed()
            case _At.OPEN:
                return grammar.only(grammar.open)
            case _At.STEP:
                return grammar.only(*self._steps())
            case _At.KIND:
                return self._text(MOST_TEXT, 2 + self._needed(), grammar.what)
            case _At.VALUE:
                return self._text(MOST_TEXT, self._needed(), *self._steps())
            case _At.REF:
                return Allowed(np.array(self._matched, dtype=np.int64), True)
            case _At.REST_OF_MATCH:
                return grammar.only(*self._rest_of_match())
            case _At.HAD:
                return self._text(MOST_TEXT, 1 + self._needed(), *self._rest_of_match())
            case _At.LIST:
                if self._unlisted:
                    return Allowed(np.array(self._unlisted, dtype=np.int64), True)
                return grammar.only(grammar.opening)
            case _At.TITLE:
                assert self._titles is not None
                return Allowed(self._titles.next_ids(self._node, self._left - self._behind()), True)
            case _At.FREE_TITLE:
                return self._text(MOST_TEXT, 1 + self._behind(), grammar.closing)
            case _At.LISTED:
                fits = self._left >= 3 + self._tail
                return grammar.only(grammar.because, grammar.close) if fits else grammar.only(grammar.close)
            case _:
                return self._text(MOST_EXPLANATION, 1 + self._tail, grammar.close)

    def _steps(self) -> tuple[int, ...]:
        """What may begin an entry, or the list, now."""
        grammar, room = self._grammar, self._left - self._needed()
        steps = [grammar.ranking]
        if self._count < MOST_WANTS and len(self._matched) == self._constraint.num_candidates and room >= 4:
            steps.append(grammar.wants)
        if self._matched and room >= 3:
            steps.append(grammar.match)
        return tuple(steps)

    def _rest_of_match(self) -> tuple[int, ...]:
        scores = self._grammar.scores
        fits = self._count < MOST_VALUES and self._left >= 3 + self._needed()
        return (self._grammar.has, *scores) if fits else scores

    def _behind(self) -> int:
        """Tokens that the rest needs behind the title that is being written."""
        return 1 + (self._places - 1) * self._constraint.entry + self._tail

    def _text(self, most: int, behind: int, *ends: int) -> Allowed:
        """Text that is not blank, of at most `most` tokens, or one of the tags that end it; `behind`: what the rest needs."""
        grammar, more = self._grammar, self._left - behind
        if self._has_words:
            return grammar.text_or(*ends) if self._length < most and more >= 1 else grammar.only(*ends)
        return grammar.text_or() if self._length < most - 1 and more >= 2 else grammar.visible

    def advance(self, index: int) -> None:
        """Take in the id that was drawn.

        Raises:
            ValueError: it was not allowed. (Not every such id is noticed.)
        """
        grammar = self._grammar
        if self._turn is not None:
            self._turn.advance(index)
            return
        self._left -= 1
        at = self._at
        is_text = at in (_At.KIND, _At.VALUE, _At.HAD, _At.FREE_TITLE, _At.BECAUSE)
        if is_text and 0 <= index < len(grammar.is_text) and grammar.is_text[index]:
            self._length += 1
            self._has_words = self._has_words or bool(grammar.is_visible[index])
            return
        if is_text and not self._has_words:
            raise ValueError(f"token {index} can't stand in a text of a reasoning")
        if at is _At.OPEN and index == grammar.open:
            self._at = _At.STEP
        elif at in (_At.STEP, _At.VALUE) and index in (grammar.wants, grammar.match, grammar.ranking):
            self._step(index)
        elif at is _At.KIND and index == grammar.what:
            self._begin_text(_At.VALUE)
        elif at is _At.REF and index in self._matched:
            self._matched.remove(index)
            self._count = 0
            self._at = _At.REST_OF_MATCH
        elif at in (_At.REST_OF_MATCH, _At.HAD) and index == grammar.has:
            self._count += 1
            self._begin_text(_At.HAD)
        elif at in (_At.REST_OF_MATCH, _At.HAD) and index in grammar.scores:
            self._at = _At.STEP
        elif at in (_At.LIST, _At.TITLE, _At.FREE_TITLE):
            self._list(index)
        elif at is _At.LISTED and index == grammar.because:
            self._begin_text(_At.BECAUSE)
        elif at in (_At.LISTED, _At.BECAUSE) and index == grammar.close:
            self._at = _At.TURN
            told, titles = self._constraint, self._constraint.titles
            if told.first_of and self._first is not None:
                titles = TitlesLeft(TitleTrie.build([told.first_of[self._first]], grammar.closing))
            self._turn = TurnState(grammar, titles, self._left, told.action, told.num_words)
        else:
            raise ValueError(f"token {index} can't stand here in a reasoning ({at.name.lower()})")

    def _begin_text(self, at: _At) -> None:
        self._at, self._length, self._has_words = at, 0, False

    def _step(self, index: int) -> None:
        grammar = self._grammar
        if index == grammar.wants:
            self._count += 1
            self._begin_text(_At.KIND)
        elif index == grammar.match:
            self._at = _At.REF
        else:
            self._at = _At.LIST if self._places else _At.LISTED

    def _list(self, index: int) -> None:
        """Take in a token of the list."""
        grammar = self._grammar
        if self._at is _At.LIST and index in self._unlisted:
            self._unlisted.remove(index)
            self._first = grammar.numbers.index(index) if self._first is None else self._first
            self._close_entry()
        elif self._at is _At.LIST and index == grammar.opening and not self._constraint.num_candidates:
            if grammar.titles is None:
                self._begin_text(_At.FREE_TITLE)
                return
            excluded = [*self._constraint.excluded, *self._paths()]
            self._titles, self._node, self._at = TitlesLeft(grammar.titles, excluded), 0, _At.TITLE
        elif self._at is _At.FREE_TITLE and index == grammar.closing:
            self._close_entry()
        elif self._at is _At.TITLE:
            assert self._titles is not None
            node = self._titles.trie.child(self._node, index)
            if node is None:
                raise ValueError(f"no title goes on with token {index}")
            self._node = node
            self._written.append(index)
            if index == grammar.closing:
                self._close_entry()
        else:
            raise ValueError(f"token {index} can't stand in a list")

    def _paths(self) -> list[list[int]]:
        """Of the titles that the list holds already."""
        trie, paths, row = self._grammar.titles, [], []
        assert trie is not None
        for index in self._written:
            row.append(index)
            if index == self._grammar.closing:
                path = trie.path(row)
                if path is not None:
                    paths.append(path)
                row = []
        return paths

    def _close_entry(self) -> None:
        self._places -= 1
        self._at = _At.LIST if self._places else _At.LISTED
