"""The ablation table: which cells there are, what they change, and what a line says."""

import sys
from pathlib import Path

import pytest

from interplay.evaluation.optimisation import proof_table, read_optimisation
from optimized import made_output


@pytest.fixture(scope="module")
def ablation():
    path = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, path)
    import optimize

    yield optimize
    sys.path.remove(path)


RECIPE = {"algorithm": "turn", "rewards": {"weights": {"preference": 0, "success": 2.0}}}


def test_every_cell_is_one_step_away_from_the_recipe(ablation) -> None:
    cells = {cell.name: cell.changes for cell in ablation.cells_of(RECIPE, ["turn_cost", "success"])}
    assert cells == {
        "recipe": {},
        "without format": {"rewards.weights.format": 0.0},
        "without recommend": {"rewards.weights.recommend": 0.0},
        "without success": {"rewards.weights.success": 0.0},
        "with turn_cost": {"rewards.weights.turn_cost": 1.0},
        "credit per conversation": {"algorithm": "grpo"},
        "noise 0.1": {"noise": 0.1},
        "noise 0.3": {"noise": 0.3},
    }


def test_the_only_term_is_not_taken_away(ablation) -> None:
    weights = {"format": 0, "recommend": 0, "preference": 0, "acceptance": 1}
    assert not [c for c in ablation.cells_of({"rewards": {"weights": weights}}, []) if c.name.startswith("without")]


def test_a_change_leaves_the_recipe_as_it_is(ablation) -> None:
    found = ablation.changed(RECIPE, {"rewards.weights.success": 0.0, "noise": 0.3, "sampling.temperature": 0.5})
    assert found["rewards"]["weights"] == {"preference": 0, "success": 0.0}
    assert (found["noise"], found["sampling"]) == (0.3, {"temperature": 0.5})
    assert RECIPE["rewards"]["weights"]["success"] == 2.0


def test_a_cell_of_ones_own_is_toml(ablation) -> None:
    cell = ablation.own_cell("plain user: users = ['runs/plain']\nrewards.pay = 'turn'")
    assert (cell.name, cell.changes) == ("plain user", {"users": ["runs/plain"], "rewards.pay": "turn"})


def test_a_line_tells_training_each_held_out_simulator_the_gap_and_people(ablation, tmp_path: Path) -> None:
    found = [read_optimisation(made_output(tmp_path / str(seed), seed, few=True, drift=True)) for seed in range(2)]
    table = proof_table(found)
    line = ablation.line_of("recipe", found, table, "after", "simulation.success_rate")
    assert (line["seeds"], line["step"], line["alarms"]) == ([0, 1], 40, ["held-out-falls"])
    assert list(line["held_out"]) == ["agenda", "runs/other-user"]
    assert line["gap"]["value"] == pytest.approx(
        line["training"]["value"] - sum(e["value"] for e in line["held_out"].values()) / 2
    )
    assert line["turns"]["value"] == pytest.approx(9.0)
    before = ablation.line_of("before", found, table, "before", "simulation.success_rate")
    shown = ablation.table_of([before, line], {"noise 0.3": {1: "interrupted"}}, "success rate")
    assert "success rate, agenda" in shown[0]
    assert len({row.count("|") for row in shown[:4]}) == 1
    assert shown[-1] == "failed: noise 0.3, seed 1: interrupted"
