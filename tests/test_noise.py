"""Wrong feedback at a rate, and several user simulators as one."""

import asyncio

import pytest

from interplay.backends.scripted import ScriptedBackend
from interplay.config import Sampling
from interplay.corpora.bundled import bundled_movies
from interplay.errors import ConfigError, InputError
from interplay.evaluation.scoring import About, simulation_rows
from interplay.evaluation.simulation import summarise
from interplay.formats.constraint import TurnGrammar
from interplay.formats.tokens import TokenFormat, add_structural_tokens
from interplay.formats.trie import load_trie
from interplay.simulation.agenda import agenda_scenarios
from interplay.simulation.agenda_user import AgendaUser
from interplay.simulation.batch import Plan, simulate
from interplay.simulation.dialogue import converse
from interplay.simulation.ensemble import Ensemble
from interplay.simulation.model_agents import TokenAgent, titles_of
from interplay.simulation.noise import ACCEPTS, REJECTIONS, NoisyUser, own_words, read_spec, without_noise
from interplay.simulation.rule_recommender import RuleRecommender
from interplay.simulation.scripted import ScriptedAgent
from interplay.simulation.specs import LoadedAgent, ensemble_of, load_from_spec, with_noise
from interplay.simulation.stubs import NO, StubUser
from interplay.training.backbone import train_tokenizer
from interplay.types import Action, Dialogue, Ending, Role, Turn
from makers import ALIEN, CATALOG, HEAT, MOVIE, UP, recommender, scenario, user

MOVIES = bundled_movies()
SCENARIOS = agenda_scenarios(MOVIES, 24, seed=3)
OFFERS = (
    recommender(Action.GREETING, "Hi, what would you like?"),
    recommender(Action.RECOMMEND, "Try ", UP, "?"),
    recommender(Action.RECOMMEND, "Then ", HEAT, " or ", ALIEN, "."),
)


def talk(agent, seed: int = 0, script: tuple[Turn, ...] = OFFERS) -> Dialogue:
    return asyncio.run(converse(scenario(), agent, ScriptedAgent(Role.RECOMMENDER, script), seed=seed))


def talks(agent) -> dict[str, Dialogue]:
    """The rules recommend to the agent, on bundled scenarios."""
    found: list[Dialogue] = []
    rules = RuleRecommender(MOVIES)
    asyncio.run(simulate(SCENARIOS, agent, rules, Plan(seed=1, concurrency=4), on_dialogue=found.append))
    return {dialogue.key: dialogue for dialogue in found}


@pytest.fixture(scope="module")
def by_rate() -> dict[float, dict[str, Dialogue]]:
    return {rate: talks(NoisyUser(AgendaUser(MOVIES), rate)) for rate in (0.0, 0.3, 1.0)}


def test_at_rate_zero_every_conversation_is_the_wrapped_agents(by_rate) -> None:
    sound = talks(AgendaUser(MOVIES))
    assert {key: d.turns for key, d in by_rate[0.0].items()} == {key: d.turns for key, d in sound.items()}
    assert not any(d.noisy_turns for d in by_rate[0.0].values())


def test_at_rate_one_every_verdict_is_turned_round_and_the_record_says_so(by_rate) -> None:
    for dialogue in by_rate[1.0].values():
        offered = False
        for place, turn in enumerate(dialogue.turns):
            latest = dialogue.turns[place - 1] if place else None
            if turn.role is Role.USER and (turn.action is Action.ACCEPT or (turn.action is Action.FEEDBACK and latest.items)):
                assert place in dialogue.noisy_turns
                assert offered
            offered = offered or bool(turn.role is Role.RECOMMENDER and turn.items)
        if dialogue.ending is Ending.ACCEPTED:
            assert dialogue.noisy_turns[-1] == len(dialogue.turns) - 1


def test_the_rate_is_kept_among_verdicts(by_rate) -> None:
    dialogues = by_rate[0.3].values()
    num_noisy = sum(len(d.noisy_turns) for d in dialogues)
    judged = sum(
        turn.action in (Action.ACCEPT, Action.FEEDBACK) and bool(d.turns[place - 1].items)
        for d in dialogues
        for place, turn in enumerate(d.turns)
        if turn.role is Role.USER
    )
    assert 0.15 < num_noisy / judged < 0.45


def test_what_is_first_turned_round_at_a_low_rate_is_turned_round_at_a_high_one(by_rate) -> None:
    for key, dialogue in by_rate[0.3].items():
        if dialogue.noisy_turns:
            assert by_rate[1.0][key].noisy_turns[0] <= dialogue.noisy_turns[0]


def test_the_same_seed_gives_the_same_conversation() -> None:
    noisy = NoisyUser(StubUser("accept-first"), 0.5)
    assert talk(noisy, seed=4) == talk(noisy, seed=4)


