"""From single turns to ScoreRows: diversity, length, actions and their confusion, endings, perplexity, BERTScore.

The definitions of the metrics are in `scoring.METRICS`, one line each, and at length in docs/metrics.md.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from interplay.evaluation.scoring import CONFUSION, HUMAN, About, rows
from interplay.evaluation.turns import TurnPrediction
from interplay.evaluation.values import Units, Value
from interplay.metrics.bootstrap import Estimate, Numbers, estimate_ratio
from interplay.metrics.text import Texts, bert_score, estimate_dist_n, self_bleu
from interplay.types import ACTIONS, Action, Role, ScoreRow, Turn

DIST_ORDERS = (1, 2, 3, 4)
ENDS = frozenset({Action.ACCEPT, Action.GIVE_UP})
"""Actions by which a user ends the conversation."""
UNREADABLE = "unreadable"
"""Stands for the action of a turn that can't be read."""
_TAKEN_FOR = " > "


def turn_rows(
    predictions: Sequence[TurnPrediction],
    about: About,
    *,
    encoder: str | Path | None = None,
    num_layers: int | None = None,
) -> list[ScoreRow]:
    """The rows of `score_turns`."""
    return _score(predictions, about, encoder, num_layers)[0]


def score_turns(
    predictions: Sequence[TurnPrediction],
    about: About,
    *,
    encoder: str | Path | None = None,
    num_layers: int | None = None,
) -> tuple[list[ScoreRow], dict[str, dict[str, Value]]]:
    """Every number of the single-turn protocol.

    The clusters of the intervals are scenarios. The human rows have the subject "human" and are measured on exactly the
    turns in whose place the model said something readable. An unreadable turn has no action, so it is a miss. Endings are
    scored for users only: a recommender has no action that ends a conversation. The confusion of actions has a row per pair
    of actions: see `confusion_of`.

    Args:
        predictions: of `predict_turns`.
        about: the fields that the rows share.
        encoder: hub id or directory of a text encoder; adds `turns.bert_score`.
        num_layers: see `metrics.text.bert_score`.

    Returns:
        The rows, and what each scenario adds to each metric of the model that is a mean over units; Dist-n and
        perplexity, which are none, are not among them.

    Raises:
        MissingExtra, CheckpointError: see `metrics.text.bert_score`.
    """
    score_rows, columns = _score(predictions, about, encoder, num_layers)
    return score_rows, {metric: column.units.values(column.totals, column.counts) for metric, column in columns.items()}


@dataclass(slots=True, frozen=True)
class _Column:
    """What every turn adds to a metric."""

    units: Units
    totals: Numbers
    counts: Numbers | None = None
    """None: 1 each."""

    @property
    def num_units(self) -> int:
        """The denominator."""
        return len(self.totals) if self.counts is None else int(np.sum(self.counts))


def _score(
    predictions: Sequence[TurnPrediction], about: About, encoder: str | Path | None, num_layers: int | None
) -> tuple[list[ScoreRow], dict[str, _Column]]:
    """The rows, and the columns of the metrics that are means over units."""
    rng = np.random.default_rng(about.seed)
    observed = [p for p in predictions if p.observed]
    spoken = [p for p in observed if p.generated is not None]
    faults, unheard = len(predictions) - len(observed), len(predictions) - len(spoken)
    said = [p.generated for p in spoken if p.generated is not None]
    keys = [p.scenario_key for p in spoken]
    units = Units(keys)
    texts = _texts(keys, said)
    columns = {
        "turns.self_bleu": _self_bleu(texts, units),
        "turns.words_per_turn": _Column(units, [turn.num_words for turn in said]),
        **_action_columns(observed),
        **_likelihood_columns(predictions),
    }
    skipped = dict.fromkeys(columns, faults)
    if encoder is not None:
        found = bert_score([turn.text for turn in said], [p.logged.text for p in spoken], encoder, num_layers=num_layers)
        columns["turns.bert_score"] = _where_told(units, found)
    for metric in ("turns.self_bleu", "turns.words_per_turn", "turns.bert_score", "turns.nats_per_turn", "turns.perplexity"):
        if metric in columns:
            told = columns["turns.nats_per_turn" if metric == "turns.perplexity" else metric]
            skipped[metric] = len(predictions) - told.num_units
    ours = {
        **{f"turns.dist_{n}": estimate_dist_n(texts, n, unheard) for n in DIST_ORDERS},
        **{metric: _estimate(column, rng, skipped[metric]) for metric, column in columns.items()},
    }
    ours["turns.perplexity"] = _exponential(ours["turns.perplexity"])
    del columns["turns.perplexity"]
    logged = [p.logged for p in spoken]
    people = _texts(keys, logged)
    theirs = {
        **{f"turns.dist_{n}": estimate_dist_n(people, n, unheard) for n in DIST_ORDERS},
        "turns.self_bleu": _estimate(_self_bleu(people, units), rng, unheard),
        "turns.words_per_turn": _estimate(_Column(units, [turn.num_words for turn in logged]), rng, unheard),
    }
    return rows(ours, about) + rows(theirs, about, subject=HUMAN) + _confusion_rows(predictions, about), columns


