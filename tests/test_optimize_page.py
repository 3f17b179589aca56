"""The page of an optimisation: what it shows, and what it refuses to show."""

import csv
from pathlib import Path

import pytest

from interplay.cli import main
from interplay.evaluation.optimisation import over_seeds, proof_table, read_optimisation
from interplay.metrics.bootstrap import Estimate
from interplay.report.optimize_page import write_optimize_page
from interplay.store import write_lines
from optimized import made_output
from test_report import Reader


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("seeds")
    return [made_output(root / f"seed{seed}", seed, few=True) for seed in range(3)]


@pytest.fixture(scope="module")
def page(outputs, tmp_path_factory) -> Path:
    return write_optimize_page(outputs, tmp_path_factory.mktemp("report") / "out", num_dialogues=2)


def report(*paths: Path, out: Path, capsys) -> str:
    """What the command says when it is refused."""
    assert main(["report", *map(str, paths), "--out", str(out)]) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert not out.exists()
    return said


def test_the_page_is_whole_and_loads_nothing(page: Path) -> None:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert reader.loaded == []
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert "script" not in reader.tags


def test_training_held_out_people_and_gap_stand_side_by_side(outputs, page: Path) -> None:
    table = proof_table([read_optimisation(path) for path in outputs])
    assert [(c.name, c.kind) for c in table.columns] == [
        ("runs/user", "training"),
        ("agenda", "held-out"),
        ("runs/other-user", "held-out"),
        ("human", "human"),
        ("gap", "gap"),
    ]
    html = page.read_text(encoding="utf-8")
    for words in ("trained on", "held out", "logs of people", "training less held-out", "simulation.success_<wbr>rate"):
        assert words in html


def test_the_gap_is_the_mean_of_training_less_the_mean_of_held_out(tmp_path: Path) -> None:
    table = proof_table([read_optimisation(made_output(tmp_path / "one"))])
    success = {c.name: table.cells["simulation.success_rate", c] for c in table.columns if c.kind != "human"}
    held_out = (success["agenda"].after.value + success["runs/other-user"].after.value) / 2
    assert success["gap"].after.value == pytest.approx(success["runs/user"].after.value - held_out)
    assert success["agenda"].change.value == pytest.approx(success["agenda"].after.value - success["agenda"].before.value)
    half = (0.08**2 + 0.08**2) ** 0.5
    assert success["agenda"].change.high == pytest.approx(success["agenda"].change.value + half)
    assert success["gap"].after.high == pytest.approx(success["gap"].after.value + (0.08**2 + 0.08**2 / 2) ** 0.5)
    assert ("recommendation.recall@10", table.columns[-1]) not in table.cells
    assert ("recommendation.recall@10", table.columns[-2]) in table.cells


def test_over_seeds_the_interval_is_students() -> None:
    found = over_seeds([Estimate(value, None, None, 50) for value in (0.1, 0.2, 0.3)])
    assert found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert found.n == 150
    assert over_seeds([Estimate(0.9, None, None, 5), Estimate(1.0, None, None, 5)], share=True).high == 1.0
    assert over_seeds([Estimate(0.1, None, None, 5), Estimate(None, None, None, 0)]).value is None


def test_seeds_that_agree_are_no_surer_than_their_conversations() -> None:
    found = over_seeds([Estimate(0.5, 0.4, 0.6, 50)] * 4)
    assert (found.low, found.high) == (pytest.approx(0.45), pytest.approx(0.55))


def test_every_check_and_the_table_are_written_as_files(page: Path) -> None:
    with (page.parent / "proof.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["kind"], row["step"], row["seeds"]) for row in rows} == {
        (kind, "40", "3") for kind in ("training", "held-out", "human", "gap")
    }
    assert len((page.parent / "checks.csv").read_text().splitlines()) == 1 + 3 * 5 * 7
    assert "\\toprule" in (page.parent / "proof.tex").read_text()
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert {"check-simulation.success_rate", "reward", "success-in-training", "distance-from-the-start"} <= names


