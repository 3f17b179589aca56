"""Files: strict reading, whole writing, the Run directory."""

import gzip
import resource
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interplay.errors import DataError, RunError
from interplay.store import (
    Run,
    changed_fields,
    prepare_output,
    read_json,
    read_json_lines,
    read_lines,
    read_records,
    write_records,
)
from interplay.types import Ending, Item, Scenario
from makers import CATALOG, dialogue, scenario


def test_records_come_back_as_they_were_written(tmp_path):
    write_records(tmp_path / "a.jsonl", CATALOG)
    assert list(read_records(tmp_path / "a.jsonl", Item)) == list(CATALOG)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl does not exist"):
        list(read_lines(tmp_path / "nothing.jsonl"))


def test_a_truncated_gzip_file_is_named_with_the_line_reached(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"a": %d}\n' % i for i in range(5000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"gzip stream is cut off after line \d+"):
        list(read_lines(path))


def test_a_file_that_is_no_gzip_is_named(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match="not a sound gzip file"):
        list(read_lines(path))


def test_a_json_line_cut_in_half_is_named_with_its_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    with pytest.raises(DataError, match="line 2: not a whole JSON value"):
        list(read_json_lines(path))


def test_a_json_file_cut_in_half_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1,')
    with pytest.raises(DataError, match="not a whole JSON value"):
        read_json(path)


def test_a_record_with_a_wrong_field_is_named_with_line_and_field(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "title": "A"}\n{"id": "b", "title": "B", "year": "soon"}\n')
    with pytest.raises(DataError, match=r"line 2: not a Item \(year: .*got 'soon'"):
        list(read_records(path, Item))


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_lines(path))


def test_an_output_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "precious").write_text("x")
    with pytest.raises(RunError, match="is not empty"):
        prepare_output(tmp_path, overwrite=False, marker="config.json")
    with pytest.raises(RunError, match="nothing was deleted"):
        prepare_output(tmp_path, overwrite=True, marker="config.json")
    assert (tmp_path / "precious").read_text() == "x"


def test_an_earlier_output_is_replaced_when_asked(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    prepare_output(tmp_path, overwrite=True, marker="config.json")
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_dialogues_in_order(tmp_path):
    run = Run.create(tmp_path / "run", {"seed": 1})
    made = [dialogue(scenario(), sample=k) for k in range(3)]
    for d in made:
        run.append(d)
    assert list(Run.read(tmp_path / "run").dialogues()) == made


def test_a_directory_without_a_config_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a Run"):
        Run.read(tmp_path)


@given(cut=st.integers(0, 10_000))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_kill_at_any_byte_loses_at_most_the_dialogue_in_flight(tmp_path, cut):
    run = (
        Run.create(tmp_path / "run", {"seed": 1}, overwrite=True)
        if (tmp_path / "run").exists()
        else Run.create(tmp_path / "run", {"seed": 1})
    )
    made = [dialogue(scenario(), sample=k) for k in range(4)]
    sizes = []
    for d in made:
        run.append(d)
        sizes.append(run.dialogues_path.stat().st_size)
    cut %= sizes[-1] + 1
    with run.dialogues_path.open("r+b") as file:
        file.truncate(cut)
    again = Run.resume(tmp_path / "run", {"seed": 1})
    whole = sum(size <= cut for size in sizes)
    assert list(again.dialogues()) == made[:whole]
    for d in made[whole:]:
        again.append(d)
    assert list(again.dialogues()) == made


def test_a_changed_config_is_refused_and_the_changed_fields_are_named(tmp_path):
    Run.create(tmp_path / "run", {"seed": 1, "sampling": {"temperature": 0.8}, "user": "a"})
    with pytest.raises(RunError, match=r"seed: 1 -> 2"):
        Run.resume(tmp_path / "run", {"seed": 2, "sampling": {"temperature": 0.8}, "user": "a"})
    with pytest.raises(RunError, match=r"sampling\.temperature: 0\.8 -> 0\.5"):
        Run.resume(tmp_path / "run", {"seed": 1, "sampling": {"temperature": 0.5}, "user": "a"})


def test_a_new_field_counts_as_a_change():
    assert changed_fields({}, {"a": 1}) == ["a: null -> 1"]


def test_resuming_nothing_starts_a_new_run(tmp_path):
    assert list(Run.resume(tmp_path / "run", {"seed": 1}).dialogues()) == []


def test_a_dialogue_that_a_backend_ended_is_owed_again_and_its_second_attempt_counts(tmp_path):
    run = Run.create(tmp_path / "run", {})
    failed = dialogue(scenario(), (), ending=Ending.BACKEND_FAILURE)
    run.append(failed)
    assert run.finished_keys() == set()
    run.append(dialogue(scenario()))
    assert run.finished_keys() == {failed.key}
    assert [d.ending for d in run.dialogues()] == [Ending.ACCEPTED]


def _limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


def test_a_full_disk_stops_with_one_line_and_keeps_what_was_written(tmp_path):
    # A real write that fails: the process may not make files larger than 3,000 bytes.
    program = f"""
import sys
sys.path.insert(0, {str(pytest.importorskip("makers").__file__.rsplit("/", 1)[0])!r})
from makers import dialogue, scenario
from pathlib import Path
from interplay.errors import RunError
from interplay.store import Run
run = Run.create(Path({str(tmp_path / "run")!r}), {{}})
try:
    for k in range(100):
        run.append(dialogue(scenario(), sample=k))
except RunError as error:
    print(error)
    sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", program], preexec_fn=_limit_file_size, capture_output=True, text=True)
    assert done.returncode == 1
    assert "what was written before is kept" in done.stdout
    assert "Traceback" not in done.stderr
    kept = list(Run.read(tmp_path / "run").dialogues())
    assert 0 < len(kept) < 100
    assert [d.sample for d in kept] == list(range(len(kept)))


def test_a_failed_write_leaves_the_old_file_untouched(tmp_path):
    path = tmp_path / "a.jsonl"
    write_records(path, [scenario()])

    def broken():
        yield dialogue(scenario())
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left"):
        write_records(path, broken())
    assert list(read_records(path, Scenario)) == [scenario()]
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_dialogue_file_of_another_kind_is_named(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.dialogues_path.write_text('{"hello": 1}\n')
    with pytest.raises(DataError, match="line 1: not a Dialogue"):
        list(run.dialogues())
