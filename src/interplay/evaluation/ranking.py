"""Recommendation as ranking: at every recommender turn that names items, where do they stand in the ranked catalog?

A case is a recommender turn of a log with everything said before it; each item the turn names is one observation. An item
that was named before is `repeated`, else `new` (He et al., arXiv 2308.10053): repeating is easy, so the two are told
apart. Every number is given without and with the seen filter, which takes out what the context names; a repeated item is
then a miss by construction and stays in the denominator of `all`. The whole catalog is ranked, so nothing off it can be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from interplay.evaluation.exposure import LIST_LENGTH, SEEN_REMOVED, Ints, Shown, exposure_rows
from interplay.evaluation.scoring import About
from interplay.evaluation.values import Units
from interplay.items.contexts import Case
from interplay.items.index import top_k
from interplay.metrics.bootstrap import estimate_ratio
from interplay.metrics.ranking import discounted_gain
from interplay.types import ScoreRow, Turn

RECALL_AT = (1, 5, 10, 20, 50)
NDCG_AT = 10
KINDS = ("all", "new", "repeated")
NUM_PREDICTED = 100
"""Item ids written per case."""
BATCH = 256
"""Cases scored at once."""

Floats = NDArray[np.float32]


class ManyMethods(Protocol):
    """A ranker that can rank by several methods at once (`items.ranker.ItemRanker`)."""

    item_ids: Sequence[str]

    def scores_by(self, contexts: Sequence[Sequence[Turn]], methods: Sequence[str]) -> Mapping[str, Floats]:
        """Scores of each method, shape (num_contexts, num_items)."""
        ...


@dataclass(slots=True, frozen=True)
class Placed:
    """Where one gold item stands."""

    dialogue: str
    repeated: bool
    """Whether the context names it."""
    ranks: dict[str, int | None]
    """Rank by each method, from 1, among all items; None where the catalog does not hold it."""
    filtered_ranks: dict[str, int | None]
    """The same with everything taken out that the context names; None where the item is taken out itself."""


class Heads:
    """The first items of every ranked list, by method, without and with the seen filter."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, bool], list[Shown]] = {}

    def add(self, method: str, cases: Sequence[Case], scores: Floats, named: Sequence[NDArray[np.intp]]) -> None:
        """Add the lists of some cases.

        Args:
            method: what ranked.
            cases: the cases.
            scores: of the method, shape (num_cases, num_items).
            named: rows of the items that each case's context names.
        """
        gone = [rows.tolist() for rows in named]
        for filtered in (False, True):
            found = top_k(scores, LIST_LENGTH, gone if filtered else None)
            shown = self._shown.setdefault((method, filtered), [])
            for case, rows, seen in zip(cases, found.rows.tolist(), gone, strict=True):
                items = tuple(r for r in rows if r >= 0)
                shown.append(Shown(case.dialogue, items, len(items), len(set(items) & set(seen))))

    def add_lists(
        self, cases: Sequence[Case], lists: Sequence[Mapping[str, Sequence[str | None]]], item_ids: Sequence[str]
    ) -> None:
        """Add lists of a recommender that does not score every item.

        Args:
            cases: of the logs.
            lists: see `place_lists`; what is no item of the catalog takes its place and is skipped and counted.
            item_ids: of the catalog, in order.
        """
        row = {item_id: n for n, item_id in enumerate(item_ids)}
        for case, own in zip(cases, lists, strict=True):
            for method, ids in own.items():
                for filtered in (False, True):
                    head = [i for i in ids if not filtered or i not in case.mentioned][:LIST_LENGTH]
                    items = tuple(row[i] for i in head if i in row)
                    repeated = sum(i in case.mentioned for i in head)
                    self._shown.setdefault((method, filtered), []).append(Shown(case.dialogue, items, len(head), repeated))

    def rows(self, popularity: Ints | None, num_items: int, about: About) -> list[ScoreRow]:
        """Coverage, Gini, popularity rank, novelty and repeated rate of every method: see `exposure.exposure_rows`.

        The condition is "all", and "all, seen removed" with the filter, where the repeated rate is 0 and left out.

        Args:
            popularity: see `exposure.recommended_counts`.
            num_items: of the catalog.
            about: what the rows share; their subject is "SUBJECT METHOD".
        """
        out: list[ScoreRow] = []
        for (method, filtered), shown in self._shown.items():
            own = replace(about, subject=f"{about.subject} {method}", condition=f"all, {SEEN_REMOVED}" if filtered else "all")
            suffix = f"@{LIST_LENGTH}"
            out += exposure_rows("ranking", shown, popularity, num_items, own, suffix=suffix, with_repeated=not filtered)
        return out


