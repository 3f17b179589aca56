"""From what was observed to ScoreRows: every number with its interval, its n, and what was skipped.

The definitions of the metrics are in `METRICS`, one line each, and at length in docs/metrics.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interplay import __version__
from interplay.evaluation.recommendation import GoldTurn
from interplay.evaluation.replay import ReplayOutcome
from interplay.evaluation.simulation import SimulationSummary, in_catalog
from interplay.evaluation.turns import TurnPrediction
from interplay.metrics.bootstrap import Estimate, estimate_mean, estimate_ratio
from interplay.metrics.ranking import recall_at_k
from interplay.metrics.replay import Outcome, rates
from interplay.metrics.text import bert_score, estimate_dist_n
from interplay.types import Catalog, Ending, Role, Scenario, ScoreRow, Turn, content_hash

HUMAN = "human"
"""Subject of the rows that measure the logged turns."""

METRICS: dict[str, str] = {
    "replay.success_rate": "share of replayed conversations in which the user accepts the gold item",
    "replay.early_termination_rate": "share in which the user accepts something else",
    "replay.failure_rate": "share in which the user accepts nothing (format failures included)",
    "replay.format_failure_rate": "share ended by output that can't be read",
    "replay.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "turns.dist_4": "distinct 4-grams / all 4-grams over all turns",
    "turns.words_per_turn": "mean words of a turn",
    "turns.action_accuracy": "share of turns whose action is the logged one",
    "turns.format_failure_rate": "share of turns that can't be read",
    "turns.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "turns.bert_score": "mean BERTScore F1 with the logged turn",
    "recommendation.recall@1": "share of gold turns whose first named item is the gold item",
    "recommendation.no_item_rate": "share of gold turns that name no item",
    "recommendation.off_catalog_rate": "share of named titles that the catalog does not hold",
    "recommendation.match_score": "mean cosine of the named items with the gold item; read it between its anchors",
    "recommendation.format_failure_rate": "share of gold turns that can't be read",
    "recommendation.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "ranking.recall@1": "share of items named by the log's recommender that a ranker has first in its catalog",
    "ranking.recall@10": "share that it has among the first 10",
    "ranking.recall@50": "share that it has among the first 50",
    "ranking.ndcg@10": "mean of 1 / log2(rank + 1) where the rank is at most 10, else 0",
    "ranking.mrr": "mean of 1 / rank",
    "simulation.accept_rate": "share of conversations that end by an accept",
    "simulation.give_up_rate": "share that the user gives up",
    "simulation.turn_limit_rate": "share that reach the turn limit",
    "simulation.loop_rate": "share stopped because a speaker repeats itself",
    "simulation.format_failure_rate": "share ended by output that can't be read",
    "simulation.turns_per_dialogue": "mean turns of both sides",
    "simulation.user_words_per_turn": "mean words of a user turn",
    "simulation.recommender_words_per_turn": "mean words of a recommender turn",
    "simulation.goal_satisfaction": "share of accepts whose item has all target attributes",
    "simulation.match_score": "mean cosine of the items the recommender names with the target; read it between its anchors",
    "simulation.off_catalog_rate": "share of titles named by the recommender that the catalog does not hold",
    "simulation.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
}
"""Every metric of this toolkit and its definition in one line."""

_ENDING_METRICS = {
    Ending.ACCEPTED: "simulation.accept_rate",
    Ending.GAVE_UP: "simulation.give_up_rate",
    Ending.TURN_LIMIT: "simulation.turn_limit_rate",
    Ending.LOOP: "simulation.loop_rate",
    Ending.FORMAT_FAILURE: "simulation.format_failure_rate",
}


@dataclass(slots=True, frozen=True)
class About:
    """What a set of scores is about: the fields that all its ScoreRows share."""

    subject: str
    """What was scored: a model path, an agent's name, a Run."""
    split: str
    seed: int
    """Of the evaluation; it also seeds the intervals."""
    data_digest: str
    """See `data_digest`."""
    simulator: str | None = None
    """The user agent on the other side, where there was one."""
    condition: str = "standard"
    """The variant of the protocol."""


