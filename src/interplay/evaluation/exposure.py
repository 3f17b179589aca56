"""What recommenders recommend, over whole Runs and ranked lists: popularity bias, coverage, novelty, repetition.

A recommendation is a title that a recommender names in one turn, or an item among the first of a ranked list. Popularity is
how often the recommenders of the training logs name an item, so that it is one measure for rankers and language models.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from interplay.evaluation.asking import Pair
from interplay.evaluation.recommendation import GoldTurn, gold_turn
from interplay.evaluation.scoring import About, rows
from interplay.evaluation.simulation import FAULTS
from interplay.evaluation.values import Units, Value
from interplay.metrics.bootstrap import Estimate, Numbers, estimate_mean, estimate_ratio
from interplay.metrics.exposure import coverage, estimate_over_catalog, gini, popularity_ranks, self_information
from interplay.metrics.matching import is_any_target
from interplay.metrics.ranking import discounted_gain
from interplay.titles import title_key
from interplay.types import Catalog, Dialogue, Item, Role, ScoreRow, Turn

LIST_LENGTH = 10
"""Head of a list that counts."""
OFF_CATALOG_REMOVED, SEEN_REMOVED = "off-catalog removed", "seen removed"

Ints = NDArray[np.int64]


@dataclass(slots=True, frozen=True)
class Shown:
    """What one turn or one list recommends."""

    cluster: str
    """The scenario or the dialogue."""
    items: tuple[int, ...]
    """Rows of the catalog, each once."""
    num_titles: int
    """Recommendations in all; those that are not in `items` are of nothing in the catalog."""
    num_repeated: int
    """How many of them the conversation has named before, by whichever side."""


@dataclass(slots=True, frozen=True)
class _Named:
    """A title in a turn, and the item of the catalog that it means."""

    key: str
    """The item's id, else the title as it is compared."""
    title: str
    item: Item | None
    mentioned_id: str | None


