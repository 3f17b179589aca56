"""CRSArena-Dial: people who talk to systems, on made-up conversations of both crowds."""

import asyncio
from pathlib import Path

import pytest

from interplay.corpora import load_corpus
from interplay.corpora.corpus import Corpus
from interplay.corpora.tagger import RuleTagger
from interplay.errors import DataError
from interplay.simulation.batch import Plan, simulate
from interplay.simulation.scripted import ScriptedAgent
from interplay.types import Action, Dialogue, Ending, Role, Scenario
from makers import recommender, scenario, user

FOLDER = Path(__file__).parent / "fixtures/crs_arena"


def load(name: str, source: Path = FOLDER) -> Corpus:
    return load_corpus(name, source, tagger=RuleTagger(), split_by="user", valid_fraction=0.0, test_fraction=0.5)


@pytest.fixture(scope="module")
def both() -> Corpus:
    return load("crs-arena")


def find(corpus: Corpus, source_id: str) -> tuple[Scenario, Dialogue]:
    return next((s, d) for s, d in corpus.pairs() if s.source_id == source_id)


def test_each_crowd_alone_and_both_hold_the_same_conversations(both: Corpus) -> None:
    crowds = [load("crs-arena-open"), load("crs-arena-closed")]
    assert [c.name for c in crowds] == ["crs-arena-open", "crs-arena-closed"]
    assert [[s.source_id for s in c.scenarios] for c in crowds] == [
        ["kbrd_redial_u1", "barcor_redial_u1"],
        ["crbcrs_redial_w1", "kbrd_opendialkg_w2"],
    ]
    assert {s.source_id for s in both.scenarios} == {s.source_id for c in crowds for s in c.scenarios}


def test_users_are_people_and_the_recommender_has_the_name_of_the_system(both: Corpus) -> None:
    begun, dialogue = find(both, "crbcrs_redial_w1")
    assert (dialogue.user, dialogue.recommender, begun.user_id) == ("human", "crbcrs_redial", "w1")
    assert dialogue.turns[0].role is Role.USER


def test_the_entries_of_a_list_are_titles_and_those_that_no_table_knows_stay_words(both: Corpus) -> None:
    _, dialogue = find(both, "kbrd_redial_u1")
    assert dialogue.turns[1].titles == ("Heat (1995)", "Alien (1979)")
    assert "2: The Glass Harbour (1923)" in dialogue.turns[1].text
    _, closed = find(both, "crbcrs_redial_w1")
    assert closed.turns[1].titles == ("Alien (1979)", "Heat (1995)")
    assert both.counts.notes["listed titles that no table of movies knows, left as words"] == 1


def test_words_of_people_stay_as_typed_and_only_a_title_with_its_year_is_one(both: Corpus) -> None:
    _, dialogue = find(both, "kbrd_redial_u1")
    assert dialogue.turns[2].text == "is heat any good?"
    assert not any(turn.items for turn in dialogue.turns if turn.role is Role.USER)
    _, other = find(both, "barcor_redial_u1")
    assert other.turns[0].titles == ("Heat (1995)",)


def test_the_content_take_something_up_and_the_frustrated_never_do(both: Corpus) -> None:
    begun, dialogue = find(both, "kbrd_redial_u1")
    assert dialogue.ending is Ending.ACCEPTED
    assert dialogue.turns[-1].text == "Thanks, I will watch Heat!"
    assert begun.targets[0].title == "Heat (1995)"
    assert "crime" in begun.persona.target_attributes
    frustrated, left = find(both, "barcor_redial_u1")
    assert left.ending is Ending.GAVE_UP
    assert left.turns[-1].action is Action.GIVE_UP
    assert not frustrated.targets


def test_a_content_person_whose_last_words_ask_ends_openly(both: Corpus) -> None:
    begun, dialogue = find(both, "kbrd_opendialkg_w2")
    assert dialogue.ending is None
    assert not begun.targets


def test_who_leaves_after_one_reply_is_dropped_and_counted(both: Corpus) -> None:
    assert both.counts.dropped == {"fewer than 2 turns once cut to its end": 1}


def test_no_person_is_in_two_splits(both: Corpus) -> None:
    assert both.overlap["users"]["shared"] == 0
    assert both.overlap["users"]["test"] >= 1


@pytest.mark.parametrize("content", ['{"a": 1}', '[{"agent": {"id": "x"}, "conversation": []}]', "[3]"])
def test_a_file_of_another_form_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "crs_arena_dial_open.json").write_text(content)
    with pytest.raises(DataError, match=r"crs_arena_dial_open\.json.*crs-arena-open"):
        load("crs-arena-open", tmp_path)


def test_a_person_who_talks_to_a_system_may_speak_first() -> None:
    held: list[Dialogue] = []
    users = ScriptedAgent(Role.USER, [user(Action.DISCLOSE_GOAL, "crime"), user(Action.GIVE_UP, "bye")])
    recommenders = ScriptedAgent(Role.RECOMMENDER, [recommender(Action.CHAT, "well")])
    asyncio.run(simulate([scenario()], users, recommenders, Plan(first=Role.USER), on_dialogue=held.append))
    assert [turn.text for turn in held[0].turns] == ["crime", "well", "bye"]
