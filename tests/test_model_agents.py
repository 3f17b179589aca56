"""Agents of models under constrained decoding: what they ask of a backend, what they ask again, what was turned down."""

import pytest

from interplay.backends.backend import Request
from interplay.backends.scripted import ScriptedBackend
from interplay.config import Sampling
from interplay.errors import ConfigError, FormatError
from interplay.formats.chat import ChatFormat
from interplay.formats.constraint import TurnGrammar
from interplay.formats.gbnf import gbnf
from interplay.formats.parsing import text_of_turn
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.formats.trie import load_trie
from interplay.simulation.model_agents import ChatAgent, Rejected, TokenAgent, titles_of
from interplay.training.backbone import train_tokenizer
from interplay.types import Action, Catalog, Domain, Role, Turn, view_of
from makers import ALIEN, CATALOG, HEAT, MOVIE, UP, recommender, scenario, user

GOOD = "<action><chat></action><response>hi there</response>"
R, U = Role.RECOMMENDER, Role.USER
OFFER = recommender(Action.RECOMMEND, "Try ", HEAT, " or ", UP, "?")
NO = user(Action.FEEDBACK, "no, too loud")


@pytest.fixture(scope="module")
def form() -> TokenFormat:
    tokenizer = train_tokenizer(["Try Heat (1995) or Up (2009)? no, too loud"] * 3, 320)
    add_structural_tokens(tokenizer, MOVIE)
    return TokenFormat(tokenizer, MOVIE)


def chat_agent(reply, role: Role = R, *, sampling: Sampling | None = None, catalog: Catalog = CATALOG, **options) -> ChatAgent:
    backend = ScriptedBackend(reply)
    return ChatAgent(role, "model", ChatFormat(catalog.domain), backend, sampling or Sampling(), catalog, **options)


def token_agent(form: TokenFormat, role: Role = R, *, sampling: Sampling | None = None, **options) -> TokenAgent:
    grammar = TurnGrammar(form, role, load_trie(form, titles_of(CATALOG)))
    said = tuple(form.turn_ids(recommender(Action.CHAT, "hi") if role is R else user(Action.CHAT, "hi")))
    backend = ScriptedBackend(lambda request: said)
    return TokenAgent(role, "trained", form, backend, sampling or Sampling(), CATALOG, turn_grammar=grammar, **options)


def begin(agent, *turns: Turn):
    return agent.begin(view_of(scenario(), agent.role, with_persona=False).after(*turns), 7, "s")


def answers(*texts: str):
    """A script that gives the texts one after the other, whatever is asked."""
    left = list(texts)
    return lambda request: left.pop(0)


async def test_a_constrained_agent_asks_with_the_grammar_and_an_unconstrained_one_does_not() -> None:
    for constrained in (True, False):
        agent = chat_agent(lambda request: GOOD, constrained=constrained)
        await begin(agent).speak()
        (request,) = agent.backend.requests
        assert request.grammar == (gbnf(R, MOVIE, titles_of(CATALOG)) if constrained else None)


async def test_where_the_catalog_is_empty_titles_are_free() -> None:
    agent = chat_agent(lambda request: GOOD, constrained=True, catalog=Catalog([], MOVIE))
    await begin(agent).speak()
    assert agent.backend.requests[0].grammar == gbnf(R, MOVIE, None)


async def test_an_unreadable_answer_is_asked_for_again_with_another_seed_and_counted() -> None:
    agent = chat_agent(answers("what?", "<action><chat></action>", GOOD), constrained=True)
    turn = await begin(agent).speak()
    assert turn.text == "hi there"
    assert agent.retries == {"no-action": 1, "cut-off": 1}
    assert len({request.seed for request in agent.backend.requests}) == 3
    assert len({(request.prompt, request.session) for request in agent.backend.requests}) == 1


async def test_after_the_last_attempt_the_answer_is_a_format_failure() -> None:
    agent = chat_agent(lambda request: "what?", constrained=True)
    with pytest.raises(FormatError):
        await begin(agent).speak()
    assert len(agent.backend.requests) == 3
    assert agent.retries.total() == 2


@pytest.mark.parametrize("options", [{"constrained": False}, {"constrained": True, "sampling": Sampling(temperature=0)}])
async def test_unconstrained_and_greedy_answers_are_asked_for_once(options) -> None:
    agent = chat_agent(lambda request: "what?", **options)
    with pytest.raises(FormatError):
        await begin(agent).speak()
    assert len(agent.backend.requests) == 1
    assert not agent.retries


