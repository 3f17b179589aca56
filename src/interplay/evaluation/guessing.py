"""A blind guess (SPEC 2.3, point 3): which item do the target attributes alone name?

Whoever can tell the hidden item from what the user is told to look for needs no conversation. The guess is made without a
language model: items that have more of the attributes come first; among equals, BM25 of the attributes' words over what
the catalog knows of an item (title, attributes, text). A trained ranker can guess instead.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from interplay.evaluation.attributes import AttributeIndex
from interplay.items.contexts import document, plain_words
from interplay.items.lexical import Bm25
from interplay.metrics.matching import attribute_key
from interplay.types import Action, Catalog, Role, Turn

AT_ONCE = 256
"""Guesses made together, and scores kept for questions that come again; bounds either to 256 x num_items."""


class ScoresContexts(Protocol):
    """A trained ranker (`items.ranker.ItemRanker`)."""

    def scores(self, contexts: Sequence[Sequence[Turn]]) -> NDArray[np.float32]:
        """Scores (num_contexts, num_items), in the order of the catalog."""
        ...


@dataclass(slots=True, frozen=True)
class Question:
    """What is guessed."""

    attributes: tuple[str, ...]
    gold: tuple[str, ...]
    """Catalog ids of the targets."""


class BlindGuesser:
    """Ranks the catalog by attributes alone.

    Args:
        catalog: what can be guessed.
        ranker: of this catalog; guesses in place of the rules, from one user turn that says nothing but the attributes.
        index: of the catalog, where there is one already.
    """

    def __init__(self, catalog: Catalog, ranker: ScoresContexts | None = None, *, index: AttributeIndex | None = None) -> None:
        self._index = index or AttributeIndex(catalog)
        self._row = self._index.row
        self._ranker = ranker
        self._documents = [document(item) for item in catalog] if ranker is None else []
        self._number: dict[str, int] = {}
        self._bm25: Bm25 | None = None

    def ranks(self, questions: Iterable[Question]) -> Iterator[int | None]:
        """The rank of the best target for each question, from 1; what scores the same counts as ranked before it.

        None where nothing could be guessed: no attributes, or no target in the catalog.
        """
        source = iter(questions)
        kept: dict[tuple[str, ...], NDArray[np.float64]] = {}
        while batch := list(islice(source, AT_ONCE)):
            asked = [n for n, q in enumerate(batch) if q.attributes and any(g in self._row for g in q.gold)]
            new = list(dict.fromkeys(a for n in asked if (a := batch[n].attributes) not in kept))
            if len(kept) + len(new) > AT_ONCE:
                wanted = {batch[n].attributes for n in asked}
                kept = {attributes: scores for attributes, scores in kept.items() if attributes in wanted}
            if new:
                kept |= zip(new, self._scores(new), strict=True)
            ranks: list[int | None] = [None] * len(batch)
            for n in asked:
                row = kept[batch[n].attributes]
                gold = list({self._row[g] for g in batch[n].gold if g in self._row})
                at_least = row >= row[gold].max()
                # The targets themselves do not stand in each other's way.
                ranks[n] = 1 + int(np.count_nonzero(at_least)) - int(np.count_nonzero(at_least[gold]))
            yield from ranks

    def _scores(self, wanted: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
        if self._ranker is not None:
            asked = [[Turn(role=Role.USER, action=Action.DISCLOSE_GOAL, text=", ".join(a))] for a in wanted]
            return np.asarray(self._ranker.scores(asked), np.float64)
        words = self._words(wanted)
        held = np.stack([self._index.num_held(map(attribute_key, attributes)) for attributes in wanted])
        # Words only part items that have equally many attributes.
        return held + words / (1 + words)

    def _words(self, wanted: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
        """BM25 of the attributes' words, shape (len(wanted), num_items)."""
        import scipy.sparse as sp

        if self._bm25 is None:
            self._number = {w: n for n, w in enumerate(sorted({w for d in self._documents for w in d}))}
            self._bm25 = Bm25.fit(_counts(self._documents, self._number))
        asked = _counts([[w for a in attributes for w in plain_words(a)] for attributes in wanted], self._number)
        asked.data[:] = 1
        return np.asarray((sp.csr_array(asked) @ self._bm25.weights.T).toarray(), np.float64)


def _counts(documents: Sequence[Sequence[str]], number: dict[str, int]) -> Any:
    import scipy.sparse as sp

    rows = [[number[w] for w in words if w in number] for words in documents]
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.fromiter((n for row in rows for n in row), np.int32, indptr[-1])
    matrix = sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(documents), max(len(number), 1)))
    matrix.sum_duplicates()
    return matrix
