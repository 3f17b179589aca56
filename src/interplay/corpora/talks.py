"""Dialogues of any tool, as turns of role and text: what is judged for realism need not be a record of ours.

The minimal form is a JSON-lines file with one conversation per line, a list of turns or an object that holds one:

    {"id": "1", "turns": [{"role": "user", "text": "hi"}, {"role": "recommender", "text": "What do you like?"}]}

`id`, `domain` and a turn's `action` may be left out. The names that other tools use for the same things are read too:
see `ROLES`, `_LISTS` and `_TEXTS`. A `.json` file that is one list of such conversations, Runs and data directories do as well.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from interplay.corpora.corpus import MARKER as DATA_MARKER
from interplay.corpora.corpus import read_head
from interplay.errors import DataError
from interplay.store import Run, read_json, read_json_lines
from interplay.types import ACTIONS, DOMAINS, Action, Ending, Role, Scenario

ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "seeker", "customer", "human", "client", "usr", "initiator"), Role.USER),
    **dict.fromkeys(
        ("recommender", "assistant", "agent", "system", "bot", "asst", "wizard", "crs", "sys", "gpt", "respondent"),
        Role.RECOMMENDER,
    ),
}
"""How the two sides are called, in lower case."""

_LISTS = ("turns", "conversation", "dialogue", "dialog", "messages", "utterances")
_TEXTS = ("text", "utterance", "content", "value")
_SPEAKERS = ("role", "participant", "speaker", "from")
_IDS = ("id", "conv_id", "conversation ID", "conversation_id", "dialogue_id", "dialog_id")
_FAULTS = (Ending.BACKEND_FAILURE.value, Ending.CONTEXT_OVERFLOW.value)


class Line(NamedTuple):
    """One speaker's turn, consecutive messages joined."""

    role: Role
    text: str
    action: Action | None = None
    """Where the file tells; a joined turn has that of its first message."""


@dataclass(slots=True, frozen=True)
class Talk:
    """One conversation."""

    id: str
    lines: tuple[Line, ...]

    def texts(self, role: Role) -> list[str]:
        """What one side said, turn by turn."""
        return [line.text for line in self.lines if line.role is role]


@dataclass(slots=True)
class Talks:
    """Conversations of one source, and what was left out of them."""

    name: str
    talks: list[Talk]
    domain: str | None = None
    """None where the source does not tell."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Conversations left out, by reason."""
    empty_turns: int = 0
    """Turns without any text, left out."""
    goals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Target attributes by scenario key, where scenarios lie beside the dialogues; the id of such a talk is "key.sample"."""

    def goal_of(self, talk: Talk) -> tuple[str, ...]:
        """What the user of a conversation was told to look for; empty when that is not known."""
        return self.goals.get(talk.id.rpartition(".")[0], ())

    def scenario_of(self, talk: Talk) -> str:
        """What the conversation began from; its own id where no scenarios are known."""
        key = talk.id.rpartition(".")[0]
        return key if key in self.goals else talk.id

    def drop(self, reason: str) -> None:
        """Count one conversation left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def read_talks(paths: Path | Iterable[Path], *, split: str | None = None, name: str | None = None) -> Talks:
    """Read the conversations of one or several sources as one set.

    Conversations without a turn of the user are left out and counted, as are those of a Run that a fault ended, and those
    that were read before (same id, same words of the user).

    Args:
        paths: Runs, data directories, `.jsonl` or `.json` files (plain or `.gz`), or directories that hold such files.
        split: of data directories, which conversations; None for all. Other sources have no splits.
        name: what to call the set; by default the paths' last parts.

    Raises:
        DataError: a source is missing or of another form, the domains differ, or nothing with a user turn is in it.
    """
    sources = [paths] if isinstance(paths, Path) else list(paths)
    found = Talks(name or ", ".join(p.name for p in sources), [])
    seen: set[tuple[str, ...]] = set()
    num = 0
    for source in sources:
        keys = None
        if (source / DATA_MARKER).is_file():
            _set_domain(found, read_head(source)["domain"], source)
            keys = _keys_of_split(source, split) if split else None
            records: Iterable[tuple[str, Any]] = _records(source / "dialogues.jsonl")
        elif (source / Run.MARKER).is_file():
            records = _latest(source / "dialogues.jsonl")
        elif source.is_dir():
            files = sorted(p for p in source.iterdir() if _is_dialogues(p))
            if not files:
                raise DataError(f"{source} is no Run and no data directory, and holds no .json or .jsonl file of dialogues")
            records = (pair for path in files for pair in _records(path))
        else:
            records = _records(source)
        _add_goals(found, source)
        for where, record in records:
            if keys is not None and record.get("scenario_key") not in keys:
                continue
            num += 1
            if isinstance(record, dict):
                _set_domain(found, record.get("domain"), source)
            talk, empty = talk_of(record, where, num)
            found.empty_turns += empty
            if isinstance(record, dict) and record.get("ending") in _FAULTS:
                found.drop("ended by a fault")
            elif (known := (talk.id, *talk.texts(Role.USER))) in seen:
                found.drop("read before")
            elif not any(line.role is Role.USER for line in talk.lines):
                found.drop("no turn of the user")
            else:
                seen.add(known)
                found.talks.append(talk)
    if not found.talks:
        left_out = "; ".join(f"{n} left out: {reason}" for reason, n in found.dropped.items())
        listed = ", ".join(map(str, sources))
        raise DataError(f"{listed}: no conversation with a turn of the user is there ({left_out or 'nothing was read'})")
    return found


