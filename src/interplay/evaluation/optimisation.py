"""What `interplay optimize` has left in its directory, and the table that proves it: training beside held-out and people.

A success on the simulator that was trained on proves nothing, so there is no table without at least two simulators that were
held out and a row of the logs of people (SPEC, requirement E5).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interplay.errors import RunError
from interplay.metrics.bootstrap import CONFIDENCE, Estimate
from interplay.provenance import is_complete
from interplay.simulation.noise import without_noise
from interplay.store import CODE_VERSIONS, changed_fields, read_json, read_json_lines, read_records
from interplay.types import Alarm, Check, CheckKind, Dialogue, Scenario

MARKER = "optimize.json"
"""The config: what tells an output of `interplay optimize` from a Run."""
BEFORE, AFTER = "before.jsonl", "after.jsonl"
MIN_HELD_OUT = 2
GAP = "gap"
SHARES = ("success", "accept", "satisfaction", "recall", "rate")
"""A metric with one of these in its name lies in [0, 1]."""
_OF_A_SEED = ("seed", "out", "config", "resume", "overwrite", CODE_VERSIONS)
"""What may differ between the seeds of one experiment."""


@dataclass(slots=True, frozen=True)
class Optimisation:
    """One output of `interplay optimize`: one seed."""

    path: Path
    config: dict[str, Any]
    steps: list[dict[str, Any]]
    """The records of the steps, in order."""
    checks: list[Check]
    alarms: list[Alarm]
    before: list[Dialogue]
    """Conversations with the first held-out simulator, before; empty while the job is not finished."""
    after: list[Dialogue]
    """Those on the same scenarios, after."""
    scenarios: dict[str, Scenario]
    """By key; empty where neither the output nor its data directory holds them."""

    @property
    def seed(self) -> int | None:
        """Of the job."""
        return self.config.get("seed")

    def simulators(self, kind: str) -> list[str]:
        """Names of what was checked of one kind, in order."""
        return list(dict.fromkeys(check.simulator for check in self.checks if check.kind == kind))


def is_optimisation(path: Path) -> bool:
    """Whether a directory is an output of `interplay optimize`."""
    return (path / MARKER).is_file()


def read_optimisation(path: Path) -> Optimisation:
    """Read one output.

    Raises:
        RunError: it is none, nothing was measured yet, or it does not say which code made it.
        DataError: a file is damaged.
    """
    if not is_optimisation(path):
        raise RunError(f"{path} is no output of interplay optimize: it holds no {MARKER}")
    config = read_json(path / MARKER)
    versions = config.get(CODE_VERSIONS)
    if not versions or not all(map(is_complete, versions)):
        raise RunError(f"{path} does not tell the code version: make it again with this version")
    checks_path = path / "logs" / "checks.jsonl"
    checks = list(read_records(checks_path, Check)) if checks_path.is_file() else []
    if not checks:
        raise RunError(f"{path} holds no measurement yet (logs/checks.jsonl): let interplay optimize finish, or --resume it")
    return Optimisation(
        path=path,
        config=config,
        steps=list({record["step"]: record for record in _lines(path / "logs" / "steps.jsonl")}.values()),
        checks=list({(c.step, c.kind, c.simulator, c.metric): c for c in checks}.values()),
        alarms=list(read_records(path / "alarms.jsonl", Alarm)) if (path / "alarms.jsonl").is_file() else [],
        before=_dialogues(path / BEFORE),
        after=_dialogues(path / AFTER),
        scenarios=_scenarios(path, config),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [record for _, record in read_json_lines(path)] if path.is_file() else []


def _dialogues(path: Path) -> list[Dialogue]:
    return list(read_records(path, Dialogue)) if path.is_file() else []


def _scenarios(path: Path, config: dict[str, Any]) -> dict[str, Scenario]:
    for folder in (path, Path(str(config.get("data", "")))):
        if (folder / "scenarios.jsonl").is_file():
            return {s.key: s for s in read_records(folder / "scenarios.jsonl", Scenario)}
    return {}


def require_proof(found: Sequence[Optimisation]) -> None:
    """Refuse what was not measured on simulators that were held out and on people, and seeds that are not of one experiment.

    Raises:
        RunError: the message says what is missing.
    """
    for one in found:
        training, held_out = one.simulators(CheckKind.TRAINING), one.simulators(CheckKind.HELD_OUT)
        told = [{without_noise(spec) for spec in one.config.get(name, [])} for name in ("users", "held_out")]
        both = sorted((set(training) & set(held_out)) | (told[0] & told[1]))
        missing = []
        if both:
            missing.append(f"{', '.join(both)} is held out and trained on")
        if len(set(held_out) - set(training)) < MIN_HELD_OUT:
            names = f" ({', '.join(held_out)})" if held_out else ""
            missing.append(f"{len(held_out)} held-out simulators{names}, at least {MIN_HELD_OUT} are needed")
        if not any(check.kind == CheckKind.HUMAN and check.value is not None for check in one.checks):
            missing.append("no row of the logs of people")
        if missing:
            raise RunError(
                f"{one.path} proves nothing yet: {'; '.join(missing)}. A result on the simulator that was trained on is not "
                "shown alone; run interplay optimize with two --held-out simulators and --human DATA"
            )
    first = found[0]
    for other in found[1:]:
        changed = changed_fields(_experiment(first), _experiment(other))
        if changed:
            raise RunError(
                f"{first.path} and {other.path} differ in more than their seed ({'; '.join(changed)}); report them apart"
            )
        if other.seed == first.seed:
            raise RunError(
                f"{first.path} and {other.path} have one seed ({first.seed}): a repetition says nothing of the spread"
            )


def _experiment(one: Optimisation) -> dict[str, Any]:
    return {name: value for name, value in one.config.items() if name not in _OF_A_SEED}


@dataclass(slots=True, frozen=True)
class Measured:
    """A number before and after, over seeds."""

    before: Estimate
    after: Estimate
    change: Estimate
    """After less before, taken as independent: its interval is too wide rather than too narrow."""


@dataclass(slots=True, frozen=True)
class Column:
    """What the recommender was measured on."""

    name: str
    kind: str
    """training, held-out, human, or gap: the mean over training simulators less that over held-out ones."""


@dataclass(slots=True, frozen=True)
class ProofTable:
    """Training simulators, held-out ones, logs of people, and the gap; a row per metric."""

    columns: tuple[Column, ...]
    metrics: tuple[str, ...]
    cells: dict[tuple[str, Column], Measured]
    """A cell that is missing was not measured."""
    last_step: int
    """After which step "after" is: the last that all seeds were measured at."""
    num_seeds: int


def proof_table(found: Sequence[Optimisation]) -> ProofTable:
    """The table. With one seed the intervals are over conversations, with several over seeds.

    Raises:
        RunError: see `require_proof`; or nothing was measured after the first step.
    """
    require_proof(found)
    columns = [
        *(Column(name, kind) for kind in CheckKind for name in found[0].simulators(kind)),
        Column(GAP, GAP),
    ]
    metrics = list(dict.fromkeys(check.metric for check in found[0].checks))
    last = last_step(found)
    cells: dict[tuple[str, Column], Measured] = {}
    for metric in metrics:
        for column in columns:
            pairs = [_ends(one, metric, column, last) for one in found]
            if all(before.value is not None and after.value is not None for before, after in pairs):
                share = is_share(metric) and column.kind != GAP
                before, after = (over_seeds(list(ends), share=share) for ends in zip(*pairs, strict=True))
                change = over_seeds([_difference(a, b) for b, a in pairs])
                cells[metric, column] = Measured(before, after, change)
    shown = [metric for metric in metrics if any((metric, column) in cells for column in columns)]
    return ProofTable(tuple(columns), tuple(shown), cells, last, len(found))


def last_step(found: Sequence[Optimisation]) -> int:
    """The last step at which all seeds were measured.

    Raises:
        RunError: that is the first one, before which nothing was learned.
    """
    common = set.intersection(*({check.step for check in one.checks} for one in found))
    if not common or max(common) == 0:
        names = ", ".join(str(one.path) for one in found)
        raise RunError(f"nothing was measured after the start ({names}): let interplay optimize go on with --resume")
    return max(common)


def _ends(one: Optimisation, metric: str, column: Column, last: int) -> tuple[Estimate, Estimate]:
    first = min(check.step for check in one.checks)
    return _at(one, metric, column, first), _at(one, metric, column, last)


def _at(one: Optimisation, metric: str, column: Column, step: int) -> Estimate:
    """A score at a step; the gap is one of means over simulators."""
    if column.kind != GAP:
        for check in one.checks:
            if (check.step, check.metric, check.simulator, check.kind) == (step, metric, column.name, column.kind):
                return Estimate(check.value, check.low, check.high, check.n)
        return Estimate(None, None, None, 0)
    means: list[Estimate] = []
    for kind in (CheckKind.TRAINING, CheckKind.HELD_OUT):
        scores = [c for c in one.checks if c.step == step and c.metric == metric and c.kind == kind and c.value is not None]
        if not scores:
            return Estimate(None, None, None, 0)
        means.append(_mean([Estimate(c.value, c.low, c.high, c.n) for c in scores]))
    return _difference(means[0], means[1])


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """Of estimates that have values, as if they were independent."""
    mean = sum(e.value for e in estimates if e.value is not None) / len(estimates)
    n, width = sum(e.n for e in estimates), _width_of_mean(estimates)
    return Estimate(mean, None, None, n) if width is None else Estimate(mean, mean - width, mean + width, n)


def _width_of_mean(estimates: Sequence[Estimate]) -> float | None:
    """Half the width of the interval of a mean: the root of the sum of the squared half-widths / how many there are."""
    widths = [(e.high - e.low) / 2 for e in estimates if e.low is not None and e.high is not None]
    return math.hypot(*widths) / len(widths) if len(widths) == len(estimates) else None


def _difference(one: Estimate, other: Estimate) -> Estimate:
    """One less the other, as if they were independent: of the same scenarios they are not, and the interval is too wide."""
    if one.value is None or other.value is None:
        return Estimate(None, None, None, one.n)
    value, width = one.value - other.value, _width_of_mean([one, other])
    if width is None:
        return Estimate(value, None, None, one.n)
    return Estimate(value, value - 2 * width, value + 2 * width, one.n)


def is_share(metric: str) -> bool:
    """Whether a metric lies in [0, 1], by its name."""
    return any(word in metric for word in SHARES)


def over_seeds(estimates: Sequence[Estimate], *, share: bool = False) -> Estimate:
    """One number of several seeds: the mean, with the wider of two 95 % intervals; of one seed, what it has itself.

    Over seeds, Student's: mean -+ t_{m-1} s / sqrt(m), s the standard deviation with m - 1, m seeds. With three seeds t is 4.3:
    three seeds tell little of the spread. Over conversations, where all seeds have an interval: mean -+ the root of the sum of
    their squared half-widths / m. The first alone would be of no width where seeds happen to agree.

    Args:
        estimates: of each seed.
        share: the number lies in [0, 1], and so do the ends of its interval.

    Returns:
        The estimate; `n` is that of all seeds together. No value where a seed has none.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = [e.value for e in estimates if e.value is not None]
    n = sum(e.n for e in estimates)
    if len(values) < len(estimates):
        return Estimate(None, None, None, n)
    from scipy.stats import t

    mean = float(np.mean(values))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    half = max(half, _width_of_mean(estimates) or 0.0)
    low, high = mean - half, mean + half
    return Estimate(mean, max(0.0, low), min(1.0, high), n) if share else Estimate(mean, low, high, n)


