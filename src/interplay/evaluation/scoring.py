"""From what was observed to ScoreRows: every number with its interval, its n, and what was skipped.

The definitions of the metrics are in `METRICS`, one line each, and at length in docs/metrics.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interplay import __version__
from interplay.evaluation.recommendation import GoldTurn
from interplay.evaluation.replay import ReplayOutcome
from interplay.evaluation.simulation import SimulationSummary, in_catalog
from interplay.evaluation.values import Units, Value, values_by_scenario
from interplay.metrics.bootstrap import Estimate, estimate_mean, estimate_ratio
from interplay.metrics.ranking import discounted_gain, recall_at_k
from interplay.metrics.replay import Outcome, rates
from interplay.types import Catalog, Ending, Role, Scenario, ScoreRow, content_hash

HUMAN = "human"
"""Subject of the rows that measure the logged turns."""
LIST_RECALL_AT = (1, 5, 10)
"""Heads of a ranked list that count."""
CONFUSION = "turns.confusion"
"""The metric whose rows are a matrix: see `turn_scores.confusion_of`."""

METRICS: dict[str, str] = {
    "replay.success_rate": "share of replayed conversations in which the user accepts the gold item",
    "replay.stand_in_rate": "under a control: share in which the user accepts the item that stands in for the gold item",
    "replay.difference": "success or stand-in rate under a control minus the success rate, paired by conversation",
    "replay.early_termination_rate": "share in which the user accepts something else",
    "replay.failure_rate": "share in which the user accepts nothing (format failures included)",
    "replay.format_failure_rate": "share ended by output that can't be read",
    "replay.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "replay.faults": "conversations that a fault ended, by side and kind (a number, not a share); they are in no rate",
    "turns.dist_1": "distinct words / all words over all turns",
    "turns.dist_2": "distinct 2-grams / all 2-grams over all turns",
    "turns.dist_3": "distinct 3-grams / all 3-grams over all turns",
    "replay.accept_rate": "share of the times that items were on offer in which the user accepts",
    "turns.dist_4": "distinct 4-grams / all 4-grams over all turns",
    "turns.self_bleu": "mean BLEU-4 of a turn with all other turns as references; high is repetitive",
    "turns.words_per_turn": "mean words of a turn",
    "turns.action_accuracy": "share of turns whose action is the logged one",
    "turns.confusion": "share of the turns logged with one action in which the model takes the other",
    "turns.end_f1": "F1 of ending the conversation (accept or give-up) where the logged user does",
    "turns.end_precision": "share of the model's ending turns whose logged turn ends the conversation",
    "turns.end_recall": "share of the logged ending turns in whose place the model ends the conversation",
    "turns.perplexity": "exp of the mean surprise (nats) of a token of the logged turns, given the log before it",
    "turns.nats_per_turn": "mean surprise of a logged turn, in nats: comparable between tokenizers",
    "turns.format_failure_rate": "share of turns that can't be read",
    "turns.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "turns.faults": "turns that a fault ended, by side and kind (a number, not a share); they are in no rate",
    "turns.bert_score": "mean BERTScore F1 with the logged turn",
    "recommendation.recall@1": "share of gold turns whose first named item is the gold item",
    "recommendation.recall@10": "share whose first 10 named items hold the gold item",
    "recommendation.ndcg@10": "mean of 1 / log2(place + 1) of the gold item among the first 10 named, else 0",
    "recommendation.mrr": "mean of 1 / place of the gold item among the named",
    "recommendation.list_recall@1": "of a recommender that reasons: share of gold turns whose list has the gold item first",
    "recommendation.list_recall@5": "share whose ranked list has it among the first 5",
    "recommendation.list_recall@10": "share whose ranked list has it among the first 10",
    "recommendation.list_ndcg@10": "mean of 1 / log2(place + 1) of the gold item in the ranked list, 0 beyond 10",
    "recommendation.list_mrr": "mean of 1 / place of the gold item in the ranked list",
    "recommendation.candidates_recall@1": "the same of the candidates that it was told, in their order",
    "recommendation.candidates_recall@5": "the same among the first 5 candidates",
    "recommendation.candidates_recall@10": "the same among the first 10 candidates",
    "recommendation.candidates_ndcg@10": "the same NDCG of the candidates",
    "recommendation.candidates_mrr": "the same mean of the candidates",
    "recommendation.no_item_rate": "share of gold turns that name no item",
    "recommendation.off_catalog_rate": "share of named titles that the catalog does not hold",
    "recommendation.coverage": "share of the catalog that is recommended",
    "recommendation.gini": "Gini of how often each item of the catalog is recommended: 0 is even, near 1 a few items",
    "recommendation.popularity_rank": "mean place in the order of popularity / catalog size: 0 the most popular, .5 at random",
    "recommendation.novelty": "mean self-information of an item recommended, in bits",
    "recommendation.repeated_rate": "share of what is recommended that the conversation has named before",
    "recommendation.match_score": "mean cosine of the named items with the gold item; read it between its anchors",
    "recommendation.format_failure_rate": "share of gold turns that can't be read",
    "recommendation.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "recommendation.faults": "gold turns that a fault ended, by side and kind (a number, not a share); they are in no rate",
    "ranking.readable": "share of a reasoning recommender's answers that can be read",
    "ranking.wishes_met": "share of the values asked for so far (read by rules) that the first title has",
    "ranking.list_valid": "share whose list has exactly the titles asked for, distinct and all candidates",
    "ranking.recall@1": "share of items named by the log's recommender that a ranker has first in its catalog",
    "ranking.recall@5": "share that it has among the first 5",
    "ranking.recall@10": "share that it has among the first 10",
    "ranking.recall@20": "share that it has among the first 20",
    "ranking.recall@50": "share that it has among the first 50",
    "ranking.ndcg@1": "mean of 1 / log2(rank + 1) where the rank is at most 1, else 0",
    "ranking.ndcg@5": "mean of 1 / log2(rank + 1) where the rank is at most 5, else 0",
    "ranking.ndcg@10": "mean of 1 / log2(rank + 1) where the rank is at most 10, else 0",
    "ranking.ndcg@20": "mean of 1 / log2(rank + 1) where the rank is at most 20, else 0",
    "ranking.ndcg@50": "mean of 1 / log2(rank + 1) where the rank is at most 50, else 0",
    "ranking.mrr@1": "mean of 1 / rank where the rank is at most 1, else 0",
    "ranking.mrr@5": "mean of 1 / rank where the rank is at most 5, else 0",
    "ranking.mrr@10": "mean of 1 / rank where the rank is at most 10, else 0",
    "ranking.mrr@20": "mean of 1 / rank where the rank is at most 20, else 0",
    "ranking.mrr@50": "mean of 1 / rank where the rank is at most 50, else 0",
    "ranking.mrr": "mean of 1 / rank",
    "ranking.empty_list_rate": "share of title lists that are empty",
    "ranking.off_catalog_rate": "share of listed titles that the catalog does not hold",
    "ranking.duplicate_rate": "share of listed titles that mean what an earlier title of the list means",
    "ranking.coverage@10": "share of the catalog that is among the first 10",
    "ranking.gini@10": "Gini of how often each item of the catalog is among the first 10: 0 is even, near 1 a few items",
    "ranking.popularity_rank@10": "mean place in the order of popularity / catalog size: 0 the most popular, .5 at random",
    "ranking.novelty@10": "mean self-information of an item among the first 10, in bits",
    "ranking.repeated_rate@10": "share of what is among the first 10 that the conversation has named before",
    "simulation.success_rate": "share of conversations with a hidden target in which the user accepts it",
    "simulation.accept_rate": "share of conversations that end by an accept",
    "simulation.give_up_rate": "share that the user gives up",
    "simulation.turn_limit_rate": "share that reach the turn limit",
    "simulation.loop_rate": "share stopped because a speaker repeats itself",
    "simulation.format_failure_rate": "share ended by output that can't be read",
    "simulation.turns_per_dialogue": "mean turns of both sides",
    "simulation.user_words_per_turn": "mean words of a user turn",
    "simulation.recommender_words_per_turn": "mean words of a recommender turn",
    "simulation.goal_satisfaction": "share of accepts whose item has all target attributes",
    "simulation.coverage": "share of the catalog that is recommended",
    "simulation.gini": "Gini of how often each item of the catalog is recommended: 0 is even, near 1 a few items",
    "simulation.popularity_rank": "mean place in the order of popularity / catalog size: 0 the most popular, .5 at random",
    "simulation.novelty": "mean self-information of an item recommended, in bits",
    "simulation.repeated_rate": "share of what is recommended that the conversation has named before",
    "simulation.match_score": "mean cosine of the items the recommender names with the target; read it between its anchors",
    "simulation.off_catalog_rate": "share of titles named by the recommender that the catalog does not hold",
    "simulation.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "simulation.faults": "conversations that a fault ended, by side and kind (a number, not a share); they are in no rate",
    "simulation.noisy_turns": "verdicts of the user that simulated noise has turned round (a number, not a share)",
    "multiturn.recall@1": "share of conversations in which a target is the first item that the turn shows",
    "multiturn.recall@10": "share in which a target is among the first 10 items that the turn shows",
    "multiturn.coverage": "mean share of the targets that any list up to the turn has among its first 50 (PC)",
    "multiturn.coverage_gain": "coverage at the turn less that at the turn before (PCIR)",
    "multiturn.listed_rate": "share of conversations in which the turn shows any item",
    "multiturn.srrr": "mean share of a conversation's rounds of recommendation in which the user accepts",
    "multiturn.rdl": "mean of accepts / turns of both sides",
    "leakage.prompt_rate": "share of conversations in which what a role is shown at the outset gives the target away",
    "leakage.history_rate": "share in which a logged turn names the target before the recommender offers it",
    "leakage.reply_rate": "share in which the simulated user names the target unasked",
    "leakage.guess@1": "share whose target a blind guess from the target attributes has first in the catalog",
    "leakage.guess@10": "share whose target the blind guess has among the first 10",
    "leakage.any_rate": "share in which any of the four detectors found something",
    "judge.relevance": "mean grade of a recommender turn, 0 to 3, by the judge of the row's condition",
    "judge.interestingness": "mean grade of a recommender turn, 0 to 2",
    "judge.understanding": "mean grade of a conversation, 0 to 2",
    "judge.task_completion": "mean grade of a conversation, 0 to 2",
    "judge.interest_arousal": "mean grade of a conversation, 0 to 2",
    "judge.efficiency": "mean grade of a conversation, 0 to 1",
    "judge.overall": "mean grade of a conversation, 0 to 4",
    "judge.failures.unparsable": "grades or choices that could not be read, also when asked again (a number, not a share)",
    "judge.failures.server": "questions that no server answered (a number, not a share)",
    "judge.failures.too_long": "questions that exceed the judge's context (a number, not a share)",
    "judge.failures.no_reply": "conversations without a recommender turn (a number, not a share)",
    "judge.retries": "answers of the judge that were asked for again (a number, not a share)",
    "goals.success": "share of a user's goal components that were kept, done, or blocked by the other side",
    "goals.profile": "share of general likes and dislikes that the user has not gone against",
    "goals.policy": "share of the rules of behaviour that the user has not broken",
    "goals.objective": "share of users who found something, or did their part",
    "goals.requirement": "share of hard constraints that were met, or that the user insisted on",
    "goals.preference": "share of soft wishes that the user has expressed",
    "goals.drift_rate": "share of user turns stating something that ask for or accept what is off the goal",
    "goals.drifted_share": "share of conversations with such a turn",
    "goals.contradiction_rate": "share of user turns stating something that go against the user's own earlier words",
    "goals.contradicted_share": "share of conversations with such a turn",
    "goals.announced_change_rate": "share of user turns that go against earlier words and say so",
    "goals.wrongful_termination_rate": "share of conversations ended by the user that it should not have ended so",
    "goals.wrongful_accept_rate": "share of accepts of what is known, of another era or has nothing of what is looked for",
    "goals.wrongful_give_up_rate": "share of give-ups before anything, or right after something fitting, was offered",
    "goals.failures.unparsable": "answers of the tracking judge that could not be read (a number, not a share)",
    "goals.failures.illegal": "transitions that the tracking judge asked for and that can't be made (a number, not a share)",
    "goals.failures.server": "questions of the tracking judge that no server answered (a number, not a share)",
    "goals.failures.too_long": "questions that exceed the tracking judge's context (a number, not a share)",
    "goals.retries": "answers of the tracking judge that were asked for again (a number, not a share)",
    "persuasion.flip_rate": "share that accept an item against a wish when it is praised, or ask for something else after",
    "persuasion.accept_rate": "share that accept the praised item",
    "persuasion.change_rate": "share that do not accept it and ask for something else after",
    "persuasion.adopt_rate": "share that do not accept it and ask for something that it has after",
    "persuasion.keep_rate": "share whose last word on the aspect is what they wanted before",
    "persuasion.give_up_rate": "share that give up without a word on the aspect",
    "persuasion.told_rate": "share that express the aspect before the offer",
    "persuasion.format_retries": "answers that could not be read and were asked for again (a number, not a share)",
    "persuasion.faults": "conversations that a fault ended, by side and kind (a number, not a share); they are in no rate",
    "persuasion.accept_difference": "accepts of the contradicting minus accepts of the fitting item, paired by scenario",
}
"""Every metric of this toolkit and its definition in one line."""


SUCCESS_METRICS = ("simulation.success_rate", "simulation.accept_rate", "simulation.goal_satisfaction")
"""By which the recommenders of a matrix are ranked; higher is better in each."""


def is_count(metric: str) -> bool:
    """Whether the metric is a bare number of events, which has no interval: its definition says so."""
    return METRICS.get(metric, "").endswith("(a number, not a share)")


_OUTCOME_METRICS = {
    "replay.success_rate": (Outcome.SUCCESS,),
    "replay.early_termination_rate": (Outcome.EARLY_TERMINATION,),
    "replay.failure_rate": (Outcome.FAILURE, Outcome.FORMAT_FAILURE),
    "replay.format_failure_rate": (Outcome.FORMAT_FAILURE,),
}

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
    shares = (result.success, result.early_termination, result.failure, result.format_failure)
    estimates: dict[str, Estimate] = {}
    for (metric, which), value in zip(_OUTCOME_METRICS.items(), shares, strict=True):
        spread = estimate_mean([float(outcome in which) for outcome in observed], rng)
        estimates[metric] = Estimate(value, spread.low, spread.high, result.n, result.num_skipped)
    return rows(estimates, about)


def replay_values(outcomes: Sequence[ReplayOutcome]) -> dict[str, dict[str, Value]]:
    """What every replayed scenario adds to each rate of `replay_rows`; scenarios without an outcome are missing."""
    observed = [(o.scenario_key, o.outcome) for o in outcomes if o.outcome is not None]
    keys = [key for key, _ in observed]
    return {
        metric: values_by_scenario(keys, [float(outcome in which) for _, outcome in observed])
        for metric, which in _OUTCOME_METRICS.items()
    }


def recommendation_rows(gold_turns: Sequence[GoldTurn], about: About, *, catalog: Catalog | None = None) -> list[ScoreRow]:
    """Recall@1 at the gold turn, and the shares of turns without an item, unreadable turns and off-catalog titles.

    A turn that names no item, and one that can't be read, is a miss. The off-catalog rate is over titles, its interval
    over turns. Of a recommender that reasons also recall, NDCG and MRR of its ranked list and, beside them, of the candidates
    in the order in which it was told them.

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
    for metric, values in _list_values(observed).items():
        estimates[metric] = estimate_mean(values, rng, skipped)
    return rows(estimates, about)