def place_cases(
    ranker: ManyMethods,
    cases: Sequence[Case],
    methods: Sequence[str],
    *,
    on_progress: Callable[[int, int], None] | None = None,
    predictions: Callable[[dict[str, Any]], None] | None = None,
    heads: Heads | None = None,
) -> list[Placed]:
    """Rank the catalog for every case.

    Of items with equal scores the one that comes first in the catalog is ranked first.

    Args:
        ranker: what ranks.
        cases: of the logs.
        methods: of the ranker; predictions are those of the last.
        on_progress: called with (cases done, cases).
        predictions: called with each case's id, its gold ids, the ids it has named, and the ranked ids.
        heads: the first `LIST_LENGTH` items of every list are added to it.

    Returns:
        One per gold item, in the order of the cases.
    """
    row = {item_id: n for n, item_id in enumerate(ranker.item_ids)}
    out: list[Placed] = []
    for start in range(0, len(cases), BATCH):
        part = cases[start : start + BATCH]
        scores = ranker.scores_by([c.context for c in part], methods)
        named = [np.array(sorted(row[i] for i in case.mentioned if i in row), np.intp) for case in part]
        for n, case in enumerate(part):
            for gold in case.gold:
                at = row.get(gold)
                full = {m: _rank(scores[m][n], at, None) for m in methods}
                rest = {m: None if gold in case.mentioned else _rank(scores[m][n], at, named[n]) for m in methods}
                out.append(Placed(case.dialogue, gold in case.mentioned, full, rest))
        if predictions is not None:
            for case, best in zip(part, top_k(scores[methods[-1]], NUM_PREDICTED).rows, strict=True):
                predictions(
                    {
                        "case": f"{case.dialogue}:{case.turn}",
                        "gold": list(case.gold),
                        "mentioned": sorted(case.mentioned),
                        "items": [ranker.item_ids[i] for i in best if i >= 0],
                    }
                )
        if heads is not None:
            for method in methods:
                heads.add(method, part, scores[method], named)
        if on_progress is not None:
            on_progress(start + len(part), len(cases))
    return out


def place_lists(cases: Sequence[Case], lists: Sequence[Mapping[str, Sequence[str | None]]]) -> list[Placed]:
    """Where the gold items stand in lists of ids: those of a recommender that does not score every item.

    Args:
        cases: of the logs.
        lists: for each case, by method, ids from the first place on; None stands for what is no item of the catalog, which
            takes its place all the same.

    Returns:
        As `place_cases`; an item that is not in a list has no rank there.
    """
    out = []
    for case, own in zip(cases, lists, strict=True):
        for gold in case.gold:
            full = {m: ids.index(gold) + 1 if gold in ids else None for m, ids in own.items()}
            rest = dict.fromkeys(own)
            if gold not in case.mentioned:
                left = {m: [i for i in ids if i not in case.mentioned] for m, ids in own.items()}
                rest = {m: ids.index(gold) + 1 if gold in ids else None for m, ids in left.items()}
            out.append(Placed(case.dialogue, gold in case.mentioned, full, rest))
    return out


def joined(first: Sequence[Placed], second: Sequence[Placed]) -> list[Placed]:
    """Ranks of the same cases by other methods, together."""
    return [
        replace(a, ranks=a.ranks | b.ranks, filtered_ranks=a.filtered_ranks | b.filtered_ranks)
        for a, b in zip(first, second, strict=True)
    ]


def _rank(scores: Floats, at: int | None, without: NDArray[np.intp] | None) -> int | None:
    if at is None:
        return None
    before = (scores > scores[at]) | ((scores == scores[at]) & (np.arange(len(scores)) < at))
    return 1 + int(before.sum()) - (0 if without is None else int(before[without].sum()))


def ranking_rows(placed: Sequence[Placed], methods: Sequence[str], about: About) -> list[ScoreRow]:
    """Recall@k, NDCG@10 and MRR of every method, kind and filter, with intervals that resample dialogues.

    The condition of a row is its kind, with ", seen removed" for the filter. Repeated items have no rows with the filter.

    Args:
        placed: of `place_cases`.
        methods: whose ranks they hold.
        about: what the rows share; their subject is "SUBJECT METHOD".
    """
    rows: list[ScoreRow] = []
    repeated = np.array([p.repeated for p in placed], bool)
    chosen = {"all": np.arange(len(placed)), "new": np.flatnonzero(~repeated), "repeated": np.flatnonzero(repeated)}
    dialogues = {kind: Units([placed[n].dialogue for n in own.tolist()]) for kind, own in chosen.items()}
    for method in methods:
        by_filter = [[p.ranks[method] or 0 for p in placed], [p.filtered_ranks[method] or 0 for p in placed]]
        ranks = np.array(by_filter, np.int64)
        for kind in KINDS:
            for filtered in (False, True):
                if filtered and kind == "repeated":
                    continue
                condition = f"{kind}, {SEEN_REMOVED}" if filtered else kind
                own = ranks[int(filtered), chosen[kind]]
                rows += _rows(dialogues[kind], own, f"{about.subject} {method}", condition, about)
    return rows


def _rows(dialogues: Units, ranks: NDArray[np.int64], subject: str, condition: str, about: About) -> Iterator[ScoreRow]:
    """Rows of gold items with these ranks, from 1; 0 where there is none."""
    from interplay import __version__

    held = ranks > 0
    gain = np.array([0.0, *(discounted_gain(r, NDCG_AT) for r in range(1, NDCG_AT + 2))])  # 0 beyond NDCG_AT
    values = {
        **{f"ranking.recall@{k}": held & (ranks <= k) for k in RECALL_AT},
        f"ranking.ndcg@{NDCG_AT}": gain[np.minimum(ranks, NDCG_AT + 1)],
        "ranking.mrr": np.where(held, 1 / np.maximum(ranks, 1), 0.0),
    }
    for metric, each in values.items():
        found = estimate_ratio(*dialogues.sums(each), np.random.default_rng(about.seed))
        yield ScoreRow(
            metric=metric,
            value=found.value,
            low=found.low,
            high=found.high,
            n=found.n,
            num_skipped=0,
            split=about.split,
            subject=subject,
            condition=condition,
            seed=about.seed,
            data_digest=about.data_digest,
            package_version=__version__,
        )