@dataclass(slots=True, frozen=True)
class Curve:
    """A number over steps, over seeds."""

    name: str
    kind: str
    """training, held-out, human; empty for what the steps log."""
    points: tuple[tuple[int, Estimate], ...]
    """In the order of the steps; those at which it was not measured are left out."""


def check_curves(found: Sequence[Optimisation], metric: str) -> list[Curve]:
    """A metric over the checks, a curve per simulator or log of people, at the steps that all seeds share."""
    out = []
    for kind in CheckKind:
        for name in found[0].simulators(kind):
            key = (metric, kind, name)
            of_seeds = [
                {c.step: Estimate(c.value, c.low, c.high, c.n) for c in one.checks if (c.metric, c.kind, c.simulator) == key}
                for one in found
            ]
            steps = sorted(set.intersection(*map(set, of_seeds)))
            points = [(step, over_seeds([own[step] for own in of_seeds], share=is_share(metric))) for step in steps]
            defined = tuple(point for point in points if point[1].value is not None)
            if defined:
                out.append(Curve(name, kind, defined))
    return out


def step_curve(found: Sequence[Optimisation], name: str, field: Sequence[str]) -> Curve | None:
    """A field of the steps' records over steps; None where no step has it.

    Args:
        found: the seeds.
        name: what the curve is called.
        field: where it stands in the record, for example ("terms", "format", "mean").
    """
    of_seeds = [{int(r["step"]): value for r in one.steps if (value := _read(r, field)) is not None} for one in found]
    steps = sorted(set.intersection(*map(set, of_seeds)))
    points = tuple((step, over_seeds([Estimate(own[step], None, None, 1) for own in of_seeds])) for step in steps)
    return Curve(name, "", points) if points else None


def _read(record: dict[str, Any], field: Sequence[str]) -> float | None:
    found: Any = record
    for part in field:
        found = found.get(part) if isinstance(found, dict) else None
    return None if found is None else float(found)


def term_names(found: Sequence[Optimisation]) -> list[str]:
    """Reward terms that the steps log, in order."""
    return list(dict.fromkeys(name for one in found for record in one.steps for name in record.get("terms") or {}))


def pairs_of(one: Optimisation) -> list[tuple[Dialogue, Dialogue]]:
    """Conversations on the same scenario, before and after; those that only one of the two holds are left out."""
    later = {dialogue.key: dialogue for dialogue in one.after}
    return [(dialogue, later[dialogue.key]) for dialogue in one.before if dialogue.key in later]


def metrics_of(found: Iterable[Optimisation]) -> list[str]:
    """What was checked, in order."""
    return list(dict.fromkeys(check.metric for one in found for check in one.checks))
