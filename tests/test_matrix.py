"""Matrix, compare and noise, from the command line and in parts; what may not be reported or compared."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from interplay import provenance
from interplay.cli import main
from interplay.cli.matrix import cell_path
from interplay.errors import ConfigError, RunError
from interplay.evaluation.comparison import ScoredRun, compare_runs, noise_of
from interplay.evaluation.matrix import Cell, judge_matrix, status_of
from interplay.evaluation.values import Value, Values, read_values
from interplay.store import CODE_VERSIONS, Run
from interplay.types import Ending, ScoreRow
from makers import dialogue, scenario

METRIC = "simulation.success_rate"


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "d"
    args = ["data", "agenda", "--out", path, "--num-dialogues", 30, "--num-items", 100, "--test-fraction", 0.3]
    assert main([str(arg) for arg in args]) == 0
    return path


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recommender that takes as much time as the environment says, and one that always breaks."""
    path = tmp_path_factory.mktemp("agents") / "agents.py"
    path.write_text(
        "import os, time\n"
        "def slow(request):\n    time.sleep(float(os.environ.get('SLOW', 0)))\n"
        "    return {'text': 'So? ' + str(len(request['turns']))}\n"
        "def broken(request):\n    raise ValueError('no luck')\n"
    )
    return path


def matrix_args(data: Path, agents: Path, out: Path, *more: object) -> list[str]:
    args = ["evaluate", "matrix", "--users", "agenda", "stub:accept-first", "--recommenders", "agenda"]
    args += [f"python:{agents}:broken", f"python:{agents}:slow", "--data", data, "--num-dialogues", 6]
    return [str(arg) for arg in [*args, "--max-turns", 8, "--out", out, *more]]


