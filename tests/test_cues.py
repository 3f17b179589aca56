"""Cues: what a role is told of itself and of its turns, rendered, learned, given while it talks, and logged."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from interplay.backends.scripted import ScriptedBackend
from interplay.config import ControlFlags, Sampling, SimulateConfig, TinyConfig, TrainConfig, parse_config
from interplay.errors import CheckpointError, ConfigError
from interplay.formats.constraint import TurnGrammar
from interplay.formats.tags import cue_tag
from interplay.formats.tokens import IGNORED, TokenFormat, add_structural_tokens
from interplay.formats.trie import load_trie
from interplay.metrics.latents import LENGTHS, derive_latents, nearest_length
from interplay.simulation.checkpoint import read_card
from interplay.simulation.control import Control, count_cues, read_counts, write_counts
from interplay.simulation.cues import words_around
from interplay.simulation.dialogue import Limits, converse
from interplay.simulation.model_agents import TokenAgent, titles_of
from interplay.simulation.specs import LoadedAgent, load_from_spec
from interplay.training.backbone import train_tokenizer
from interplay.training.cue_labels import TURN_LABELS, LoggedCues, session_cues, trained_cues, turn_cues
from interplay.training.rows import training_rows
from interplay.types import TURN_CUES, Action, Cue, Dialogue, Role, Scenario, Split, Turn, View, cues_for, view_of
from makers import CATALOG, HEAT, MOVIE, TALK, dialogue, recommender, scenario, scenarios, texts, turns, user

U, R = Role.USER, Role.RECOMMENDER
KINDS = cues_for(U)
TRAITS = (("verbosity", "terse"), ("patience", "quick"))


def make_format(*kinds: str) -> TokenFormat:
    tokenizer = train_tokenizer(["hello what do you feel like today", "maybe a crime thriller from the 1990s"], 320)
    add_structural_tokens(tokenizer, MOVIE, cues=kinds)
    return TokenFormat(tokenizer, MOVIE, cues=kinds)


FORM, PLAIN = make_format(*KINDS), make_format()
GRAMMAR = TurnGrammar(FORM, U, load_trie(FORM, titles_of(CATALOG)))
WHOLE = {i for i in range(GRAMMAR.vocab_size) if "\ufffd" not in FORM.decode([i])}
"""Tokens that are no piece of a character: several pieces may turn out to be a blank."""


def cued_view(start: Scenario, talk: tuple[Turn, ...], number: int | None = None) -> View:
    """The user's View after `number` turns: with traits, and with a cue before each own turn and before the one to come."""
    number = len(talk) if number is None else number
    own = [k for k, turn in enumerate(talk) if turn.role is U and k <= number]
    cues = tuple(Cue(k, (("intent", talk[k].action.value), ("length", str(talk[k].num_words)))) for k in own)
    view = view_of(start, U, with_persona=True).after(*talk[:number])
    return replace(view, traits=TRAITS, cues=cues)


# ---- rendering -------------------------------------------------------------------------------------------------------


def test_traits_end_the_persona_and_a_cue_stands_before_the_tag_that_opens_its_turn() -> None:
    view = replace(view_of(scenario(), U, with_persona=True), traits=TRAITS, cues=(Cue(1, (("length", "3"),)),))
    shown = FORM.decode(FORM.render(view.after(*TALK[:2])).ids)
    assert "<goal> crime, 1990s<verbosity> terse<patience> quick<recommender>" in shown
    assert "</response><length> 3<user><action><disclose-goal>" in shown


def test_a_cue_is_never_learned() -> None:
    view = cued_view(scenario(), TALK)
    rendered = FORM.render(view)
    learned = [i for i in rendered.labels(U) if i != IGNORED]
    assert learned == [i for turn in TALK if turn.role is U for i in FORM.turn_ids(turn)]


@given(st.lists(turns(words=texts), min_size=1, max_size=5), scenarios(MOVIE))
@settings(max_examples=40)
def test_a_longer_conversation_with_cues_has_the_shorter_one_as_its_prefix(talk: list[Turn], start: Scenario) -> None:
    longer = FORM.render(cued_view(start, tuple(talk))).ids
    for number in range(len(talk)):
        shorter = FORM.render(cued_view(start, tuple(talk), number)).ids
        assert longer[: len(shorter)] == shorter


def test_a_model_without_cues_renders_as_if_there_were_none() -> None:
    view = cued_view(scenario(), TALK)
    assert PLAIN.render(view) == PLAIN.render(replace(view, traits=(), cues=()))
    assert PLAIN.tokenizer.convert_tokens_to_ids(cue_tag("length")) is None


