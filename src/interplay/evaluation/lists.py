"""Lists of titles against logs: the new / repeated / all x catalog filter x seen filter evaluator of He et al. (2308.10053).

For recommenders that answer with titles in order of preference, whoever they are: a language model behind an interface, a
system of one's own, a file. How a list is read:

- A title means a catalog item as everywhere (`Catalog.find`): spelling without case, articles and punctuation, years at most 2
  apart where both are written. Remakes are different items. A title that no item has is off the catalog.
- The catalog filter takes out titles off the catalog, the seen filter those that the context names, items or not; the list then
  closes up. Without a filter they keep their places.
- A title named twice keeps both places, and only the first can hit: a wasted place is wasted.
- A gold item that the context names is `repeated`, else `new`. With the seen filter a repeated item is a miss by construction
  and stays in the denominator of `all`; with the catalog filter a gold item off the catalog likewise.
- An empty list is a miss. A list that nobody has seen (null: the recommender failed) is skipped and counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from interplay.evaluation.ranking import KINDS
from interplay.evaluation.scoring import About, rows
from interplay.evaluation.values import Units
from interplay.metrics.bootstrap import Estimate, estimate_mean, estimate_ratio
from interplay.metrics.matching import YEAR_TOLERANCE
from interplay.titles import split_year, title_key
from interplay.types import Catalog, Record, ScoreRow

CUT_OFFS = (1, 5, 10, 20, 50)
"""Lengths of the head of a list that recall, NDCG and MRR look at."""
Ranks = tuple[int | None, int | None, int | None, int | None]
FILTERS = tuple(product((False, True), repeat=2))
"""Whether titles off the catalog, and whether seen ones, are taken out."""


class TitleList(Record):
    """What a recommender answered in one case; one line of a file of lists."""

    case: str
    """Names the conversation and the turn, CONVERSATION:TURN; intervals resample conversations."""
    titles: tuple[str, ...] | None = None
    """Best first: titles as written, or ids of the catalog. None (null) when the recommender gave no list."""
    gold: tuple[str, ...]
    """What the log's recommender named there: titles or ids, at least one."""
    mentioned: tuple[str, ...] = ()
    """What the conversation has named before: titles or ids."""

    @model_validator(mode="before")
    @classmethod
    def _items_are_titles(cls, given: Any) -> Any:
        # The predictions of `evaluate recommendation --ranker` are such a list under another name.
        if isinstance(given, dict) and "items" in given and "titles" not in given:
            return {name: value for name, value in given.items() if name != "items"} | {"titles": given["items"]}
        return given

    @model_validator(mode="after")
    def _has_gold(self) -> "TitleList":
        if not self.gold:
            raise ValueError("gold is empty; a case without an item to be found can't be scored")
        return self

    @property
    def dialogue(self) -> str:
        """The conversation of the case."""
        return self.case.rpartition(":")[0] or self.case


@dataclass(slots=True, frozen=True)
class PlacedItem:
    """Where one gold item stands in its list."""

    dialogue: str
    repeated: bool
    """Whether the context names it."""
    ranks: Ranks
    """From 1, by `FILTERS`; None where the list does not hold it."""


@dataclass(slots=True, frozen=True)
class _Name:
    """A title, and the item that it means."""

    item_id: str | None
    key: str
    year: int | None
    spelling: str = field(compare=False)
    """Tells titles off the catalog from each other."""

    def is_same(self, other: "_Name") -> bool:
        """Names of one item have one key, so two keys are never the same."""
        if self.item_id is not None and other.item_id is not None:
            return self.item_id == other.item_id
        if not self.key or self.key != other.key:
            return False
        return self.year is None or other.year is None or abs(self.year - other.year) <= YEAR_TOLERANCE


