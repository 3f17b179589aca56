"""What each part of an optimisation is worth: `python benchmarks/optimize.py --config RECIPE.toml --out DIR [--seeds 0 1 2]`.

RECIPE.toml is a recipe of `interplay optimize`: a recommender, users, at least two held-out simulators, data with logs of
people, rewards. Its own job is the cell `recipe`; every other cell changes one thing:

    without TERM        a reward term that the recipe pays is not paid
    with TERM           one of --terms that it does not pay is paid with weight 1
    credit per ...      the other of turn and conversation (algorithm turn, grpo)
    noise P             wrong feedback of the training simulators at rate P, for 0, .1 and .3
    NAME                whatever `--also "NAME: TOML"` says, for example --also "plain user: users = ['runs/plain-user']"

Each cell is held once per seed, by `interplay optimize` in a process of its own, in DIR/CELL/SEED; what is finished is not held
again, and what was interrupted is resumed. Prints one Markdown table (also DIR/table.md) and writes DIR/table.json with every
number. What stands after `--` goes to every job: `-- --steps 50`.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interplay.config import RewardWeights, to_toml
from interplay.errors import InterplayError
from interplay.evaluation.optimisation import Optimisation, ProofTable, last_step, over_seeds, proof_table, read_optimisation
from interplay.metrics.bootstrap import Estimate
from interplay.provenance import code_version
from interplay.report.tables import markdown_table, number
from interplay.store import write_lines
from interplay.types import CheckKind

TERMS = (
    "format",
    "recommend",
    "recommend_gain",
    "acceptance",
    "success",
    "satisfaction",
    "turned_down",
    "turn_cost",
    "catalog_validity",
    "repetition",
)
"""Terms of a recommender that need neither a judge nor reasoning."""
NOISE = (0.0, 0.1, 0.3)
CREDIT = {"turn": "credit per turn", "grpo": "credit per conversation"}
TURNS = "simulation.turns_per_dialogue"
MEASURES = ("success_rate", "accept_rate", "goal_satisfaction")
"""What the table may tell of simulated conversations. Where the hidden target is hardly ever found, accepts tell more."""
PEOPLE = ("recommendation.list_recall@10", "recommendation.recall@10")
"""On logs of people: of the ranked list where the recommender writes one, else of the titles in its words."""


@dataclass(slots=True, frozen=True)
class Cell:
    """One line of the table."""

    name: str
    changes: dict[str, Any]
    """What is put over the recipe: "algorithm", "noise", or "rewards.weights.TERM"."""


def cells_of(recipe: dict[str, Any], terms: Sequence[str]) -> list[Cell]:
    """The recipe, and what is one step away from it.

    Args:
        recipe: of `interplay optimize`, as read from TOML.
        terms: those to be added where the recipe does not pay them.
    """
    weights = RewardWeights(**recipe.get("rewards", {}).get("weights", {})).model_dump()
    algorithm, noise = recipe.get("algorithm", "turn"), recipe.get("noise", 0.0)
    cells = [Cell("recipe", {})]
    paid = [term for term, weight in weights.items() if weight]
    if len(paid) > 1:
        cells += [Cell(f"without {term}", {f"rewards.weights.{term}": 0.0}) for term in paid]
    cells += [Cell(f"with {term}", {f"rewards.weights.{term}": 1.0}) for term in terms if not weights[term]]
    cells += [Cell(name, {"algorithm": other}) for other, name in CREDIT.items() if other != algorithm]
    return [*cells, *(Cell(f"noise {rate:g}", {"noise": rate}) for rate in NOISE if rate != noise)]


def own_cell(text: str) -> Cell:
    """A cell as it is given on the command line: its name, and what it changes as TOML.

    >>> own_cell("two rewards: algorithm = 'grpo'\\nrewards.weights.success = 2.0")
    Cell(name='two rewards', changes={'algorithm': 'grpo', 'rewards.weights.success': 2.0})
    """
    name, _, toml = text.partition(":")

    def flat(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in table.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return Cell(name.strip(), dict(flat(tomllib.loads(toml), "")))


def changed(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A recipe with dotted fields replaced."""
    out: dict[str, Any] = json.loads(json.dumps(recipe))
    for path, value in changes.items():
        table, *rest = out, *path.split(".")
        for name in rest[:-1]:
            table = table.setdefault(name, {})
        table[rest[-1]] = value
    return out