async def test_the_same_conversation_asks_with_the_same_seeds() -> None:
    async def seeds() -> list[int]:
        agent = chat_agent(answers("what?", GOOD), constrained=True)
        await begin(agent).speak()
        return [request.seed for request in agent.backend.requests]

    assert await seeds() == await seeds()


async def test_a_trained_model_asks_with_its_constraint_and_the_grammar(form: TokenFormat) -> None:
    agent = token_agent(form)
    await begin(agent).speak()
    (request,) = agent.backend.requests
    assert request.constraint is not None
    assert request.grammar == gbnf(R, MOVIE, titles_of(CATALOG))
    assert can_name(request, form, HEAT.label)
    assert not can_name(request, form, "Nosferatu (1922)")


def can_name(request: Request, form: TokenFormat, title: str) -> bool:
    """Whether the constraint lets the title be written."""
    ids = form.turn_ids(recommender(Action.RECOMMEND, HEAT.model_copy(update={"title": title, "year": None})))
    state = request.constraint.start(len(ids))
    for index in ids:
        allowed = state.allowed()
        if (index in allowed.ids) is not allowed.only:
            return False
        state.advance(index)
    return True


def test_too_few_tokens_for_a_turn_are_refused_before_anything_is_asked(form: TokenFormat) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens is 5"):
        token_agent(form, sampling=Sampling(max_new_tokens=5))


async def test_what_the_user_turned_down_is_not_named_again_if_asked(form: TokenFormat) -> None:
    for exclude in (True, False):
        agent = token_agent(form, exclude_rejected=exclude)
        await begin(agent, OFFER, NO).speak()
        (request,) = agent.backend.requests
        assert can_name(request, form, HEAT.label) is not exclude
        assert can_name(request, form, UP.label) is not exclude
        assert can_name(request, form, ALIEN.label)
        assert (HEAT.label in request.grammar) is not exclude


async def test_turning_down_is_heard_during_the_conversation(form: TokenFormat) -> None:
    for agent in (
        token_agent(form, exclude_rejected=True),
        chat_agent(answers(GOOD, GOOD), constrained=True, exclude_rejected=True),
    ):
        speaker = begin(agent, OFFER)
        await speaker.speak()
        speaker.hear(NO)
        await speaker.speak()
        before, after = agent.backend.requests
        assert HEAT.label in before.grammar
        assert HEAT.label not in after.grammar
        assert ALIEN.label in after.grammar


async def test_a_user_may_still_name_what_it_turned_down(form: TokenFormat) -> None:
    agent = token_agent(form, U, exclude_rejected=True)
    await begin(agent, OFFER, NO).speak()
    assert HEAT.label in agent.backend.requests[0].grammar


async def test_a_recommender_s_own_offer_counts_too() -> None:
    offer = text_of_turn(OFFER, MOVIE)
    agent = chat_agent(answers(offer, GOOD), constrained=True, exclude_rejected=True)
    speaker = begin(agent)
    await speaker.speak()
    speaker.hear(NO)
    await speaker.speak()
    assert HEAT.label not in agent.backend.requests[1].grammar


def test_feedback_turns_down_the_latest_offer_and_nothing_else_does() -> None:
    ask, answer = user(Action.INQUIRE, "who is in it?"), recommender(Action.ANSWER, "Pacino")
    assert Rejected(CATALOG, (OFFER, ask, answer)).titles == set()
    assert Rejected(CATALOG, (OFFER, ask, answer, NO)).titles == {HEAT.label, UP.label}
    assert Rejected(CATALOG, (OFFER, recommender(Action.RECOMMEND, ALIEN), NO)).titles == {ALIEN.label}
    assert Rejected(CATALOG, (OFFER, user(Action.ACCEPT, "yes"))).titles == set()
    assert Rejected(CATALOG, (NO, user(Action.FEEDBACK, "not ", HEAT))).titles == set()
    assert Rejected(None, (OFFER, NO)).titles == set()


def test_a_title_written_otherwise_is_turned_down_as_the_item_it_means() -> None:
    offer = recommender(Action.RECOMMEND, "Try ", HEAT.model_copy(update={"title": "heat", "year": None, "id": "unknown"}))
    assert Rejected(CATALOG, (offer, NO)).titles == {HEAT.label}


def test_domains_have_their_own_tags() -> None:
    books = Domain(name="book", noun="book", plural="books", tag="book_title")
    assert "<book_title>" in chat_agent(answers(), catalog=Catalog([], books), constrained=True).grammar(())