@pytest.fixture(scope="module")
def whole(data: Path, agents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix that nobody interrupted; the broken recommender makes it end with 2."""
    out = tmp_path_factory.mktemp("matrix") / "whole"
    assert main(matrix_args(data, agents, out)) == 2
    return out


def files_of(path: Path) -> dict[str, bytes]:
    """Every file, versions of the code made one: others may change the code while this test runs."""
    version = re.compile(rb'\d+\.\d+\.\d+\+[a-z0-9.]+(("?,\s+"?)\d+\.\d+\.\d+\+[a-z0-9.]+)*')
    return {str(f.relative_to(path)): version.sub(b"V", f.read_bytes()) for f in path.rglob("*") if f.is_file()}


def test_a_matrix_killed_in_the_middle_and_resumed_is_the_uninterrupted_one(data, agents, whole, tmp_path, capsys):
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "interplay", *matrix_args(data, agents, killed, "--concurrency", "1")],
        env=os.environ | {"SLOW": "0.3"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    middle = killed / "cells" / "agenda--python-agents.py-slow" / "dialogues.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (middle.is_file() and middle.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert 0 < len(middle.read_text().splitlines()) < 6
    assert not (killed / "matrix.json").exists()
    middle.write_bytes(middle.read_bytes() + b'{"torn": ')
    assert run(capsys, *matrix_args(data, agents, killed, "--resume"))[0] == 2
    before, after = files_of(whole), files_of(killed)
    assert set(before) == set(after)
    assert [name for name in before if before[name] != after[name]] == []
    code, _, err = run(capsys, *matrix_args(data, agents, killed, "--resume", "--seed", 4))
    assert code == 1
    assert "seed: 0 -> 4" in err


def test_a_matrix_writes_its_tables_figures_and_page_and_a_failed_cell_is_in_no_mean(whole):
    record = json.loads((whole / "matrix.json").read_text())
    cells = {(c["user"], c["recommender"]): c for c in record["cells"]}
    broken = cells["agenda", "python:agents.py:broken"]
    assert (broken["status"], broken["scores"], broken["faults"]["backend-failure"]) == ("failed", [], 6)
    assert "no luck" in broken["reason"]
    for recommender in ("agenda", "python:agents.py:slow"):
        assert cells["agenda", recommender]["status"] == "complete"
        assert {r["metric"]: r["n"] for r in cells["agenda", recommender]["scores"]}[METRIC] == 6
    assert all(record[field] for field in ("agents", "data_digest", "catalog_digest", "code_versions"))
    places = {r["user"]: r["places"] for r in record["rankings"] if r["metric"] == METRIC}["agenda"]
    assert [p["recommender"] for p in places] == ["agenda", "python:agents.py:slow", "python:agents.py:broken"]
    assert [p["rank"] for p in places][2] is None
    rows = list(csv.DictReader((whole / "matrix.csv").open()))
    assert [r["value"] for r in rows if r["recommender"] == "python:agents.py:broken"] == ["", ""]
    assert (whole / "matrix.md").read_text().count("| failed |") >= 2
    tex = (whole / "matrix.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") > 2
    for kind in ("svg", "pdf"):
        assert (whole / "figures" / f"simulation-success_rate.{kind}").stat().st_size > 1000
    page = (whole / "index.html").read_text()
    assert "<svg" in page
    assert ">failed</text>" in page


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"agenda": "nowhere"}, "nowhere is not a directory"),
        ({"stub:accept-first": "agenda"}, "agenda is given twice"),
    ],
)
def test_a_matrix_of_bad_agents_is_refused_in_one_line_before_anything_is_said(
    data, agents, tmp_path, capsys, changed, message
):
    args = [changed.get(arg, arg) for arg in matrix_args(data, agents, tmp_path / "m")]
    code, _, err = run(capsys, *args)
    assert (code, err.count("\n")) == (1, 1)
    assert message in err
    assert not (tmp_path / "m").exists()


def test_a_matrix_in_which_every_cell_fails_is_one_line(data, agents, tmp_path, capsys):
    args = ["evaluate", "matrix", "--users", "agenda", "--recommenders", f"python:{agents}:broken", "--data", data]
    code, _, err = run(capsys, *args, "--num-dialogues", 2, "--out", tmp_path / "m")
    assert code == 1
    assert "no cell of the matrix could be scored" in err
    assert "no luck" in err


def test_noise_and_compare_on_the_same_scenarios(data, tmp_path, capsys):
    pair = ["--recommender", "agenda", "--num-dialogues", 8]
    for name, user in (("a", "agenda"), ("b", "stub:accept-first")):
        assert run(capsys, "simulate", "--user", user, *pair, "--scenarios", data, "--out", tmp_path / name)[0] == 0
    noise = ["evaluate", "noise", "--user", "agenda", *pair, "--data", data, "--repeats", 3, "--out", tmp_path / "n"]
    code, text, _ = run(capsys, *noise)
    assert code == 0
    assert "smaller difference is noise" in text
    args = ["evaluate", "compare", tmp_path / "a", tmp_path / "b", "--noise", tmp_path / "n"]
    code, text, _ = run(capsys, *args, "--out", tmp_path / "c")
    assert code == 0
    assert "8 shared scenarios" in text
    record = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert [len(r["agents"]) for r in record["runs"]] == [2, 2]
    row = {r["metric"]: r for r in record["rows"]}["simulation.accept_rate"]
    assert row["test"]["n"] == 8
    assert row["noise"]["repeats"] == 3
    assert row["p_holm"] >= row["test"]["p"]
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".json", ".csv", ".md", ".tex"}
    code, _, err = run(capsys, *args, "--metrics", "simulation.charm", "--out", tmp_path / "d")
    assert code == 1
    assert "simulation.charm" in err
    assert run(capsys, "evaluate", "compare", tmp_path / "a", "--out", tmp_path / "e")[0] == 1


# ---- comparing, in parts ---------------------------------------------------------------------------------------------


def row(metric: str = METRIC, **changed: object) -> ScoreRow:
    fields = {"metric": metric, "value": 0.5, "low": 0.4, "high": 0.6, "n": 4, "split": "test", "subject": "r"}
    fields |= {"simulator": "u", "seed": 0, "data_digest": "d", "package_version": provenance.code_version()}
    return ScoreRow(**(fields | changed))  # type: ignore[arg-type]


def scored(tmp_path: Path, name: str, values: dict[str, list[float]], start: int = 0) -> ScoredRun:
    """A Run with one unit per scenario; scenarios are numbered from `start`."""
    made = Run.create(tmp_path / name, {"verb": "simulate", "seed": 0, "agents": {"user": "u", "recommender": "r"}})
    by_key: Values = {m: {f"s{start + i}": Value(v, 1) for i, v in enumerate(found)} for m, found in values.items()}
    return ScoredRun(name, made, (row(),), by_key)


def test_differences_are_paired_by_scenario_and_said_in_words(tmp_path):
    a = scored(tmp_path, "a", {METRIC: [0.0] * 12, "words": [3.0] * 12})
    b = scored(tmp_path, "b", {METRIC: [1.0] * 10, "words": [3.5] * 10}, start=2)
    seeds = [scored(tmp_path, f"seed{i}", {METRIC: [i / 100] * 12, "words": [3.0 + i] * 12}) for i in range(3)]
    found = compare_runs([a, b], repeats=seeds)
    assert found.shared == {"b": 10}
    success, words = found.rows
    assert (success.test.difference, success.test.n, success.verdict) == (1.0, 10, "differs")
    assert success.p_holm == pytest.approx(2 * 2 / 2**10)
    assert (words.test.difference, words.verdict) == (0.5, "noise")
    assert [r.verdict for r in compare_runs([a, b]).rows] == ["differs", "differs"]
    assert {r.verdict for r in compare_runs([a, a]).rows} == {"the same"}
    assert noise_of(seeds)["words"].largest == 2.0


def test_what_can_not_be_compared_is_refused(tmp_path):
    a, far = scored(tmp_path, "a", {METRIC: [0.0, 1.0]}), scored(tmp_path, "far", {METRIC: [1.0, 1.0]}, start=9)
    with pytest.raises(RunError, match="a and far share no scenario"):
        compare_runs([a, far])
    with pytest.raises(ConfigError, match="share no metric"):
        compare_runs([a, scored(tmp_path, "b", {"other": [1.0, 1.0]})])
    short = [scored(tmp_path, f"short{i}", {METRIC: [1.0]}) for i in range(2)]
    with pytest.raises(RunError, match="short0 lacks 1 of the 2 scenarios"):
        compare_runs([a, scored(tmp_path, "c", {METRIC: [1.0, 1.0]})], repeats=short)


# ---- the matrix, in parts --------------------------------------------------------------------------------------------


def cell(user: str, recommender: str, values: list[float] | None) -> Cell:
    found: Values = {} if values is None else {METRIC: {f"s{i}": Value(v, 1) for i, v in enumerate(values)}}
    status = "failed" if values is None else "complete"
    return Cell(user, recommender, "", status, None, 4, 4, {}, (), found)


def test_rankings_and_their_agreement_by_hand():
    # Under u the order is a > b > c, under v a > c > b: 2 of 3 pairs agree; w lacks b.
    values = {
        "u": ([1.0] * 4, [1.0, 1.0, 0.0, 0.0], [0.0] * 4),
        "v": ([1.0] * 4, [0.0] * 4, [1.0, 1.0, 0.0, 0.0]),
        "w": ([0.0] * 4, None, [1.0] * 4),
    }
    cells = [cell(user, name, found) for user, row_ in values.items() for name, found in zip("abc", row_, strict=True)]
    found = judge_matrix("uvw", "abc", cells, [METRIC, "simulation.nothing"], seed=0)
    assert found.metrics == (METRIC,)
    by_user = {r.user: [(p.recommender, p.rank) for p in r.places] for r in found.rankings}
    assert by_user == {
        "u": [("a", 1), ("b", 2), ("c", 3)],
        "v": [("a", 1), ("c", 2), ("b", 3)],
        "w": [("c", 1), ("a", 2), ("b", None)],
    }
    first, *others = found.agreements
    assert (first.tau_b.value, first.spearman.value) == (pytest.approx(1 / 3), pytest.approx(0.5))
    assert [(a.num_recommenders, a.tau_b.value) for a in others] == [(2, None), (2, None)]
    places = found.rankings[0].places
    assert [(p.low, p.high) for p in places] == [(1, pytest.approx(1.5, abs=0.5)), (pytest.approx(1.5, abs=0.5), 2.5), (2.5, 3)]


def test_the_status_of_a_cell():
    assert status_of(Counter({Ending.ACCEPTED: 3}), 3) == "complete"
    assert status_of(Counter({Ending.ACCEPTED: 2}), 3) == "partial"
    assert status_of(Counter({Ending.ACCEPTED: 2, Ending.CONTEXT_OVERFLOW: 1}), 3) == "partial"
    assert status_of(Counter({Ending.FORMAT_FAILURE: 3}), 3) == "complete"
    assert status_of(Counter({Ending.BACKEND_FAILURE: 3}), 3) == "failed"
    assert status_of(Counter(), 3) == "failed"


def test_a_cell_lies_where_its_agents_say():
    assert cell_path("python:agents.py:slow", "org/model") == "cells/python-agents.py-slow--org-model"


# ---- provenance ------------------------------------------------------------------------------------------------------

SOUND = {"verb": "simulate", "seed": 0, "agents": {"user": "u", "recommender": "r"}}


@pytest.mark.parametrize(
    ("config", "changed", "missing"),
    [
        ({}, {"package_version": "0.0.1"}, "the code version"),
        ({"agents": None}, {"subject": ""}, "the model"),
        ({}, {"simulator": None}, "the simulator"),
        ({}, {"data_digest": ""}, "the data's hash"),
        ({}, {"low": None, "high": None}, "any interval"),
    ],
)
def test_numbers_that_do_not_say_what_they_are_of_are_refused(tmp_path, capsys, config, changed, missing):
    bad = Run.create(tmp_path / "bad", SOUND | config)
    bad.append(dialogue(scenario()))
    bad.write_scores([row(**changed)])
    for args in (["report", bad.path], ["evaluate", "compare", bad.path, bad.path / "x"]):
        code, _, err = run(capsys, *args, "--out", tmp_path / "out")
        assert (code, err.count("\n")) == (1, 1)
        assert f"does not tell {missing}:" in err
    assert not (tmp_path / "out").exists()


def test_a_run_of_before_the_commit_was_kept_is_refused(tmp_path, capsys):
    old = Run.create(tmp_path / "old", SOUND)
    config = {name: value for name, value in old.config.items() if name != CODE_VERSIONS}
    (old.path / "config.json").write_text(json.dumps(config))
    old.write_scores([row()])
    code, _, err = run(capsys, "report", old.path, "--out", tmp_path / "out")
    assert code == 1
    assert "does not tell the code version" in err
    Run.resume(old.path, SOUND)  # which does not make its dialogues this code's
    assert "does not tell the code version" in run(capsys, "report", old.path, "--out", tmp_path / "out")[2]


def test_a_run_of_several_domains_and_one_of_nothing_are_refused(tmp_path, capsys):
    mixed = Run.create(tmp_path / "mixed", SOUND)
    mixed.append(dialogue(scenario()))
    mixed.append(dialogue(scenario(source_id="2")).model_copy(update={"domain": "book"}))
    mixed.write_scores([row()])
    for args in (["report", mixed.path], ["evaluate", "compare", mixed.path, mixed.path / "x"]):
        code, _, err = run(capsys, *args, "--out", tmp_path / "out")
        assert code == 1
        assert "mixes dialogues of 2 domains (movie 1, book 1)" in err
    empty = Run.create(tmp_path / "empty", SOUND)
    assert "holds no scores" in run(capsys, "evaluate", "compare", empty.path, mixed.path, "--out", tmp_path / "out")[2]
    empty.write_scores([row(value=None, low=None, high=None, n=0)])
    (empty.path / "values.jsonl").write_text("")
    with pytest.raises(RunError, match="no conversation that could be scored"):
        read_values(empty)


def test_a_run_keeps_every_version_of_the_code_that_worked_on_it(tmp_path, monkeypatch):
    first = Run.create(tmp_path / "run", {"seed": 0})
    monkeypatch.setattr("interplay.store.code_version", lambda: "0.0.0+gfeed")
    assert Run.resume(first.path, {"seed": 0}).config[CODE_VERSIONS] == [provenance.code_version(), "0.0.0+gfeed"]
    assert Run.read(first.path).config[CODE_VERSIONS][1] == "0.0.0+gfeed"


def test_the_version_of_code_is_a_commit_or_a_hash_of_its_source(tmp_path):
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    assert provenance.checkout_label(package) is None
    before = provenance.source_label(package)
    assert re.fullmatch(r"source\.[0-9a-f]{12}", before)
    git = ["git", "-C", str(package), "-c", "user.name=n", "-c", "user.email=e@e"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert provenance.checkout_label(package) is None  # below a repository that does not know it
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "m"], check=True)
    commit = provenance.checkout_label(package)
    assert commit is not None
    assert re.fullmatch(r"g[0-9a-f]{12}", commit)
    (package / "__init__.py").write_text("a = 2\n")
    assert provenance.checkout_label(package) == f"{commit}.changed"
    assert provenance.source_label(package) != before


def test_dialogues_are_put_in_order_and_only_the_latest_attempt_stays(tmp_path):
    kept = Run.create(tmp_path / "run", {})
    start = scenario()
    for sample, ending in ((2, Ending.ACCEPTED), (0, Ending.BACKEND_FAILURE), (1, Ending.GAVE_UP), (0, Ending.ACCEPTED)):
        kept.append(dialogue(start, sample=sample, ending=ending))
    kept.put_in_order(f"{start.key}.{sample}" for sample in range(2))
    found = [(d.sample, d.ending) for d in kept.dialogues()]
    assert found == [(0, Ending.ACCEPTED), (1, Ending.GAVE_UP), (2, Ending.ACCEPTED)]
    assert len(kept.dialogues_path.read_text().splitlines()) == 3