def _list_values(observed: Sequence[GoldTurn]) -> dict[str, list[float]]:
    """What each gold turn adds to the metrics of lists; nothing where nobody writes any. An unreadable turn is a miss."""
    if not any(g.generated is not None and g.generated.reasoning is not None for g in observed):
        return {}
    out: dict[str, list[float]] = {}
    for name, ranks in (("list", [g.list_rank for g in observed]), ("candidates", [g.candidate_rank for g in observed])):
        out |= {f"recommendation.{name}_recall@{k}": [float(r is not None and r <= k) for r in ranks] for k in LIST_RECALL_AT}
        out[f"recommendation.{name}_ndcg@10"] = [discounted_gain(r, 10) for r in ranks]
        out[f"recommendation.{name}_mrr"] = [0.0 if r is None else 1 / r for r in ranks]
    return out


def recommendation_values(gold_turns: Sequence[GoldTurn]) -> dict[str, dict[str, Value]]:
    """What every scenario adds to the shares of gold turns in `recommendation_rows`; skipped ones are missing."""
    observed = [g for g in gold_turns if g.skipped is None]
    shares = {
        "recommendation.recall@1": [float(g.rank == 1) for g in observed],
        "recommendation.no_item_rate": [float(g.generated is None or not g.generated.items) for g in observed],
        "recommendation.format_failure_rate": [float(g.generated is None) for g in observed],
    }
    keys = [g.scenario_key for g in observed]
    return {metric: values_by_scenario(keys, totals) for metric, totals in shares.items()}