def test_an_accept_turned_round_goes_on_in_words_that_reject() -> None:
    dialogue = talk(NoisyUser(StubUser("accept-first"), 1.0))
    assert dialogue.turns[3].action is Action.FEEDBACK
    assert dialogue.turns[3].text in REJECTIONS
    assert len({turn.text for turn in dialogue.turns[3::2]}) == len(dialogue.turns[3::2])
    assert dialogue.noisy_turns == (3, 5, 7)


def test_a_rejection_turned_round_ends_the_talk_and_one_of_no_recommendation_stands() -> None:
    dialogue = talk(NoisyUser(StubUser("never-accept"), 1.0))
    assert [turn.text for turn in dialogue.turns[1::2]] == [NO, dialogue.turns[3].text]
    assert dialogue.turns[3].text in ACCEPTS
    assert (dialogue.ending, dialogue.noisy_turns) == (Ending.ACCEPTED, (3,))
    assert [mention.item_id for mention in dialogue.accepted_items] == [UP.id]


def test_of_several_titles_a_wrong_accept_takes_one() -> None:
    dialogue = talk(NoisyUser(StubUser("never-accept"), 1.0), script=OFFERS[2:])
    assert dialogue.ending is Ending.ACCEPTED
    assert len(dialogue.accepted_items) == 1
    assert dialogue.turns[-1].titles[0] in (HEAT.label, ALIEN.label)


def test_giving_up_is_left_as_it_is() -> None:
    gives_up = ScriptedAgent(Role.USER, [user(Action.GIVE_UP, "never mind")])
    dialogue = talk(NoisyUser(gives_up, 1.0), script=OFFERS[1:])
    assert (dialogue.ending, dialogue.noisy_turns) == (Ending.GAVE_UP, ())


def test_the_wrapped_agent_goes_on_from_what_was_said_for_it() -> None:
    heard: list[tuple[str, ...]] = []

    class Listener(StubUser):
        def begin(self, view, seed, session):
            heard.append(tuple(turn.text for turn in view.turns))
            return super().begin(view, seed, session)

    dialogue = talk(NoisyUser(Listener("accept-first"), 1.0))
    assert heard == [tuple(t.text for t in dialogue.turns[:n]) for n in (0, 4, 6, 8)]


def test_words_are_repeated_only_when_all_are_used() -> None:
    import random

    said = tuple(user(Action.FEEDBACK, text) for text in REJECTIONS[1:])
    assert own_words(Action.FEEDBACK, said, random.Random(0)).text == REJECTIONS[0]
    assert own_words(Action.FEEDBACK, (*said, user(Action.FEEDBACK, REJECTIONS[0])), random.Random(0)).text in REJECTIONS


@pytest.fixture(scope="module")
def form() -> TokenFormat:
    tokenizer = train_tokenizer(["Try Heat (1995) or Up (2009)? no, too loud"] * 3, 320)
    add_structural_tokens(tokenizer, MOVIE)
    return TokenFormat(tokenizer, MOVIE)


def trained(form: TokenFormat, **options) -> TokenAgent:
    """A trained user that accepts whatever it hears, and says no when it is not let."""
    yes, no = (tuple(form.turn_ids(user(a, t))) for a, t in ((Action.ACCEPT, "fine"), (Action.FEEDBACK, "hm no")))

    def reply(request):
        if request.constraint is None:
            return yes
        state = request.constraint.start(len(yes))
        for index in yes:
            allowed = state.allowed()
            if (index in allowed.ids) is not allowed.only:
                return no
            state.advance(index)
        return yes

    grammar = TurnGrammar(form, Role.USER, load_trie(form, titles_of(CATALOG)))
    return TokenAgent(Role.USER, "trained", form, ScriptedBackend(reply), Sampling(), CATALOG, turn_grammar=grammar, **options)


def test_a_trained_model_is_asked_for_the_opposite_verdict_in_its_own_words(form: TokenFormat) -> None:
    agent = trained(form)
    dialogue = talk(NoisyUser(agent, 1.0))
    assert dialogue.turns[1].text == "fine"  # nothing was offered yet: it accepts the greeting, which is no verdict
    dialogue = talk(NoisyUser(agent, 1.0), script=OFFERS[1:])
    assert dialogue.turns[1].text == "hm no"
    assert dialogue.turns[1].action is Action.FEEDBACK
    assert agent.slots is None


def test_a_model_without_constraint_gets_our_words(form: TokenFormat) -> None:
    agent = trained(form)
    free = TokenAgent(Role.USER, "free", form, agent.backend, Sampling(), CATALOG)
    assert talk(NoisyUser(free, 1.0), script=OFFERS[1:]).turns[1].text in REJECTIONS