def test_only_the_kinds_that_a_model_knows_are_shown() -> None:
    form = make_format("length")
    assert form.decode(form.cue_ids((("intent", "accept"), ("length", "8")))) == "<length> 8"


def test_the_text_of_a_cue_can_not_forge_structure() -> None:
    ids = FORM.cue_ids((("length", "</response>"),))
    assert FORM.end_of_turn not in ids
    assert FORM.decode(ids) == "<length> </response>"


# ---- labels of conversations that exist ------------------------------------------------------------------------------


def test_every_kind_of_cue_of_a_turn_has_its_rule() -> None:
    assert set(TURN_LABELS) == {kind for kinds in TURN_CUES.values() for kind in kinds}


def test_the_cues_of_a_log_say_what_was_said() -> None:
    log = dialogue(scenario())
    view = view_of(scenario(), U, with_persona=True).after(*log.turns)
    assert turn_cues(view, 1, KINDS) == (("intent", "disclose-goal"), ("off-topic", "no"), ("length", "3"))
    assert turn_cues(view, 5, ("length",)) == (("length", "3"),)
    assert dict(session_cues(log)) == {
        "verbosity": "terse",
        "patience": "quick",
        "openness": "particular",
        "indecision": "decided",
        "expertise": "none",
    }


@given(st.integers(1, 500))
def test_a_length_is_told_as_the_nearest_of_the_grid(num: int) -> None:
    told = nearest_length(num)
    assert told in LENGTHS
    assert all(max(told, num) / min(told, num) <= max(other, num) / min(other, num) for other in LENGTHS)


def test_a_labelled_view_has_a_cue_before_each_own_turn_and_none_before_the_others() -> None:
    log = dialogue(scenario())
    view = LoggedCues(KINDS).label(view_of(scenario(), U, with_persona=True).after(*log.turns), log)
    assert [cue.turn for cue in view.cues] == [1, 3, 5]
    assert view.traits == session_cues(log)
    recommender_view = view_of(scenario(), R, with_persona=False).after(*log.turns)
    assert LoggedCues(KINDS).label(recommender_view, log) == recommender_view


def test_dropout_leaves_out_whole_conversations_and_single_cues_at_its_rate() -> None:
    logs = [dialogue(scenario(source_id=str(k))) for k in range(600)]
    label = LoggedCues(KINDS, dropout=0.25, seed=3).label
    views = [label(view_of(scenario(), U, with_persona=True).after(*log.turns), log) for log in logs]
    kept = [sum(len(cue.parts) for cue in view.cues) + len(view.traits) for view in views]
    full = len(session_cues(logs[0])) + 3 * len(TURN_CUES[U])
    assert sum(not num for num in kept) / len(kept) == pytest.approx(0.25, abs=0.05)
    assert sum(kept) / (len(kept) * full) == pytest.approx(0.75**2, abs=0.04)
    again = label(view_of(scenario(), U, with_persona=True).after(*logs[0].turns), logs[0])
    assert again == views[0]


def test_training_rows_hold_cues_and_learn_the_same_words() -> None:
    pairs = [(scenario(), dialogue(scenario()))]
    plain, counts = training_rows(pairs, U, FORM, with_persona=False, max_length=512)
    told, told_counts = training_rows(pairs, U, FORM, with_persona=False, max_length=512, cues=LoggedCues(KINDS))
    assert FORM.tag_id(cue_tag("length")) in told[0]["input_ids"]
    assert FORM.tag_id(cue_tag("length")) not in plain[0]["input_ids"]
    assert [i for i in told[0]["labels"] if i != IGNORED] == [i for i in plain[0]["labels"] if i != IGNORED]
    assert told_counts.labelled_tokens == counts.labelled_tokens


def test_a_row_that_is_cut_loses_the_cues_of_the_turns_it_loses() -> None:
    pairs = [(scenario(), dialogue(scenario()))]
    (whole,), _ = training_rows(pairs, U, FORM, with_persona=False, max_length=512, cues=LoggedCues(KINDS))
    (cut,), counts = training_rows(
        pairs, U, FORM, with_persona=False, max_length=len(whole["input_ids"]) - 1, cues=LoggedCues(KINDS)
    )
    assert counts.shortened == 1
    assert cut["input_ids"] == whole["input_ids"][: len(cut["input_ids"])]
    assert cut["input_ids"].count(FORM.tag_id(cue_tag("length"))) == 2


def asked(role: str, *kinds: str) -> TrainConfig:
    return TrainConfig(role=role, data=["data"], out="out", cues=list(kinds))


