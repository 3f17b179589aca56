"""The grammar of `parsing`, token by token: what a trained model may say next so that its turn can be read.

    turn = <action> NAME ACT* </action> <response> body </response>
    body = (text | <movie_title> title </movie_title>)*, not blank

or, of a user that was trained to leave so, the one token <end>. Acts, each once, are for models that were trained with them.

A turn drawn under it always parses, names titles of the catalog only, and is complete within the tokens it may have: a
title is opened and followed only where it can still be closed, and the end is forced with the last token. Implements
`interplay.constraints`; knows nothing of backends.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from interplay.constraints import Allowed
from interplay.errors import CheckpointError, ConfigError
from interplay.formats.tags import ACTION_CLOSE, ACTION_OPEN, RESPONSE_OPEN, action_tag, title_tags
from interplay.formats.tokens import TokenFormat
from interplay.formats.trie import TitlesLeft, TitleTrie, title_rows
from interplay.types import ACTIONS, FURTHER_ACTS, Action, Role

SHORTEST_TURN = 6
"""Tokens of the shortest turn: the four of the frame, one of text, the end."""


class _At(IntEnum):
    """Where a turn has got to."""

    ACTION_OPEN = 0
    ACTION = 1
    ACTION_CLOSE = 2
    RESPONSE_OPEN = 3
    TEXT = 4
    TITLE = 5
    FREE_TITLE = 6
    END = 7


class TurnGrammar:
    """What one role may say, for one tokenizer and one catalog. Shared by all requests.

    Args:
        form: tells the ids.
        role: whose actions are allowed.
        titles: of the catalog; None: a title may be any text.
        vocab_size: ids that the model has logits for; it may have more than the tokenizer has tokens, and those are never
            drawn. By default the tokenizer's own.

    Raises:
        CheckpointError: no token of the tokenizer spells visible text.
    """

    def __init__(
        self, form: TokenFormat, role: Role, titles: TitleTrie | None = None, *, vocab_size: int | None = None
    ) -> None:
        self.form = form
        self.role = role
        self.titles = titles
        tokens = np.array(sorted(form.tokenizer.get_vocab().values()), dtype=np.int64)
        self.vocab_size = vocab_size or int(tokens[-1]) + 1
        is_text = np.zeros(max(self.vocab_size, int(tokens[-1]) + 1), dtype=bool)
        is_text[tokens] = True
        is_text[sorted(form.reserved_ids)] = False
        is_text = is_text[: self.vocab_size]
        text_ids = np.flatnonzero(is_text)
        spelled = form.tokenizer.backend_tokenizer.decode_batch([[i] for i in text_ids.tolist()], skip_special_tokens=False)
        is_visible = np.zeros_like(is_text)
        # A piece of a character decodes to U+FFFD by itself, and several of them may turn out to be a wide blank.
        is_visible[text_ids] = [bool(text.replace("\ufffd", "").strip()) for text in spelled]
        if not is_visible.any():
            raise CheckpointError(f"no token of the tokenizer ({len(text_ids)} that are not special) spells visible text")
        self.is_text = is_text.tobytes()
        """One byte per id: whether it is text."""
        self.is_visible = is_visible.tobytes()
        """One byte per id: whether a text that holds it can't be blank."""

        opening, closing = title_tags(form.domain)
        self.opening, self.closing, self.end = form.tag_id(opening), form.tag_id(closing), form.end_of_turn
        names = tuple(form.tag_id(action_tag(action)) for action in ACTIONS[role])
        self.actions = {a: Allowed(np.array([n], dtype=np.int64), only=True) for a, n in zip(ACTIONS[role], names, strict=True)}
        """What the second token may be when the action is given."""
        self.leave = form.end if role is Role.USER else None
        leave = () if self.leave is None else (self.leave,)
        frame = (form.tag_id(ACTION_OPEN), *leave), names, (form.tag_id(ACTION_CLOSE),), (form.tag_id(RESPONSE_OPEN),)
        self.frame = tuple(Allowed(np.array(ids, dtype=np.int64), only=True) for ids in frame)
        """What the first four tokens may be."""
        self.acts = tuple(form.tag_id(action_tag(act)) for act in FURTHER_ACTS[role]) if form.acts else ()
        self._further: dict[frozenset[int], Allowed] = {}

        def text_and(*ids: int) -> Allowed:
            forbidden = ~is_text
            forbidden[list(ids)] = False
            return Allowed(np.flatnonzero(forbidden), only=False)

        self.text = ((text_and(), text_and(self.opening)), (text_and(self.end), text_and(self.end, self.opening)))
        """In the body, by whether the turn may end and whether a title may be opened."""
        self.free_title = (text_and(), text_and(self.closing))
        """In a title that may be any text, by whether it may be closed."""
        self.visible = Allowed(np.flatnonzero(~is_visible), only=False)
        """Where the next token must be seen."""
        self.close_only = Allowed(np.array([self.closing], dtype=np.int64), only=True)
        self.end_only = Allowed(np.array([self.end], dtype=np.int64), only=True)

    def further(self, told: frozenset[int]) -> Allowed:
        """What may follow the action and the acts `told`: another act, or the end of the block. One array for each set."""
        known = self._further.get(told)
        if known is None:
            ids = [*self.frame[_At.ACTION_CLOSE].ids.tolist(), *(act for act in self.acts if act not in told)]
            known = self._further[told] = Allowed(np.array(ids, dtype=np.int64), only=True)
        return known

    @cached_property
    def words(self) -> "_Words":
        """How tokens begin words; asked for where a turn is held to a length."""
        return _Words.of(self.form, np.flatnonzero(np.frombuffer(self.is_text, dtype=bool)), self.vocab_size, self.end)

    def constraint(
        self,
        *,
        only: Collection[str] | None = None,
        excluding: Iterable[str] = (),
        action: Action | None = None,
        num_words: tuple[int, int] | None = None,
    ) -> "TurnConstraint":
        """What one turn may be made of. Cheap: a few corrections per excluded title, a small trie for `only`.

        Args:
            only: titles that may be named, all of the catalog; by default every one.
            excluding: titles that may not; those that the catalog does not hold have no effect.
            action: the one that the turn must take; by default any of the role's.
            num_words: fewest and most words of the turn, split at white space. It does not end below the fewest unless its
                tokens run out, and begins no word above the most; a title that was opened before is written to its end. Of
                tokens that are pieces of characters words are counted roughly.

        Raises:
            ValueError: one of `only` is not of the catalog, titles are free, or the action is the other role's.
        """
        if action is not None and action not in self.actions:
            raise ValueError(f"a {self.role} can't take the action {action.value!r}")
        given = None if action is None else self.actions[action]
        if self.titles is None:
            if only is not None:
                raise ValueError("titles are free: there is no catalog to choose from")
            return TurnConstraint(self, None, given, num_words)
        trie = self.titles
        if only is not None:
            trie = TitleTrie.build(self._rows_of(trie, [title.strip() for title in only]), self.closing)
        rows = self.form.encode_texts([title.strip() for title in excluding])
        paths = (trie.path((*row, self.closing)) for row in rows)
        return TurnConstraint(self, TitlesLeft(trie, [path for path in paths if path is not None]), given, num_words)

    def _rows_of(self, trie: TitleTrie, titles: list[str]) -> list[list[int]]:
        rows = []
        for title, row in zip(titles, self.form.encode_texts(titles), strict=True):
            if trie.path((*row, self.closing)) is not None:
                rows.append(row)
            elif title_rows(self.form, [title]):  # others can't be written, and were left out of the catalog's trie as well
                raise ValueError(f"the catalog holds no {title!r}")
        return rows


