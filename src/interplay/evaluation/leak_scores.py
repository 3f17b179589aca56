"""From leak reports to ScoreRows: how much leaks, and every success with and without what leaks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from interplay.evaluation.asking import Pair
from interplay.evaluation.exposure import gold_rank_rows
from interplay.evaluation.leakage import DETECTOR_METRICS, LeakReport, Subset, condition_of
from interplay.evaluation.recommendation import GoldTurn
from interplay.evaluation.replay import ReplayOutcome
from interplay.evaluation.scoring import About, recommendation_rows, replay_rows, rows
from interplay.evaluation.simulation import SimulationSummary
from interplay.evaluation.values import Units
from interplay.metrics.bootstrap import Estimate, estimate_ratio
from interplay.types import Catalog, Ending, ScoreRow

GUESSES = (1, 10)
"""A blind guess counts as right when the target is among so many."""
PARTS = (Subset.LEAK_FREE, Subset.LATER)
"""What a success is measured over beside everything."""
PLACES = ("recall@", "ndcg@", "mrr")
"""In the names of metrics that tell where the target stands."""


def leak_rows(reports: Sequence[LeakReport], about: About) -> list[ScoreRow]:
    """Share of conversations in which each detector found something, and how often a blind guess is right.

    The clusters of the intervals are scenarios, with all their samples.

    Args:
        reports: one per conversation; those that could not be checked are skipped.
        about: the fields that the rows share.
    """
    rng = np.random.default_rng(about.seed)
    checked = [r for r in reports if r.leaks is not None]
    guessed = [r for r in checked if r.blind_rank is not None]

    def share(of: Sequence[LeakReport], found: Sequence[bool]) -> Estimate:
        return _ratio([r.scenario_key for r in of], [float(f) for f in found], rng, len(reports) - len(of))

    estimates = {metric: share(checked, [r.has(detector) for r in checked]) for detector, metric in DETECTOR_METRICS.items()}
    for k in GUESSES:
        right = [r.blind_rank is not None and r.blind_rank <= k for r in guessed]
        estimates[f"leakage.guess@{k}"] = share(guessed, right)
    estimates["leakage.any_rate"] = share(checked, [bool(r.leaks) for r in checked])
    return rows(estimates, about)


def replay_part_rows(outcomes: Sequence[ReplayOutcome], reports: Sequence[LeakReport | None], about: About) -> list[ScoreRow]:
    """The rates of a replay over its conversations without a leak, and over those that the first offer did not decide.

    Args:
        outcomes: of the replay.
        reports: aligned with the outcomes; None where there was no conversation, which then is in neither part.
        about: the fields that the rows share.

    Returns:
        Rows whose `num_skipped` counts the conversations outside of the part as well.
    """
    found: list[ScoreRow] = []
    for part in PARTS:
        inside = [
            outcome if report is not None and report.is_in(part) else replace(outcome, outcome=None)
            for outcome, report in zip(outcomes, reports, strict=True)
        ]
        found += replay_rows(inside, replace(about, condition=condition_of(about.condition, part)))
    return found


def recommendation_part_rows(
    pairs: Sequence[Pair],
    gold_turns: Sequence[GoldTurn],
    reports: Sequence[LeakReport | None],
    about: About,
    *,
    catalog: Catalog,
) -> list[ScoreRow]:
    """Where the target stands, at the gold turns of conversations without a leak, and where the log does not offer it first.

    The metrics are Recall@1, Recall@10, NDCG@10 and MRR, and of a recommender that reasons those of its list.

    Args:
        pairs: what `recommend_at_gold_turn` was asked.
        gold_turns: what it returned.
        reports: of `gold_turn_reports`.
        about: the fields that the rows share.
        catalog: of their domain.

    Returns:
        Rows whose `num_skipped` counts the conversations outside of the part as well.
    """
    found: list[ScoreRow] = []
    for part in PARTS:
        inside = [
            gold if report is not None and report.is_in(part) else replace(gold, skipped=gold.skipped or f"not {part.value}")
            for gold, report in zip(gold_turns, reports, strict=True)
        ]
        here = replace(about, condition=condition_of(about.condition, part))
        scored = recommendation_rows(inside, here, catalog=catalog)
        found += [row for row in scored if any(name in row.metric for name in PLACES)]
        found += gold_rank_rows(pairs, inside, here, catalog=catalog, filtered=False)
    return found


def simulation_part_rows(summary: SimulationSummary, reports: Sequence[LeakReport], about: About) -> list[ScoreRow]:
    """Accept rate and goal satisfaction over conversations without a leak, and over those not decided by the first offer.

    Args:
        summary: of the Run.
        reports: of its dialogues, in any order.
        about: the fields that the rows share.
    """
    reports = sorted((r for r in reports if r.is_observed), key=lambda r: (r.scenario_key, r.sample))
    found: list[ScoreRow] = []
    for part in PARTS:
        rng = np.random.default_rng(about.seed)
        inside = [n for n, r in enumerate(reports) if r.is_in(part)]
        outside = len(reports) - len(inside) + summary.num_skipped
        accepts = [summary.endings[n] is Ending.ACCEPTED for n in inside]
        judged = [n for n in inside if summary.satisfied[n] is not None]
        accept_rate = _ratio([summary.scenario_keys[n] for n in inside], [float(a) for a in accepts], rng, outside)
        satisfied = [float(bool(summary.satisfied[n])) for n in judged]
        not_judged = sum(accepts) - len(judged)
        goal = _ratio([summary.scenario_keys[n] for n in judged], satisfied, rng, not_judged)
        estimates = {"simulation.accept_rate": accept_rate, "simulation.goal_satisfaction": goal}
        found += rows(estimates, replace(about, condition=condition_of(about.condition, part)))
    return found


def _ratio(keys: Sequence[str], totals: Sequence[float], rng: np.random.Generator, num_skipped: int) -> Estimate:
    return estimate_ratio(*Units(keys).sums(totals), rng, num_skipped)
