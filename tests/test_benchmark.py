"""The benchmark of the simulation: it runs, it says what it found, and its model of the bound adds up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def test_a_quick_run_prints_a_table_and_writes_json(tmp_path):
    out = tmp_path / "simulate.json"
    command = [sys.executable, str(BENCHMARKS / "simulate.py"), "--quick", "--sections", "1", "--engines", "ours"]
    done = subprocess.run([*command, "--out", str(out), "--date", "2020-01-02"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "conv/s" in done.stdout
    report = json.loads(out.read_text())
    assert report["date"] == "2020-01-02"
    assert report["machine"]["torch_threads"] == 1
    rows = report["sections"]["1"]["rows"]
    assert [row["engine"] for row in rows] == ["ours", "ours in 16 bits"]
    assert all(row["conversations_per_s"] > 0 for row in rows), rows
    assert rows[1]["ours_is_times"] == rows[0]["conversations_per_s"] / rows[1]["conversations_per_s"]


def test_every_engine_is_asked_for_the_same_tokens_however_often_it_is_asked():
    from engines.workload import Workload

    from interplay.types import Role

    one = Workload(3, turn_tokens=(10, 40))
    same = Workload.from_json(json.loads(json.dumps(one.to_json())))
    assert one == same
    assert one.persona(2, Role.USER) == same.persona(2, Role.USER) != one.persona(1, Role.USER)
    lengths = [one.length(0, turn) for turn in range(10)]
    assert len(set(lengths)) > 1
    assert all(10 <= n <= 40 for n in lengths)
    assert one.generated_tokens(0) == sum(lengths)


def test_tokens_that_are_needed_grow_linearly_with_the_turns():
    import simulate
    from engines.workload import Workload

    def needed(turns):
        return simulate.needed_tokens(Workload(4, turns, persona_tokens=60))

    # Each pair of turns is read and written once by each side.
    assert needed(12) - needed(10) == needed(10) - needed(8) == 4 * 2 * 50


def test_needed_tokens_of_two_turns_can_be_counted_by_hand():
    import simulate
    from engines.workload import Workload

    # The opener reads 60 and passes 24 of its 25 on; the other reads 60 and 25 and passes 24.
    assert simulate.needed_tokens(Workload(1, 2, persona_tokens=60)) == (60 + 24) + (60 + 25 + 24)


def test_the_bound_is_the_slower_of_computing_and_reading():
    import simulate
    from engines.shapes import SHAPES
    from engines.workload import Workload

    work = Workload(64)
    machine = {"gemm_flops": 1e11, "memory_bytes_per_s": 1e10, "cache_bytes_per_s": 5e10}
    seconds = simulate.bound_seconds(SHAPES["135m"], work, 64, machine)["seconds"]
    faster_memory = simulate.bound_seconds(SHAPES["135m"], work, 64, {**machine, "memory_bytes_per_s": 1e15})["seconds"]
    assert faster_memory <= seconds
    never_bound = {"gemm_flops": 1e30, "memory_bytes_per_s": 1e30, "cache_bytes_per_s": 1e30}
    assert simulate.bound_seconds(SHAPES["135m"], work, 64, never_bound)["seconds"] < 1e-9


def test_the_135m_shape_has_135_million_weights():
    from engines.shapes import SHAPES

    assert SHAPES["135m"].parameters == pytest.approx(135e6, rel=0.01)
    assert SHAPES["8b"].parameters == pytest.approx(8.2e9, rel=0.01)
