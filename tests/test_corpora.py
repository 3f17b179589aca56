"""Every loader, on hand-made files with the quirks of the real ones, and on the real ones where they are."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from interplay.corpora import LOADERS, load_corpus
from interplay.corpora.annotators import LLMAnnotator
from interplay.corpora.bundled import bundled_movies
from interplay.corpora.corpus import Corpus, Counts
from interplay.corpora.pearl import UNKNOWN_MOVIE, removal_rate
from interplay.corpora.tagger import RuleTagger
from interplay.errors import DataError
from interplay.store import Run, write_records
from interplay.titles import names_title
from interplay.types import Action, Dialogue, Ending, Item, Role, Scenario, Split, accepted_mentions
from makers import CATALOG, HEAT, UP, dialogue, recommender, scenario, user

FIXTURES = Path(__file__).parent / "fixtures"
FOLDERS = {
    "pearl": "pearl",
    "redial": "redial",
    "inspired": "inspired",
    "opendialkg-movies": "opendialkg",
    "opendialkg-books": "opendialkg",
    "durecdial-movies": "durecdial",
    "durecdial-music": "durecdial",
    "cpcd": "cpcd",
    "recquest": "recquest",
    "crs-arena": "crs_arena",
    "crs-arena-open": "crs_arena",
    "crs-arena-closed": "crs_arena",
}
REAL = {
    "redial": (4755, 4755),
    "inspired": (900, 900),
    "opendialkg-movies": (3147, 3147),
    "opendialkg-books": (1816, 1816),
    "durecdial-movies": (702, 231),
    "durecdial-music": (702, 248),
    "cpcd": (40, 40),
    "recquest": (413, 413),
    "crs-arena-open": (199, 165),
    "crs-arena-closed": (178, 178),
}
"""Conversations in the files, and of these in the corpus's domain."""


def load(name: str, folder: str | None = None) -> Corpus:
    return load_corpus(name, FIXTURES / (folder or FOLDERS[name]), tagger=RuleTagger(), valid_fraction=0.2, test_fraction=0.3)


def by_id(corpus: Corpus, source_id: str) -> tuple[Scenario, Dialogue]:
    return next((s, d) for s, d in corpus.pairs() if s.source_id == source_id)


def a_run(path: Path) -> Path:
    """A Run of three dialogues: accepted another item, gave up, and a fault."""
    first, second = scenario(HEAT, source_id="1"), scenario(UP, attributes=("animation",), source_id="2")
    run = Run.create(path, {"seed": 1})
    opening = [recommender(Action.GREETING, "Hi"), user(Action.DISCLOSE_GOAL, "A crime film, please")]
    taken = [*opening, recommender(Action.RECOMMEND, "Try ", CATALOG["alien"], "."), user(Action.ACCEPT, "Yes!")]
    left = [*opening, recommender(Action.RECOMMEND, "Try ", HEAT, "."), user(Action.GIVE_UP, "No, bye")]
    run.append(dialogue(first, tuple(taken), ending=Ending.ACCEPTED))
    run.append(dialogue(second, tuple(left), ending=Ending.GAVE_UP))
    run.append(dialogue(second, tuple(left), ending=Ending.LOOP, sample=1))
    write_records(path / "scenarios.jsonl", [first, second])
    write_records(path / "catalog.jsonl", CATALOG)
    return path


def check_contract(corpus: Corpus) -> None:
    assert len(corpus.dialogues) == len(corpus.scenarios) == corpus.counts.dialogues_kept
    assert corpus.counts.dialogues_read - corpus.counts.dialogues_kept == sum(corpus.counts.dropped.values())
    for s, d in corpus.pairs():
        assert d.scenario_key == s.key
        assert d.corpus == s.corpus
        for turn in d.turns:
            for mention, title in zip(turn.items, turn.titles, strict=True):
                if mention.item_id is not None:
                    assert title == corpus.catalog[mention.item_id].label
        assert all(a.role is not b.role for a, b in zip(d.turns, d.turns[1:], strict=False))
        assert all(t.action not in (Action.ACCEPT, Action.GIVE_UP) for t in d.turns[:-1])
        for target in s.targets:
            assert not any(names_title(text, target.title) for text in s.persona.texts())
            assert target.title == corpus.catalog[target.item_id].label
        if d.ending is Ending.ACCEPTED:
            assert d.turns[-1].action is Action.ACCEPT
            assert s.targets[0].item_id in {m.item_id for m in accepted_mentions(d.turns)}
        elif d.ending is Ending.GAVE_UP:
            assert d.turns[-1].action is Action.GIVE_UP
            assert not s.targets
        assert len(s.persona.general_preferences.split()) <= 60
        assert len(s.persona.target_attributes) <= 5
    titles = {split: {t.title for s, _ in corpus.pairs(split) for t in s.targets} for split in Split}
    assert not titles[Split.TEST] & (titles[Split.TRAIN] | titles[Split.VALID])
    assert corpus.overlap["targets"]["shared"] == 0