def test_all_stands_for_every_kind_and_the_order_is_fixed() -> None:
    assert trained_cues(asked("user", "all")) == KINDS
    assert trained_cues(asked("user", "length", "verbosity")) == ("verbosity", "length")
    assert trained_cues(asked("user")) == ()
    assert set(KINDS) <= set(trained_cues(asked("base", "all")))


def test_an_unknown_kind_of_cue_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--cues mood: cues of a user are all, verbosity"):
        trained_cues(asked("user", "mood"))


# ---- while it talks --------------------------------------------------------------------------------------------------


class Told:
    """A source that tells the same of every turn."""

    def traits(self, view: View, seed: int) -> tuple[tuple[str, str], ...]:
        return TRAITS

    def parts(self, view: View, seed: int) -> tuple[tuple[str, str], ...]:
        return (("length", "2"), ("intent", "chat"))


class Listener:
    """A recommender that keeps what it hears."""

    role, name = R, "listener"

    def __init__(self) -> None:
        self.heard: list[Turn] = []

    def begin(self, view: View, seed: int, session: str) -> "Listener":
        return self

    async def speak(self) -> Turn:
        return recommender(Action.INQUIRE, f"what else, {len(self.heard)}?")

    def hear(self, turn: Turn) -> None:
        self.heard.append(turn)

    def end(self) -> None:
        pass


def agent(*sources: Told, form: TokenFormat = FORM) -> TokenAgent:
    said = [tuple(form.turn_ids(t)) for t in (user(Action.CHAT, "hi there"), user(Action.GIVE_UP, "no more"))]
    backend = ScriptedBackend(lambda request: said[min(request.prompt.count(form.opening_ids(U)[0]) - 1, 1)])
    return TokenAgent(U, "trained", form, backend, Sampling(), None, cues=sources)


async def test_a_model_is_told_before_it_speaks_and_the_record_holds_what_it_was_told() -> None:
    told = agent(Told())
    held = await converse(scenario(), told, Listener(), seed=1)
    first, second = (told.form.decode(request.prompt) for request in told.backend.requests)
    assert first.endswith("</response><intent> chat<length> 2<user>")
    assert "<verbosity> terse<patience> quick<recommender>" in first
    assert second.startswith(first)
    assert second.count("<length> 2<user>") == 2
    assert held.traits == TRAITS
    assert [t.cues for t in held.turns if t.role is U] == [(("intent", "chat"), ("length", "2"))] * 2
    assert Dialogue.model_validate_json(held.to_json()) == held


async def test_the_ids_of_a_conversation_with_cues_are_its_rendering() -> None:
    told = agent(Told())
    held = await converse(scenario(), told, Listener(), seed=1)
    view = view_of(scenario(), U, with_persona=True).after(*held.turns[:3])
    cues = tuple(Cue(n, turn.cues) for n, turn in enumerate(held.turns) if turn.cues)
    rendered = told.form.render(replace(view, traits=held.traits, cues=cues)).ids
    assert (*rendered, *told.form.opening_ids(U)) == told.backend.requests[-1].prompt


async def test_the_other_side_never_hears_a_cue() -> None:
    listener = Listener()
    held = await converse(scenario(), agent(Told()), listener, seed=1)
    assert held.turns[1].cues
    assert [turn.cues for turn in listener.heard] == [()]
    assert not any(t.cues for t in view_of(scenario(), R, with_persona=True).after(*held.turns).turns)


async def test_a_model_without_a_source_leaves_the_record_as_it_was() -> None:
    held = await converse(scenario(), agent(form=PLAIN), Listener(), seed=1)
    assert held.traits == ()
    assert "cues" not in held.to_json()
    assert "traits" not in held.to_json()


async def test_a_conversation_that_goes_on_shows_the_cues_of_its_past_turns() -> None:
    held = await converse(scenario(), agent(Told()), Listener(), seed=1)
    told = agent(Told())
    speaker = told.begin(view_of(scenario(), U, with_persona=True).after(*held.turns[:3]), 1, "s")
    await speaker.speak()
    assert told.form.decode(told.backend.requests[0].prompt).count("<length> 2<user>") == 2


# ---- what it is told -------------------------------------------------------------------------------------------------


def logs_of_people() -> list[Dialogue]:
    """Twenty terse people who answer greetings in two words and offers in four, and twenty wordy ones with nineteen."""
    out = []
    for k in range(40):
        words = ("a " * 19,) * 2 if k % 2 else ("hi you", "not that one, no")
        talk = (
            recommender(Action.GREETING, "hello"),
            user(Action.DISCLOSE_GOAL, words[0].strip()),
            recommender(Action.RECOMMEND, "try ", HEAT),
            user(Action.FEEDBACK, words[1].strip()),
        )
        out.append(dialogue(scenario(source_id=str(k)), talk, ending=None))
    return out


