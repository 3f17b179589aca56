"""The conversation loop, its endings, batches, seeds, and agents that models speak for."""

import asyncio
import random

import pytest

from interplay.backends.backend import Request
from interplay.backends.scripted import ScriptedBackend
from interplay.config import Sampling
from interplay.errors import BackendError, ContextOverflow
from interplay.formats.chat import ChatFormat
from interplay.formats.parsing import text_of_turn
from interplay.simulation.batch import Plan, simulate
from interplay.simulation.dialogue import Limits, conversation_seed, converse
from interplay.simulation.model_agents import ChatAgent, link_mentions
from interplay.simulation.scripted import ScriptedAgent
from interplay.store import Run
from interplay.types import Action, Dialogue, Ending, Role, Turn
from makers import CATALOG, HEAT, MOVIE, TALK, UP, recommender, scenario, user

HI = recommender(Action.GREETING, "hi")
OFFER = recommender(Action.RECOMMEND, "try ", HEAT)
SAMPLING = Sampling()


def say(role: Role, *script: Turn) -> ScriptedAgent:
    return ScriptedAgent(role, script)


def chat_agent(role: Role, reply, **options) -> ChatAgent:
    return ChatAgent(role, "model", ChatFormat(MOVIE), ScriptedBackend(reply, **options), SAMPLING, CATALOG)


def hold(users, recommenders, **options) -> Dialogue:
    return asyncio.run(converse(scenario(), users, recommenders, seed=1, **options))


FEEDBACK = [user(Action.FEEDBACK, f"no, not number {k}") for k in range(30)]
OFFERS = [recommender(Action.CHAT, f"thinking about {k}") for k in range(30)]


def test_the_recommender_opens_and_an_accept_ends_it():
    d = hold(say(Role.USER, user(Action.DISCLOSE_GOAL, "crime"), user(Action.ACCEPT, "yes")), say(Role.RECOMMENDER, HI, OFFER))
    assert [t.role for t in d.turns] == [Role.RECOMMENDER, Role.USER] * 2
    assert d.ending is Ending.ACCEPTED
    assert [m.item_id for m in d.accepted_items] == ["heat"]


def test_a_give_up_ends_it():
    assert hold(say(Role.USER, user(Action.GIVE_UP, "bye")), say(Role.RECOMMENDER, HI)).ending is Ending.GAVE_UP


def test_the_turn_limit_ends_it():
    d = hold(say(Role.USER, *FEEDBACK), say(Role.RECOMMENDER, *OFFERS), limits=Limits(max_turns=7))
    assert (d.ending, len(d.turns)) == (Ending.TURN_LIMIT, 7)


def test_a_speaker_who_repeats_itself_ends_it_as_loop():
    d = hold(say(Role.USER, *FEEDBACK), say(Role.RECOMMENDER, recommender(Action.CHAT, "Hm.")), limits=Limits(max_repeats=3))
    assert (d.ending, len(d.turns)) == (Ending.LOOP, 5)


def test_output_that_can_not_be_read_ends_it_as_format_failure_and_is_kept():
    d = hold(chat_agent(Role.USER, lambda r: "what?"), say(Role.RECOMMENDER, HI))
    assert d.ending is Ending.FORMAT_FAILURE
    assert (d.failure.role, d.failure.reason, d.failure.raw) == (Role.USER, "no-action", "what?")
    assert len(d.turns) == 1


@pytest.mark.parametrize(
    ("error", "ending"),
    [(BackendError("down"), Ending.BACKEND_FAILURE), (ContextOverflow("too long"), Ending.CONTEXT_OVERFLOW)],
)
def test_faults_of_a_backend_are_endings_of_their_own(error, ending):
    d = hold(chat_agent(Role.USER, lambda r: "", fail_on=lambda r: error), say(Role.RECOMMENDER, HI))
    assert d.ending is ending
    assert d.failure.reason == str(error)


def test_every_ending_has_a_test_in_this_file():
    text = open(__file__, encoding="utf-8").read()
    assert all(f"Ending.{ending.name}" in text for ending in Ending)


def test_a_chat_agent_reads_the_other_side_and_links_what_it_names():
    seen: list[Request] = []

    def reply(request: Request) -> str:
        seen.append(request)
        return (
            "<action>recommend</action>"
            "<response>Try <movie_title>heat</movie_title> or <movie_title>Nope</movie_title></response>"
        )

    d = hold(say(Role.USER, user(Action.ACCEPT, "ok")), chat_agent(Role.RECOMMENDER, reply))
    assert [m.item_id for m in d.turns[0].items] == ["heat", None]
    assert d.turns[0].raw[0].startswith("<action>")
    assert seen[0].stop_text == ("</response>",)


def test_the_recommender_gets_the_persona_only_when_it_is_to_be_shown():
    prompts = []

    def reply(request: Request) -> str:
        prompts.append(request.prompt[0].content)
        return text_of_turn(HI, MOVIE)

    for with_persona in (False, True):
        hold(say(Role.USER, user(Action.GIVE_UP, "bye")), chat_agent(Role.RECOMMENDER, reply), with_persona=with_persona)
    assert ["likes slow films" in p for p in prompts] == [False, True]
    assert not any("Heat" in p for p in prompts)