class Naming:
    """Which items turns name.

    Args:
        catalog: of their domain.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._row = {item.id: n for n, item in enumerate(catalog)}
        self._known: dict[tuple[str, str | None], _Named] = {}

    def of(self, turn: Turn) -> list[_Named]:
        """The titles of a turn, each once, in order."""
        out: dict[str, _Named] = {}
        for title, mention in zip(turn.titles, turn.items, strict=True):
            written = (title, mention.item_id)
            named = self._known.get(written)
            if named is None:
                item = self._catalog.get(mention.item_id) or self._catalog.find(title)
                key = f"title {title_key(title)}" if item is None else item.id
                named = self._known[written] = _Named(key, title, item, mention.item_id)
            out.setdefault(named.key, named)
        return list(out.values())

    def shown(self, cluster: str, turn: Turn, before: Iterable[str]) -> Shown:
        """What a turn recommends, given what was named before (see `_Named.key`)."""
        return self.shown_of(cluster, self.of(turn), set(before))

    def shown_of(self, cluster: str, named: Sequence[_Named], seen: Set[str]) -> Shown:
        """What is recommended by a turn that names these titles (see `of`)."""
        return Shown(
            cluster,
            tuple([self._row[n.item.id] for n in named if n.item is not None]),
            len(named),
            sum([n.key in seen for n in named]),
        )

    def keys(self, turns: Iterable[Turn]) -> set[str]:
        """What turns name."""
        return {n.key for turn in turns for n in self.of(turn)}


def shown_in_dialogues(dialogues: Iterable[Dialogue], catalog: Catalog) -> list[Shown]:
    """The recommender turns of a simulated Run that name something, ordered by the dialogues' keys.

    Args:
        dialogues: of one Run, read once; those that a fault ended are left out.
        catalog: of their domain.
    """
    naming = Naming(catalog)
    found: list[tuple[tuple[str, int], list[Shown]]] = []
    for dialogue in dialogues:
        if dialogue.ending in FAULTS:
            continue
        before: set[str] = set()
        shown = []
        for turn in dialogue.turns:
            if not turn.items:
                continue
            named = naming.of(turn)
            if turn.role is Role.RECOMMENDER:
                shown.append(naming.shown_of(dialogue.scenario_key, named, before))
            before.update(n.key for n in named)
        found.append(((dialogue.scenario_key, dialogue.sample), shown))
    return [one for _, shown in sorted(found, key=lambda pair: pair[0]) for one in shown]


def shown_at_gold_turns(pairs: Sequence[Pair], gold_turns: Sequence[GoldTurn], catalog: Catalog) -> list[Shown]:
    """The turns that a recommender spoke at the gold turns of logs and that name something.

    Args:
        pairs: what `recommend_at_gold_turn` was asked.
        gold_turns: what it returned.
        catalog: of their domain.
    """
    naming = Naming(catalog)
    return [
        naming.shown(gold.scenario_key, gold.generated, naming.keys(before))
        for gold, before in _with_history(pairs, gold_turns)
        if gold.generated is not None and gold.generated.items
    ]


def _with_history(pairs: Sequence[Pair], gold_turns: Sequence[GoldTurn]) -> list[tuple[GoldTurn, tuple[Turn, ...]]]:
    out = []
    for (scenario, log), gold in zip(pairs, gold_turns, strict=True):
        index = gold_turn(scenario, log)
        if isinstance(index, int) and gold.skipped is None:
            out.append((gold, log.turns[:index]))
    return out


def recommended_counts(dialogues: Iterable[Dialogue], catalog: Catalog) -> Ints | None:
    """In how many recommender turns of some logs each item is named, shape (num_items,); None when none is.

    Args:
        dialogues: of the training split.
        catalog: of their domain.
    """
    row = {item.id: n for n, item in enumerate(catalog)}
    counts = np.zeros(len(row), np.int64)
    for dialogue in dialogues:
        for turn in dialogue.turns:
            if turn.role is Role.RECOMMENDER:
                counts[[row[i] for i in {m.item_id for m in turn.items} if i in row]] += 1
    return counts if counts.any() else None


def exposure_rows(
    prefix: str,
    shown: Sequence[Shown],
    popularity: Ints | None,
    num_items: int,
    about: About,
    *,
    suffix: str = "",
    with_repeated: bool = True,
) -> list[ScoreRow]:
    """Coverage, Gini, popularity rank, novelty and repeated-recommendation rate.

    The units are recommendations. Those of nothing in the catalog are skipped and counted, but for the repeated rate.

    Args:
        prefix: of the metrics' names, for example "simulation".
        shown: what was recommended.
        popularity: of `recommended_counts`; None where no training logs are at hand: rank and novelty are not measured.
        num_items: of the catalog.
        about: what the rows share.
        suffix: of the metrics' names, for example "@10".
        with_repeated: whether the repeated rate is measured.
    """
    rng = np.random.default_rng(about.seed)
    clusters: dict[str, list[int]] = {}
    for one in shown:
        clusters.setdefault(one.cluster, []).extend(one.items)
    skipped = sum(one.num_titles - len(one.items) for one in shown)
    estimates = {
        name: estimate_over_catalog(statistic, list(clusters.values()), num_items, rng, skipped)
        for name, statistic in (("coverage", coverage), ("gini", gini))
    }
    units, columns = Units([one.cluster for one in shown]), _columns(shown, popularity)
    for name, num_skipped in (("popularity_rank", skipped), ("novelty", skipped), ("repeated_rate", 0)):
        if name in columns:
            estimates[name] = estimate_ratio(*units.sums(*columns[name]), rng, num_skipped)
        else:
            estimates[name] = Estimate(None, None, None, 0, sum(one.num_titles for one in shown))
    if not with_repeated:
        del estimates["repeated_rate"]
    return rows({f"{prefix}.{name}{suffix}": estimate for name, estimate in estimates.items()}, about)


def exposure_values(prefix: str, shown: Sequence[Shown], popularity: Ints | None) -> dict[str, dict[str, Value]]:
    """What every scenario adds to popularity rank, novelty and repeated rate: by metric, then by the scenario's key.

    Coverage and Gini are no sums over scenarios.

    Args:
        prefix: of the metrics' names with its dot, for example "simulation.".
        shown: what was recommended.
        popularity: see `exposure_rows`.
    """
    units = Units([one.cluster for one in shown])
    return {prefix + name: units.values(*column) for name, column in _columns(shown, popularity).items()}


def _columns(shown: Sequence[Shown], popularity: Ints | None) -> dict[str, tuple[Numbers, Sequence[int]]]:
    """What every turn or list adds to each metric: totals and counts."""
    out: dict[str, tuple[Numbers, Sequence[int]]] = {
        "repeated_rate": ([one.num_repeated for one in shown], [one.num_titles for one in shown])
    }
    if popularity is not None:
        items = [one.items for one in shown]
        counts = list(map(len, items))
        for name, each in (("popularity_rank", popularity_ranks(popularity)), ("novelty", self_information(popularity))):
            out[name] = (_sums(each, items), counts)
    return out


def _sums(each: NDArray[np.float64], rows: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """The sum of `each` over every tuple of its rows; tuples of one length are added up together."""
    lengths = np.fromiter(map(len, rows), np.intp, len(rows))
    out = np.zeros(len(rows))
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        out[places] = each[np.array([rows[n] for n in places.tolist()], np.intp)].sum(axis=1)
    return out


def gold_rank_rows(
    pairs: Sequence[Pair], gold_turns: Sequence[GoldTurn], about: About, *, catalog: Catalog, filtered: bool = True
) -> list[ScoreRow]:
    """Recall@10, NDCG@10 and MRR of the titles named at gold turns, in their order; and all, Recall@1 too, under two filters.

    With "off-catalog removed" titles that the catalog does not hold are taken out before the rank is told, with "seen removed"
    those that the history names. The target itself is never among the seen: such turns are skipped (`gold_turn`).

    Args:
        pairs: what `recommend_at_gold_turn` was asked.
        gold_turns: what it returned.
        about: what the rows share.
        catalog: of their domain.
        filtered: whether there are rows under the two filters.
    """
    naming = Naming(catalog)
    targets = {scenario.key: scenario.targets for scenario, _ in pairs}
    observed = [
        (targets[gold.scenario_key], [] if gold.generated is None else naming.of(gold.generated), before)
        for gold, before in _with_history(pairs, gold_turns)
    ]
    skipped = len(gold_turns) - len(observed)
    seen = [naming.keys(before) for _, _, before in observed] if filtered else [frozenset[str]()] * len(observed)

    def ranks(keep: Callable[[_Named, Set[str]], bool]) -> list[int | None]:
        out: list[int | None] = []
        for (wanted, named, _), before in zip(observed, seen, strict=True):
            right = (is_any_target(n.title, n.mentioned_id, wanted) for n in named if keep(n, before))
            out.append(next((place for place, hit in enumerate(right, start=1) if hit), None))
        return out

    found: list[ScoreRow] = []
    filters: dict[str, Callable[[_Named, Set[str]], bool]] = {about.condition: lambda named, seen: True}
    if filtered:
        filters[OFF_CATALOG_REMOVED] = lambda named, seen: named.item is not None
        filters[SEEN_REMOVED] = lambda named, seen: named.key not in seen
    for condition, keep in filters.items():
        rng = np.random.default_rng(about.seed)
        places = ranks(keep)
        estimates = {
            "recommendation.recall@1": estimate_mean([float(r == 1) for r in places], rng, skipped),
            f"recommendation.recall@{LIST_LENGTH}": estimate_mean(
                [float(r is not None and r <= LIST_LENGTH) for r in places], rng, skipped
            ),
            f"recommendation.ndcg@{LIST_LENGTH}": estimate_mean(
                [discounted_gain(r, LIST_LENGTH) for r in places], rng, skipped
            ),
            "recommendation.mrr": estimate_mean([0.0 if r is None else 1 / r for r in places], rng, skipped),
        }
        if condition == about.condition:
            del estimates["recommendation.recall@1"]
        found += rows(estimates, replace(about, condition=condition))
    return found
