"""Candidates that have what the user has asked for, before those that have not.

A ranker that learned from logs knows which items go together and hears little of "a comedy from the nineties". This puts what
was asked for first: among the ranker's best, the items that have more of the wishes come before those that have fewer, and the
ranker's order stands among equals. Wishes are read by the rules of `reasoning.Wishes`, from the turns already spoken and from
nothing else; where nothing was asked for, the order is the ranker's.
"""

from collections.abc import Collection, Sequence

from interplay.simulation.facets import FacetIndex
from interplay.simulation.reasoning import wishes_of
from interplay.simulation.slots import Retriever
from interplay.types import Turn


class WishesFirst:
    """A Retriever around another one.

    Args:
        ranker: whose items are ordered again.
        index: of the catalog that the ids mean, with the attributes that are wished for.
        depth: how many of the ranker's best are looked at, >= 1; never fewer than are asked for.
    """

    def __init__(self, ranker: Retriever, index: FacetIndex, depth: int) -> None:
        self._ranker, self._index, self._depth = ranker, index, depth

    def top(
        self, contexts: Sequence[Sequence[Turn]], k: int, *, excluded: Sequence[Collection[str]] | None = None
    ) -> list[list[str]]:
        """Ids of the k items that have most of what was asked for, for each context (`slots.Retriever`)."""
        found = self._ranker.top(contexts, max(k, self._depth), excluded=excluded)
        return [self._ordered(turns, ids)[:k] for turns, ids in zip(contexts, found, strict=True)]

    def top_held_out(
        self, contexts: Sequence[Sequence[Turn]], k: int, *, excluded: Sequence[Collection[str]] | None = None
    ) -> tuple[list[list[str]], int]:
        """As `top`, as if the ranker had not seen the conversations; it keeps few items of those, so only k are looked at."""
        found, num_seen = self._ranker.top_held_out(contexts, k, excluded=excluded)
        return [self._ordered(turns, ids) for turns, ids in zip(contexts, found, strict=True)], num_seen

    def _ordered(self, turns: Sequence[Turn], ids: Sequence[str]) -> list[str]:
        index, wanted = self._index, [wish.facet for wish in wishes_of(self._index, turns)]
        return sorted(ids, key=lambda i: -sum(index.has(index.catalog[i], facet) for facet in wanted))