@dataclass(slots=True, frozen=True)
class _Words:
    """How the tokens of a tokenizer begin words; one byte per id."""

    after_word: bytes
    """Words that begin within the token where the text before it ends in a word."""
    after_blank: bytes
    """The same where that ends in white space, or is empty."""
    ends_blank: bytes
    """Whether it ends in white space."""
    going_on: Allowed
    """Tokens that go on with a word and begin none, and the end of the turn."""

    @classmethod
    def of(cls, form: TokenFormat, text_ids: npt.NDArray[np.int64], vocab_size: int, end: int) -> "_Words":
        spelled = form.tokenizer.backend_tokenizer.decode_batch([[i] for i in text_ids.tolist()], skip_special_tokens=False)
        table = np.zeros((3, vocab_size), dtype=np.uint8)
        is_going_on = np.zeros(vocab_size, dtype=bool)
        for index, text in zip(text_ids.tolist(), spelled, strict=True):
            num, is_blank_first, is_blank_last = len(text.split()), text[:1].isspace(), text[-1:].isspace()
            table[:, index] = (max(num - (not is_blank_first), 0), num, is_blank_last)
            is_going_on[index] = bool(text) and not any(c.isspace() for c in text)
        is_going_on[end] = True
        after_word, after_blank, ends_blank = (row.tobytes() for row in table)
        return cls(after_word, after_blank, ends_blank, Allowed(np.flatnonzero(~is_going_on), only=False))


class TurnConstraint:
    """What one turn may be made of (`interplay.constraints.Constraint`); made by `TurnGrammar.constraint`."""

    __slots__ = ("action", "grammar", "num_words", "titles")

    def __init__(
        self,
        grammar: TurnGrammar,
        titles: TitlesLeft | None,
        action: Allowed | None = None,
        num_words: tuple[int, int] | None = None,
    ) -> None:
        self.grammar = grammar
        self.titles = titles
        self.action = action
        self.num_words = num_words

    def start(self, max_new_tokens: int) -> "TurnState":
        """The state before the turn's first token.

        Raises:
            ConfigError: no turn fits into `max_new_tokens`.
        """
        require_room(max_new_tokens)
        return TurnState(self.grammar, self.titles, max_new_tokens, self.action, self.num_words)


