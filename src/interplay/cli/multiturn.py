"""`interplay evaluate multiturn`: conversations turn by turn."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interplay import __version__
from interplay.config import MultiturnConfig
from interplay.errors import DataError, RunError
from interplay.store import Run, read_records
from interplay.types import Dialogue, Scenario, ScoreRow, content_hash


@dataclass(slots=True, frozen=True)
class _Source:
    """Conversations on disk."""

    name: str
    dialogues: list[Dialogue]
    scenarios: list[Scenario]


def multiturn(config: MultiturnConfig) -> int:
    """`interplay evaluate multiturn`: a table per Run, and a Run of scores.

    Raises:
        RunError: a path is no Run, or its scenarios are not known.
        DataError: it holds no conversation.
    """
    from interplay.evaluation.multiturn import courses_of, multiturn_rows
    from interplay.evaluation.scoring import About, data_digest

    sources = [source for path in config.runs for source in _sources(path)]
    rows: list[ScoreRow] = []
    for source in sources:
        if not source.dialogues:
            raise DataError(f"{source.name} holds no conversation")
        played = {dialogue.scenario_key for dialogue in source.dialogues}
        scenarios = [s for s in source.scenarios if s.key in played]
        about = About(
            subject=source.name if len(sources) > 1 else _names(d.recommender for d in source.dialogues),
            split=_names(s.split.value for s in scenarios) or "unknown",
            seed=config.seed,
            data_digest=data_digest(scenarios),
            simulator=_names(d.user for d in source.dialogues),
        )
        found = multiturn_rows(*courses_of(source.dialogues, scenarios), about, num_turns=config.num_turns)
        _print(source, found)
        rows += found
    record = config.record() | {
        "verb": "evaluate",
        "protocol": "multiturn",
        "data_digest": content_hash([row.data_digest for row in rows]),
        "package_version": __version__,
    }
    run = Run.create(config.out, record, overwrite=config.overwrite)
    run.write_scores(rows)
    print(f"written to {run.path}")
    return 0


def _sources(path: Path) -> list[_Source]:
    """A Run, or what an optimisation held before and after."""
    from interplay.evaluation.optimisation import is_optimisation, read_optimisation

    if is_optimisation(path):
        found = read_optimisation(path)
        scenarios = list(found.scenarios.values())
        if not scenarios:
            raise RunError(f"the scenarios of {path} are not known: neither it nor its data directory holds scenarios.jsonl")
        return [
            _Source(f"{path.name} before", found.before, scenarios),
            _Source(f"{path.name} after", found.after, scenarios),
        ]
    run = Run.read(path)
    if not (path / "scenarios.jsonl").is_file():
        raise RunError(f"{path} holds no scenarios.jsonl, so nothing is known of its targets; it takes Runs of simulate")
    return [_Source(path.name, list(run.dialogues()), list(read_records(path / "scenarios.jsonl", Scenario)))]


def _names(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _print(source: _Source, rows: list[ScoreRow]) -> None:
    from interplay.evaluation.multiturn import by_turn

    print(f"{source.name}: {len(source.dialogues)} conversations")
    for all_conversations, head in ((False, "of those that got to the turn"), (True, "of all, the latest list counts")):
        found = by_turn(rows, all_conversations=all_conversations)
        num_turns = len(next(iter(found.values())))
        print(f"  {head:<34}" + "".join(f"{f'turn {n}':>9}" for n in range(1, num_turns + 1)))
        for metric, cells in found.items():
            print(f"  {metric:<34}" + "".join(f"{'-' if c.value is None else f'{c.value:.3f}':>9}" for c in cells))
        print(f"  {'n':<34}" + "".join(f"{c.n:>9}" for c in next(iter(found.values()))))
    for row in rows:
        if row.condition == "standard" and row.value is not None:
            between = "" if row.low is None else f" [{row.low:.3f}, {row.high:.3f}]"
            print(f"  {row.metric:<34}{row.value:>9.3f}{between}, n = {row.n}")