def control(*kinds: str, **flags: object) -> Control:
    counts = count_cues((log, derive_latents(log)) for log in logs_of_people())
    return Control(kinds or KINDS, ControlFlags(**flags), counts)


def view_after(*talk: Turn, **traits: str) -> View:
    return replace(view_of(scenario(), U, with_persona=True).after(*talk), traits=tuple(traits.items()))


HEARD = {"greeting": logs_of_people()[0].turns[:1], "offer": logs_of_people()[0].turns[:3]}


def test_counts_hold_numbers_and_names_of_values_but_no_sentence(tmp_path: Path) -> None:
    counts = count_cues((log, derive_latents(log)) for log in logs_of_people())
    write_counts(counts, tmp_path)
    assert read_counts(tmp_path) == counts
    assert sum(s.count for s in counts.sessions) == 40
    assert sum(t.count for t in counts.turns) == 80
    assert "not that one" not in (tmp_path / "cues.json").read_text()


def test_missing_counts_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cues.json is missing: .* --control.policy none"):
        read_counts(tmp_path)


def test_traits_are_drawn_as_people_had_them_and_come_back_with_the_seed() -> None:
    told = control()
    drawn = [dict(told.traits(view_after(), seed)) for seed in range(400)]
    assert sum(traits["verbosity"] == "wordy" for traits in drawn) / 400 == pytest.approx(0.5, abs=0.08)
    assert all("patience" not in traits for traits in drawn)  # nobody's conversation ended
    assert drawn[0] == dict(told.traits(view_after(), 0))


def test_a_length_is_drawn_by_verbosity_and_by_what_was_heard_while_there_are_enough_of_them(monkeypatch) -> None:
    monkeypatch.setattr("interplay.simulation.control.FEWEST", 20)

    def lengths(view: View) -> set[str]:
        told = control()
        return {dict(told.parts(view, seed))["length"] for seed in range(40)}

    assert lengths(view_after(*HEARD["greeting"], verbosity="terse")) == {"2"}
    assert lengths(view_after(*HEARD["offer"], verbosity="terse")) == {"4"}
    assert lengths(view_after(*HEARD["offer"], verbosity="wordy")) == {"19"}
    monkeypatch.setattr("interplay.simulation.control.FEWEST", 21)
    assert lengths(view_after(*HEARD["offer"], verbosity="terse")) == {"2", "4"}


def test_what_a_turn_does_is_left_to_the_model_unless_it_is_fixed() -> None:
    assert "intent" not in dict(control().parts(view_after(), 0))
    assert dict(control(intent="inquire").parts(view_after(), 0))["intent"] == "inquire"


def test_fixed_cues_win_and_a_fixed_length_brings_its_verbosity() -> None:
    told = control(length=[30], openness="open")
    assert dict(told.traits(view_after(), 1))["openness"] == "open"
    assert dict(told.traits(view_after(), 1))["verbosity"] == "wordy"
    assert dict(told.parts(view_after(), 1))["length"] == "30"
    assert dict(control(length=[30], verbosity="terse").traits(view_after(), 1))["verbosity"] == "terse"


def test_of_several_lengths_each_turn_draws_one() -> None:
    told = control(length=[4, 4, 16])
    drawn = [dict(told.parts(view_after(), seed))["length"] for seed in range(600)]
    assert drawn.count("16") / 600 == pytest.approx(1 / 3, abs=0.06)
    assert set(drawn) == {"4", "16"}


def test_without_a_policy_only_what_is_fixed_is_told() -> None:
    told = Control(KINDS, ControlFlags(policy="none", patience="quick"), None)
    assert told.traits(view_after(), 0) == (("patience", "quick"),)
    assert told.parts(view_after(), 0) == ()


def test_a_model_is_told_only_the_kinds_that_it_knows() -> None:
    told = control("length")
    assert told.traits(view_after(), 0) == ()
    assert [kind for kind, _ in told.parts(view_after(), 0)] == ["length"]


@pytest.mark.parametrize("words", [0, 61])
def test_a_length_that_no_user_is_told_is_refused(words: int) -> None:
    with pytest.raises(ValidationError, match="1 to 60 words"):
        ControlFlags(length=[words])


def test_lists_within_a_table_can_be_given_in_one_go() -> None:
    args = ["--user", "u", "--recommender", "r", "--scenarios", "d", "--out", "o", "--control.length", "4", "8", "--seed", "1"]
    assert parse_config(SimulateConfig, args, "simulate").control.length == [4, 8]