class _Names(dict[str, _Name]):
    """What titles mean, looked up once each."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self._catalog = catalog

    def __missing__(self, text: str) -> _Name:
        item = self._catalog.get(text) or self._catalog.find(text)
        written, year = (item.title, item.year) if item is not None else split_year(text)
        self[text] = name = _Name(None if item is None else item.id, title_key(written), year, title_key(text))
        return name

    def of(self, titles: Iterable[str]) -> list[_Name]:
        return list(map(self.__getitem__, titles))


def place_titles(lists: Iterable[TitleList], catalog: Catalog) -> Iterator[PlacedItem]:
    """Find every gold item in its list, under each combination of filters; lists that are None are passed over.

    Args:
        lists: the answers.
        catalog: what can be recommended.

    Returns:
        One per gold item, in the order of the lists.
    """
    names = _Names(catalog)
    return (item for answer in lists if answer.titles is not None for item in _placed(answer, names.of(answer.titles), names))


def _placed(answer: TitleList, listed: Sequence[_Name], names: _Names) -> Iterator[PlacedItem]:
    seen = names.of(answer.mentioned)
    for gold in dict.fromkeys(names.of(answer.gold)):
        hits = [place for place, name in enumerate(listed) if name.key == gold.key and name.is_same(gold)]
        ranks = _ranks(hits, listed, seen) if hits else (None, None, None, None)
        yield PlacedItem(answer.dialogue, any(gold.is_same(s) for s in seen), ranks)


def _ranks(hits: Sequence[int], listed: Sequence[_Name], seen: Sequence[_Name]) -> Ranks:
    """From 1, by `FILTERS`, of the first hit that a filter leaves in the list; `hits` are places from 0."""
    before = listed[: hits[-1] + 1]  # what comes after the last hit moves none
    known = [name.item_id is not None for name in before]
    unseen = [not any(name.is_same(s) for s in seen) for name in before]

    def rank(on_catalog: bool, only_new: bool) -> int | None:
        kept = [(on or not on_catalog) and (new or not only_new) for on, new in zip(known, unseen, strict=True)]
        return next((1 + sum(kept[:place]) for place in hits if kept[place]), None)

    first, second, third, fourth = (rank(*kind) for kind in FILTERS)
    return first, second, third, fourth


def title_list_rows(lists: Sequence[TitleList], catalog: Catalog, about: About) -> list[ScoreRow]:
    """Recall, NDCG and MRR of every kind and filter, and what the lists are like.

    The condition of a row is its kind, then ", off-catalog removed" and ", seen removed" for the filters. Repeated items have
    no rows with the seen filter, which makes all of them misses. Intervals resample conversations.

    Args:
        lists: the answers.
        catalog: what can be recommended.
        about: what the rows share.
    """
    names = _Names(catalog)
    meant = [None if answer.titles is None else names.of(answer.titles) for answer in lists]
    placed = [p for answer, own in zip(lists, meant, strict=True) if own is not None for p in _placed(answer, own, names)]
    ranks = np.array([[r or 0 for r in p.ranks] for p in placed], np.int64).reshape(len(placed), len(FILTERS))
    skipped = [gold for answer in lists if answer.titles is None for gold in dict.fromkeys(answer.gold)]
    out: list[ScoreRow] = []
    for kind in KINDS:
        chosen = [n for n, p in enumerate(placed) if kind == "all" or p.repeated == (kind == "repeated")]
        dialogues = Units([placed[n].dialogue for n in chosen])
        for place, (on_catalog, only_new) in enumerate(FILTERS):
            if only_new and kind == "repeated":
                continue
            condition = kind + ", off-catalog removed" * on_catalog + ", seen removed" * only_new
            # Whether an item of a list that nobody has seen is new can be told, but not where it would stand.
            num_skipped = len(skipped) if kind == "all" else 0
            out += _rank_rows(dialogues, ranks[chosen, place], replace(about, condition=condition), num_skipped)
    return out + rows(_list_estimates(meant, np.random.default_rng(about.seed)), about)


def _rank_rows(dialogues: Units, ranks: NDArray[np.int64], about: About, num_skipped: int) -> list[ScoreRow]:
    """Recall, NDCG and MRR at every cut-off, and the MRR of whole lists.

    Args:
        dialogues: of each gold item: what intervals resample.
        ranks: where it stands, from 1; 0 where the list does not hold it, which is a miss; shape (n,).
        about: what the rows share.
        num_skipped: passed on.
    """
    place = ranks.astype(np.float64)
    held = place > 0
    reciprocal = np.where(held, 1 / np.maximum(place, 1), 0.0)
    gain = np.where(held, 1 / np.log2(np.maximum(place, 1) + 1), 0.0)  # one gold item a list: the ideal gain is 1
    within = {k: held & (place <= k) for k in CUT_OFFS}
    values = {
        **{f"ranking.recall@{k}": within[k].astype(np.float64) for k in CUT_OFFS},
        **{f"ranking.ndcg@{k}": gain * within[k] for k in CUT_OFFS},
        **{f"ranking.mrr@{k}": reciprocal * within[k] for k in CUT_OFFS},
        "ranking.mrr": reciprocal,
    }
    return rows(
        {
            metric: estimate_ratio(*dialogues.sums(each), np.random.default_rng(about.seed), num_skipped)
            for metric, each in values.items()
        },
        about,
    )


def _list_estimates(meant: Sequence[Sequence[_Name] | None], rng: np.random.Generator) -> dict[str, Estimate]:
    observed = [names for names in meant if names is not None]
    num_skipped = len(meant) - len(observed)
    off, twice = [], []
    for names in observed:
        off_catalog = [name.spelling for name in names if name.item_id is None]
        off.append(float(len(off_catalog)))
        items = {name.item_id for name in names if name.item_id is not None}
        twice.append(float(len(names) - len(items) - len(set(off_catalog))))
    sizes = [len(names) for names in observed]
    return {
        "ranking.empty_list_rate": estimate_mean([float(not size) for size in sizes], rng, num_skipped),
        "ranking.off_catalog_rate": estimate_ratio(off, sizes, rng, num_skipped),
        "ranking.duplicate_rate": estimate_ratio(twice, sizes, rng, num_skipped),
    }