@pytest.mark.parametrize("name", [*FOLDERS, "run"])
def test_every_loader_keeps_the_contract_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    corpus = load_corpus("run", a_run(tmp_path / "run")) if name == "run" else load(name)
    assert set(LOADERS) == {*FOLDERS, "run"}
    assert corpus.name == name
    assert corpus.dialogues
    check_contract(corpus)
    corpus.save(tmp_path / "out")
    again = Corpus.read(tmp_path / "out")
    assert again.digest == corpus.digest
    assert again.scenarios == corpus.scenarios
    assert again.dialogues == corpus.dialogues


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_read_whole_and_keep_the_contract(name: str, shared_data: Path) -> None:
    corpus = load_corpus(name, tagger=RuleTagger())
    num_read, num_of_domain = REAL[name]
    assert corpus.counts.dialogues_read == num_read
    assert 0.85 * num_of_domain < corpus.counts.dialogues_kept <= num_of_domain
    check_contract(corpus)


def test_pearl_counts_empty_turns_and_drops_a_conversation_about_an_unknown_film() -> None:
    corpus = load("pearl")
    assert corpus.counts.dropped == {UNKNOWN_MOVIE: 1}
    assert corpus.counts.notes["empty messages removed"] == 2
    assert removal_rate(corpus.counts) == pytest.approx(1 / 3)


def test_pearl_strips_speakers_and_takes_reviews_as_known_items() -> None:
    s, d = by_id(load("pearl"), "test-1")
    assert d.turns[0].text == "Hello, I need a film for tonight."
    assert [t.role for t in d.turns[:2]] == [Role.USER, Role.RECOMMENDER]
    assert [k.title for k in s.persona.known_items] == ["Green Meadow (1999)", "Silent Harbor (2001)", "Paper Moon Road (1988)"]
    assert s.targets[0].title == "Iron Ledger (1994)"
    assert "crime" in s.persona.target_attributes
    assert s.user_id == "u1"


def test_pearl_needs_only_dialogue_and_user_persona(tmp_path: Path) -> None:
    record = {"dialogue": ["Seeker: Hi, any crime film?", "Recommender: Heat (1995)!", "Seeker: Perfect, I'll watch it."]}
    (tmp_path / "train.json").write_text(json.dumps([{**record, "user_persona": "Likes crime."}]))
    corpus = load_corpus("pearl", tmp_path, tagger=RuleTagger())
    assert corpus.scenarios[0].targets[0].title == "Heat (1995)"
    assert corpus.scenarios[0].persona.general_preferences == "Likes crime."


def test_redial_joins_doubles_and_counts_what_it_drops() -> None:
    counts = load("redial").counts
    assert (counts.dialogues_read, counts.dialogues_kept) == (4, 3)
    assert counts.dropped == {"no user turn": 1}
    assert counts.notes["conversations present in two files, taken once"] == 1
    assert counts.notes["empty messages removed"] == 1
    assert counts.notes["@ids without a title, left as they are"] == 1


def test_redial_writes_ids_as_titles_and_ends_at_the_acceptance() -> None:
    s, d = by_id(load("redial"), "1")
    assert s.targets[0].title == "It (2017)"
    assert d.ending is Ending.ACCEPTED
    assert d.turns[-1].text == "Sounds great, I will watch It (2017) tonight!"
    assert d.turns[1].raw == ("I love trains. @10001 was so tense", "I don&#39;t like slow films")
    assert d.turns[1].text == "I love trains. Night Train (1999) was so tense I don't like slow films"
    assert d.turns[2].text == "Have you seen Red Balloon Days?"
    known = s.persona.known_items
    assert [(k.title, k.review) for k in known] == [("Night Train (1999)", "Night Train (1999) was so tense")]
    assert s.persona.target_attributes[0] == "horror"


def test_a_disliked_suggestion_ends_in_giving_up() -> None:
    s, d = by_id(load("redial"), "2")
    assert d.ending is Ending.GAVE_UP
    assert not s.targets
    assert d.turns[-1].role is Role.USER


def test_redial_takes_the_official_file_names(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "redial/train_sample.jsonl", tmp_path / "test_data.jsonl")
    assert load_corpus("redial", tmp_path, tagger=RuleTagger()).counts.dialogues_read == 3


