"""Match Scores of recommenders, of rankers and of simulated Runs, always with their anchors.

A case is what was recommended at one place, and the items asked for there. It is skipped, and counted, when nothing that was
recommended there, or nothing that was asked for, has a vector; the anchors are measured on exactly the cases that count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interplay.evaluation.asking import Pair
from interplay.evaluation.ranking import BATCH, ManyMethods
from interplay.evaluation.recommendation import GoldTurn
from interplay.evaluation.scoring import About, rows
from interplay.evaluation.simulation import FAULTS
from interplay.evaluation.values import Units
from interplay.items.contexts import Case
from interplay.items.index import top_k
from interplay.items.vectors import ItemVectors
from interplay.metrics.bootstrap import Estimate, estimate_ratio
from interplay.metrics.match import ANCHORS, anchor_scores, match_score, nearness
from interplay.types import Catalog, Dialogue, Role, Scenario, ScoreRow, Turn


@dataclass(slots=True, frozen=True)
class MatchCase:
    """What was recommended where what was asked for."""

    dialogue: str
    """The cluster for intervals."""
    recommended: tuple[str, ...]
    """Ids of catalog items; titles off the catalog are not among them."""
    gold: tuple[str, ...]
    """Ids of the items asked for."""


def gold_turn_cases(pairs: Sequence[Pair], gold_turns: Sequence[GoldTurn], catalog: Catalog) -> list[MatchCase]:
    """The turns that a recommender spoke at the gold turns of logs.

    Args:
        pairs: what `recommend_at_gold_turn` was asked.
        gold_turns: what it returned.
        catalog: of their domain.
    """
    return [
        MatchCase(g.scenario_key, () if g.generated is None else _named([g.generated], catalog), _targets(scenario, catalog))
        for (scenario, _), g in zip(pairs, gold_turns, strict=True)
        if g.skipped is None
    ]


def simulated_cases(dialogues: Iterable[Dialogue], scenarios: Iterable[Scenario], catalog: Catalog) -> list[MatchCase]:
    """Simulated conversations: everything that the recommender named in one, against its target.

    Args:
        dialogues: of one Run; those that a fault ended are left out, as everywhere.
        scenarios: those they started from.
        catalog: of their domain.
    """
    by_key = {s.key: s for s in scenarios}
    out = []
    for dialogue in dialogues:
        scenario = by_key.get(dialogue.scenario_key)
        if scenario is not None and dialogue.ending not in FAULTS:
            said = [t for t in dialogue.turns if t.role is Role.RECOMMENDER]
            out.append(MatchCase(dialogue.scenario_key, _named(said, catalog), _targets(scenario, catalog)))
    return out


def ranked_cases(ranker: ManyMethods, cases: Sequence[Case], methods: Sequence[str]) -> dict[str, list[MatchCase]]:
    """The item that each method of a ranker has first, with everything taken out that the context names.

    The gold items are those of the turn that the context does not name; a turn without one is left out.

    Args:
        ranker: what ranks.
        cases: of the logs.
        methods: of the ranker.
    """
    row = {item_id: n for n, item_id in enumerate(ranker.item_ids)}
    chosen = [(c, new) for c in cases if (new := tuple(g for g in c.gold if g not in c.mentioned))]
    out: dict[str, list[MatchCase]] = {m: [] for m in methods}
    for start in range(0, len(chosen), BATCH):
        part = chosen[start : start + BATCH]
        scores = ranker.scores_by([c.context for c, _ in part], methods)
        named = [{row[i] for i in case.mentioned if i in row} for case, _ in part]
        for method in methods:
            first = top_k(scores[method], 1, named).rows[:, 0].tolist()
            for (case, new), best in zip(part, first, strict=True):
                out[method].append(MatchCase(case.dialogue, (ranker.item_ids[best],) if best >= 0 else (), new))
    return out


def match_rows(
    by_subject: Mapping[str, Sequence[MatchCase]],
    vectors: ItemVectors,
    catalog: Catalog,
    about: About,
    *,
    metric: str = "recommendation.match_score",
) -> list[ScoreRow]:
    """Match Score of each subject, and of the anchors, with intervals that resample dialogues.

    The anchors are rows whose subject is the anchor's name; with several subjects once, over the cases that count for any.

    Args:
        by_subject: cases by the subject's name.
        vectors: of the catalog.
        catalog: the items, for their genres.
        about: what the rows share; its subject is not used.
        metric: name of the metric.
    """
    usable = np.linalg.norm(vectors.unit, axis=1) > 0
    place = {item.id: n for n, item in enumerate(catalog) if usable[n]}
    genres = [frozenset(i.attributes.get("genre", ())) for i in catalog]
    with_genre: dict[str, list[int]] = {}
    for n, names in enumerate(genres):
        for name in names:
            with_genre.setdefault(name, []).append(n)
    anchors_of: dict[tuple[int, ...], Mapping[str, float | None]] = {}

    def rows_of(ids: Iterable[str]) -> list[int]:
        return [place[i] for i in ids if i in place]

    def score(gold: tuple[int, ...], recommended: Sequence[int]) -> float | None:
        if gold not in anchors_of:
            near = nearness(vectors.unit, gold)
            same = np.zeros(len(usable), bool)
            for genre in {g for row in gold for g in genres[row]}:
                same[with_genre[genre]] = True
            anchors_of[gold] = anchor_scores(near, gold, usable, vectors.popularity, same)
        # Many conversations share a gold item, whose nearness to the whole catalog only the anchors need.
        return match_score(nearness(vectors.unit, gold, recommended), range(len(recommended)))

    rng = np.random.default_rng(about.seed)
    out: list[ScoreRow] = []
    counts: dict[tuple[int, str, tuple[int, ...]], bool] = {}
    for subject, cases in by_subject.items():
        values: list[tuple[str, float | None]] = []
        for number, case in enumerate(cases):
            gold = tuple(sorted(set(rows_of(case.gold))))
            # An item named twice was recommended twice.
            value = score(gold, rows_of(case.recommended)) if gold else None
            values.append((case.dialogue, value))
            key = (number, case.dialogue, gold)
            counts[key] = counts.get(key, False) or value is not None
        out += rows({metric: _mean(values, rng)}, about, subject=subject)
    scored = [(dialogue, gold) for (_, dialogue, gold), counted in counts.items() if counted]
    for anchor in ANCHORS:
        estimate = _mean([(dialogue, anchors_of[gold][anchor]) for dialogue, gold in scored], rng)
        skipped = estimate.num_skipped + len(counts) - len(scored)
        out += rows({metric: replace(estimate, num_skipped=skipped)}, about, subject=anchor)
    return out


def _mean(values: Sequence[tuple[str, float | None]], rng: np.random.Generator) -> Estimate:
    measured = [(dialogue, value) for dialogue, value in values if value is not None]
    units = Units([dialogue for dialogue, _ in measured])
    return estimate_ratio(*units.sums([value for _, value in measured]), rng, len(values) - len(measured))


def _named(turns: Iterable[Turn], catalog: Catalog) -> tuple[str, ...]:
    found = [
        catalog.get(mention.item_id) or catalog.find(title)
        for turn in turns
        if (items := turn.items)
        for title, mention in zip(turn.titles, items, strict=True)
    ]
    return tuple([item.id for item in found if item is not None])


def _targets(scenario: Scenario, catalog: Catalog) -> tuple[str, ...]:
    found = [catalog.get(t.item_id) or catalog.find(t.title) for t in scenario.targets]
    return tuple(item.id for item in found if item is not None)