def confusion_of(score_rows: Iterable[ScoreRow]) -> dict[str, dict[str, ScoreRow]]:
    """The confusion matrix that rows of one subject hold.

    Args:
        score_rows: any rows; those of other metrics are passed over.

    Returns:
        By logged action, by the action that the model took ("unreadable" where there was none): the row, whose value is a
        share of its `n` turns. The order is that of the actions; empty where there is no such row.
    """
    out: dict[str, dict[str, ScoreRow]] = {}
    for row in score_rows:
        if row.metric == CONFUSION:
            logged, _, said = row.condition.partition(_TAKEN_FOR)
            out.setdefault(logged, {})[said] = row
    return out


def num_turns(cell: ScoreRow) -> int:
    """How many turns a cell of the confusion matrix stands for: its share of its n turns."""
    return round((cell.value or 0.0) * cell.n)


def _texts(keys: Sequence[str], turns: Sequence[Turn]) -> Texts:
    clusters: dict[str, list[str]] = {}
    for key, turn in zip(keys, turns, strict=True):
        clusters.setdefault(key, []).append(turn.text)
    return Texts(clusters.values())


def _where_told(units: Units, scores: Sequence[float | None]) -> _Column:
    return _Column(units, [score or 0.0 for score in scores], [score is not None for score in scores])


def _self_bleu(texts: Texts, units: Units) -> _Column:
    # `texts` holds the turns in groups, one per scenario in the order of their first appearance.
    scores: list[float | None] = [None] * len(units.scenario)
    for turn, score in zip(np.argsort(units.scenario, kind="stable").tolist(), self_bleu(texts), strict=True):
        scores[turn] = score
    return _where_told(units, scores)


def _action_columns(observed: Sequence[TurnPrediction]) -> dict[str, _Column]:
    units = Units([p.scenario_key for p in observed])
    said = [None if p.generated is None else p.generated.action for p in observed]
    logged = [p.logged.action for p in observed]
    out = {
        "turns.action_accuracy": _Column(units, [a is b for a, b in zip(said, logged, strict=True)]),
        "turns.format_failure_rate": _Column(units, [a is None for a in said]),
    }
    if any(p.logged.role is Role.USER for p in observed):
        ours, theirs = (np.array([action in ENDS for action in side], np.float64) for side in (said, logged))
        out["turns.end_f1"] = _Column(units, 2 * ours * theirs, ours + theirs)
        out["turns.end_precision"] = _Column(units, ours * theirs, ours)
        out["turns.end_recall"] = _Column(units, ours * theirs, theirs)
    return out


def _likelihood_columns(predictions: Sequence[TurnPrediction]) -> dict[str, _Column]:
    units = Units([p.scenario_key for p in predictions])
    tokens = [p.logprobs or () for p in predictions]
    nats = [-math.fsum(own) for own in tokens]
    return {
        "turns.perplexity": _Column(units, nats, [len(own) for own in tokens]),
        "turns.nats_per_turn": _Column(units, nats, [bool(own) for own in tokens]),
    }


def _estimate(column: _Column, rng: np.random.Generator, num_skipped: int) -> Estimate:
    return estimate_ratio(*column.units.sums(column.totals, column.counts), rng, num_skipped)


def _exponential(estimate: Estimate) -> Estimate:
    value, low, high = (None if x is None else math.exp(x) for x in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)


def _confusion_rows(predictions: Sequence[TurnPrediction], about: About) -> list[ScoreRow]:
    """A row per action that the log holds and action that a model of the role may take, or that could not be read."""
    faults: Counter[str] = Counter(p.logged.action for p in predictions if not p.observed)
    counts: Counter[tuple[str, str]] = Counter(
        (p.logged.action, UNREADABLE if p.generated is None else p.generated.action) for p in predictions if p.observed
    )
    roles = {p.logged.role for p in predictions}
    actions = dict.fromkeys(a.value for role in Role if role in roles for a in ACTIONS[role])
    out: list[ScoreRow] = []
    for logged in actions:
        num = sum(count for (theirs, _), count in counts.items() if theirs == logged)
        if num or faults[logged]:
            for said in (*actions, UNREADABLE):
                estimate = Estimate(counts[logged, said] / num if num else None, None, None, num, faults[logged])
                out += rows({CONFUSION: estimate}, replace(about, condition=f"{logged}{_TAKEN_FOR}{said}"))
    return out