def _is_dialogues(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".json", ".jsonl"))


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a Run, a data directory, or a .jsonl file of dialogues")
    if path.name.removesuffix(".gz").endswith(".json"):
        value = read_json(path)
        if not isinstance(value, list):
            raise DataError(
                f"{path}: a .json file must be one list of conversations; write one conversation per line as .jsonl"
            )
        for number, record in enumerate(value, start=1):
            yield f"{path}, conversation {number}", record
    else:
        for number, record in read_json_lines(path):
            yield f"{path}, line {number}", record


def _latest(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a Run: of each dialogue the last attempt, as `store.Run.dialogues` reads them."""
    if not path.is_file():
        raise DataError(f"{path.parent} holds no dialogues.jsonl; a Run of interplay simulate has one")
    latest: dict[Any, tuple[str, Any]] = {}
    for where, record in _records(path):
        latest[(record.get("scenario_key"), record.get("sample"))] = (where, record)
    yield from latest.values()


def _keys_of_split(path: Path, split: str) -> set[str]:
    splits = {record["split"] for _, record in read_json_lines(path / "scenarios.jsonl")}
    keys = set()
    for (_, scenario), (_, record) in zip(
        read_json_lines(path / "scenarios.jsonl"), read_json_lines(path / "dialogues.jsonl"), strict=True
    ):
        if scenario["split"] == split:
            keys.add(record["scenario_key"])
    if not keys:
        raise DataError(f"{path}: no conversation is of the split {split!r}; there are: {', '.join(sorted(splits))}")
    return keys


def _add_goals(found: Talks, source: Path) -> None:
    path = source / "scenarios.jsonl"
    if not path.is_file() or not (source / "dialogues.jsonl").is_file():
        return
    for _, record in read_json_lines(path):
        scenario = Scenario.model_validate(record)
        if scenario.persona.target_attributes:
            found.goals[scenario.key] = scenario.persona.target_attributes


def _set_domain(found: Talks, domain: Any, source: Path) -> None:
    if not isinstance(domain, str):
        return
    if domain not in DOMAINS:
        raise DataError(f"{source}: there is no domain {domain!r}; accepted: {', '.join(DOMAINS)}")
    if found.domain not in (None, domain):
        raise DataError(f"{source}: conversations about {domain}s beside {found.domain}s; judge one domain at a time")
    found.domain = domain


def _first(record: dict[str, Any], names: Iterable[str]) -> Any:
    return next((record[name] for name in names if name in record), None)


def talk_of(record: Any, where: str, number: int) -> tuple[Talk, int]:
    """The conversation of a record, and how many turns without text it had."""
    turns = _first(record, _LISTS) if isinstance(record, dict) else record
    if not isinstance(turns, list):
        raise DataError(f'{where}: no list of turns; expected {{"turns": [{{"role": "user", "text": "..."}}, ...]}}')
    if isinstance(record, dict) and "scenario_key" in record:
        talk_id = f"{record['scenario_key']}.{record.get('sample', 0)}"
    else:
        given = _first(record, _IDS) if isinstance(record, dict) else None
        talk_id = str(number if given is None else given)
    lines: list[Line] = []
    empty = 0
    for turn in turns:
        speaker = _first(turn, _SPEAKERS) if isinstance(turn, dict) else None
        text = _first(turn, _TEXTS) if isinstance(turn, dict) else None
        role = ROLES.get(str(speaker).lower())
        if role is None or not isinstance(text, str):
            names = ", ".join(sorted(ROLES))
            raise DataError(f"{where}: a turn needs a role (one of {names}) and a text; found {str(turn)[:100]}")
        text = " ".join(text.split())
        action = turn.get("action")
        known = Action(action) if isinstance(action, str) and action in {a.value for a in ACTIONS[role]} else None
        if not text:
            empty += 1
        elif lines and lines[-1].role is role:
            lines[-1] = Line(role, f"{lines[-1].text} {text}", lines[-1].action)
        else:
            lines.append(Line(role, text, known))
    return Talk(talk_id, tuple(lines)), empty