def test_conversations_stand_side_by_side_with_what_noise_has_turned_round(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert html.count('<div class="pair">') == 2
    assert html.count("<h4>before</h4>") == html.count("<h4>after</h4>") == 2
    assert html.count("turned round by noise") == 2
    assert "&lt;b&gt;crooks&lt;/b&gt;" in html


def test_results_turn_by_turn_are_shown_before_and_after(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "multiturn.coverage" in html
    assert "multiturn.srrr: 0.333 before, 1.000 after" in html


def test_alarms_are_listed_with_value_and_limit(page: Path, tmp_path: Path) -> None:
    made = made_output(tmp_path / "b", drift=True, few=True)
    (made / "logs" / "steps.jsonl").unlink()
    loud = write_optimize_page([made], tmp_path / "loud").read_text(encoding="utf-8")
    assert "None was raised." in page.read_text(encoding="utf-8")
    assert "held-out-falls" in loud
    assert "now 0.190" in loud
    assert "One seed: the intervals are over conversations" in loud


def test_one_held_out_simulator_is_refused(tmp_path: Path, capsys) -> None:
    said = report(made_output(tmp_path / "a", held_out=("agenda",)), out=tmp_path / "out", capsys=capsys)
    assert "1 held-out simulators (agenda), at least 2 are needed" in said


def test_none_and_no_logs_of_people_are_refused_with_both_reasons(tmp_path: Path, capsys) -> None:
    said = report(made_output(tmp_path / "a", held_out=(), human=False), out=tmp_path / "out", capsys=capsys)
    assert "0 held-out simulators" in said
    assert "no row of the logs of people" in said


def test_logs_of_people_are_needed(tmp_path: Path, capsys) -> None:
    assert "no row of the logs of people" in report(
        made_output(tmp_path / "a", human=False), out=tmp_path / "out", capsys=capsys
    )


def test_a_held_out_simulator_that_was_trained_on_is_none(tmp_path: Path, capsys) -> None:
    made = made_output(tmp_path / "a", held_out=("agenda", "runs/user"))
    assert "runs/user is held out and trained on" in report(made, out=tmp_path / "out", capsys=capsys)


def test_noise_about_a_simulator_that_was_trained_on_makes_it_no_other(tmp_path: Path, capsys) -> None:
    made = made_output(tmp_path / "a", held_out=("agenda", "noise:0.2:runs/user"))
    assert "runs/user is held out and trained on" in report(made, out=tmp_path / "out", capsys=capsys)


def test_seeds_must_be_of_one_experiment_and_differ(outputs, tmp_path: Path, capsys) -> None:
    other = made_output(tmp_path / "b", 7)
    config = (other / "optimize.json").read_text().replace('"algorithm": "turn"', '"algorithm": "grpo"')
    write_lines(other / "optimize.json", [config])
    said = report(outputs[0], other, out=tmp_path / "out", capsys=capsys)
    assert 'algorithm: "turn" -> "grpo"' in said
    same = made_output(tmp_path / "c", 0)
    assert "have one seed (0)" in report(outputs[0], same, out=tmp_path / "out", capsys=capsys)


def test_what_is_not_finished_is_refused(tmp_path: Path, capsys) -> None:
    begun = made_output(tmp_path / "a", last=5)
    assert "nothing was measured after the start" in report(begun, out=tmp_path / "out", capsys=capsys)
    (begun / "logs" / "checks.jsonl").unlink()
    assert "holds no measurement yet" in report(begun, out=tmp_path / "out", capsys=capsys)


def test_runs_and_optimisations_are_not_mixed(outputs, tmp_path: Path, capsys) -> None:
    assert "report them apart" in report(outputs[0], tmp_path, out=tmp_path / "out", capsys=capsys)


def test_seeds_of_different_length_are_compared_where_all_were_measured(outputs, tmp_path: Path) -> None:
    table = proof_table([read_optimisation(path) for path in (outputs[0], made_output(tmp_path / "s", 9, last=25))])
    assert table.last_step == 20
