"""What each scenario adds to each metric of a Run: RUN/values.jsonl, a line per scenario.

A metric is sum of totals / sum of counts over scenarios: a share of conversations where every count is 1, a mean over
turns where the count is a scenario's turns. Two Runs on the same scenarios are compared from these values alone, pairwise.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple

from interplay.errors import RunError
from interplay.store import Run, read_records, write_records
from interplay.types import Record

VALUES = "values.jsonl"


class Value(NamedTuple):
    """What one scenario adds to one metric."""

    total: float
    """Sum over its units."""
    units: int
    """How many units there are; 0 where there was nothing to measure."""


class ScenarioValues(Record):
    """One line of the file."""

    scenario_key: str
    values: dict[str, Value]
    """By metric; a metric that could not be measured on this scenario is missing."""


Values = Mapping[str, Mapping[str, Value]]
"""By metric, then by the scenario's key."""


def values_by_scenario(
    scenario_keys: Sequence[str], totals: Iterable[float], counts: Iterable[int] | None = None
) -> dict[str, Value]:
    """Numbers of single units (conversations, turns), added up per scenario.

    Args:
        scenario_keys: of each unit, shape (n,).
        totals: of each unit, shape (n,).
        counts: of each unit, shape (n,); 1 by default.

    >>> values_by_scenario(["a", "b", "a"], [1.0, 0.0, 0.0])
    {'a': Value(total=1.0, units=2), 'b': Value(total=0.0, units=1)}
    """
    sums: dict[str, float] = {}
    units: dict[str, int] = {}
    ones = repeat(1, len(scenario_keys)) if counts is None else counts
    for key, total, count in zip(scenario_keys, totals, ones, strict=True):
        sums[key] = sums.get(key, 0.0) + total
        units[key] = units.get(key, 0) + count
    return dict(zip(sums, map(Value, sums.values(), units.values()), strict=True))


def write_values(run: Run, values: Values) -> None:
    """Write what each scenario adds to each metric, in the order of the scenarios' keys.

    Raises:
        RunError: the disk is full.
    """
    keys = sorted({key for scenarios in values.values() for key in scenarios})
    write_records(
        run.path / VALUES,
        (
            ScenarioValues(
                scenario_key=key, values={metric: scenarios[key] for metric, scenarios in values.items() if key in scenarios}
            )
            for key in keys
        ),
    )


def read_values(run: Run) -> dict[str, dict[str, Value]]:
    """What each scenario adds to each metric of a Run.

    Raises:
        RunError: the Run holds no such values, or none at all.
        DataError: the file is damaged.
    """
    path = run.path / VALUES
    if not path.is_file():
        raise RunError(
            f"{run.path} holds no {VALUES}, so its scenarios can't be paired with another Run's: let its command finish, or "
            "make it again with this version (a simulation: --resume with its own flags scores it again)"
        )
    out: dict[str, dict[str, Value]] = {}
    for line in read_records(path, ScenarioValues):
        for metric, value in line.values.items():
            out.setdefault(metric, {})[line.scenario_key] = value
    if not out:
        raise RunError(f"{run.path} holds no conversation that could be scored: there is nothing to compare")
    return out