def hold(cell: Cell, seed: int, recipe: dict[str, Any], out: Path, more: Sequence[str]) -> str | None:
    """Hold one job, or go on with it. Returns why it failed, or None."""
    path = out / cell.name.replace(" ", "-") / str(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / "recipe.toml"
    write_lines(file, [to_toml(changed(recipe, cell.changes))])
    command = [sys.executable, "-m", "interplay", "optimize", "--config", str(file), "--seed", str(seed), "--out", str(path)]
    if (path / "optimize.json").is_file():
        command.append("--resume")
    with (path.parent / f"{seed}.log").open("ab") as log:
        code = subprocess.run([*command, *more], stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code in (0, 2):
        return None
    said = (path.parent / f"{seed}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return said[-1] if said else f"exit code {code}"


def is_finished(path: Path) -> bool:
    """Whether a job has written its recommender, which it does last."""
    return (path / "interplay.json").is_file()


def line_of(name: str, found: Sequence[Optimisation], table: ProofTable, end: str, measure: str) -> dict[str, Any]:
    """One line of the table: what a cell came to at its end, or before it began."""

    def of(metric: str, kind: str) -> Iterator[Estimate]:
        for column in table.columns:
            if column.kind == kind and (metric, column) in table.cells:
                yield getattr(table.cells[metric, column], end)

    def mean(metric: str, kind: str) -> Estimate:
        """Over the simulators of a kind, within each seed, then over seeds."""
        step = last_step(found) if end == "after" else 0
        values = [[c.value for c in one.checks if (c.step, c.metric, c.kind) == (step, metric, kind)] for one in found]
        means = [None if not v or None in v else sum(x for x in v if x is not None) / len(v) for v in values]
        return over_seeds([Estimate(m, None, None, 1) for m in means])

    return {
        "cell": name,
        "seeds": [one.seed for one in found],
        "training": asdict(mean(measure, CheckKind.TRAINING)),
        "held_out": {
            column.name: asdict(estimate)
            for column, estimate in zip(
                [c for c in table.columns if c.kind == CheckKind.HELD_OUT], of(measure, CheckKind.HELD_OUT), strict=True
            )
        },
        "gap": asdict(next(of(measure, "gap"))),
        "turns": asdict(mean(TURNS, CheckKind.HELD_OUT)),
        "people": asdict(next((e for name in PEOPLE for e in of(name, CheckKind.HUMAN)), Estimate(None, None, None, 0))),
        "alarms": None if end == "before" else sorted({alarm.alarm for one in found for alarm in one.alarms}),
        "step": table.last_step if end == "after" else 0,
    }


def text_of(estimate: dict[str, Any]) -> str:
    """A number with its interval."""
    between = "" if estimate["low"] is None else f" [{number(estimate['low'])}, {number(estimate['high'])}]"
    return number(estimate["value"]) + between


def table_of(lines: Sequence[dict[str, Any]], failed: dict[str, dict[int, str]], measure: str) -> list[str]:
    """The table as Markdown, and below it what failed."""
    names = list(dict.fromkeys(name for line in lines for name in line["held_out"]))
    head = [
        "cell",
        "seeds",
        f"{measure}, trained on",
        *(f"{measure}, {name}" for name in names),
        "gap",
        "turns",
        "recall@10, people",
        "alarms",
    ]
    rows = []
    for line in lines:
        held_out = [text_of(line["held_out"][name]) if name in line["held_out"] else "–" for name in names]
        alarms = "–" if line["alarms"] is None else ", ".join(line["alarms"]) or "none"
        numbers = [text_of(line["training"]), *held_out, *(text_of(line[name]) for name in ("gap", "turns", "people"))]
        rows.append([line["cell"], str(len(line["seeds"])), *numbers, alarms])
    out = markdown_table(head, rows)
    return [*out, *(f"failed: {cell}, seed {seed}: {why}" for cell, seeds in failed.items() for seed, why in seeds.items())]


def main() -> int:
    """Hold what is owed and write the table. Returns the exit code."""
    args = sys.argv[1:]
    more = args[args.index("--") + 1 :] if "--" in args else []
    parser = argparse.ArgumentParser(description="The ablation table of an optimisation.")
    parser.add_argument("--config", type=Path, required=True, help="recipe of interplay optimize")
    parser.add_argument("--out", type=Path, required=True, help="directory of all jobs; finished ones are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--terms", nargs="*", choices=TERMS, default=[], help="terms to add where the recipe pays none")
    parser.add_argument("--also", action="append", default=[], metavar="NAME: TOML", help="a further cell")
    parser.add_argument("--cells", nargs="+", help="only these, for example: --cells recipe 'noise 0.3'")
    parser.add_argument("--measure", choices=MEASURES, default=MEASURES[0], help="what the table tells of simulated talks")
    parser.add_argument("--table-only", action="store_true", help="hold nothing, write the table of what is there")
    options = parser.parse_args(args[: args.index("--")] if "--" in args else args)
    recipe = tomllib.loads(options.config.read_text(encoding="utf-8"))
    cells = [*cells_of(recipe, options.terms), *map(own_cell, options.also)]
    unknown = set(options.cells or ()) - {cell.name for cell in cells}
    if unknown:
        parser.error(f"no cell is called {sorted(unknown)[0]!r}; there are: {', '.join(cell.name for cell in cells)}")
    cells = [cell for cell in cells if not options.cells or cell.name in options.cells]
    # Seed by seed, so that a first table of everything is there early.
    jobs = [(cell, seed) for seed in options.seeds for cell in cells]
    owed = [(c, s) for c, s in jobs if not is_finished(options.out / c.name.replace(" ", "-") / str(s))]
    failed: dict[str, dict[int, str]] = {}
    start = time.monotonic()
    for place, (cell, seed) in enumerate([] if options.table_only else owed):
        seconds = time.monotonic() - start
        left = f", about {seconds / place * (len(owed) - place) / 60:.0f} min left" if place else ""
        print(f"{place + 1} of {len(owed)}: {cell.name}, seed {seed}{left}", file=sys.stderr, flush=True)
        why = hold(cell, seed, recipe, options.out, more)
        if why is not None:
            failed.setdefault(cell.name, {})[seed] = why
            print(f"  failed: {why}", file=sys.stderr, flush=True)
    measure = f"simulation.{options.measure}"
    lines: list[dict[str, Any]] = []
    for cell in cells:
        paths = [options.out / cell.name.replace(" ", "-") / str(seed) for seed in options.seeds]
        try:
            found = [read_optimisation(path) for path in paths if is_finished(path)]
            if found:
                table = proof_table(found)
                if not lines:
                    lines.append(line_of("before", found, table, "before", measure))
                lines.append(line_of(cell.name, found, table, "after", measure))
        except InterplayError as error:
            failed.setdefault(cell.name, {})[-1] = str(error)
    if not lines:
        print("no cell is finished", file=sys.stderr)
        return 1
    text = table_of(lines, failed, options.measure.replace("_", " "))
    print("\n".join(text))
    about = {
        "command": shlex.join(["python", "benchmarks/optimize.py", *args]),
        "code_version": code_version(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "recipe": recipe,
        "cells": {cell.name: cell.changes for cell in cells},
        "seconds": round(time.monotonic() - start, 1),
    }
    write_lines(
        options.out / "table.json", [json.dumps(about | {"lines": lines, "failed": failed}, indent=1, ensure_ascii=False)]
    )
    write_lines(options.out / "table.md", text)
    print(f"written to {options.out / 'table.json'}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