def require_room(max_new_tokens: int) -> None:
    """Make sure that a turn fits.

    Raises:
        ConfigError: it does not.
    """
    if max_new_tokens < SHORTEST_TURN:
        raise ConfigError(
            f"max_new_tokens is {max_new_tokens}; the shortest turn has {SHORTEST_TURN} tokens (its tags and one word): "
            "raise it, or pass --no-constrained"
        )


class TurnState:
    """How far one turn has got (`interplay.constraints.ConstraintState`)."""

    __slots__ = (
        "_action",
        "_at",
        "_grammar",
        "_has_words",
        "_is_after_blank",
        "_left",
        "_node",
        "_num_words",
        "_range",
        "_title_has_words",
        "_title_length",
        "_titles",
        "_told",
    )

    def __init__(
        self,
        grammar: TurnGrammar,
        titles: TitlesLeft | None,
        max_new_tokens: int,
        action: Allowed | None = None,
        num_words: tuple[int, int] | None = None,
    ) -> None:
        self._grammar = grammar
        self._action = grammar.frame[_At.ACTION] if action is None else action
        self._titles = titles
        self._left = max_new_tokens
        self._told: frozenset[int] = frozenset()
        self._at = _At.ACTION_OPEN
        self._range = num_words
        self._num_words = 0
        self._is_after_blank = True
        self._has_words = False
        self._title_has_words = False
        self._node = 0
        # Tokens that the shortest title needs, the opening tag and that which follows it to the end of the turn included.
        self._title_length = 4 if titles is None else 2 + titles.shortest(0)

    def allowed(self) -> Allowed:
        """Which ids may come next. Arrays of states that recur are the same object each time."""
        grammar, left = self._grammar, self._left
        match self._at:
            case _At.TEXT:
                if left == 1:
                    return grammar.end_only
                if left == 2 and not self._has_words:
                    return grammar.visible
                may_end = self._has_words
                if self._range is not None and may_end:
                    fewest, most = self._range
                    if self._num_words >= most:
                        return grammar.end_only if self._is_after_blank else grammar.words.going_on
                    may_end = self._num_words >= fewest
                return grammar.text[may_end][left >= self._title_length]
            case _At.TITLE:
                assert self._titles is not None
                return Allowed(self._titles.next_ids(self._node, left - 1), True)
            case _At.FREE_TITLE:
                if self._title_has_words:
                    return grammar.close_only if left == 2 else grammar.free_title[True]
                return grammar.visible if left == 3 else grammar.free_title[False]
            case _At.END:
                return grammar.end_only
            case _At.ACTION:
                return self._action
            case _At.ACTION_CLOSE if grammar.acts and left >= SHORTEST_TURN - 1:
                return grammar.further(self._told)
            case _:
                return grammar.frame[self._at]

    def advance(self, index: int) -> None:
        """Take in the id that was drawn.

        Raises:
            ValueError: it was not allowed. (Not every such id is noticed.)
        """
        grammar = self._grammar
        self._left -= 1
        if self._range is not None and _At.TEXT <= self._at <= _At.FREE_TITLE and self._is_text(index):
            words = grammar.words
            self._num_words += (words.after_blank if self._is_after_blank else words.after_word)[index]
            self._is_after_blank = bool(words.ends_blank[index])
        match self._at:
            case _At.TEXT:
                if index == grammar.end:
                    self._at = _At.END
                elif index == grammar.opening:
                    self._at = _At.FREE_TITLE if self._titles is None else _At.TITLE
                    self._node = 0
                    self._title_has_words = False
                elif self._is_text(index):
                    self._has_words = self._has_words or bool(grammar.is_visible[index])
                else:
                    raise ValueError(f"token {index} can't stand in a turn")
            case _At.TITLE:
                assert self._titles is not None
                if index == grammar.closing:
                    self._close_title()
                    return
                node = self._titles.trie.child(self._node, index)
                if node is None:
                    raise ValueError(f"no title goes on with token {index}")
                self._node = node
            case _At.FREE_TITLE:
                if index == grammar.closing:
                    self._close_title()
                elif self._is_text(index):
                    self._title_has_words = self._title_has_words or bool(grammar.is_visible[index])
                else:
                    raise ValueError(f"token {index} can't stand in a title")
            case _At.END:
                pass  # a backend may look one token too far
            case _At.ACTION_CLOSE if index in grammar.acts:
                if index in self._told or self._left < SHORTEST_TURN - 2:
                    raise ValueError(f"token {index} can't be one more act of the turn")
                self._told |= {index}
            case at:
                if index not in (self._action if at is _At.ACTION else grammar.frame[at]).ids:
                    raise ValueError(f"token {index} can't be number {at} of a turn")
                if at is _At.ACTION:
                    self._told = frozenset([index])
                self._at = _At.END if index == grammar.leave else _At(at + 1)

    def _is_text(self, index: int) -> bool:
        return 0 <= index < len(self._grammar.is_text) and bool(self._grammar.is_text[index])

    def _close_title(self) -> None:
        self._at = _At.TEXT
        self._has_words = True
