"""How far a score could be off: percentile bootstrap over clusters, and the jackknife where a bootstrap would be biased.

A cluster is what was drawn independently, here a scenario with all its turns; resampling single turns would take the
turns of one conversation for independent and make every interval too narrow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
MANY_CLUSTERS = 10_000
"""From here on clusters that add the same numbers are drawn together, as how often each pair of numbers occurs."""
CONFIDENCE = 0.95
AT_ONCE = 100_000
"""Clusters drawn at a time: what is drawn and what it picks then stay in the processor's cache."""

Floats = NDArray[np.float64]
Numbers = Sequence[float] | Floats
Statistic = Callable[..., Floats]
"""Takes the resampled columns and `axis`, and reduces that axis."""


@dataclass(slots=True, frozen=True)
class Estimate:
    """A measured number with its 95 % interval."""

    value: float | None
    """None when nothing could be measured."""
    low: float | None
    high: float | None
    n: int
    """The denominator."""
    num_skipped: int = 0
    """What could not be scored and is not in the denominator."""


def cluster_interval(columns: Sequence[Numbers], statistic: Statistic, rng: np.random.Generator) -> tuple[float, float] | None:
    """Percentile bootstrap interval (95 %, 1000 resamples) of any statistic over clusters.

    Whole clusters are drawn with replacement, as many as there are (Efron and Tibshirani 1993, chapter 13). Resamples
    in which the statistic is undefined (for example an empty denominator) are left out.

    Args:
        columns: numbers of each cluster, one sequence per number, all of shape (num_clusters,).
        statistic: called as `statistic(*columns, axis=-1)` on arrays (num_resamples, num_clusters); reduces the axis.
        rng: draws the resamples.

    Returns:
        Lower and upper end; None with fewer than two clusters, which tell nothing of the spread.

    >>> def total(x, axis): return x.sum(axis=axis)
    >>> cluster_interval([[2.0, 2.0, 2.0]], total, np.random.default_rng(0))
    (6.0, 6.0)
    """
    data = [np.asarray(column, dtype=np.float64) for column in columns]
    num_clusters = len(data[0])
    if num_clusters < 2:
        return None
    drawn: list[Floats] = []
    at_once = max(1, min(NUM_RESAMPLES, AT_ONCE // num_clusters))
    for start in range(0, NUM_RESAMPLES, at_once):
        index = rng.integers(num_clusters, size=(min(at_once, NUM_RESAMPLES - start), num_clusters))
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn.append(statistic(*[column[index] for column in data], axis=-1))
    resampled = np.concatenate(drawn)
    defined = resampled[np.isfinite(resampled)]
    if not len(defined):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def estimate_mean(values: Numbers, rng: np.random.Generator, num_skipped: int = 0) -> Estimate:
    """Mean of one number per cluster: sum(values) / len(values), with its bootstrap interval.

    Args:
        values: one per cluster, shape (n,).
        rng: draws the resamples.
        num_skipped: passed on; not in the denominator.

    >>> estimate_mean([0.0, 1.0, 1.0, 0.0], np.random.default_rng(0)).value
    0.5
    >>> estimate_mean([], np.random.default_rng(0))
    Estimate(value=None, low=None, high=None, n=0, num_skipped=0)
    """
    if not len(values):
        return Estimate(None, None, None, 0, num_skipped)
    if len(values) >= MANY_CLUSTERS:
        return estimate_ratio(values, np.ones(len(values)), rng, num_skipped)
    low, high = cluster_interval([values], np.mean, rng) or (None, None)
    return Estimate(float(np.mean(values)), low, high, len(values), num_skipped)


def estimate_ratio(
    numerators: Numbers, denominators: Sequence[int] | Floats, rng: np.random.Generator, num_skipped: int = 0
) -> Estimate:
    """Mean over units that come in clusters: sum(numerators) / sum(denominators), with its bootstrap interval.

    Args:
        numerators: sum over the units of each cluster, shape (num_clusters,).
        denominators: number of units of each cluster, whole numbers, shape (num_clusters,).
        rng: draws the resamples.
        num_skipped: passed on; not in the denominator.

    Returns:
        The estimate; its `n` counts units (turns), not clusters; None when there is no unit.

    >>> estimate_ratio([10.0, 2.0], [2, 1], np.random.default_rng(0)).value
    4.0
    """
    tops, bottoms = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    units = int(bottoms.sum())
    if not units:
        return Estimate(None, None, None, 0, num_skipped)

    def ratio(top: Floats, bottom: Floats, axis: int = -1) -> Floats:
        return np.asarray(top.sum(axis=axis) / bottom.sum(axis=axis))

    def mean(top: Floats, axis: int = -1) -> Floats:
        return np.asarray(top.sum(axis=axis) / float(units))

    is_equal = bool((bottoms == bottoms[0]).all())
    found = _ratio_interval_by_pairs(tops, bottoms, is_equal, rng) if len(tops) >= MANY_CLUSTERS else None
    if found is None and is_equal:
        found = cluster_interval([tops], mean, rng)  # whichever clusters are drawn, they hold equally many units
    elif found is None:
        found = cluster_interval([tops, bottoms], ratio, rng)
    low, high = found or (None, None)
    return Estimate(float(np.cumsum(tops)[-1]) / units, low, high, units, num_skipped)  # added up one by one, as by sum()


def _ratio_interval_by_pairs(
    tops: Floats, bottoms: Floats, is_equal: bool, rng: np.random.Generator
) -> tuple[float, float] | None:
    """`cluster_interval` of a ratio, where few pairs of numbers occur: how often each is drawn is multinomial.

    The same distribution as drawing the clusters one by one, in a fraction of the time: a share has two pairs, not 100,000
    clusters. None where nearly every cluster has a pair of its own. `is_equal`: all bottoms are the same number.
    """
    if is_equal:  # complex numbers take ten times as long to sort
        distinct, counts = np.unique(tops, return_counts=True)
        pairs = distinct + 1j * bottoms[0]
    else:
        pairs, counts = np.unique(tops + 1j * bottoms, return_counts=True)
    if len(pairs) * 20 > len(tops):
        return None
    drawn = rng.multinomial(len(tops), counts / len(tops), size=NUM_RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = (drawn @ pairs.real) / (drawn @ pairs.imag)
    defined = resampled[np.isfinite(resampled)]
    if not len(defined):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def jackknife_interval(value: float, left_out: Sequence[float]) -> tuple[float, float] | None:
    """Interval value -+ 1.96 s with s^2 = (m - 1) / m * sum((left_out_i - mean)^2), m clusters (Quenouille, Tukey).

    For statistics such as the share of distinct n-grams, in which a bootstrap's repeated clusters count as repetition:
    every resample then lies below the estimate, and a percentile interval does not even hold it.

    Args:
        value: the statistic of all clusters.
        left_out: the statistic without cluster i, shape (m,).

    Returns:
        Lower and upper end; None with fewer than two clusters.

    >>> low, high = jackknife_interval(2.0, [2.5, 1.5])  # s^2 = 1/2 * (0.25 + 0.25) = 0.5^2
    >>> round(low, 2), round(high, 2)
    (1.02, 2.98)
    """
    if len(left_out) < 2:
        return None
    m = len(left_out)
    spread = float(np.sqrt((m - 1) / m * np.square(np.asarray(left_out) - np.mean(left_out)).sum()))
    return value - 1.96 * spread, value + 1.96 * spread
