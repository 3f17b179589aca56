"""Lists of titles against logs: a file worked out by hand, invariants, and the command."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.cli import main
from interplay.corpora.corpus import Corpus, Counts
from interplay.evaluation.lists import CUT_OFFS, FILTERS, TitleList, place_titles, title_list_rows
from interplay.evaluation.scoring import About
from interplay.store import Run, write_records
from interplay.types import DOMAINS, Catalog, Item
from makers import CATALOG, dialogue, scenario

BY_HAND = json.loads((Path(__file__).parent / "fixtures" / "lists_by_hand.json").read_text(encoding="utf-8"))
MOVIES = Catalog([Item(**item) for item in BY_HAND["catalog"]], DOMAINS["movie"])
ABOUT = About(subject="by hand", split="test", seed=3, data_digest="d")


def read(case: dict[str, object]) -> TitleList:
    return TitleList.model_validate({name: case[name] for name in ("case", "titles", "gold", "mentioned") if name in case})


LISTS = [read(case) for case in BY_HAND["cases"]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    start = scenario()
    Corpus("made", [dialogue(start)], [start], MOVIES, Counts(1, 1)).save(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("case", BY_HAND["cases"], ids=lambda case: case["why"])
def test_every_case_worked_out_by_hand_is_placed_so(case: dict[str, object]) -> None:
    order = [FILTERS.index(f) for f in ((False, False), (False, True), (True, False), (True, True))]
    placed = [["repeated" if p.repeated else "new", [p.ranks[i] for i in order]] for p in place_titles([read(case)], MOVIES)]
    assert placed == case["placed"]


def test_two_spellings_of_one_gold_item_are_one_to_be_found() -> None:
    item = next(iter(MOVIES))
    for gold in ((item.label, item.label.upper(), item.id), ("No Such Film (1990)", "the no such film (1990)")):
        assert len(list(place_titles([TitleList(case="a:1", titles=gold, gold=gold)], MOVIES))) == 1


def test_every_score_worked_out_by_hand_comes_out() -> None:
    rows = {(r.condition, r.metric.removeprefix("ranking.")): r for r in title_list_rows(LISTS, MOVIES, ABOUT)}
    for condition, wanted in BY_HAND["scores"].items():
        for metric, value in wanted.items():
            if metric == "n":
                assert {rows[condition, f"recall@{k}"].n for k in CUT_OFFS} == {value}
            elif metric == "skipped":
                assert rows[condition, "mrr"].num_skipped == value
            else:
                assert rows[condition, metric].value == pytest.approx(value, abs=1e-6), (condition, metric)
    assert {condition for condition, _ in rows} == set(BY_HAND["scores"])


def test_lists_that_nobody_gave_are_none_and_not_zero() -> None:
    rows = title_list_rows([TitleList(case="a:1", titles=None, gold=("Heat",))], MOVIES, ABOUT)
    assert {row.value for row in rows} == {None}
    assert {row.num_skipped for row in rows if row.condition.startswith("all")} == {1}


def test_a_case_without_a_gold_item_is_refused() -> None:
    with pytest.raises(ValueError, match="gold is empty"):
        TitleList(case="a:1", titles=(), gold=())


@given(
    st.lists(st.sampled_from(["Heat", "Alien (1979)", "up", "Nowhere (2001)", "Nowhere Else"]), max_size=8),
    st.sets(st.sampled_from(["Heat (1995)", "Alien", "Nowhere (2001)"])),
    st.sampled_from(["heat", "alien", "up", "Nowhere (2001)"]),
)
def test_filters_only_ever_move_a_title_up_or_out(titles: list[str], mentioned: set[str], gold: str) -> None:
    answer = TitleList(case="a:1", titles=tuple(titles), gold=(gold,), mentioned=tuple(sorted(mentioned)))
    (placed,) = place_titles([answer], CATALOG)
    plain, seen, known, both = placed.ranks
    for filtered in (seen, known, both):
        assert filtered is None or (plain is not None and filtered <= plain)
    assert seen is None or not placed.repeated
    assert both is None or (known is not None and seen is not None and both <= min(known, seen))


def test_copying_what_was_mentioned_never_finds_a_new_item() -> None:
    copies = [answer.model_copy(update={"titles": answer.mentioned}) for answer in LISTS]
    rows = title_list_rows(copies, MOVIES, ABOUT)
    assert {row.value for row in rows if row.condition.startswith("new") and "@" in row.metric} == {0.0}
    assert next(r.value for r in rows if r.condition == "repeated" and r.metric == "ranking.recall@5") == 1.0


def test_a_file_of_lists_becomes_a_run_and_stands_beside_published_figures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "mine.jsonl", LISTS)
    args = ["evaluate", "lists", str(tmp_path / "mine.jsonl"), "--data", str(data), "--out", str(tmp_path / "run")]
    assert main(args) == 0
    assert "new, off-catalog removed, seen removed" in capsys.readouterr().out
    run = Run.read(tmp_path / "run")
    assert run.config["protocol"] == "lists"
    assert {row.subject for row in run.scores()} == {"mine"}
    assert main(["report", str(run.path), "--table", "zero-shot-redial", "--out", str(tmp_path / "report")]) == 0
    table = (tmp_path / "report" / "zero-shot-redial.md").read_text(encoding="utf-8")
    assert "| GPT-4 zero-shot (seen titles removed too) (published) | 0.050 | 0.140 | 0.201 | 0.045 | 0.125 | 0.180 |" in table
    assert "full test set" in table
    assert "| mine |" in table


def test_the_predictions_of_a_ranker_are_lists(tmp_path: Path) -> None:
    answer = TitleList.model_validate({"case": "7:3", "gold": ["heat"], "mentioned": [], "items": ["up", "heat"]})
    assert (answer.dialogue, answer.titles) == ("7", ("up", "heat"))


def test_a_file_without_lists_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    for name, message in (("empty.jsonl", "holds no list"), ("missing.jsonl", "missing.jsonl")):
        assert main(["evaluate", "lists", str(tmp_path / name), "--data", str(data), "--out", str(tmp_path / "run")]) == 1
        printed = capsys.readouterr().err.strip()
        assert message in printed
        assert "\n" not in printed