def test_inspired_keeps_strategies_and_refuses_links_to_ordinary_words() -> None:
    corpus = load("inspired")
    s, d = by_id(corpus, "20200101-000000_1_live")
    assert d.turns[0].items == ()
    assert d.turns[0].strategies == ("no_strategy",)
    assert d.turns[2].strategies == ("similarity", "personal_opinion", "encouragement")
    assert d.turns[-1].text.startswith("Great, I'll watch Paddle Storm 2 (2019).")
    assert s.targets[0].title == "Paddle Storm 2 (2019)"
    assert by_id(corpus, "20200101-000000_2_live")[1].ending is Ending.GAVE_UP


def test_inspired_drops_an_acceptance_whose_item_is_not_linked() -> None:
    corpus = load("inspired")
    assert corpus.counts.dropped == {"accepted item could not be linked": 1}
    assert by_id(corpus, "train-1")[0].targets[0].title == "Laughing Gulls (2016)"


def test_opendialkg_rebuilds_a_dialogue_from_its_longest_context() -> None:
    corpus = load("opendialkg-movies")
    _, d = by_id(corpus, "1")
    assert corpus.counts.dialogues_read == 2
    assert [t.role for t in d.turns] == [Role.USER, Role.RECOMMENDER, Role.USER][: len(d.turns)]
    s, open_ended = by_id(corpus, "2")
    assert open_ended.ending is None
    assert s.targets[0].title == "Stone Garden (2010)"
    assert corpus.catalog["0"].attributes["genre"] == ("drama", "romance")
    assert "2" not in corpus.catalog


def test_opendialkg_books_tell_an_acceptance_from_a_log_that_stops() -> None:
    corpus = load("opendialkg-books")
    assert by_id(corpus, "book-1")[0].targets[0].title == "Blue Pages (1998)"
    assert by_id(corpus, "book-2")[1].ending is None


def test_the_official_opendialkg_file_is_divided_by_domain() -> None:
    movies, books = (load(f"opendialkg-{d}", "opendialkg_official") for d in ("movies", "books"))
    assert [s.targets[0].title for s in movies.scenarios] == ["Quiet Rivers"]
    assert [s.targets[0].title for s in books.scenarios] == ["Blue Pages"]
    assert movies.counts.dropped == {"of another domain": 2}
    check_contract(movies)


def test_a_run_gives_the_accepted_item_as_target_and_drops_faults(tmp_path: Path) -> None:
    corpus = load_corpus("run", a_run(tmp_path / "run"))
    assert corpus.counts.dropped == {"ended loop": 1}
    assert corpus.counts.notes["accepted another item than the hidden target"] == 1
    assert [[t.title for t in s.targets] for s in corpus.scenarios] == [["Alien (1979)"], []]
    assert corpus.scenarios[0].persona.target_attributes == ("crime", "1990s")


def test_a_run_without_scenarios_is_refused(tmp_path: Path) -> None:
    (a_run(tmp_path / "run") / "scenarios.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no scenarios.jsonl"):
        load_corpus("run", tmp_path / "run")


def test_a_failed_annotation_falls_back_to_the_rules_and_is_counted() -> None:
    replies = ['{"general_preferences": "Likes It (2017) and trains.", "target_attributes": ["scary", "It"]}', None, "no json"]

    def complete(prompts: list[str]) -> list[str | None]:
        assert not any("It (2017)" in p for p in prompts)
        return replies

    corpus = load_corpus("redial", FIXTURES / "redial", tagger=RuleTagger(), annotator=LLMAnnotator(complete))
    assert corpus.scenarios[0].persona.general_preferences == "Likes it and trains."
    assert corpus.scenarios[0].persona.target_attributes == ("scary",)
    assert corpus.counts.notes["annotations that failed, made by the rules instead"] == 2


def test_the_bundled_catalog_has_readable_ids_and_every_attribute() -> None:
    catalog = bundled_movies()
    assert len(catalog) >= 500
    assert catalog["heat-1995"].attributes["decade"] == ("1990s",)
    assert {"genre", "director", "cast", "decade"} <= set(catalog["heat-1995"].attributes)
    assert all(re.fullmatch(r"[\w\-]+", item.id) for item in catalog)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_files_of_another_corpus_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    other = FIXTURES / ("opendialkg" if name in ("redial", "inspired") else "inspired")
    with pytest.raises(DataError) as error:
        load_corpus(name, other, tagger=RuleTagger())
    assert "\n" not in str(error.value)
    assert str(other) in str(error.value)
    with pytest.raises(DataError, match="is not a directory"):
        load_corpus(name, tmp_path / "nothing", tagger=RuleTagger())


