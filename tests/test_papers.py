"""Tables of papers: what is published, and Runs that fill them by what they measured."""

import csv
import io
from pathlib import Path

import pytest

from interplay import __version__
from interplay.cli import main
from interplay.errors import RunError
from interplay.report.papers import Measured, fill, paper_cell, paper_tables, to_csv, to_latex, to_markdown
from interplay.store import Run
from interplay.types import ScoreRow

USER = {"protocol": "replay", "user": "runs/user", "data": "data/redial", "agent": "a"}
TURNS = USER | {"protocol": "turns"}


def score(metric: str, value: float | None, subject: str = "mine", condition: str = "standard") -> ScoreRow:
    return ScoreRow(
        metric=metric,
        value=value,
        low=None if value is None else value - 0.1,
        high=None if value is None else value + 0.1,
        n=150,
        split="test",
        subject=subject,
        condition=condition,
        seed=0,
        data_digest="d",
        package_version=__version__,
    )


REPLAY_RUN = Measured(
    "replay", USER, [score("replay.success_rate", 0.5), score("replay.success_rate", 0.45, condition="shuffled-attributes")]
)
TURNS_RUN = Measured(
    "turns", TURNS, [score("turns.dist_4", 0.25), score("turns.dist_4", 0.9, subject="human"), score("turns.bert_score", None)]
)