def simulation_rows(summary: SimulationSummary, about: About) -> list[ScoreRow]:
    """Endings, lengths, goal satisfaction and off-catalog rate of a simulated Run, over the dialogues no fault ended.

    The clusters of the intervals are scenarios, with all their samples.
    """
    rng = np.random.default_rng(about.seed)
    num_observed = len(summary.endings)
    noise = Estimate(float(summary.num_noisy), None, None, num_observed, summary.num_skipped)
    skipped = dict.fromkeys((*_ENDING_METRICS.values(), "simulation.turns_per_dialogue"), summary.num_skipped)
    skipped["simulation.goal_satisfaction"] = summary.num_not_judged
    skipped["simulation.success_rate"] = summary.num_skipped + sum(verdict is None for verdict in summary.succeeded)
    units = Units(summary.scenario_keys)
    return rows(
        {
            metric: estimate_ratio(*units.sums(totals, counts), rng, skipped.get(metric, 0))
            for metric, (totals, counts) in _simulation_columns(summary).items()
        }
        | ({"simulation.noisy_turns": noise} if summary.num_noisy else {}),
        about,
    )


def simulation_values(summary: SimulationSummary) -> dict[str, dict[str, Value]]:
    """What every scenario of a simulated Run adds to each metric: by metric, then by the scenario's key.

    Scenarios none of whose dialogues was observed are missing; where a metric has nothing to count in one (no accept to
    judge), its count is 0.
    """
    units = Units(summary.scenario_keys)
    return {metric: units.values(totals, counts) for metric, (totals, counts) in _simulation_columns(summary).items()}


def _simulation_columns(summary: SimulationSummary) -> dict[str, tuple[Sequence[float], Sequence[int] | None]]:
    """What every dialogue adds to each metric: totals, and counts where they are not 1."""
    judged = [verdict is not None for verdict in summary.satisfied]
    columns: dict[str, tuple[Sequence[float], Sequence[int] | None]] = {
        metric: ([float(e is ending) for e in summary.endings], None) for ending, metric in _ENDING_METRICS.items()
    }
    columns["simulation.success_rate"] = (
        [float(bool(verdict)) for verdict in summary.succeeded],
        [verdict is not None for verdict in summary.succeeded],
    )
    columns["simulation.turns_per_dialogue"] = (summary.num_turns, None)
    for role in Role:
        columns[f"simulation.{role}_words_per_turn"] = (summary.words[role], summary.turns[role])
    columns["simulation.goal_satisfaction"] = ([float(bool(verdict)) for verdict in summary.satisfied], judged)
    columns["simulation.off_catalog_rate"] = (summary.off_catalog, summary.titles)
    return columns