def test_the_right_file_name_with_other_records_is_refused(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "inspired/train_text.jsonl", tmp_path / "train_data.jsonl")
    with pytest.raises(DataError, match=r"train_data.jsonl, line 1: not a redial record: expected .* found a list"):
        load_corpus("redial", tmp_path, tagger=RuleTagger())


def test_a_truncated_gzip_and_a_cut_line_name_the_file(tmp_path: Path) -> None:
    data = (FIXTURES / "redial/train_sample.jsonl").read_bytes()
    (tmp_path / "train_data.jsonl.gz").write_bytes(gzip.compress(data)[:-60])
    with pytest.raises(DataError, match=r"train_data.jsonl.gz: the gzip stream is cut off"):
        load_corpus("redial", tmp_path, tagger=RuleTagger())
    (tmp_path / "train_data.jsonl.gz").unlink()
    (tmp_path / "train_data.jsonl").write_bytes(data[:-40])
    with pytest.raises(DataError, match=r"train_data.jsonl, line 3: not a whole JSON value"):
        load_corpus("redial", tmp_path, tagger=RuleTagger())


def test_an_unknown_corpus_and_a_missing_source_say_what_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERPLAY_DATA", raising=False)
    with pytest.raises(DataError, match="accepted: pearl, redial"):
        load_corpus("netflix")
    with pytest.raises(DataError, match="set INTERPLAY_DATA"):
        load_corpus("redial")


def test_without_iard_the_rules_tag_and_it_is_noted_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.delenv("INTERPLAY_DATA", raising=False)
    shutil.copytree(FIXTURES / "redial", tmp_path / "redial")
    corpus = load_corpus("redial", tmp_path / "redial")
    assert "turns tagged by rules" in corpus.counts.notes
    assert "tagged by rules alone" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [([], "a catalog needs at least one item"), ([HEAT, UP, HEAT], "two items have the id 'heat'")],
)
def test_a_data_directory_with_no_items_or_with_one_id_twice_is_refused_in_one_line(
    lines: list[Item], message: str, tmp_path: Path
) -> None:
    Corpus("made", [], [], CATALOG, Counts()).save(tmp_path / "data")
    write_records(tmp_path / "data" / "catalog.jsonl", lines)
    with pytest.raises(DataError, match=message) as caught:
        Corpus.read(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_durecdial_gives_the_turns_to_whoever_recommends_and_the_facts_to_the_items() -> None:
    corpus = load("durecdial-movies")
    assert corpus.counts.dropped == {"of another domain": 2}
    s, d = by_id(corpus, "en_dev-1")
    assert [t.role for t in d.turns[:2]] == [Role.USER, Role.RECOMMENDER]
    assert d.turns[0].text == "Who is Ann Reed?"
    item = corpus.catalog[s.targets[0].item_id]
    assert item.title == "Harbour Lights"
    assert item.attributes == {"cast": ("Ann Reed",), "genre": ("Crime",)}
    assert d.ending is Ending.ACCEPTED


def test_durecdial_names_a_conversation_whose_lists_differ_in_length(tmp_path: Path) -> None:
    row = json.loads((FIXTURES / "durecdial" / "en_dev.txt").read_text().splitlines()[0])
    row["goal_type_list"].pop()
    (tmp_path / "en_dev.txt").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"line 1.*as many entries"):
        load_corpus("durecdial-music", tmp_path, tagger=RuleTagger())


def test_cpcd_takes_ratings_as_opinions_and_leaves_out_tracks_without_a_title() -> None:
    corpus = load("cpcd")
    assert sorted(item.title for item in corpus.catalog) == ["Glass River", "Slow Tide"]
    s, d = by_id(corpus, "c1")
    assert d.turns[1].titles == ("Slow Tide",)
    assert s.targets[0].item_id == "t1"


def test_recquest_says_the_opening_of_a_shop_title_and_leaves_out_the_form_at_the_end() -> None:
    corpus = load("recquest")
    assert {item.title for item in corpus.catalog} == {"Northwind Trail Bike 21", "Northwind City Bike 3"}
    s, d = by_id(corpus, "r1")
    assert d.recommender == "recquest"
    assert s.targets[0].title == "Northwind City Bike 3"
    assert d.turns[-1].action is Action.ACCEPT
    assert d.turns[-1].text == "Yes, I want this one."
    assert d.turns[3].titles == ("Northwind Trail Bike 21",)
    assert all("Aluminium" not in turn.text for turn in d.turns)


def test_recquest_takes_nothing_as_accepted_where_the_task_was_not_completed() -> None:
    s, d = by_id(load("recquest"), "r2")
    assert not s.targets
    assert d.ending is Ending.GAVE_UP
