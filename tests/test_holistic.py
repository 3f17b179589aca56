"""Off the topic and back, strategies and beliefs as cues, and how both are counted."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.cli import main
from interplay.cli.pipeline import label_strategies
from interplay.config import AgendaTalk, Sampling, SlotFlags, TinyConfig, TrainConfig
from interplay.corpora.bundled import bundled_movies
from interplay.corpora.corpus import Corpus, Counts
from interplay.corpora.messages import Spoken
from interplay.errors import ConfigError, DataError
from interplay.evaluation.holistic import HolisticTalk, holistic_rows, talk_of
from interplay.evaluation.scoring import About
from interplay.evaluation.strategies import StrategyClassifier
from interplay.evaluation.strategy_scores import MarkedTurn, marked_turns, told_rows
from interplay.simulation.agenda import agenda_scenarios
from interplay.simulation.agenda_user import AgendaRates, AgendaUser
from interplay.simulation.beliefs import BeliefCues, PreferenceState, belief_text
from interplay.simulation.checkpoint import read_card
from interplay.simulation.dialogue import Limits, converse
from interplay.simulation.facets import FacetIndex
from interplay.simulation.rule_recommender import RuleRecommender
from interplay.simulation.specs import agenda_talk, load_from_spec, strategies_of
from interplay.simulation.strategy_cues import NAMES, StrategyCues, strategy_cues, strategy_text, told_strategies
from interplay.store import Run
from interplay.training.cue_labels import LoggedCues, trained_cues, turn_cues
from interplay.types import Action, Catalog, Dialogue, Role, Split, derive_seed, view_of
from makers import CATALOG, TALK, UP, dialogue, recommender, scenario, turns, user

U, R = Role.USER, Role.RECOMMENDER
MOVIES = bundled_movies()
SMALL = Catalog(random.Random(4).sample(list(MOVIES), 300), MOVIES.domain)
SCENARIOS = agenda_scenarios(SMALL, 60, seed=2)
PLAIN = AgendaUser(SMALL)
TALKATIVE = AgendaUser(SMALL, AgendaRates(several=0.5, small_talk=0.5, off_topic=0.3), "talkative")
RULES = RuleRecommender(SMALL)


@pytest.fixture(scope="module")
def held() -> list[Dialogue]:
    async def all_of_them() -> list[Dialogue]:
        return [await converse(s, TALKATIVE, RULES, seed=k, limits=Limits(20, 20)) for k, s in enumerate(SCENARIOS)]

    return asyncio.run(all_of_them())


# ---- the agenda user -------------------------------------------------------------------------------------------------


def test_a_talkative_user_asks_and_rejects_in_one_turn_and_gets_both_an_answer_and_another_offer(held):
    asked = [(d, k) for d in held for k, t in enumerate(d.turns) if t.role is U and Action.INQUIRE in t.acts]
    assert len(asked) > 10
    for talk, place in asked:
        assert talk.turns[place].action is Action.FEEDBACK
        if place + 1 < len(talk.turns):
            reply = talk.turns[place + 1]
            assert (reply.action, reply.acts) == (Action.RECOMMEND, (Action.ANSWER,))
            assert [SMALL[m.item_id].label for m in reply.items] == list(reply.titles)


def test_it_chats_before_its_wish_and_in_the_same_turn(held):
    first = [next(t for t in d.turns if t.role is U) for d in held]
    assert 0.3 < sum(t.action is Action.CHAT for t in first) / len(first) < 0.75
    together = [t for d in held for t in d.turns if t.role is U and Action.CHAT in t.acts]
    assert together
    assert all(t.action is Action.DISCLOSE_GOAL for t in together)


def test_it_leaves_the_topic_after_an_offer_and_comes_back_to_judge_it(held):
    back = 0
    for talk in held:
        for place, turn in enumerate(talk.turns):
            if turn.role is U and turn.action is Action.CHAT and place and talk.turns[place - 1].action is Action.RECOMMEND:
                reply, verdict = talk.turns[place + 1 : place + 3]
                assert reply.action is Action.CHAT
                assert verdict.action in (Action.ACCEPT, Action.FEEDBACK, Action.INQUIRE, Action.GIVE_UP)
                back += 1
    assert back > 5


def test_it_still_accepts_what_fits_and_nothing_else(held):
    index = FacetIndex(SMALL)
    for talk, start in zip(held, SCENARIOS, strict=True):
        if talk.turns[-1].action is Action.ACCEPT:
            item = SMALL[talk.accepted_items[0].item_id]
            speaker = TALKATIVE.begin(view_of(start, U, with_persona=True).after(*talk.turns), 0, "s")
            assert all(index.has(item, goal) for goal in speaker.goals)


def test_a_talkative_speaker_begun_in_the_middle_goes_on_as_if_it_had_spoken_from_the_start(held):
    for talk, start in list(zip(held, SCENARIOS, strict=True))[:25]:
        seed = derive_seed(talk.seed, U)
        for place, turn in enumerate(talk.turns):
            if turn.role is U:
                view = view_of(start, U, with_persona=True).after(*talk.turns[:place])
                assert asyncio.run(TALKATIVE.begin(view, seed, "s").speak()) == turn


def test_with_shares_of_0_it_is_the_plain_user_word_for_word():
    silent = AgendaUser(SMALL, AgendaRates(**AgendaTalk().model_dump()))
    for number, start in enumerate(SCENARIOS[:8]):
        plain, same = (asyncio.run(converse(start, u, RULES, seed=number)) for u in (PLAIN, silent))
        assert plain.turns == same.turns


def test_the_shares_are_options_of_the_spec():
    assert agenda_talk("agenda") == AgendaTalk()
    assert agenda_talk("agenda?several=0.3&off_topic=.1") == AgendaTalk(several=0.3, off_topic=0.1)
    for spec in ("agenda?several=2", "agenda?chatty=1", "agenda?several=much"):
        with pytest.raises(ConfigError, match="several, small_talk, off_topic are accepted"):
            agenda_talk(spec)


def test_the_spec_makes_a_user_of_that_name_and_no_recommender():
    def load(role: Role):
        return load_from_spec("agenda?several=1", role, sampling=Sampling(), catalog=SMALL, max_batch=1)

    assert load(U).agent.name == "agenda?several=1"
    with pytest.raises(ConfigError, match="the recommender is agenda"):
        load(R)


# ---- counted ---------------------------------------------------------------------------------------------------------


def test_episodes_are_counted_once_the_user_was_on_the_topic_and_returns_where_it_is_so_again():
    def talk(marks: str) -> HolisticTalk:
        return HolisticTalk((), (), tuple(m == "s" for m in marks), tuple(m == "w" for m in marks))

    assert talk("sswsw").episodes == [True]
    assert talk("wsswss").episodes == [True, False]
    assert talk("ssw").begins_with_small_talk
    assert not talk("wss").begins_with_small_talk
    assert talk("ss.").episodes == []


def test_a_talkative_user_is_counted_as_one_and_a_plain_one_is_not(held):
    about = About("agenda", "all", 0, "digest")
    found = {row.metric: row for row in holistic_rows([talk_of(d) for d in held], about)}
    assert found["holistic.returns"].value > 0.8
    assert found["holistic.small_talk_first"].value > 0.2
    assert found["holistic.question_and_feedback"].value > 0.05
    assert found["holistic.told_several_acts.user"].value > 0.15
    plain = [asyncio.run(converse(s, PLAIN, RULES, seed=k)) for k, s in enumerate(SCENARIOS[:20])]
    less = {row.metric: row for row in holistic_rows([talk_of(d) for d in plain], about)}
    assert less["holistic.off_topic_episodes"].value < found["holistic.off_topic_episodes"].value
    assert "holistic.told_several_acts.user" not in less or less["holistic.told_several_acts.user"].value == 0


def test_acceptance_thanks_and_items_are_not_off_topic():
    said = (*TALK[:3], user(Action.ACCEPT, "Great, have a nice evening!"))
    assert talk_of(dialogue(scenario(), said)).small_talk == (False, False)
    with_item = (*TALK[:3], user(Action.CHAT, "haha, ", UP, " is what my kids watch"))
    assert talk_of(dialogue(scenario(), with_item)).small_talk == (False, False)


# ---- strategies ------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(NAMES), unique=True))
@settings(max_examples=40)
def test_the_words_of_a_strategy_cue_tell_the_strategies(strategies):
    assert set(told_strategies(strategy_text(strategies))) == set(strategies)


def test_the_cue_of_a_log_is_its_label_and_unlabelled_conversations_have_none():
    marked = (TALK[0].model_copy(update={"strategies": ("offer_help", "transparency")}), *TALK[1:])
    view = view_of(scenario(), R, with_persona=False)
    assert turn_cues(view.after(*marked), 0, ("strategy",)) == (("strategy", "offer help"),)
    assert turn_cues(view.after(*marked), 2, ("strategy",)) == (("strategy", "none"),)
    assert turn_cues(view.after(*TALK), 2, ("strategy",)) == ()


def test_a_fixed_strategy_is_told_always_and_a_random_one_evenly():
    view = view_of(scenario(), R, with_persona=False)
    fixed, _ = strategy_cues("encouragement")
    assert {fixed.parts(view, seed) for seed in range(5)} == {(("strategy", "encouragement"),)}
    drawn, _ = strategy_cues("random")
    texts = [drawn.parts(view, seed)[0][1] for seed in range(600)]
    assert {texts.count(strategy_text([name])) > 30 for name in NAMES} == {True}
    assert drawn.parts(view, 3) == drawn.parts(view, 3)


def test_strategies_are_drawn_as_people_used_them_after_what_they_had_heard():
    greets = recommender(Action.GREETING, "hi").model_copy(update={"strategies": ("offer_help",)})
    logs = [dialogue(scenario(source_id=str(k)), (greets, *TALK[1:])) for k in range(40)]
    source = StrategyCues.of_logs([*logs, dialogue(scenario())])
    view = view_of(scenario(), R, with_persona=False)
    assert source.parts(view, 1) == (("strategy", "offer help"),)
    assert source.parts(view.after(*TALK[:2]), 1) == (("strategy", "none"),)
    with pytest.raises(DataError, match="strategy labels"):
        StrategyCues.of_logs([dialogue(scenario())])


def test_another_word_is_no_strategy():
    with pytest.raises(ConfigError, match="--strategy takes random, logs:DATA or one of personal_opinion"):
        strategy_cues("flattery")


def test_what_was_told_is_read_from_the_record():
    cued = TALK[2].model_copy(update={"cues": (("strategy", "encouragement, similarity"),)})
    (first, second, _) = marked_turns([dialogue(scenario(), (*TALK[:2], cued, *TALK[3:]))], [[(), (), ()]])
    assert first.told is None
    assert second.told == {"encouragement", "similarity"}


def told(strategy: str, *, found: bool, accepted: bool, key: str) -> MarkedTurn:
    return MarkedTurn(key, frozenset([strategy] if found else []), True, True, accepted, frozenset([strategy]))


def test_recovery_is_compared_with_chance_and_acceptance_with_other_strategies():
    turns = [told("encouragement", found=k % 4 > 0, accepted=k % 2 == 0, key=str(k)) for k in range(80)]
    turns += [told("similarity", found=k % 4 == 0, accepted=k % 4 == 0, key=str(k)) for k in range(80)]
    found = {row.metric: row for row in told_rows(turns, About("a", "all", 0, "d"))}
    assert found["strategies.recovered"].value == 0.5
    # Each of two strategies is told to half of the turns, and found in 60 and in 20 of 160.
    assert found["strategies.recovered_chance"].value == pytest.approx((80 * 60 + 80 * 20) / 160 / 160)
    assert found["strategies.recovered_lift.encouragement"].value == pytest.approx(0.75)
    effect = found["strategies.accept_effect.encouragement"]
    assert effect.value == pytest.approx(0.25)
    assert effect.low < 0.25 < effect.high
    assert found["strategies.accept_told.similarity"].value == 0.25


def test_with_few_turns_an_effect_is_not_measured():
    turns = [told("encouragement", found=True, accepted=True, key=str(k)) for k in range(30)]
    found = {row.metric: row for row in told_rows(turns, About("a", "all", 0, "d"))}
    assert found["strategies.accept_effect.encouragement"].value is None
    assert found["strategies.accept_told.encouragement"].value == 1


# ---- beliefs ---------------------------------------------------------------------------------------------------------

INDEX = FacetIndex(CATALOG)


def test_a_belief_is_told_with_its_aspect_valence_and_confidence_the_surest_first():
    start = scenario()
    view = view_of(start, U, with_persona=True)
    state = PreferenceState(INDEX, replace(view, general_preferences="Dislikes horror."))
    assert belief_text(state) == "crime +9, 1990s +9, horror -5"
    assert belief_text(PreferenceState(INDEX, replace(view, target_attributes=(), general_preferences=""))) is None


def test_in_training_a_belief_knows_nothing_of_its_turn_and_what_follows():
    view = view_of(scenario(), U, with_persona=True)
    label = LoggedCues(("belief",), index=INDEX).label
    other = (*TALK[:3], user(Action.FEEDBACK, "no crime please, horror!"), *TALK[4:])
    one, two = (label(view.after(*talk), dialogue(scenario(), talk)).cues for talk in (TALK, other))
    assert [c.turn for c in one] == [1, 3, 5]
    assert one[:2] == two[:2]
    assert one[2] != two[2]
    assert "horror +" in dict(two[2].parts)["belief"]


@given(st.lists(turns(), min_size=1, max_size=6))
@settings(max_examples=40)
def test_while_it_talks_a_user_is_told_what_training_would_have_told_it(talk):
    view = view_of(scenario(), U, with_persona=True)
    learned = {
        c.turn: c.parts
        for c in LoggedCues(("belief",), index=INDEX).label(view.after(*talk), dialogue(scenario(), tuple(talk))).cues
    }
    source = BeliefCues(INDEX)
    for place, turn in enumerate(talk):
        if turn.role is U:
            assert source.parts(view.after(*talk[:place]), 0) == learned.get(place, ())


def test_a_belief_does_not_depend_on_the_target():
    talk = TALK[:4]
    texts = set()
    for target in (None, UP):
        start = scenario(target)
        view = view_of(start, U, with_persona=True).after(*talk)
        texts.add(LoggedCues(("belief",), index=INDEX).label(view, dialogue(start, talk)).cues)
    assert len(texts) == 1


def test_beliefs_come_with_their_own_flag_after_all_other_cues():
    def asked(role: str, *cues: str, beliefs: bool = True) -> tuple[str, ...]:
        return trained_cues(TrainConfig(role=role, data=["data"], out="out", cues=list(cues), beliefs=beliefs))

    assert asked("user") == ("belief",)
    assert asked("user", "length") == ("length", "belief")
    assert "belief" not in asked("user", "all", beliefs=False)
    assert asked("recommender", "strategy", beliefs=False) == ("strategy",)
    with pytest.raises(ConfigError, match="a recommender has nothing of the kind"):
        asked("recommender")


def test_a_turn_keeps_its_other_parts_beside_its_belief():
    view = view_of(scenario(), U, with_persona=True).after(*TALK)
    cue = LoggedCues(("length", "belief"), index=INDEX).label(view, dialogue(scenario())).cues[0]
    assert [kind for kind, _ in cue.parts] == ["length", "belief"]


# ---- from end to end -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    from interplay.training.sft import train

    folder = tmp_path_factory.mktemp("holistic")
    starts = [scenario(split=Split.TRAIN, source_id=str(k)) for k in range(6)]
    marked = tuple(t.model_copy(update={"strategies": ("encouragement",)}) if t.role is R else t for t in TALK)
    Corpus("made", [dialogue(s, marked) for s in starts], starts, CATALOG, Counts(6, 6)).save(folder / "data")
    shape = TinyConfig(layers=1, width=32, vocab_size=320, context=256)
    settings = {"data": [folder / "data"], "max_steps": 1, "max_length": 192, "tiny": shape}
    train(TrainConfig(role="user", out=folder / "user", beliefs=True, fit=True, acts=True, **settings))
    train(TrainConfig(role="recommender", out=folder / "recommender", cues=["strategy"], **settings))
    return folder


def load(path: Path, role: Role, **flags: str):
    asked = SlotFlags(**flags)
    return load_from_spec(str(path), role, sampling=Sampling(max_new_tokens=40), catalog=CATALOG, max_batch=2, slots=asked)


async def test_trained_models_are_told_beliefs_and_strategies_and_tell_their_acts(trained):
    assert read_card(trained / "user").acts
    assert read_card(trained / "user").cues == ("belief", "fit")
    told = load(trained / "user", U)
    spoken = load(trained / "recommender", R, strategy="similarity")
    talk = await converse(scenario(), told.agent, spoken.agent, seed=1, limits=Limits(max_turns=6))
    assert {t.cues for t in talk.turns if t.role is R} == {(("strategy", "similarity"),)}
    own = [t for t in talk.turns if t.role is U]
    assert own[0].cues[0] == ("belief", "crime +9, 1990s +9")
    after_an_offer = [
        t for k, t in enumerate(talk.turns) if t.role is U and any(e.items for e in talk.turns[:k] if e.role is R)
    ]
    assert {dict(t.cues)["fit"] for t in after_an_offer} <= {"all", "some", "none"}
    assert "belief" not in "".join(t.text for t in talk.turns)
    assert load(trained / "recommender", R, strategy="random").fingerprint != spoken.fingerprint


def test_a_recommender_that_was_trained_without_strategies_can_not_be_told_one(trained):
    with pytest.raises(ConfigError, match="train recommender --cues strategy"):
        strategies_of("similarity", read_card(trained / "user"), trained / "user")
    with pytest.raises(ConfigError, match="--strategy are for models"):
        load(Path("agenda"), R, strategy="random")


def test_conversations_without_labels_get_those_of_a_classifier_and_the_corpus_says_whose(tmp_path):
    lines = {"opinion_inquiry": "What kind of film do you like?", "encouragement": "You should watch it tonight."}
    talks = [[Spoken(R, text, strategies=(name,)) for name, text in lines.items()] for _ in range(12)]
    StrategyClassifier.fit("made", talks, num_folds=3, penalties=(4.0,)).write(tmp_path)
    labelled = (TALK[0].model_copy(update={"strategies": ("credibility",)}), *TALK[1:])
    starts = [scenario(source_id=str(k)) for k in range(2)]
    bare = (recommender(Action.INQUIRE, lines["opinion_inquiry"]), *TALK[1:])
    corpus = Corpus("made", [dialogue(starts[0], labelled), dialogue(starts[1], bare)], starts, CATALOG, Counts(2, 2))
    label_strategies(corpus, tmp_path)
    assert corpus.dialogues[0].turns == labelled
    assert corpus.dialogues[1].turns[0].strategies == ("opinion_inquiry",)
    assert corpus.counts.notes == {"conversations with strategies by the classifier made": 1}


def test_the_command_writes_both_sides(tmp_path, capsys):
    starts = [scenario(source_id=str(k)) for k in range(4)]
    Corpus("made", [dialogue(s) for s in starts], starts, CATALOG, Counts(4, 4)).save(tmp_path / "data")
    args = [str(tmp_path / "data"), "--human", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "holistic", *args]) == 0
    assert "holistic.several_acts.user" in capsys.readouterr().out
    assert {row.subject for row in Run.read(tmp_path / "out").scores()} == {"human with human", "human"}
    assert main(["evaluate", "holistic", str(tmp_path), "--out", str(tmp_path / "no")]) == 1