# ---- turns held to a length ------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 4, 8, 20]))
@settings(max_examples=60)
def test_a_turn_that_is_held_to_a_length_has_as_many_words(seed: int, length: int) -> None:
    rng = random.Random(seed)
    low, high = words_around(length, 0.25)
    state = GRAMMAR.constraint(num_words=(low, high)).start(400)
    ids: list[int] = []
    while not ids or ids[-1] != FORM.end_of_turn:
        allowed = state.allowed()
        some = allowed.ids.tolist() if allowed.only else WHOLE - set(allowed.ids.tolist())
        ids.append(rng.choice(sorted(some)))
        state.advance(ids[-1])
    turn = FORM.parse(ids, U)
    assert turn.num_words >= low
    assert turn.num_words <= high + (max(len(i.label.split()) for i in CATALOG) - 1 if turn.items else 0)


async def test_an_agent_with_a_tolerance_holds_its_turns_to_the_length_that_they_are_told() -> None:
    said = tuple(FORM.turn_ids(user(Action.CHAT, "hi there")))
    for tolerance, expected in ((None, None), (0.0, (2, 2))):
        backend = ScriptedBackend(lambda request: said)
        told = TokenAgent(
            U, "u", FORM, backend, Sampling(), CATALOG, turn_grammar=GRAMMAR, cues=[Told()], length_tolerance=tolerance
        )
        await told.begin(view_of(scenario(), U, with_persona=True), 1, "s").speak()
        assert backend.requests[0].constraint.num_words == expected


# ---- from training to a record ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from interplay.corpora.corpus import Corpus, Counts
    from interplay.training.sft import train

    folder = tmp_path_factory.mktemp("cues")
    starts = [scenario(split=Split.TRAIN, source_id=str(k)) for k in range(6)]
    Corpus("made", [dialogue(s) for s in starts], starts, CATALOG, Counts(6, 6)).save(folder / "data")
    shape = TinyConfig(layers=1, width=32, vocab_size=320, context=256)
    settings = {"data": [folder / "data"], "max_steps": 1, "max_length": 192, "tiny": shape}
    for name, kinds in (("told", ["all"]), ("plain", [])):
        train(TrainConfig(role="user", out=folder / name, cues=kinds, **settings))
    return folder


def load(path: Path | str, **flags: object) -> LoadedAgent:
    asked = ControlFlags(**flags)
    return load_from_spec(str(path), U, sampling=Sampling(max_new_tokens=40), catalog=CATALOG, max_batch=2, control=asked)


async def test_a_trained_user_is_told_what_people_were_like_and_what_is_fixed(trained: Path) -> None:
    assert read_card(trained / "told").cues == KINDS
    assert read_counts(trained / "told").sessions[0].count == 6
    loaded = load(trained / "told", length=[3], tolerance=0.0, intent="chat")
    held = await converse(scenario(), loaded.agent, Listener(), seed=3, limits=Limits(max_turns=4))
    assert dict(held.traits)["patience"] == "quick"
    own = [turn for turn in held.turns if turn.role is U]
    assert own
    assert all(dict(turn.cues)["length"] == "3" and dict(turn.cues)["intent"] == "chat" for turn in own)
    assert all(turn.num_words >= 3 for turn in own)


async def test_control_is_part_of_the_fingerprint_and_a_model_without_cues_needs_no_counts(trained: Path) -> None:
    assert load(trained / "told").fingerprint != load(trained / "told", length=[4]).fingerprint
    assert not (trained / "plain" / "cues.json").exists()
    held = await converse(scenario(), load(trained / "plain").agent, Listener(), seed=3, limits=Limits(max_turns=4))
    assert held.traits == ()


def test_control_of_a_user_that_can_not_be_told_is_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"plain was trained without cues.* leave out --control.length"):
        load(trained / "plain", length=[4])
    with pytest.raises(ConfigError, match=r"trained with cues .*; agenda is none"):
        load("agenda", verbosity="terse")
    with pytest.raises(ConfigError, match="for models in this process"):
        load(f"vllm:{trained / 'told'}", tolerance=0.1)
    with pytest.raises(ConfigError, match="leave out --no-constrained"):
        load_from_spec(
            str(trained / "told"),
            U,
            sampling=Sampling(),
            catalog=CATALOG,
            max_batch=2,
            constrained=False,
            control=ControlFlags(length=[4], tolerance=0.1),
        )


def test_masks_show_the_cues_unlearned(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from interplay.cli.masks import show_masks

    asked = TrainConfig(role="user", data=[trained / "data"], out="out", cues=["length"], cue_dropout=0, show_masks=1)
    assert show_masks(asked) == 0
    assert "<length> 3\n<user>" in capsys.readouterr().out