class RandomAgent:
    """Speaks from its seed alone, after a random number of event-loop turns."""

    def __init__(self, role: Role, jitter: random.Random) -> None:
        self.role, self.name, self.jitter = role, "random", jitter

    def begin(self, view, seed, session):
        agent, rng = self, random.Random(seed)

        class Speaker:
            async def speak(self) -> Turn:
                for _ in range(agent.jitter.randrange(5)):
                    await asyncio.sleep(0)
                if agent.role is Role.RECOMMENDER:
                    return recommender(Action.RECOMMEND, f"{rng.random():.3f} ", rng.choice([HEAT, UP]))
                return user(rng.choice([Action.FEEDBACK, Action.FEEDBACK, Action.ACCEPT]), f"{rng.random():.3f}")

            def hear(self, turn) -> None:
                pass

            def end(self) -> None:
                pass

        return Speaker()


SCENARIOS = [scenario(source_id=str(k)) for k in range(20)]


def played(concurrency: int, order: int, *, finished=frozenset(), num_samples: int = 2) -> dict[str, Dialogue]:
    jitter = random.Random(order)
    out: dict[str, Dialogue] = {}
    scenarios = random.Random(order).sample(SCENARIOS, len(SCENARIOS))
    asyncio.run(
        simulate(
            iter(scenarios),
            RandomAgent(Role.USER, jitter),
            RandomAgent(Role.RECOMMENDER, jitter),
            Plan(seed=7, num_samples=num_samples, concurrency=concurrency),
            on_dialogue=lambda d: out.__setitem__(d.key, d),
            finished=finished,
        )
    )
    return out


def test_the_same_seed_gives_the_same_dialogues_whatever_the_concurrency_and_order():
    assert played(1, 0) == played(7, 1) == played(100, 2)


def test_the_seed_of_a_conversation_depends_on_run_scenario_and_sample():
    seeds = {conversation_seed(run, s, k) for run in (0, 1) for s in SCENARIOS for k in (0, 1)}
    assert len(seeds) == 2 * 2 * len(SCENARIOS)


def test_only_the_dialogues_that_are_owed_are_held():
    everything = played(5, 0)
    done = frozenset(list(everything)[:13])
    rest = played(5, 3, finished=done)
    assert set(rest) == set(everything) - done
    assert all(everything[key] == d for key, d in rest.items())


def test_a_run_that_was_stopped_and_resumed_equals_an_uninterrupted_one(tmp_path):
    run = Run.create(tmp_path / "run", {})
    held = 0

    class Stopped(Exception):
        pass

    def keep(d: Dialogue) -> None:
        nonlocal held
        run.append(d)
        held += 1
        if held == 17:
            raise Stopped

    agents = [RandomAgent(role, random.Random(0)) for role in (Role.USER, Role.RECOMMENDER)]
    with pytest.raises(Stopped):
        asyncio.run(simulate(SCENARIOS, *agents, Plan(seed=7, num_samples=2, concurrency=4), on_dialogue=keep))
    again = Run.resume(tmp_path / "run", {})
    more = asyncio.run(
        simulate(
            SCENARIOS,
            *agents,
            Plan(seed=7, num_samples=2, concurrency=4),
            on_dialogue=again.append,
            finished=frozenset(again.finished_keys()),
        )
    )
    assert more == 40 - 17
    assert {d.key: d for d in again.dialogues()} == played(1, 0)


def test_scenarios_are_read_as_places_become_free():
    taken = 0

    def stream():
        nonlocal taken
        for s in SCENARIOS:
            taken += 1
            yield s

    most = 0

    def watch(d: Dialogue) -> None:
        nonlocal most
        most = max(most, taken)
        raise_after_first()

    def raise_after_first():
        raise KeyError

    agents = [RandomAgent(role, random.Random(0)) for role in (Role.USER, Role.RECOMMENDER)]
    with pytest.raises(KeyError):
        asyncio.run(simulate(stream(), *agents, Plan(concurrency=3), on_dialogue=watch))
    assert most <= 4


def test_a_script_must_be_of_its_role():
    with pytest.raises(ValueError, match="at least one turn"):
        ScriptedAgent(Role.USER, [HI])
    with pytest.raises(ValueError, match="at least one turn"):
        ScriptedAgent(Role.USER, [])


def test_a_scripted_agent_goes_on_from_the_turns_already_spoken():
    from interplay.types import view_of

    agent = say(Role.USER, *FEEDBACK)
    speaker = agent.begin(view_of(scenario(), Role.USER, with_persona=False).after(*TALK[:4]), 0, "s")
    assert asyncio.run(speaker.speak()) == FEEDBACK[2]


def test_without_a_catalog_mentions_stay_as_they_are():
    assert link_mentions(OFFER, None) is OFFER
