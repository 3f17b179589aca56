"""The command line end to end, with tiny models: output, exit codes, bad input."""

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interplay.cli import main
from interplay.cli.chat import read_line
from interplay.cli.evaluate import FORMS
from interplay.cli.progress import Progress
from interplay.corpora.corpus import Corpus
from interplay.formats.parsing import text_of_turn
from interplay.store import Run
from interplay.types import Action, Ending, Role
from makers import MOVIE, user


def run(capsys, *args) -> tuple[int, str, str]:
    code = main([str(a) for a in args])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "data"
    assert main(["data", "agenda", "--out", str(out), "--num-dialogues", "120", "--test-fraction", "0.2"]) == 0
    return out


QUICK = ["--num-dialogues", "120", "--num-conversations", "4", "--user-steps", "4", "--recommender-steps", "2"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> tuple[Path, str]:
    """Where a short quickstart lies, and what it printed."""
    out, printed = tmp_path_factory.mktemp("quick") / "q", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["quickstart", "--out", str(out), *QUICK]) == 0
    return out, printed.getvalue()


@pytest.fixture(scope="module")
def models(quick) -> dict[str, Path]:
    """A user and a recommender of a few training steps: they write nonsense, through the real code."""
    return {role.value: quick[0] / role.value for role in Role}