def data_digest(scenarios: Iterable[Scenario]) -> str:
    """Content hash of the scenarios scored, in their order."""
    return content_hash([scenario.key for scenario in scenarios])


def rows(estimates: Mapping[str, Estimate], about: About, *, subject: str | None = None) -> list[ScoreRow]:
    """One ScoreRow per named Estimate.

    Args:
        estimates: by metric name.
        about: the fields that the rows share.
        subject: replaces `about.subject`.
    """
    return [
        ScoreRow(
            metric=metric,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            n=estimate.n,
            num_skipped=estimate.num_skipped,
            split=about.split,
            subject=subject or about.subject,
            simulator=about.simulator,
            condition=about.condition,
            seed=about.seed,
            data_digest=about.data_digest,
            package_version=__version__,
        )
        for metric, estimate in estimates.items()
    ]


def retry_rows(
    protocol: str,
    retries: Mapping[str, int],
    about: About,
    *,
    num_units: int,
    num_skipped: int = 0,
    subject: str | None = None,
) -> list[ScoreRow]:
    """How many answers were asked for again because they could not be read: one row, or none where there was none.

    The failure rates count only those that could still not be read at the last attempt, so this row belongs beside them.

    Args:
        protocol: the metric's prefix, for example "simulation".
        retries: by reason.
        about: the fields that the rows share.
        num_units: conversations that the number is about.
        num_skipped: conversations of the Run that it is not about (those that an earlier invocation held).
        subject: replaces `about.subject`.
    """
    total = sum(retries.values())
    if not total:
        return []
    estimate = Estimate(float(total), None, None, num_units, num_skipped)
    return rows({f"{protocol}.format_retries": estimate}, about, subject=subject)


def replay_rows(outcomes: Sequence[ReplayOutcome], about: About) -> list[ScoreRow]:
    """Success, early-termination, failure and format-failure rate of a replay, over the observed conversations."""
    rng = np.random.default_rng(about.seed)
    result = rates(o.outcome for o in outcomes)
    observed = [o.outcome for o in outcomes if o.outcome is not None]
    counted = {
        "replay.success_rate": (result.success, (Outcome.SUCCESS,)),
        "replay.early_termination_rate": (result.early_termination, (Outcome.EARLY_TERMINATION,)),
        "replay.failure_rate": (result.failure, (Outcome.FAILURE, Outcome.FORMAT_FAILURE)),
        "replay.format_failure_rate": (result.format_failure, (Outcome.FORMAT_FAILURE,)),
    }
    estimates: dict[str, Estimate] = {}
    for metric, (value, which) in counted.items():
        spread = estimate_mean([float(outcome in which) for outcome in observed], rng)
        estimates[metric] = Estimate(value, spread.low, spread.high, result.n, result.num_skipped)
    return rows(estimates, about)


def turn_rows(
    predictions: Sequence[TurnPrediction],
    about: About,
    *,
    encoder: str | Path | None = None,
    num_layers: int | None = None,
) -> list[ScoreRow]:
    """Dist-4, words per turn, action accuracy and format-failure rate; Dist-4 and words of the human turns beside them.

    The clusters of the intervals are scenarios. The human rows have the subject "human" and are measured on exactly the
    turns in whose place the model said something readable. An unreadable turn has no action, so it is a miss.

    Args:
        predictions: of `predict_turns`.
        about: the fields that the rows share.
        encoder: hub id or directory of a text encoder; adds `turns.bert_score`.
        num_layers: see `metrics.text.bert_score`.
    """
    rng = np.random.default_rng(about.seed)
    observed = [p for p in predictions if p.observed]
    faults = len(predictions) - len(observed)
    unreadable = sum(p.generated is None for p in observed)
    clusters: dict[str, list[TurnPrediction]] = {}
    for prediction in observed:
        clusters.setdefault(prediction.scenario_key, []).append(prediction)
    groups = list(clusters.values())
    sizes = [len(group) for group in groups]
    spoken = [[(p.logged, p.generated) for p in group if p.generated is not None] for group in groups]

    def hits(group: list[TurnPrediction]) -> float:
        return float(sum(p.generated is not None and p.generated.action is p.logged.action for p in group))

    ours = {
        **_text_estimates([[generated for _, generated in group] for group in spoken], rng, faults + unreadable),
        "turns.action_accuracy": estimate_ratio([hits(group) for group in groups], sizes, rng, faults),
        "turns.format_failure_rate": estimate_ratio(
            [float(sum(p.generated is None for p in group)) for group in groups], sizes, rng, faults
        ),
    }
    if encoder is not None:
        flat = [pair for group in spoken for pair in group]
        f1 = iter(bert_score([g.text for _, g in flat], [h.text for h, _ in flat], encoder, num_layers=num_layers))
        scored = [[value for value in (next(f1) for _ in group) if value is not None] for group in spoken]
        skipped = len(predictions) - sum(map(len, scored))
        ours["turns.bert_score"] = estimate_ratio([sum(g) for g in scored], [len(g) for g in scored], rng, skipped)
    theirs = _text_estimates([[logged for logged, _ in group] for group in spoken], rng, faults + unreadable)
    return rows(ours, about) + rows(theirs, about, subject=HUMAN)


