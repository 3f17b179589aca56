"""Several acts in one turn: in the records, read off sentences, in both renderings and both grammars."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, grammar_from
from pydantic import ValidationError

from interplay.corpora.acts import acts_of, agreement, with_acts
from interplay.corpora.messages import Spoken, merge_messages
from interplay.errors import FormatError
from interplay.formats.constraint import SHORTEST_TURN, TurnGrammar
from interplay.formats.gbnf import MOST_ACTS, gbnf
from interplay.formats.parsing import events_of_text, parse_turn, pieces_of_turn, text_of_turn
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.training.backbone import train_tokenizer
from interplay.types import FURTHER_ACTS, Action, Role, Turn
from makers import HEAT, MOVIE, TALK, UP, dialogue, recommender, scenario, turns, user

U, R = Role.USER, Role.RECOMMENDER
TOKENIZER = train_tokenizer(["hello what do you feel like today", HEAT.label, UP.label], 400)
add_structural_tokens(TOKENIZER, MOVIE)
WITH = TokenFormat(TOKENIZER, MOVIE, acts=True)
WITHOUT = TokenFormat(TOKENIZER, MOVIE)


@st.composite
def turns_with_acts(draw: st.DrawFn) -> Turn:
    turn = draw(turns())
    left = [act for act in FURTHER_ACTS[turn.role] if act is not turn.action]
    return turn.model_copy(update={"acts": tuple(draw(st.lists(st.sampled_from(left), unique=True)))})


# Records


def test_acts_are_written_only_where_there_are_any():
    plain = user(Action.FEEDBACK, "nope")
    assert "acts" not in plain.to_json()
    several = plain.model_copy(update={"acts": (Action.INQUIRE,)})
    assert Turn.model_validate_json(several.to_json()) == several


@pytest.mark.parametrize("acts", [("feedback",), ("accept",), ("give-up",), ("recommend",), ("chat", "chat")])
def test_an_act_is_another_one_of_the_role_and_never_decides(acts):
    with pytest.raises(ValidationError, match="beside feedback a user may do each of"):
        Turn(role=U, action=Action.FEEDBACK, acts=acts, text="hm")


# Read off sentences


def said(*parts: tuple[Turn, str]) -> list[tuple[Action, ...]]:
    """The acts of the last turns of a conversation, each given as its own turn."""
    spoken = [Spoken(t.role, t.text, t.items) for t in parts]
    return acts_of(spoken, [t.action for t in parts])


OFFER = recommender(Action.RECOMMEND, "Maybe ", UP, ".")


@pytest.mark.parametrize(
    ("turn", "acts"),
    [
        (user(Action.FEEDBACK, "No thanks, not for me. What is it about?"), (Action.INQUIRE,)),
        (user(Action.INQUIRE, "I haven't seen it. Who is in it?"), (Action.FEEDBACK,)),
        (
            user(Action.FEEDBACK, "Haha, same here! I've seen that one. I'm looking for a comedy."),
            (Action.CHAT, Action.DISCLOSE_GOAL),
        ),
        (user(Action.FEEDBACK, "I've seen that one. Do you have something else?"), (Action.DISCLOSE_GOAL,)),
        (user(Action.ACCEPT, "I love that one. I'll watch it. Have a good night!"), (Action.CHAT,)),
        (user(Action.FEEDBACK, "nope"), ()),
        (
            recommender(Action.RECOMMEND, "Try ", HEAT, ". It's a really tense one. Which decade do you like?"),
            (Action.ANSWER, Action.INQUIRE),
        ),
        (recommender(Action.RECOMMEND, "Then ", HEAT, ". Have you seen it?"), ()),
        (recommender(Action.INQUIRE, "How was your day? What do you like?"), (Action.CHAT,)),
    ],
)
def test_each_sentence_says_what_it_does(turn, acts):
    assert said(OFFER, turn)[-1] == acts


def test_a_greeting_counts_in_the_first_turns_only():
    hi = user(Action.DISCLOSE_GOAL, "Hi there! I want a comedy.")
    assert said(hi)[0] == (Action.GREETING,)
    assert Action.GREETING not in said(OFFER, user(Action.FEEDBACK, "no"), hi)[-1]


def test_nothing_is_feedback_before_something_was_offered():
    assert said(user(Action.DISCLOSE_GOAL, "I don't like horror. I want a comedy."))[0] == ()


def test_a_question_is_answered_in_the_turn_after_it():
    asked = user(Action.INQUIRE, "Who is in it?")
    reply = recommender(Action.RECOMMEND, "Ed Asner and Jordan Nagai. But ", HEAT, " may be more for you.")
    assert Action.ANSWER in said(OFFER, asked, reply)[-1]
    assert Action.ANSWER not in said(OFFER, user(Action.FEEDBACK, "no"), reply)[-1]


def test_messages_that_were_joined_are_sentences_of_their_own():
    merged, _, _ = merge_messages([Spoken(U, "not for me"), Spoken(U, "who is in it?")])
    first = Spoken(OFFER.role, OFFER.text, OFFER.items)
    assert acts_of([first, *merged], [OFFER.action, Action.FEEDBACK])[-1] == (Action.INQUIRE,)


@given(st.lists(turns(), min_size=1, max_size=5))
@settings(max_examples=60)
def test_acts_are_always_acts_that_a_turn_may_have(talk):
    for turn, acts in zip(talk, said(*talk), strict=True):
        Turn.model_validate(turn.model_copy(update={"acts": acts}).model_dump())


def test_turns_that_tell_their_acts_keep_them():
    told = TALK[3].model_copy(update={"acts": (Action.CHAT,)})
    marked = with_acts(dialogue(scenario(), (*TALK[:3], told, user(Action.FEEDBACK, "No. Who is in it?"))))
    assert [t.acts for t in marked.turns[-2:]] == [(Action.CHAT,), (Action.INQUIRE,)]
    assert marked.turns[0] is TALK[0] or marked.turns[0].acts


def test_the_rules_agree_with_people_to_the_extent_that_the_docs_say(shared_data):
    found = {a.role: a for a in agreement(shared_data / "iard")}
    assert found[R].precision > 0.7
    assert found[R].recall > 0.55
    assert min(found[U].precision, found[U].recall) > 0.4


# Renderings


@given(turns_with_acts())
@settings(max_examples=80)
def test_ids_and_text_with_acts_are_read_back_as_the_same_turn(turn):
    assert WITH.parse(WITH.turn_ids(turn), turn.role).acts == turn.acts
    text = "".join(e.value for e in pieces_of_turn(turn, MOVIE, acts=True))
    if "<" not in turn.text:
        read = parse_turn(events_of_text(text, MOVIE), turn.role, MOVIE, text)
        assert (read.acts, read.text) == (turn.acts, turn.text)


@given(turns_with_acts())
@settings(max_examples=30)
def test_a_model_that_was_not_trained_with_acts_sees_none(turn):
    bare = turn.model_copy(update={"acts": ()})
    assert WITHOUT.turn_ids(turn) == WITHOUT.turn_ids(bare) == WITH.turn_ids(bare)
    assert text_of_turn(turn, MOVIE) == text_of_turn(bare, MOVIE)


@pytest.mark.parametrize(
    "block",
    [
        "feedback, inquire",
        "feedback + inquire + feedback",
        "<feedback><inquire>",
        "<feedback> <inquire><inquire>",
        "`feedback & inquire`",
    ],
)
def test_several_acts_of_a_chat_model_are_read_however_it_writes_them(block):
    raw = f"<action>{block}</action><response>No. Who is in it?</response>"
    read = parse_turn(events_of_text(raw, MOVIE), U, MOVIE, raw)
    assert (read.action, read.acts) == (Action.FEEDBACK, (Action.INQUIRE,))


@pytest.mark.parametrize(
    ("block", "reason"),
    [("<chat><recommend>", "action-of-other-role"), ("<chat><accept>", "unknown-action"), ("<chat>and", "no-response")],
)
def test_what_can_t_be_an_act_is_a_format_error(block, reason):
    raw = f"<action>{block}</action><response>ok</response>"
    with pytest.raises(FormatError) as caught:
        parse_turn(events_of_text(raw, MOVIE), U, MOVIE, raw)
    assert caught.value.reason == reason


def test_acts_of_a_model_that_was_not_trained_with_them_can_t_be_read():
    ids = WITH.turn_ids(user(Action.FEEDBACK, "no").model_copy(update={"acts": (Action.CHAT,)}))
    with pytest.raises(FormatError, match="no-response"):
        WITHOUT.parse(ids, U)


# Grammars


@given(st.integers(0, 10**6), st.integers(SHORTEST_TURN, 14), st.sampled_from(Role))
@settings(max_examples=80)
def test_whatever_is_drawn_under_the_grammar_is_a_turn_with_distinct_acts(seed, limit, role):
    grammar = GRAMMARS[role]
    rng, ids = random.Random(seed), []
    state = grammar.constraint().start(limit)
    while not ids or ids[-1] != grammar.end:
        allowed = state.allowed()
        options = allowed.ids.tolist() if allowed.only else sorted(set(range(grammar.vocab_size)) - set(allowed.ids.tolist()))
        ids.append(rng.choice(options))
        state.advance(ids[-1])
        assert len(ids) <= limit
    turn = WITH.parse(ids, role)
    assert len(set(turn.acts)) == len(turn.acts)


GRAMMARS = {role: TurnGrammar(WITH, role) for role in Role}


def test_turns_with_acts_as_training_writes_them_are_allowed():
    turn = user(Action.FEEDBACK, "no").model_copy(update={"acts": (Action.INQUIRE, Action.CHAT)})
    state = GRAMMARS[U].constraint().start(40)
    for index in WITH.turn_ids(turn):
        allowed = state.allowed()
        assert (index in allowed.ids) is allowed.only
        state.advance(index)


def test_an_act_twice_and_one_without_room_for_words_are_refused():
    ids = WITH.turn_ids(user(Action.FEEDBACK, "no").model_copy(update={"acts": (Action.CHAT,)}))
    state = GRAMMARS[U].constraint().start(40)
    for index in ids[:3]:
        state.advance(index)
    with pytest.raises(ValueError, match="one more act"):
        state.advance(ids[2])
    tight = GRAMMARS[U].constraint().start(SHORTEST_TURN)
    for index in ids[:2]:
        tight.advance(index)
    assert tight.allowed().ids.tolist() == [ids[3]]


def test_the_grammar_for_servers_takes_a_few_acts():
    bytes_ = LLTokenizer("byte")

    def takes(names: str) -> bool:
        matcher = LLMatcher(bytes_, grammar_from("gbnf", gbnf(U, MOVIE, acts=True)))
        tokens = list(f"<action>{names}</action><response>no</response>".encode())
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    assert all(map(takes, ["<feedback>", "<feedback><inquire>", "<feedback>" + "<chat>" * MOST_ACTS]))
    assert not takes("<feedback>" + "<chat>" * (MOST_ACTS + 1))
    assert not takes("<feedback><accept>")