def test_without_a_verb_the_help_lists_the_verbs(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    for verb in ("quickstart", "data", "train", "simulate", "evaluate", "report", "chat"):
        assert f"\n  {verb}" in out


def test_an_unknown_verb_is_one_line_with_a_guess(capsys):
    code, _, err = run(capsys, "simulat")
    assert (code, err.count("\n")) == (1, 1)
    assert "did you mean simulate?" in err


def test_the_version_is_printed(capsys):
    assert run(capsys, "--version")[1].startswith("interplay ")


def test_data_reports_counts_and_splits_without_shared_targets(data, capsys):
    corpus = Corpus.read(data)
    assert len(corpus.dialogues) == 120
    assert corpus.overlap["targets"]["shared"] == 0
    assert (data / "run" / "dialogues.jsonl").is_file()


def test_agents_of_rules_talk_and_their_run_is_scored_and_a_corpus(data, tmp_path, capsys):
    out = tmp_path / "sim"
    code, text, _ = run(capsys, "simulate", "--user", "agenda", "--recommender", "agenda", "--scenarios", data, "--out", out)
    assert code == 0
    assert "simulation.accept_rate" in text
    simulated = Run.read(out)
    assert {row.metric for row in simulated.scores()} >= {"simulation.accept_rate", "simulation.goal_satisfaction"}
    code, text, _ = run(capsys, "data", "run", "--source", out, "--out", tmp_path / "again")
    assert code == 0
    assert len(Corpus.read(tmp_path / "again").dialogues) == len(list(simulated.dialogues()))


def simulate_args(data, models, out):
    return [
        *("simulate", "--user", models["user"], "--recommender", models["recommender"], "--scenarios", data, "--out", out),
        *("--num-dialogues", 8, "--sampling.max-new-tokens", 40, "--max-turns", 6),
    ]


def test_trained_models_talk_and_the_same_seed_gives_the_same_run(data, models, tmp_path, capsys):
    for name in ("a", "b"):
        assert run(capsys, *simulate_args(data, models, tmp_path / name))[0] == 0
    a, b = ((tmp_path / name / "dialogues.jsonl").read_text() for name in ("a", "b"))
    assert a == b
    assert len(a.splitlines()) == 8


def test_resume_holds_only_what_is_owed_and_refuses_a_changed_config(data, models, tmp_path, capsys):
    out = tmp_path / "sim"
    args = simulate_args(data, models, out)
    run(capsys, *args)
    whole = out.joinpath("dialogues.jsonl").read_text().splitlines(keepends=True)
    out.joinpath("dialogues.jsonl").write_text("".join(whole[:3]) + whole[3][:50])
    code, text, _ = run(capsys, *args, "--resume")
    assert code == 0
    assert "8 conversations (5 held now)" in text
    assert sorted(out.joinpath("dialogues.jsonl").read_text().splitlines(keepends=True)) == sorted(whole)
    code, _, err = run(capsys, *args, "--resume", "--seed", 5)
    assert code == 1
    assert "seed: 0 -> 5" in err


@pytest.mark.parametrize(
    ("protocol", "role", "metric"),
    [
        ("replay", "user", "replay.success_rate"),
        ("turns", "user", "turns.dist_4"),
        ("turns", "recommender", "turns.action_accuracy"),
        ("recommendation", "recommender", "recommendation.recall@1"),
    ],
)
def test_each_protocol_measures_a_trained_model(data, models, tmp_path, capsys, protocol, role, metric):
    args = ["evaluate", protocol, f"--{role}", models[role], "--data", data, "--out", tmp_path / "e", "--num-dialogues", 5]
    code, text, _ = run(capsys, *args, "--sampling.max-new-tokens", 40)
    assert code == 0
    assert metric in text
    rows = Run.read(tmp_path / "e").scores()
    assert metric in {row.metric for row in rows}
    assert all(row.package_version and row.data_digest for row in rows)


def test_the_agenda_user_passes_replay_and_fails_its_control(data, tmp_path, capsys):
    values = {}
    for name, flags in (("own", []), ("shuffled", ["--shuffle-attributes"])):
        out = tmp_path / name
        assert run(capsys, "evaluate", "replay", "--user", "agenda", "--data", data, "--out", out, *flags)[0] == 0
        values[name] = {r.metric: r.value for r in Run.read(out).scores()}
    assert values["own"]["replay.success_rate"] > values["shuffled"]["replay.success_rate"] + 0.3
    for rates in values.values():
        total = sum(rates[f"replay.{m}_rate"] for m in ("success", "early_termination", "failure"))
        assert total == pytest.approx(1)


def test_a_report_is_one_page_with_tables(data, tmp_path, capsys):
    run(capsys, "simulate", "--user", "agenda", "--recommender", "agenda", "--scenarios", data, "--out", tmp_path / "sim")
    code, text, _ = run(capsys, "report", tmp_path / "sim", "--out", tmp_path / "report")
    assert code == 0
    assert str(tmp_path / "report" / "index.html") in text
    assert {p.name for p in (tmp_path / "report").iterdir()} >= {"index.html", "scores.csv", "scores.tex"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert "http" not in page.split("<body")[0].replace("http://www.w3.org", "")


def test_show_masks_prints_what_is_learned(data, tmp_path, capsys):
    code, out, _ = run(capsys, "train", "user", "--data", data, "--out", tmp_path / "x", "--show-masks", 2)
    assert code == 0
    assert out.count("tokens are learned") == 2
    assert "<recommender><action>" in out
    assert not (tmp_path / "x").exists()


def test_a_dry_run_prints_the_config_and_does_nothing(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "user", "--data", str(data), "--out", str(tmp_path / "x"), "--dry-run"])
    assert caught.value.code == 0
    assert "learning_rate = 0.0002" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()


# ---- servers ---------------------------------------------------------------------------------------------------------


def test_a_server_plays_a_role_zero_shot(data, tmp_path, capsys, fake_server):
    fake_server.reply_text = lambda body: text_of_turn(user(Action.GIVE_UP, "no thanks"), MOVIE)
    args = ["simulate", "--user", f"{fake_server.base_url}#tiny", "--recommender", "agenda", "--scenarios", data]
    code, out, _ = run(capsys, *args, "--out", tmp_path / "sim", "--num-dialogues", 4)
    assert code == 0
    assert "gave-up 4" in out


def test_no_server_is_one_line_before_any_conversation(data, tmp_path, capsys):
    args = ["simulate", "--user", "http://127.0.0.1:9/v1#m", "--recommender", "agenda", "--scenarios", data]
    code, _, err = run(capsys, *args, "--out", tmp_path / "sim")
    assert code == 1
    assert "127.0.0.1:9" in err
    assert not (tmp_path / "sim" / "dialogues.jsonl").exists()


# ---- bad input -------------------------------------------------------------------------------------------------------


def one_line_error(capsys, *args) -> str:
    code, _, err = run(capsys, *args)
    lines = [line for line in err.splitlines() if line.startswith("interplay:")]
    assert code == 1
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_a_missing_data_directory(capsys, tmp_path):
    error = one_line_error(capsys, "train", "user", "--data", tmp_path / "nowhere", "--out", tmp_path / "o")
    assert "nowhere is not a directory" in error
    assert "interplay data CORPUS" in error


def test_a_missing_corpus_directory(capsys, tmp_path):
    assert "nowhere" in one_line_error(capsys, "data", "redial", "--source", tmp_path / "nowhere", "--out", tmp_path / "o")


def test_the_wrong_corpus_for_the_files(capsys, tmp_path):
    source = Path(__file__).parent / "fixtures" / "pearl"
    assert "redial" in one_line_error(capsys, "data", "redial", "--source", source, "--out", tmp_path / "o")


def test_a_cut_line_in_a_data_directory(capsys, data, tmp_path):
    import shutil

    shutil.copytree(data, tmp_path / "d")
    text = (tmp_path / "d" / "dialogues.jsonl").read_text()
    (tmp_path / "d" / "dialogues.jsonl").write_text(text[: len(text) // 2])
    error = one_line_error(capsys, "train", "user", "--data", tmp_path / "d", "--out", tmp_path / "o")
    assert "dialogues.jsonl, line" in error


def test_a_model_path_that_does_not_exist(capsys, data, tmp_path):
    args = ("--recommender", "agenda", "--scenarios", data, "--out", tmp_path / "o")
    assert "nowhere is not a directory" in one_line_error(capsys, "simulate", "--user", tmp_path / "nowhere", *args)


def test_a_checkpoint_of_the_other_role(capsys, data, models, tmp_path):
    args = ("--recommender", "agenda", "--scenarios", data, "--out", tmp_path / "o")
    assert "is a recommender, not a user" in one_line_error(capsys, "simulate", "--user", models["recommender"], *args)


def test_an_output_directory_that_is_not_empty(capsys, tmp_path):
    (tmp_path / "x").write_text("precious")
    assert "is not empty" in one_line_error(capsys, "data", "agenda", "--out", tmp_path)
    assert (tmp_path / "x").read_text() == "precious"


def test_a_flag_that_does_not_exist(capsys):
    assert "unknown flag --outt (did you mean --out?)" in one_line_error(capsys, "data", "agenda", "--outt", "x")


def test_a_toml_field_of_the_wrong_type(capsys, tmp_path):
    (tmp_path / "c.toml").write_text('seed = "many"\n')
    error = one_line_error(capsys, "data", "agenda", "--config", tmp_path / "c.toml", "--out", tmp_path / "o")
    assert "seed" in error
    assert "'many'" in error


def test_an_empty_split(capsys, data, tmp_path):
    run(capsys, "data", "agenda", "--out", tmp_path / "d", "--num-dialogues", 30, "--valid-fraction", 0, "--test-fraction", 0.2)
    args = ("--user", "agenda", "--data", tmp_path / "d", "--split", "valid", "--out", tmp_path / "o")
    assert "the valid split of agenda holds no conversation" in one_line_error(capsys, "evaluate", "replay", *args)


def test_an_evaluation_of_the_wrong_role(capsys, data, tmp_path):
    args = ("--recommender", "agenda", "--data", data, "--out", tmp_path / "o")
    assert "pass --user; got --recommender" in one_line_error(capsys, "evaluate", "replay", *args)


def test_a_report_of_nothing(capsys, tmp_path):
    assert "is not a Run" in one_line_error(capsys, "report", tmp_path, "--out", tmp_path / "r")


def _limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))


def test_a_full_disk_while_simulating_keeps_what_was_written_and_resumes(data, tmp_path):
    # A real failing write: this process may not make files larger than 150 kB (the catalog is written before).
    args = ["simulate", "--user", "agenda", "--recommender", "agenda", "--scenarios", str(tmp_path / "data")]
    small = Corpus.read(data)
    used = {m.item_id for d in small.dialogues for t in d.turns for m in t.items}
    small.catalog = type(small.catalog)([i for i in small.catalog if i.id in used], MOVIE)
    small.save(tmp_path / "data")
    command = [sys.executable, "-m", "interplay", *args, "--num-samples", "8", "--out", str(tmp_path / "sim")]
    done = subprocess.run(command, preexec_fn=_limit_file_size, capture_output=True, text=True)
    assert done.returncode == 1
    assert "could not write" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    kept = len(list(Run.read(tmp_path / "sim").dialogues()))
    assert kept > 0
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0
    assert len(list(Run.read(tmp_path / "sim").dialogues())) > kept


def test_ctrl_c_exits_with_130_keeps_what_was_finished_and_resumes(data, tmp_path):
    command = [sys.executable, "-m", "interplay", "simulate", "--user", "agenda", "--recommender", "agenda"]
    command += ["--scenarios", str(data), "--num-samples", "2000", "--out", str(tmp_path / "sim")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    file = tmp_path / "sim" / "dialogues.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (file.exists() and file.stat().st_size > 10_000):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert len(list(Run.read(tmp_path / "sim").dialogues())) > 0


# ---- chat ------------------------------------------------------------------------------------------------------------


def test_a_person_talks_to_the_recommender(data, tmp_path, capsys, monkeypatch):
    lines = iter(["I want a drama", "", "/dance", "/give-up never mind"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    code, out, _ = run(capsys, "chat", "--recommender", "agenda", "--data", data, "--out", tmp_path / "talk.jsonl")
    assert code == 0
    assert "no such action" in out
    assert "-- gave-up" in out
    record = json.loads((tmp_path / "talk.jsonl").read_text())
    assert record["user"] == "human"
    assert [t["text"] for t in record["turns"] if t["role"] == "user"] == ["I want a drama", "never mind"]


def test_a_person_talks_to_the_user_and_sees_its_last_words(data, capsys, monkeypatch):
    lines = iter(["What do you like?", *["How about [Heat (1995)]?"] * 30])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    code, out, _ = run(capsys, "chat", "--user", "agenda", "--data", data, "--max-turns", 40)
    assert code == 0
    assert "user [" in out
    assert out.strip().splitlines()[-1] in {f"-- {e.value}" for e in (Ending.ACCEPTED, Ending.GAVE_UP)}


def test_the_end_of_the_input_gives_up(data, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "-- gave-up" in run(capsys, "chat", "--recommender", "agenda", "--data", data)[1]


def test_chat_takes_exactly_one_other_side(capsys, data):
    assert "one of --user and --recommender" in one_line_error(capsys, "chat", "--data", data)


@pytest.mark.parametrize(
    ("line", "role", "action", "titles"),
    [
        ("try [Heat (1995)] or [Up]", Role.RECOMMENDER, Action.RECOMMEND, ("Heat (1995)", "Up")),
        ("what do you like?", Role.RECOMMENDER, Action.INQUIRE, ()),
        ("hello", Role.RECOMMENDER, Action.CHAT, ()),
        ("I liked [ Heat (1995) ]", Role.USER, Action.FEEDBACK, ("Heat (1995)",)),
        ("/accept", Role.USER, Action.ACCEPT, ()),
        ("/disclose-goal a western [", Role.USER, Action.DISCLOSE_GOAL, ()),
    ],
)
def test_a_typed_line_is_a_turn(line, role, action, titles):
    turn = read_line(line, role)
    assert (turn.action, turn.titles) == (action, titles)
    assert turn.text


# ---- progress --------------------------------------------------------------------------------------------------------


def test_progress_tells_rate_and_time_left_where_there_is_no_terminal(capsys, monkeypatch):
    now = iter([0.0, 20.0, 20.0, 20.0, 20.0, 40.0, 40.0, 40.0, 40.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now, 40.0))
    with Progress("simulate", 10, "dialogues") as progress:
        progress.update(4, "accepted 4")
        progress.update(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "simulate: 4/10, 0.2 dialogues/s, 20 s, 30 s left  accepted 4"
    assert lines[-1].startswith("simulate: 10/10")


def test_progress_draws_a_bar_in_a_terminal(data, tmp_path):
    import pty

    parent, child = pty.openpty()
    command = [sys.executable, "-m", "interplay", "simulate", "--user", "agenda", "--recommender", "agenda"]
    command += ["--scenarios", str(data), "--out", str(tmp_path / "sim")]
    process = subprocess.Popen(command, stderr=child, stdout=subprocess.DEVNULL, env=os.environ | {"TERM": "xterm"})
    os.close(child)
    seen = b""
    try:
        while chunk := os.read(parent, 4096):
            seen += chunk
    except OSError:  # the other end has closed
        pass
    assert process.wait(60) == 0
    assert b"simulate" in seen
    assert b"\x1b[" in seen
    os.close(parent)


def test_the_quickstart_makes_a_page_and_names_the_next_command(quick):
    out, printed = quick
    assert (out / "report" / "index.html").is_file()
    for words in ("1/5", "5/5", "A conversation of the two models", "Scores", "Try next", "interplay chat --recommender"):
        assert words in printed


def test_an_earlier_quickstart_is_replaced_only_with_overwrite(quick, capsys):
    assert "--overwrite" in one_line_error(capsys, "quickstart", "--out", quick[0], *QUICK)


def test_every_form_of_evaluate_is_listed_and_has_flags_of_its_own(capsys):
    code, out, _ = run(capsys, "evaluate", "--help")
    assert code == 0
    for form in FORMS:
        assert f"\n  {form} " in out
        with pytest.raises(SystemExit, match="0"):
            main(["evaluate", form, "--help"])
        assert "--out" in capsys.readouterr().out


def test_a_form_of_evaluate_that_does_not_exist_is_one_line_with_the_nearest(capsys):
    assert "evaluate knows no matrx (did you mean matrix?)" in one_line_error(capsys, "evaluate", "matrx")
