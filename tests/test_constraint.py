"""Turns drawn under the grammar: whatever is drawn can be read, names what may be named, and is complete in time."""

import random
import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.constraints import Allowed, Constraint
from interplay.errors import CheckpointError, ConfigError
from interplay.formats.constraint import SHORTEST_TURN, TurnGrammar, TurnState
from interplay.formats.tags import title_tags
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.formats.trie import TitleTrie, title_rows
from interplay.training.backbone import train_tokenizer
from interplay.types import ACTIONS, Role
from makers import MOVIE, TALK

TITLES = (
    "Alien",
    "Aliens",
    "Alien (1979)",
    "Heat (1995)",
    "X",
    "é",
    "漢字 (2001)",
    "</movie_title> & <response>",
    "<movie_title>",
    "</response>",
    "<pad>",
    "The Assassination of Jesse James by the Coward Robert Ford (2007)",
    "  ",
    "",
)
WRITABLE = {title for title in TITLES if title.strip()}
PADDING = 37


@cache
def form_() -> TokenFormat:
    tokenizer = train_tokenizer([f"hello try {title} \u3000 \u00a0" for title in TITLES] * 3, 330)
    add_structural_tokens(tokenizer, MOVIE)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    return TokenFormat(tokenizer, MOVIE)


@cache
def grammar(role: Role = Role.RECOMMENDER, *, is_free: bool = False) -> TurnGrammar:
    form = form_()
    closing = form.tag_id(title_tags(MOVIE)[1])
    trie = None if is_free else TitleTrie.build(title_rows(form, TITLES), closing)
    return TurnGrammar(form, role, trie, vocab_size=len(form.tokenizer) + PADDING)


def choices(allowed: Allowed, vocab_size: int) -> np.ndarray:
    if allowed.only:
        return allowed.ids
    mask = np.ones(vocab_size, dtype=bool)
    mask[allowed.ids] = False
    return np.flatnonzero(mask)


def walk(constraint: Constraint, turn_grammar: TurnGrammar, limit: int, seed: int, *, like_titles: float = 0.3) -> list[int]:
    """A turn drawn at random, as a backend would: until the end token, at most `limit` tokens."""
    rng = random.Random(seed)
    state, ids = constraint.start(limit), []
    while len(ids) < limit:
        options = choices(state.allowed(), turn_grammar.vocab_size)
        assert len(options) > 0
        # Chance alone would open a title once in hundreds of tokens, and end one as rarely.
        liked = [t for t in (turn_grammar.opening, turn_grammar.closing) if t in options]
        index = rng.choice(liked) if liked and rng.random() < like_titles else int(rng.choice(options))
        state.advance(index)
        ids.append(index)
        if index == turn_grammar.end:
            return ids
    return ids


@settings(max_examples=300)
@given(st.integers(), st.integers(SHORTEST_TURN, 40), st.sampled_from(Role), st.floats(0, 1))
def test_every_turn_parses_names_only_titles_of_the_catalog_and_ends_in_time(seed, limit, role, like_titles) -> None:
    ids = walk(grammar(role).constraint(), grammar(role), limit, seed, like_titles=like_titles)
    assert len(ids) <= limit
    assert ids[-1] == form_().end_of_turn
    assert max(ids) < len(form_().tokenizer)
    turn = form_().parse(ids, role)
    assert turn.action in ACTIONS[role]
    assert set(turn.titles) <= WRITABLE


@settings(max_examples=200)
@given(st.integers(), st.integers(SHORTEST_TURN, 30), st.sets(st.sampled_from(sorted(WRITABLE))))
def test_excluded_titles_are_never_named(seed, limit, excluded) -> None:
    constraint = grammar().constraint(excluding=[*excluded, "no such title"])
    turn = form_().parse(walk(constraint, grammar(), limit, seed, like_titles=0.7), Role.RECOMMENDER)
    assert set(turn.titles) <= WRITABLE - excluded


@settings(max_examples=200)
@given(
    st.integers(),
    st.integers(SHORTEST_TURN, 30),
    st.sets(st.sampled_from(sorted(WRITABLE))),
    st.sets(st.sampled_from(sorted(WRITABLE))),
)
def test_only_candidates_are_named_and_of_those_not_the_excluded(seed, limit, candidates, excluded) -> None:
    constraint = grammar().constraint(only=candidates | {"  "}, excluding=excluded)
    turn = form_().parse(walk(constraint, grammar(), limit, seed, like_titles=0.7), Role.RECOMMENDER)
    assert set(turn.titles) <= candidates - excluded


@settings(max_examples=200)
@given(st.integers(), st.integers(SHORTEST_TURN, 30))
def test_without_a_catalog_titles_are_any_text_and_turns_still_parse(seed, limit) -> None:
    free = grammar(is_free=True)
    ids = walk(free.constraint(), free, limit, seed, like_titles=0.6)
    assert len(ids) <= limit
    assert all(title.strip() for title in form_().parse(ids, Role.RECOMMENDER).titles)


def test_every_title_of_the_catalog_can_be_named() -> None:
    named = set()
    for seed in range(400):
        turn = form_().parse(walk(grammar().constraint(), grammar(), 60, seed, like_titles=0.6), Role.RECOMMENDER)
        named |= set(turn.titles)
    assert named == WRITABLE


@pytest.mark.parametrize("spoken", [turn for turn in TALK if not set(turn.titles) - WRITABLE])
def test_turns_as_training_writes_them_are_allowed(spoken) -> None:
    turn_grammar = grammar(spoken.role)
    ids = form_().turn_ids(spoken)
    state = turn_grammar.constraint().start(len(ids) + 1)
    for index in ids:
        assert index in choices(state.allowed(), turn_grammar.vocab_size)
        state.advance(index)