def cells(markdown: str, name: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_published_rows_stand_as_printed_and_are_marked() -> None:
    table = to_markdown(fill("interplay-1", [REPLAY_RUN]))
    assert cells(table, "Qwen 8B (trained) (published)")[:6] == ["0.9531", "0.0232", "0.0237", "0.9373", "0.3093", "30.8"]
    assert "full test set" in cells(table, "Qwen 8B (trained) (published)")[-2]
    assert "arXiv 2603.18573" in table


def test_runs_of_one_agent_share_a_row_and_what_is_missing_is_a_dash() -> None:
    table = to_markdown(fill("interplay-1", [REPLAY_RUN, TURNS_RUN]))
    assert cells(table, "mine") == [
        *("0.500 [0.400, 0.600]", "–", "–", "–", "0.250 [0.150, 0.350]", "–", "0.450 [0.350, 0.550]"),
        *("redial test", "150"),
    ]
    assert cells(table, "people (the logged turns of mine)")[4] == "0.900 [0.800, 1.000]"
    assert cells(table, "Llama 8B (trained) (published)")[6] == "–"


def test_a_control_has_a_column_only_where_a_run_holds_it() -> None:
    heads = [column.head for column in fill("interplay-1", [TURNS_RUN]).columns]
    assert heads == ["SR", "ET", "FR", "BERTScore", "Dist-4", "words"]
    assert fill("interplay-1", [REPLAY_RUN]).columns[-1].head == "SR shuffled attributes"


def test_two_runs_that_measured_the_same_are_two_rows() -> None:
    again = Measured("replay-2", USER, [score("replay.success_rate", 0.6)])
    table = to_markdown(fill("interplay-1", [REPLAY_RUN, again]))
    assert cells(table, "mine (replay-2)")[0] == "0.600 [0.500, 0.700]"


def test_a_second_run_keeps_its_scores_together_whatever_the_first_lacks() -> None:
    again = [Measured("r", USER, [score("replay.success_rate", v), score("replay.failure_rate", v)]) for v in (0.6, 0.7)]
    table = to_markdown(fill("interplay-1", [REPLAY_RUN, *again]))
    assert cells(table, "mine")[:3] == ["0.500 [0.400, 0.600]", "–", "–"]
    assert [cells(table, name)[2] for name in ("mine (r)", "mine (r, 2)")] == ["0.600 [0.500, 0.700]", "0.700 [0.600, 0.800]"]


def test_runs_on_other_data_of_the_same_name_are_not_one_row() -> None:
    elsewhere = Measured("turns", TURNS | {"data_digest": "other"}, [score("turns.dist_4", 0.25)])
    rows = [row for row in fill("interplay-1", [REPLAY_RUN, elsewhere]).rows if row.name == "mine"]
    assert [sum(cell is not None for cell in row.cells) for row in rows] == [2, 1]


def test_a_run_that_could_score_nothing_keeps_its_row_and_says_what_was_skipped() -> None:
    failed = score("replay.success_rate", None).model_copy(update={"n": 0, "num_skipped": 150})
    line = cells(to_markdown(fill("interplay-1", [Measured("run", USER, [failed])])), "mine")
    assert (line[0], line[1], line[-1]) == ("– (150 skipped)", "–", "0")


def test_a_recommenders_leak_columns_are_filled() -> None:
    config = {"protocol": "recommendation", "recommender": "r", "data": "data/redial"}
    parts = {"standard": 0.3, "leak-free": 0.2, "first-turn-excluded": 0.1}
    run = Measured("run", config, [score("recommendation.recall@1", v, condition=c) for c, v in parts.items()])
    filled = fill("interplay-2", [run])
    (row,) = [row for row in filled.rows if not row.is_published]
    found = {
        column.head: cell.value for column, cell in zip(filled.columns, row.cells, strict=True) if isinstance(cell, ScoreRow)
    }
    assert found == {"R@1": 0.3, "R@1 leak-free": 0.2, "R@1 first turn excluded": 0.1}


@pytest.mark.parametrize("name", ["interplay-1", "interplay-2", "zero-shot-redial"])
def test_runs_are_matched_by_protocol_and_role(name: str) -> None:
    other = {"interplay-1": {"recommender": "r"}, "interplay-2": {"user": "u"}, "zero-shot-redial": {"user": "u"}}[name]
    for config in ({"protocol": "turns"} | other, {"protocol": "matrix", "user": "u", "recommender": "r"}, {}):
        with pytest.raises(RunError, match=f"no Run fills the table {name}"):
            fill(name, [Measured("run", config, [score("turns.dist_4", 0.1), score("ranking.recall@1", 0.1)])])


def test_an_unknown_table_is_refused_by_name() -> None:
    with pytest.raises(RunError, match="the tables are interplay-1, interplay-2, zero-shot-redial"):
        fill("table-9", [REPLAY_RUN])


def test_every_published_figure_is_a_number_under_a_heading_of_its_table() -> None:
    for table in paper_tables().values():
        heads = {column.head for column in table.columns}
        for _, values in table.published:
            assert set(values) <= heads
            assert all(float(value) > 0 for value in values.values())


def test_the_anchors_of_match_score_have_rows_of_their_own() -> None:
    config = {"protocol": "recommendation", "recommender": "r", "data": "data/redial"}
    scores = [score("recommendation.match_score", 0.3, subject="mine"), score("recommendation.match_score", 0.2, "random item")]
    table = to_markdown(fill("interplay-2", [Measured("run", config, scores)]))
    assert cells(table, "anchor: random item (beside mine)")[1] == "0.200 [0.100, 0.300]"


def test_latex_is_balanced_and_csv_leaves_out_what_nobody_measured() -> None:
    filled = fill("interplay-1", [REPLAY_RUN, TURNS_RUN])
    tex = to_latex(filled)
    assert tex.count("{") == tex.count("}")
    body = tex[tex.index(r"\toprule") :].splitlines()
    assert {line.count(" & ") for line in body if " & " in line} == {len(filled.columns) + 2}
    lines = list(csv.DictReader(io.StringIO(to_csv(filled))))
    assert len(lines) == len(filled.rows) * len(filled.columns)
    ours = {line["column"]: line for line in lines if line["row"] == "mine"}
    assert (ours["SR"]["value"], ours["SR"]["n"], ours["ET"]["value"], ours["BERTScore"]["value"]) == ("0.5", "150", "", "")
    assert {line["source"] for line in lines if line["published"] == "False"} == {"measured here"}


def test_a_dash_is_never_a_zero() -> None:
    assert paper_cell(None) == "–"
    assert paper_cell(score("m", 0.0)).startswith("0.000")


def test_report_prints_the_tables_and_writes_them_beside_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.create(tmp_path / "replay", USER)
    run.write_scores(REPLAY_RUN.scores)
    out = tmp_path / "report"
    assert main(["report", str(run.path), "--table", "interplay-1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| mine | 0.500 [0.400, 0.600] |" in printed
    assert (out / "interplay-1.md").read_text(encoding="utf-8").strip() in printed
    for name in ("interplay-1.tex", "interplay-1.csv", "figures/interplay-1.svg", "figures/interplay-1.pdf", "index.html"):
        assert (out / name).stat().st_size > 0
    assert '<span class="tag">published</span>' in (out / "index.html").read_text(encoding="utf-8")
    assert main(["report", str(run.path), "--table", "interplay-2", "--out", str(tmp_path / "none")]) == 1
    assert "no Run fills the table interplay-2" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
