"""Every command and every Python example of the README runs, at a small size."""

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from interplay.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.strip()
]
TINY = "--tiny.layers 1 --tiny.width 64 --tiny.vocab-size 600"

SMALL = {
    "data agenda": "--num-dialogues 120 --test-fraction 0.2",
    "train": f"--max-steps 12 --warmup-steps 0 --learning-rate 1e-2 --model tiny {TINY}",
    "simulate": "--num-dialogues 4 --max-turns 4 --sampling.max-new-tokens 30",
    **{f"evaluate {form}": "--num-dialogues 3 --sampling.max-new-tokens 30" for form in ("replay", "turns", "recommendation")},
    "evaluate persuasion": "--num-dialogues 2 --sampling.max-new-tokens 30",
    "optimize": "--steps 1 --scenarios-per-step 1 --group-size 2 --check-dialogues 2 --check-split train --max-turns 4 "
    "--sampling.max-new-tokens 30 --user-sampling.max-new-tokens 30",
    "evaluate matrix": "--num-dialogues 2 --max-turns 4 --sampling.max-new-tokens 30",
}
"""What is appended to make a command quick; a later flag wins over an earlier one."""


def shortened(command: str) -> list[str]:
    words = [name for word in shlex.split(command) for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    return words + [w for start, flags in SMALL.items() if " ".join(words).startswith(start) for w in shlex.split(flags)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request) -> Path:
    """A directory as a reader has it: the repository's recipes, and corpora where INTERPLAY_DATA says."""
    path = tmp_path_factory.mktemp("readme")
    (path / "recipes").symlink_to(ROOT / "recipes")
    return path


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("INTERPLAY_DATA", str(ROOT / "tests" / "fixtures"))


def test_the_readme_leads_with_the_two_make_commands():
    assert COMMANDS[:2] == ["make quickstart", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\nquickstart:" in makefile
    assert "\ntest:" in makefile


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("interplay")])
def test_a_command_of_the_readme_runs(command, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt="": "/give-up bye")
    assert main(shortened(command.removeprefix("interplay "))) == 0


def test_every_command_of_the_readme_is_one_of_those_tested():
    assert all(c.startswith(("interplay ", "make ")) for c in COMMANDS)
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_the_python_of_the_readme_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert "accept the gold item" in capsys.readouterr().out


def documented() -> list[list[str]]:
    """Words of the commands with flags in all documents, without variables of a shell."""
    found = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "recipes").iterdir())):
        text = re.sub(r"\\\n[\s#]*", " ", path.read_text(encoding="utf-8"))
        verbs = "data|train|simulate|evaluate|report|chat|optimize|quickstart|items"
        for command in re.findall(rf"(?:^|[`\s])interplay ((?:{verbs})\b[^`#|;>\n]*)", text, flags=re.MULTILINE):
            words = [word for word in command.split(" (")[0].split() if not word.startswith("$")]
            if any(word.startswith("--") for word in words):
                found.append(words)
    return found


def test_every_flag_of_a_documented_command_is_known(capsys):
    commands = documented()
    assert len(commands) > 150
    wrong = []
    for words in commands:
        with contextlib.suppress(SystemExit):
            main([*words, "--dry-run"])
        said = capsys.readouterr().err
        if re.search(r"unknown flag -|invalid choice|knows no |is accepted|are accepted", said):
            wrong.append((" ".join(words), said))
    assert not wrong


def test_every_document_the_readme_names_exists():
    for name in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / name).is_file(), name