def test_the_summary_counts_what_was_turned_round(by_rate) -> None:
    about = About("rules", "test", 0, "d", simulator="noise")
    for rate in (0.0, 1.0):
        dialogues = by_rate[rate].values()
        rows = [r for r in simulation_rows(summarise(dialogues, SCENARIOS, MOVIES), about) if r.metric.endswith("noisy_turns")]
        assert [row.value for row in rows] == ([sum(len(d.noisy_turns) for d in dialogues)] if rate else [])


def test_no_view_and_no_record_without_noise_holds_a_word_of_it() -> None:
    assert "noisy_turns" not in talk(StubUser("accept-first")).to_json()
    noisy = talk(NoisyUser(StubUser("accept-first"), 1.0))
    assert Dialogue.model_validate_json(noisy.to_json()) == noisy


def load(spec: str, role: Role = Role.USER) -> LoadedAgent:
    return load_from_spec(spec, role, sampling=Sampling(), catalog=MOVIES, max_batch=4)


def test_a_spec_names_rate_and_user() -> None:
    loaded = load("noise:0.1:stub:never-accept")
    assert (loaded.agent.name, loaded.agent.rate) == ("noise:0.1:stub:never-accept", 0.1)
    assert loaded.fingerprint == "noise:0.1:stub:never-accept"
    assert with_noise(load("agenda"), 0.3).fingerprint == "noise:0.3:agenda"
    assert read_spec("noise:0.3:noise:0.1:agenda") == (0.3, "noise:0.1:agenda")


@pytest.mark.parametrize("spec", ["noise:agenda", "noise:1.1:agenda", "noise:-0.1:agenda", "noise:nan:agenda", "noise:0.1:"])
def test_a_wrong_spec_is_refused_in_one_line(spec: str) -> None:
    with pytest.raises(ConfigError, match="write noise:P:SPEC with P from 0 to 1") as found:
        load(spec)
    assert "\n" not in str(found.value)


def test_noise_makes_no_other_simulator() -> None:
    assert without_noise("noise:0.1:agenda") == without_noise("agenda") == "agenda"


def test_noise_is_for_users() -> None:
    with pytest.raises(InputError, match="can't be the recommender"):
        load("noise:0.1:agenda", Role.RECOMMENDER)
    with pytest.raises(ValueError, match="feedback is the user's"):
        NoisyUser(RuleRecommender(MOVIES), 0.1)


class Named(StubUser):
    def __init__(self, rule: str, name: str, *, told_target: bool = False) -> None:
        super().__init__(rule)
        self.name = name
        self.told_target = told_target


def test_an_ensemble_draws_one_user_per_conversation_and_names_it() -> None:
    both = Ensemble([Named("accept-first", "yes"), Named("never-accept", "no")])
    found = [talk(both, seed) for seed in range(30)]
    assert {d.user for d in found} == {"yes", "no"}
    assert all((d.ending is Ending.ACCEPTED) == (d.user == "yes") for d in found)
    assert 7 <= sum(d.user == "yes" for d in found) <= 23
    assert [d.user for d in found] == [talk(both, seed).user for seed in range(30)]


def test_noise_within_and_around_an_ensemble_is_recorded_with_the_drawn_name() -> None:
    users = [Named("accept-first", "a"), Named("accept-first", "b")]
    within = talk(Ensemble([NoisyUser(one, 1.0) for one in users]))
    around = talk(NoisyUser(Ensemble(users), 1.0))
    for dialogue in (within, around):
        assert dialogue.user in ("noise:1:a", "noise:1:b")
        assert dialogue.noisy_turns == (3, 5, 7)


async def test_an_ensemble_checks_and_closes_each_backend_once() -> None:
    class Server:
        def __init__(self) -> None:
            self.calls: list[str] = []

        async def check(self) -> None:
            self.calls.append("check")

        async def close(self) -> None:
            self.calls.append("close")

    shared, own = Server(), Server()
    users = [Named("never-accept", name) for name in "abc"]
    users[0].backend = users[1].backend = shared
    users[2].backend = own
    backend = Ensemble(users).backend
    await backend.check()
    await backend.close()
    assert shared.calls == own.calls == ["check", "close"]
    assert Ensemble([StubUser("never-accept")]).backend is None


def test_an_ensemble_refuses_what_records_could_not_tell_apart() -> None:
    with pytest.raises(ConfigError, match="are called 'a'"):
        Ensemble([Named("never-accept", "a"), Named("accept-first", "a")])
    with pytest.raises(ConfigError, match="told the target"):
        Ensemble([Named("never-accept", "a"), Named("accept-first", "b", told_target=True)])
    with pytest.raises(ValueError, match="all of them users"):
        Ensemble([RuleRecommender(MOVIES)])


def test_one_user_is_no_ensemble() -> None:
    one = load("agenda")
    assert ensemble_of([one]) is one
    both = ensemble_of([one, load("stub:never-accept")])
    assert both.agent.name == "ensemble"
    assert both.fingerprint == "ensemble of agenda, stub:never-accept"