def begun(limit: int, *, turn_grammar: TurnGrammar | None = None, **options) -> TurnState:
    """The state at the beginning of the body."""
    turn_grammar = turn_grammar or grammar()
    state = turn_grammar.constraint(**options).start(limit)
    for _ in range(4):
        state.advance(int(state.allowed().ids[0]))
    return state


def test_neither_begin_nor_end_nor_padding_nor_role_tags_nor_ids_beyond_the_tokenizer_are_text() -> None:
    form = form_()
    options = set(choices(begun(60).allowed(), grammar().vocab_size).tolist())
    opening = form.tag_id(title_tags(MOVIE)[0])
    assert options & form.reserved_ids == {opening}
    assert max(options) < len(form.tokenizer)
    assert {form.tokenizer.bos_token_id, form.tokenizer.eos_token_id, form.tokenizer.pad_token_id} <= form.reserved_ids


def test_the_turn_can_t_end_before_something_visible_was_said() -> None:
    state = begun(60)
    for index in form_().encode_text(" \u3000\u00a0"):
        assert grammar().end not in choices(state.allowed(), grammar().vocab_size)
        state.advance(index)
    assert grammar().end not in choices(state.allowed(), grammar().vocab_size)
    state.advance(form_().encode_text("x")[0])
    assert grammar().end in choices(state.allowed(), grammar().vocab_size)


def test_a_title_is_opened_only_where_one_fits() -> None:
    # Four tokens of frame, then: opening tag, "X", closing tag, end.
    assert grammar().opening in choices(begun(8).allowed(), grammar().vocab_size)
    assert grammar().opening not in choices(begun(7).allowed(), grammar().vocab_size)
    short = [t for t in WRITABLE if len(form_().encode_text(t)) == 1]
    assert grammar().opening not in choices(begun(8, excluding=short).allowed(), grammar().vocab_size)


def test_with_every_title_excluded_none_is_opened() -> None:
    assert grammar().opening not in choices(begun(200, excluding=WRITABLE).allowed(), grammar().vocab_size)
    assert grammar().opening not in choices(begun(200, only=()).allowed(), grammar().vocab_size)


def test_a_limit_below_the_shortest_turn_is_refused_up_front() -> None:
    with pytest.raises(ConfigError, match=r"max_new_tokens is 5; the shortest turn has 6"):
        grammar().constraint().start(5)


def test_a_candidate_that_the_catalog_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no 'Nosferatu'"):
        grammar().constraint(only=["Nosferatu"])
    with pytest.raises(ValueError, match="titles are free"):
        grammar(is_free=True).constraint(only=["Heat (1995)"])


def test_what_is_not_allowed_is_refused() -> None:
    form = form_()
    with pytest.raises(ValueError, match="can't be number 0"):
        grammar().constraint().start(60).advance(form.end_of_turn)
    with pytest.raises(ValueError, match="can't stand in a turn"):
        begun(60).advance(form.tokenizer.bos_token_id)
    with pytest.raises(ValueError, match="can't stand in a turn"):
        begun(60).advance(grammar().vocab_size - 1)
    in_title = begun(60)
    in_title.advance(grammar().opening)
    with pytest.raises(ValueError, match="no title goes on"):
        in_title.advance(form.encode_text("q")[0])
    in_free = begun(60, turn_grammar=grammar(is_free=True))
    in_free.advance(grammar().opening)
    with pytest.raises(ValueError, match="can't stand in a title"):
        in_free.advance(grammar().opening)


def test_the_state_after_the_end_still_allows_something() -> None:
    state = begun(60)
    for index in (*form_().encode_text("hi"), grammar().end, grammar().end):
        state.advance(index)
    assert state.allowed().ids.tolist() == [grammar().end]


def test_states_that_recur_share_their_arrays() -> None:
    first, second = begun(60), begun(50)
    assert first.allowed() is second.allowed()
    word = form_().encode_text("hi")[0]
    before = first.allowed()
    first.advance(word)
    after = first.allowed()
    first.advance(word)
    assert first.allowed() is after is not before


def test_a_step_costs_microseconds() -> None:
    def seconds() -> float:
        state = grammar().constraint().start(10_010)
        for _ in range(4):
            state.advance(int(state.allowed().ids[0]))
        word = form_().encode_text("hi")[0]
        started = time.perf_counter()
        for _ in range(10_000):
            state.allowed()
            state.advance(word)
        return (time.perf_counter() - started) / 10_000

    assert min(seconds() for _ in range(3)) < 20e-6


def test_a_tokenizer_without_visible_text_is_refused() -> None:
    form = form_()

    class Blank:
        """The tokenizer, but every token spells nothing."""

        def __getattr__(self, name: str):
            return getattr(form.tokenizer, name)

        @property
        def backend_tokenizer(self):
            return self

        def decode_batch(self, rows, **_):
            return ["" for _ in rows]

    blank = TokenFormat(form.tokenizer, MOVIE)
    blank.tokenizer = Blank()
    with pytest.raises(CheckpointError, match="no token of the tokenizer"):
        TurnGrammar(blank, Role.USER)


def test_tokens_that_only_complete_a_wide_blank_are_not_taken_for_words() -> None:
    form = form_()
    tokens = form.encode_text("\u2003")
    assert not any(grammar().is_visible[i] for i in tokens)
    assert not form.decode(tokens).strip()
