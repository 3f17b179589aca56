"""What each scenario adds to each metric of a Run: RUN/values.jsonl, a line per scenario.

A metric is sum of totals / sum of counts over scenarios: a share of conversations where every count is 1, a mean over
turns where the count is a scenario's turns. Two Runs on the same scenarios are compared from these values alone, pairwise.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from interplay.errors import RunError
from interplay.metrics.bootstrap import Floats, Numbers
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


def values_by_scenario(scenario_keys: Sequence[str], totals: Numbers, counts: Numbers | None = None) -> dict[str, Value]:
    """Numbers of single units (conversations, turns), added up per scenario.

    Args:
        scenario_keys: of each unit, shape (n,).
        totals: of each unit, shape (n,).
        counts: of each unit, shape (n,); 1 by default.

    >>> values_by_scenario(["a", "b", "a"], [1.0, 0.0, 0.0])
    {'a': Value(total=1.0, units=2), 'b': Value(total=0.0, units=1)}
    """
    return Units(scenario_keys).values(totals, counts)


class Units:
    """Which scenario each of some units is of, so that several numbers of the same units are added up quickly.

    Args:
        scenario_keys: of each unit, shape (num_units,).
    """

    def __init__(self, scenario_keys: Sequence[str]) -> None:
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__  # a new scenario gets the next number
        self.scenario = np.fromiter(map(number.__getitem__, scenario_keys), np.intp, len(scenario_keys))
        """Number of the scenario that each unit is of, shape (num_units,)."""
        self.keys = tuple(number)
        """The scenarios, in the order in which they first occur."""

    def sums(self, totals: Numbers, counts: Numbers | None = None) -> tuple[Floats, Floats]:
        """The sum of the totals and that of the counts of each scenario, both of shape (num_scenarios,).

        Args:
            totals: of each unit, shape (num_units,).
            counts: of each unit, whole numbers, shape (num_units,); 1 by default.
        """
        return self._sum(totals), self._sum(np.ones(len(self.scenario)) if counts is None else counts)

    def values(self, totals: Numbers, counts: Numbers | None = None) -> dict[str, Value]:
        """The same by the scenario's key."""
        tops, bottoms = self.sums(totals, counts)
        return dict(zip(self.keys, map(Value, tops.tolist(), bottoms.astype(np.int64).tolist()), strict=True))

    def _sum(self, numbers: Numbers) -> Floats:
        weights = np.asarray(numbers, np.float64)
        return np.bincount(self.scenario, weights=weights, minlength=len(self.keys)).astype(np.float64, copy=False)


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
