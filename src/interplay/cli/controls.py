"""`interplay evaluate replay --controls`: the standard protocol and every control, side by side."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from interplay import __version__
from interplay.cli.pipeline import check_servers, close, new_run, print_rows, retries_of, told_target_record
from interplay.cli.progress import Progress
from interplay.config import EvaluateConfig
from interplay.corpora.corpus import Corpus
from interplay.simulation.agents import is_told_target
from interplay.simulation.specs import LoadedAgent
from interplay.types import Dialogue, Scenario, ScoreRow

CONTROLS = "controls"
"""Folder of the Run that holds a Run for each control."""


def evaluate_controls(
    config: EvaluateConfig, corpus: Corpus, pairs: list[tuple[Scenario, Dialogue]], loaded: LoadedAgent
) -> int:
    """Replay under every control; OUT is the standard Run with all scores, OUT/controls holds the others' dialogues."""
    from interplay.evaluation.control_scores import control_rows
    from interplay.evaluation.controls import Control, Played, controlled_pairs, replay_controls
    from interplay.evaluation.leak_scores import leak_rows
    from interplay.evaluation.leakage import LeakChecker, replay_reports, write_leaks
    from interplay.evaluation.scoring import About, data_digest, replay_values, retry_rows
    from interplay.evaluation.values import write_values

    record = config.record() | {
        "verb": "evaluate",
        "agent": loaded.fingerprint,
        "data_digest": corpus.digest,
        "package_version": __version__,
        **told_target_record(loaded),
    }
    scenarios = [s for s, _ in pairs]
    run = new_run(config.out, record, corpus.catalog, scenarios, config.overwrite)
    controlled = controlled_pairs(pairs, corpus.catalog, seed=config.seed)

    async def measure() -> list[Played]:
        await check_servers(loaded)
        with Progress("evaluate replay", len(pairs) * len(controlled), "units") as progress:

            def on_progress(done: int, total: int) -> None:
                progress.total(total)
                progress.update(done)

            try:
                return await replay_controls(
                    pairs,
                    controlled,
                    loaded.agent,
                    seed=config.seed,
                    history=config.history,
                    concurrency=config.concurrency,
                    on_progress=on_progress,
                )
            finally:
                await close(loaded)

    played = asyncio.run(measure())
    about = About(loaded.agent.name, config.split, config.seed, data_digest(scenarios))
    checker = LeakChecker(corpus.catalog, tell_target=is_told_target(loaded.agent))
    reports = replay_reports(checker, pairs, played[0].dialogues, logged_history=config.history == "logged")
    for one in played:
        control = one.controlled.control
        own = run
        if control is not Control.STANDARD:
            replayed = [log[0] for log in one.logs if log is not None]
            own = new_run(config.out / CONTROLS / control.value, record | {"control": control.value}, corpus.catalog, replayed)
        for dialogue in one.dialogues:
            own.append(dialogue)
    write_values(run, replay_values(played[0].outcomes))
    found = [report for report in reports if report is not None]
    write_leaks(run.path, found)
    leaks = leak_rows(found, about)
    rows = control_rows(played, reports, corpus.catalog, about)
    num_replayed = sum(len(one.dialogues) for one in played)
    retries = retry_rows("replay", retries_of(loaded), about, num_units=num_replayed)
    run.write_scores([*rows, *leaks, *retries])
    print_controls(rows, played)
    print_accepts(rows)
    print_rows([*(row for row in rows if row.metric == "replay.faults"), *leaks, *retries])
    print(f"written to {run.path}")
    return 0


def print_controls(rows: Sequence[ScoreRow], played: Sequence[Any]) -> None:
    """The rates of every control, one line each, and why conversations could not be changed."""
    from collections import Counter

    from interplay.evaluation.control_scores import STAND_IN, SUCCESS
    from interplay.evaluation.leakage import Subset, condition_of

    by_name = {(row.metric, row.condition): row for row in rows}
    columns = ("takes the gold item", "leak-free", "first turn excluded", "something else", "nothing", "minus standard")
    lines = []
    for one in played:
        condition = one.controlled.control.value
        metric = SUCCESS if (SUCCESS, condition) in by_name else STAND_IN
        cells = [
            *(by_name.get((metric, condition_of(condition, part))) for part in Subset),
            by_name.get(("replay.early_termination_rate", condition)),
            by_name.get(("replay.failure_rate", condition)),
            by_name.get(("replay.difference", condition)),
        ]
        first = by_name[metric, condition]
        name = f"{condition} (stand-in)" if metric == STAND_IN else condition
        lines.append([name, *map(_cell, cells), str(first.n), str(first.num_skipped)])
    _print_table(("condition", *columns, "n", "skipped"), lines)
    for one in played:
        reasons = Counter(o.skipped for o in one.outcomes if o.skipped is not None)
        notes = [f"{number} skipped: {reason}" for reason, number in reasons.most_common()]
        if one.controlled.num_stale:
            notes.append(f"{one.controlled.num_stale} still state a fact of the item that is gone")
        if notes:
            print(f"{one.controlled.control.value}: {'; '.join(notes)}")


def print_accepts(rows: Sequence[ScoreRow]) -> None:
    """How often the user accepts, by what is on offer and when: one line per part, one column per control."""
    by_control: dict[str, dict[str, ScoreRow]] = {}
    for row in rows:
        if row.metric == "replay.accept_rate":
            control, _, part = row.condition.partition(", ")
            part = part.replace("the stand-in", "the gold item")
            by_control.setdefault(control, {})[part] = row
    parts: Mapping[str, None] = dict.fromkeys(part for found in by_control.values() for part in found)
    lines = [[part, *(_cell(found.get(part), with_n=True) for found in by_control.values())] for part in parts]
    _print_table(("accepts when on offer", *by_control), lines)


def _cell(row: ScoreRow | None, *, with_n: bool = False) -> str:
    if row is None:
        return ""
    if row.value is None:
        return "not measured"
    interval = "" if row.low is None or row.high is None else f" {row.low:.2f}..{row.high:.2f}"
    return f"{row.value:.3f}{interval}{f' ({row.n})' if with_n else ''}"


def _print_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for n, name in enumerate(columns):
        table.add_column(name, justify="right" if n else "left", overflow="fold")
    for line in lines:
        table.add_row(*line)
    Console(width=max(180, shutil.get_terminal_size().columns)).print(table)
    print()