def _text_estimates(clusters: list[list[Turn]], rng: np.random.Generator, num_skipped: int) -> dict[str, Estimate]:
    num_words = [float(sum(turn.num_words for turn in group)) for group in clusters]
    return {
        "turns.dist_4": estimate_dist_n([[turn.text for turn in group] for group in clusters], 4, num_skipped),
        "turns.words_per_turn": estimate_ratio(num_words, [len(group) for group in clusters], rng, num_skipped),
    }


def recommendation_rows(gold_turns: Sequence[GoldTurn], about: About, *, catalog: Catalog | None = None) -> list[ScoreRow]:
    """Recall@1 at the gold turn, and the shares of turns without an item, unreadable turns and off-catalog titles.

    A turn that names no item, and one that can't be read, is a miss. The off-catalog rate is over titles, its interval
    over turns.

    Args:
        gold_turns: of `recommend_at_gold_turn`.
        about: the fields that the rows share.
        catalog: see `simulation.in_catalog`.
    """
    rng = np.random.default_rng(about.seed)
    observed = [g for g in gold_turns if g.skipped is None]
    skipped = len(gold_turns) - len(observed)
    hits = estimate_mean([float(g.rank == 1) for g in observed], rng, skipped)
    readable = [g.generated for g in observed if g.generated is not None]
    off = [float(sum(not in_catalog(t, m.item_id, catalog) for t, m in zip(r.titles, r.items, strict=True))) for r in readable]
    estimates = {
        "recommendation.recall@1": Estimate(
            recall_at_k([g.rank for g in observed], k=1), hits.low, hits.high, hits.n, hits.num_skipped
        ),
        "recommendation.no_item_rate": estimate_mean(
            [float(g.generated is None or not g.generated.items) for g in observed], rng, skipped
        ),
        "recommendation.off_catalog_rate": estimate_ratio(off, [len(r.items) for r in readable], rng),
        "recommendation.format_failure_rate": estimate_mean([float(g.generated is None) for g in observed], rng, skipped),
    }
    return rows(estimates, about)


def simulation_rows(summary: SimulationSummary, about: About) -> list[ScoreRow]:
    """Endings, lengths, goal satisfaction and off-catalog rate of a simulated Run, over the dialogues no fault ended."""
    rng = np.random.default_rng(about.seed)
    skipped = summary.num_skipped
    estimates = {
        metric: estimate_mean([float(e is ending) for e in summary.endings], rng, skipped)
        for ending, metric in _ENDING_METRICS.items()
    }
    estimates["simulation.turns_per_dialogue"] = estimate_mean([float(n) for n in summary.num_turns], rng, skipped)
    for role in Role:
        words = [float(n) for n in summary.words[role]]
        estimates[f"simulation.{role}_words_per_turn"] = estimate_ratio(words, summary.turns[role], rng)
    judged = [float(verdict) for verdict in summary.satisfied]
    estimates["simulation.goal_satisfaction"] = estimate_mean(judged, rng, summary.num_not_judged)
    off = [float(n) for n in summary.off_catalog]
    estimates["simulation.off_catalog_rate"] = estimate_ratio(off, summary.titles, rng)
    return rows(estimates, about)
