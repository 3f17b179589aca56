"""The grammar as GBNF text, compiled by llguidance: what it takes and what it does not."""

import pytest
from hypothesis import given, settings
from llguidance import LLMatcher, LLTokenizer, grammar_from

from interplay.formats.gbnf import MOST_TITLES, gbnf
from interplay.formats.parsing import events_of_text, parse_turn, text_of_turn
from interplay.types import ACTIONS, Action, Role, Turn
from makers import ALIEN, HEAT, MOVIE, TALK, UP, turns

BYTES = LLTokenizer("byte")
LABELS = (HEAT.label, ALIEN.label, UP.label)


def takes(grammar: str, text: str) -> bool:
    """Whether the whole text is a sentence of the grammar."""
    matcher = LLMatcher(BYTES, grammar_from("gbnf", grammar))
    assert not matcher.is_error(), matcher.get_error()
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def said(body: str, action: str = "recommend") -> str:
    return f"<action><{action}></action><response>{body}</response>"


@pytest.mark.parametrize("turn", TALK)
@pytest.mark.parametrize("titles", [None, LABELS])
def test_turns_as_rendered_are_taken(turn: Turn, titles: tuple[str, ...] | None) -> None:
    assert takes(gbnf(turn.role, MOVIE, titles), text_of_turn(turn, MOVIE))


@settings(max_examples=60)
@given(turns())
def test_a_turn_without_angle_brackets_is_taken_and_reads_back(turn: Turn) -> None:
    text = text_of_turn(turn, MOVIE)
    if "<" in turn.text:
        assert not takes(gbnf(turn.role, MOVIE), text)
    else:
        assert takes(gbnf(turn.role, MOVIE), text)
        assert parse_turn(events_of_text(text, MOVIE), turn.role, MOVIE, text).text == turn.text


@pytest.mark.parametrize(
    "text",
    [
        "Hi",
        said("Hi")[:-1],
        said("Hi") + "more",
        said(""),
        said(" \n\t\u3000"),
        said("Hi", action="accept"),
        said("Hi", action="nothing"),
        said("a <b"),
        said("<movie_title>Heat (1995)"),
        said("Heat (1995)</movie_title>"),
        said("<movie_title></movie_title>"),
        said("<movie_title> </movie_title>"),
        said("<movie_title>Heat (1996)</movie_title>"),
        said("<movie_title>Heat</movie_title>"),
        said("<movie_title>Heat (1995)<movie_title>Heat (1995)</movie_title></movie_title>"),
        said("<recommender>Hi"),
    ],
)
def test_broken_turns_and_unknown_titles_are_not_taken(text: str) -> None:
    assert not takes(gbnf(Role.RECOMMENDER, MOVIE, LABELS), text)


@pytest.mark.parametrize("role", Role)
def test_each_role_has_its_own_actions(role: Role) -> None:
    grammar = gbnf(role, MOVIE)
    assert {action for action in Action if takes(grammar, said("Hi", action=action.value))} == set(ACTIONS[role])


@pytest.mark.parametrize("title", ['Say "Hi" \\o/', "I <3 You", "漢字 😀", "tab\there", "a\nb", "X", "(500) Days [of] *"])
def test_titles_of_any_characters_are_taken_as_they_are(title: str) -> None:
    grammar = gbnf(Role.RECOMMENDER, MOVIE, [title])
    assert takes(grammar, said(f"Try <movie_title>{title}</movie_title>."))
    assert not takes(grammar, said(f"Try <movie_title>{title}!</movie_title>."))


def test_titles_that_hold_a_tag_are_left_out() -> None:
    grammar = gbnf(Role.RECOMMENDER, MOVIE, ["Heat (1995)", "</RESPONSE>", "  "])
    assert "RESPONSE" not in grammar
    assert takes(grammar, said("<movie_title>Heat (1995)</movie_title>"))


def test_with_no_title_left_none_can_be_named() -> None:
    assert not takes(gbnf(Role.RECOMMENDER, MOVIE, []), said("<movie_title>Heat</movie_title>"))
    assert takes(gbnf(Role.RECOMMENDER, MOVIE, []), said("Hi"))


def test_titles_are_written_out_up_to_a_number_and_free_beyond() -> None:
    most = [f"Title {k}" for k in range(MOST_TITLES)]
    assert not takes(gbnf(Role.RECOMMENDER, MOVIE, most), said("<movie_title>Other</movie_title>"))
    assert takes(gbnf(Role.RECOMMENDER, MOVIE, most), said("<movie_title>Title 499</movie_title>"))
    assert takes(gbnf(Role.RECOMMENDER, MOVIE, [*most, "one more"]), said("<movie_title>Other</movie_title>"))
