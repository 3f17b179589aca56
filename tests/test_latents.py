"""Latents of users: rules by hand, invariants, recoverability, and the command."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.cli import main
from interplay.corpora.corpus import Corpus, Counts
from interplay.evaluation.latent_scores import DEFINITIONS, LATENTS, score_latents, score_told
from interplay.evaluation.scoring import About
from interplay.metrics.latents import (
    SESSION_LATENTS,
    TURN_LATENTS,
    DialogueLatents,
    derive_latents,
    is_off_topic,
    length_of,
)
from interplay.metrics.recoverability import recover
from interplay.store import Run, read_records
from interplay.types import Action, Dialogue, Ending, Role, Turn
from makers import CATALOG, HEAT, TALK, UP, dialogue, recommender, scenario, turns, user


def talk(*said: str, ending: Ending | None = Ending.GAVE_UP, last: Action = Action.GIVE_UP) -> Dialogue:
    """A conversation of these user turns."""
    own = [user(last if k == len(said) - 1 else Action.FEEDBACK, text) for k, text in enumerate(said)]
    return dialogue(scenario(), turns=tuple(t for u in own for t in (recommender(Action.CHAT, "so?"), u)), ending=ending)


def test_the_latents_of_a_conversation_are_those_read_off_by_hand() -> None:
    found = derive_latents(dialogue(scenario()))
    session = found.session
    assert session.verbosity == "terse"
    assert session.words_per_turn == pytest.approx((3 + 3 + 3) / 3)
    assert [(t.turn, t.intent, t.length) for t in found.turns] == [
        (1, Action.DISCLOSE_GOAL, "1-3"),
        (3, Action.FEEDBACK, "1-3"),
        (5, Action.ACCEPT, "1-3"),
    ]
    assert (session.patience, session.num_turns_to_end) == ("quick", 3)
    assert (session.openness, session.indecision, session.expertise) == ("particular", "decided", "none")


@pytest.mark.parametrize(
    ("words", "bucket"), [(0, "1-3"), (3, "1-3"), (4, "4-8"), (8, "4-8"), (9, "9-15"), (15, "9-15"), (16, "16+")]
)
def test_lengths_fall_into_four_buckets(words: int, bucket: str) -> None:
    assert length_of(words) == bucket


@pytest.mark.parametrize(("words", "verbosity"), [(7, "terse"), (8, "medium"), (12, "medium"), (13, "wordy")])
def test_verbosity_goes_by_the_mean_words_of_a_turn(words: int, verbosity: str) -> None:
    assert derive_latents(talk("a " * words, "b " * words)).session.verbosity == verbosity


@pytest.mark.parametrize(
    ("num", "ending", "patience"),
    [
        (3, Ending.GAVE_UP, "quick"),
        (4, Ending.ACCEPTED, "medium"),
        (7, Ending.ACCEPTED, "patient"),
        (4, None, None),
        (4, Ending.LOOP, None),
        (7, Ending.TURN_LIMIT, "patient"),
    ],
)
def test_patience_is_known_where_the_conversation_tells(num: int, ending: Ending | None, patience: str | None) -> None:
    found = derive_latents(talk(*["hm"] * num, ending=ending, last=Action.FEEDBACK)).session
    assert found.patience == patience
    assert found.num_turns_to_end == (num if ending in (Ending.ACCEPTED, Ending.GAVE_UP) else None)


@pytest.mark.parametrize("text", ["I'm open to anything", "whatever, surprise me", "Im open to suggestions", "You choose!"])
def test_who_leaves_the_choice_to_the_other_side_is_open(text: str) -> None:
    assert derive_latents(talk(text)).session.openness == "open"


@pytest.mark.parametrize("text", ["I want a western", "the door is open", "do you like anything with Bo Reed?"])
def test_who_asks_for_something_is_particular(text: str) -> None:
    assert derive_latents(talk(text)).session.openness == "particular"


@pytest.mark.parametrize(
    ("text", "label"), [("I don't know", "undecided"), ("i dont know...", "undecided"), ("yes", "decided")]
)
def test_indecision_is_said_in_words(text: str, label: str) -> None:
    assert derive_latents(talk(text)).session.indecision == label


def test_items_and_names_count_once_and_genres_do_not() -> None:
    own = (
        user(Action.DISCLOSE_GOAL, "I loved ", HEAT, " and films with Ada Finch"),
        recommender(Action.CHAT, "ok"),
        user(Action.FEEDBACK, "like ", HEAT, ", with Ada Finch, a Comedy please"),
    )
    found = derive_latents(dialogue(scenario(), turns=own)).session
    assert (found.num_named, found.expertise) == (2, "some")
    more = (*own, recommender(Action.CHAT, "ok"), user(Action.FEEDBACK, "or ", UP))
    assert derive_latents(dialogue(scenario(), turns=more)).session.expertise == "many"


@pytest.mark.parametrize(
    ("action", "text", "off"),
    [
        (Action.CHAT, "my dog is sick, sorry", True),
        (Action.CHAT, "the weather is bad, so a movie is fine", False),
        (Action.CHAT, "raining here, a comedy would be nice", False),
        (Action.GREETING, "hi, how are you?", False),
        (Action.CHAT, "thanks", False),
    ],
)
def test_small_talk_is_off_topic_where_nothing_else_is_said(action: Action, text: str, off: bool) -> None:
    assert is_off_topic(user(action, text), "movie") is off


def test_an_item_in_the_turn_keeps_it_on_topic() -> None:
    assert not is_off_topic(user(Action.CHAT, "my dog liked ", HEAT), "movie")


def test_a_conversation_without_a_user_has_no_latents() -> None:
    with pytest.raises(ValueError, match="no turn of the user"):
        derive_latents(dialogue(scenario(), turns=(recommender(Action.CHAT, "hello?"),)))


@settings(max_examples=40)
@given(st.lists(turns(), min_size=1, max_size=8), st.lists(turns(Role.RECOMMENDER), min_size=8, max_size=8))
def test_only_the_users_turns_matter_and_every_value_is_a_known_one(said: list[Turn], others: list[Turn]) -> None:
    if not any(t.role is Role.USER for t in said):
        said = [*said, user(Action.CHAT, "hi")]
    found = derive_latents(dialogue(scenario(), turns=tuple(said)))
    other = [t if t.role is Role.USER else o for t, o in zip(said, [*others, others[0]], strict=False)]
    assert derive_latents(dialogue(scenario(), turns=tuple(other))) == found
    assert DialogueLatents.model_validate_json(found.to_json()) == found
    for name, values in SESSION_LATENTS.items():
        assert getattr(found.session, name) in (*values, None)
    assert {t.length for t in found.turns} <= set(TURN_LATENTS["length"])
    assert len(found.turns) == sum(t.role is Role.USER for t in said)


# ---- recoverability --------------------------------------------------------------------------------------------------


def units(num: int, *, telling: bool) -> tuple[list[list[str]], list[str | None]]:
    """Users who say a word that tells their kind, or a word at random."""
    rng = random.Random(0)
    said: list[list[str]] = []
    labels: list[str | None] = []
    for k in range(num):
        kind = "ab"[k % 2]
        word = {"a": "slow", "b": "fast"}[kind if telling else rng.choice("ab")]
        said.append([rng.choice(("hi there", "hello")), f"I want {word} films"])
        labels.append(kind)
    return said, labels


def test_a_latent_that_words_tell_is_recovered() -> None:
    said, labels = units(60, telling=True)
    found = recover(said, labels, list(range(60)), np.random.default_rng(0))
    assert found.balanced_accuracy.value == 1.0
    assert found.majority == pytest.approx(0.5)
    assert found.is_recovered
    assert found.counts == {"a": 30, "b": 30}


def test_a_latent_that_words_do_not_tell_is_not_recovered() -> None:
    said, labels = units(60, telling=False)
    found = recover(said, labels, list(range(60)), np.random.default_rng(0))
    assert not found.is_recovered
    assert found.balanced_accuracy.low is not None
    assert found.balanced_accuracy.low < 0.55


def test_a_latent_that_only_length_tells_is_recovered() -> None:
    said = [["word " * (3 + 20 * (k % 2) + k % 3)] for k in range(60)]
    found = recover(said, ["ab"[k % 2] for k in range(60)], list(range(60)), np.random.default_rng(0))
    assert found.is_recovered


def test_units_of_one_conversation_do_not_help_each_other() -> None:
    rng = random.Random(1)
    said, labels, groups = [], [], []
    for group in range(40):
        kind = rng.choice("ab")  # told by a word that no other conversation has
        for _ in range(4):
            said.append([f"word{group} word{group}"])
            labels.append(kind)
            groups.append(group)
    found = recover(said, labels, groups, np.random.default_rng(0))
    assert found.balanced_accuracy.value is not None
    assert found.balanced_accuracy.value < 0.7
    assert recover(said, labels, list(range(160)), np.random.default_rng(0)).balanced_accuracy.value == 1.0


def test_rare_and_unknown_values_are_skipped_and_counted() -> None:
    said, labels = units(60, telling=True)
    labels[0], labels[1] = None, "c"
    found = recover(said, labels, list(range(60)), np.random.default_rng(0))
    assert found.balanced_accuracy.num_skipped == 2
    assert found.balanced_accuracy.n == 58


@pytest.mark.parametrize("labels", [[None] * 20, ["a"] * 20, []])
def test_one_value_alone_gives_none_and_no_error(labels: list[str | None]) -> None:
    found = recover([["hi"]] * len(labels), labels, list(range(len(labels))), np.random.default_rng(0))
    assert found.balanced_accuracy.value is None
    assert found.majority is None
    assert not found.is_recovered


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="2 units, 1 labels"):
        recover([["a"], ["b"]], ["x"], [0, 1], np.random.default_rng(0))


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("latents") / "data"
    starts = [scenario(source_id=str(k)) for k in range(24)]
    short, long = "ok no", "I would like to see something that is not too long and not too sad tonight please"
    logs = []
    for k, start in enumerate(starts):
        said = short if k % 2 else long
        own = (recommender(Action.RECOMMEND, "Then ", HEAT), user(Action.FEEDBACK, said), *TALK[4:])
        logs.append(dialogue(start, turns=own))
    Corpus("made", logs, starts, CATALOG, Counts(24, 24)).save(path)
    return path


def test_latents_are_logged_beside_the_dialogues_and_recovered(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", "latents", str(data), "--out", str(out)]) == 0
    logged = list(read_records(out / LATENTS, DialogueLatents))
    assert len(logged) == 24
    found = {r.metric: r for r in Run.read(out).scores()}
    assert found["latents.share.verbosity.terse"].value == 0.5
    assert found["latents.recovered.verbosity"].value == 1.0
    assert found["latents.majority.verbosity"].value == pytest.approx(0.5)
    assert found["latents.recovered.openness"].value is None
    of_the_told = {"latents.realised", "latents.followed"}
    assert {".".join(metric.split(".")[:2]) for metric in found} == set(DEFINITIONS) - of_the_told
    assert "verbosity" in capsys.readouterr().out


def test_a_trait_is_foretold_from_the_first_half_and_a_mood_is_not() -> None:
    rng = random.Random(2)
    steady: list[Dialogue] = []
    fickle: list[Dialogue] = []
    for number in range(48):
        long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
        wordy = number % 2 == 0
        for logs, later in ((steady, wordy), (fickle, rng.random() < 0.5)):
            said = [long if wordy else "one two"] * 2 + [long if later else "one two"] * 2
            logs.append(talk(*said).model_copy(update={"scenario_key": str(number)}))
    about = About(subject="made", split="all", seed=0, data_digest="d")
    tables = [score_latents(logs, [derive_latents(d) for d in logs], about) for logs in (steady, fickle)]
    assert tables[0].foretold["verbosity"].balanced_accuracy.value == 1.0
    assert not tables[1].foretold["verbosity"].is_recovered
    assert tables[0].foretold["openness"].balanced_accuracy.value is None


def test_labels_from_elsewhere_replace_those_of_the_text(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "latents", str(data), "--out", str(tmp_path / "a")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "a" / LATENTS).read_text().splitlines()]
    for line in lines:
        line["session"]["verbosity"] = random.Random(line["scenario_key"]).choice(["terse", "wordy"])
    (tmp_path / "meant.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    labels = str(tmp_path / "meant.jsonl")
    assert main(["evaluate", "latents", str(data), "--labels", labels, "--out", str(tmp_path / "b")]) == 0
    found = {r.metric: r for r in Run.read(tmp_path / "b").scores()}
    value = found["latents.recovered.verbosity"].value
    assert value is None or value < 0.95
    assert "latents.recovered.length" not in found
    other = lines[0] | {"scenario_key": "of another corpus"}
    (tmp_path / "other.jsonl").write_text(json.dumps(other) + "\n")
    capsys.readouterr()
    labels = str(tmp_path / "other.jsonl")
    assert main(["evaluate", "latents", str(data), "--labels", labels, "--out", str(tmp_path / "c")]) == 1
    assert "has no label of a scenario" in capsys.readouterr().err


# ---- users that were told --------------------------------------------------------------------------------------------


def told_dialogue(number: int, verbosity: str, num_words: int, *, obeys: bool = True) -> Dialogue:
    """A user that is told a verbosity and a length, and speaks so or in five words whatever it is told."""
    said = " ".join(["word"] * (num_words if obeys else 5))
    cues = (("intent", "feedback"), ("off-topic", "no"), ("length", str(num_words)))
    own = user(Action.FEEDBACK, said).model_copy(update={"cues": cues})
    log = dialogue(scenario(source_id=str(number)), turns=(recommender(Action.RECOMMEND, "Then ", HEAT), own, *TALK[4:]))
    return log.model_copy(update={"traits": (("verbosity", verbosity),)})


def told_scores(logs: list[Dialogue]) -> dict[str, float | None]:
    about = About(subject="made", split="all", seed=0, data_digest="d")
    return {row.metric: row.value for row in score_told(logs, [derive_latents(d) for d in logs], about).rows}


def test_of_users_that_obey_what_they_were_told_is_recovered_realised_and_followed() -> None:
    found = told_scores([told_dialogue(k, *(("wordy", 30) if k % 2 else ("terse", 4))) for k in range(40)])
    assert found["latents.recovered.verbosity"] == found["latents.recovered.length"] == 1.0
    assert found["latents.realised.length.4"] == 4
    assert found["latents.realised.length.30"] == 30
    assert found["latents.realised.verbosity.wordy"] == (30 + 3) / 2
    assert found["latents.followed.length"] == found["latents.followed.verbosity"] == 1.0
    assert found["latents.realised.intent.feedback"] == 1.0
    assert found["latents.share.verbosity.wordy"] == 0.5


def test_of_users_that_do_not_listen_nothing_is_recovered_and_the_same_realised() -> None:
    logs = [told_dialogue(k, *(("wordy", 30) if k % 2 else ("terse", 4)), obeys=False) for k in range(40)]
    found = told_scores(logs)
    assert found["latents.realised.length.4"] == found["latents.realised.length.30"] == 5
    assert found["latents.followed.length"] == 0.0
    recovered = found["latents.recovered.length"]
    assert recovered is not None
    assert recovered <= 0.6


def test_a_latent_that_nobody_was_told_is_skipped_and_not_zero() -> None:
    found = told_scores([told_dialogue(k, "terse", 4) for k in range(12)])
    assert found["latents.recovered.openness"] is None
    assert "latents.realised.openness.open" not in found
    assert "latents.followed.openness" not in found


def test_the_command_takes_what_users_were_told_as_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [told_dialogue(k, *(("wordy", 30) if k % 2 else ("terse", 4))) for k in range(24)]
    starts = [scenario(source_id=str(k)) for k in range(24)]
    Corpus("made", logs, starts, CATALOG, Counts(24, 24)).save(tmp_path / "data")
    assert main(["evaluate", "latents", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "labels that the users were told" in shown
    assert "words of the turn" in shown
    rows = Run.read(tmp_path / "out").scores()
    assert {row.condition for row in rows} == {"labels that the users were told"}
