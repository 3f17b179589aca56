"""Views without training by gradient: popularity, copying, co-occurrence, BM25 over contexts, likeness of content.

All give scores of shape (num_contexts, num_items); higher is better, and only their order within a context means something.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from interplay.items.contexts import Contexts, Ints, document, plain_words
from interplay.types import Item

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]
"""What a view is saved as."""

DECAY = 0.9
"""An item named n items ago counts DECAY^n in co-occurrence and likeness."""
K1, B = 1.2, 0.75
"""BM25's constants (Robertson and Zaragoza 2009, section 3)."""
NEIGHBOURS = 60
"""Training contexts that vote in BM25 over contexts."""


def turned(matrix: Any) -> Any:
    """The transpose as a CSR matrix of its own: what multiplies it would otherwise be turned into one at every product."""
    import scipy.sparse as sp

    return sp.csr_array(matrix.T)


@dataclass(frozen=True)
class Facts:
    """What is known of the items, as sparse matrices (scipy CSR)."""

    content: Any
    """TF-IDF of the documents, rows of length 1, over the reader's words; shape (num_items, num_words)."""
    counts: Any
    """How often a document holds a word; same shape."""
    titles: Any
    """1 where a word is in the title, divided by the words of the title; same shape."""
    genres: Any
    """1 for an item's genres, rows of length 1; shape (num_items, num_genres)."""
    years: Floats
    """NaN where it is not known; shape (num_items,)."""
    idf: Floats
    """Inverse document frequency of the words over the items; shape (num_words,)."""

    @cached_property
    def content_by_word(self) -> Any:
        """`content`, shape (num_words, num_items)."""
        return turned(self.content)

    @cached_property
    def titles_by_word(self) -> Any:
        """`titles`, shape (num_words, num_items)."""
        return turned(self.titles)

    @cached_property
    def in_titles(self) -> Any:
        """1 where a word is in the title, shape (num_items, num_words)."""
        return (self.titles > 0).astype(np.float32)

    @cached_property
    def items_by_genre(self) -> Any:
        """`genres`, shape (num_genres, num_items)."""
        return turned(self.genres)


def read_facts(items: Sequence[Item], number: dict[str, int]) -> Facts:
    """Count the words of the items.

    Args:
        items: of the catalog, in order.
        number: of each known word, from 1.
    """
    import scipy.sparse as sp

    num_words = len(number) + 1
    counts = _count_rows([[number[w] for w in document(i) if w in number] for i in items], num_words)
    df = np.bincount(counts.indices, minlength=num_words)
    idf = np.log((1 + len(items)) / (1 + df)).astype(np.float32) + 1
    weighted = counts.copy()
    weighted.data = 1 + np.log(weighted.data)
    content = _unit_rows(weighted @ sp.diags_array(idf))
    title_rows = [sorted({number[w] for w in plain_words(i.title) if w in number}) for i in items]
    titles = _count_rows(title_rows, num_words)
    size = np.maximum(np.asarray(titles.sum(axis=1)).ravel(), 1)
    names = {g: n for n, g in enumerate(sorted({g for i in items for g in i.attributes.get("genre", ())}))}
    genres = _unit_rows(_count_rows([[names[g] for g in i.attributes.get("genre", ())] for i in items], max(len(names), 1)))
    years = np.array([np.nan if i.year is None else i.year for i in items], np.float32)
    return Facts(content, counts, sp.csr_array(sp.diags_array(1 / size) @ titles), genres, years, idf)


def _count_rows(rows: Sequence[Sequence[int]], width: int) -> Any:
    import scipy.sparse as sp

    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.fromiter((n for row in rows for n in row), np.int32, indptr[-1])
    matrix = sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(rows), width))
    matrix.sum_duplicates()
    return matrix


def _unit_rows(matrix: Any) -> Any:
    import scipy.sparse as sp

    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sp.csr_array(sp.diags_array(1 / np.maximum(length, 1e-9)) @ matrix).astype(np.float32)


def named_items(contexts: Contexts, num_items: int, decay: float = DECAY, last_only: bool = False) -> Any:
    """The items named in each context as a sparse matrix (num_contexts, num_items): DECAY^(items named after it)."""
    import scipy.sparse as sp

    held = contexts.items < num_items
    if last_only:
        held[:, 1:] = False
    rows, places = np.nonzero(held)
    values = (decay**places).astype(np.float32)
    return sp.csr_array((values, (rows, contexts.items[rows, places])), shape=(len(contexts), num_items))


def word_sets(contexts: Contexts, num_words: int) -> Any:
    """1 for each word that a context holds: a sparse matrix (num_contexts, num_words)."""
    import scipy.sparse as sp

    rows, places = np.nonzero(contexts.words)
    matrix = sp.csr_array(
        (np.ones(len(rows), np.float32), (rows, contexts.words[rows, places])), shape=(len(contexts), num_words)
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def popularity(gold: Ints, num_items: int) -> Floats:
    """How often each item is recommended in training, shape (num_items,)."""
    return np.bincount(gold, minlength=num_items).astype(np.float32)


def copy_scores(contexts: Contexts, num_items: int) -> Floats:
    """What was mentioned, the latest first; everything else scores 0."""
    return np.asarray(named_items(contexts, num_items, decay=0.99).toarray(), np.float32)


@dataclass(slots=True, frozen=True)
class Cooccurrence:
    """Items that are named in the same conversations: sum over named items i of DECAY^n * n(i, j) / (n(i) + 1)."""

    together: Any
    """n(i, j) / (n(i) + 1), no diagonal; CSR (num_items, num_items)."""

    @classmethod
    def fit(cls, dialogues: Sequence[Sequence[int]], num_items: int) -> Self:
        """Count.

        Args:
            dialogues: the rows of the items that each training dialogue names.
            num_items: of the catalog.
        """
        import scipy.sparse as sp

        held = votes_of(dialogues, num_items)
        pairs = sp.csr_array(held.T @ held).astype(np.float32)
        own = pairs.diagonal()
        pairs.setdiag(0)
        pairs.eliminate_zeros()
        return cls(sp.csr_array(sp.diags_array((1 / (own + 1)).astype(np.float32)) @ pairs))

    def scores(self, contexts: Contexts, last_only: bool = False) -> Floats:
        """Scores (num_contexts, num_items); of the item named last alone when asked for."""
        named = named_items(contexts, self.together.shape[0], last_only=last_only)
        return np.asarray((named @ self.together).toarray(), np.float32)

    def arrays(self) -> Arrays:
        """For saving."""
        return pack(self.together)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` gave."""
        return cls(unpack(arrays))


@dataclass(frozen=True)
class Bm25:
    """BM25 of documents of words; with `votes`, documents are training contexts that vote for what came next."""

    weights: Any
    """CSR (num_documents, num_words)."""
    votes: Any = None
    """CSR (num_documents, num_items): 1 for the items recommended after a context. None: documents are the items."""

    @classmethod
    def fit(cls, counts: Any, votes: Any = None) -> Self:
        """Weigh the words: idf * tf (K1 + 1) / (tf + K1 (1 - B + B length / mean length)).

        Args:
            counts: how often each document holds each word, CSR (num_documents, num_words).
            votes: see the class.
        """
        import scipy.sparse as sp

        length = np.asarray(counts.sum(axis=1)).ravel()
        df = np.bincount(counts.indices, minlength=counts.shape[1])
        idf = np.log(1 + (counts.shape[0] - df + 0.5) / (df + 0.5))
        norm = K1 * (1 - B + B * length / max(float(length.mean()), 1e-9))
        weights = counts.copy()
        per_row = np.repeat(norm, np.diff(weights.indptr))
        weights.data = weights.data * (K1 + 1) / (weights.data + per_row) * idf[weights.indices]
        return cls(sp.csr_array(weights).astype(np.float32), votes)

    @cached_property
    def _by_word(self) -> Any:
        return turned(self.weights)

    def scores(self, contexts: Contexts) -> Floats:
        """Scores (num_contexts, num_items). Of the neighbours the best votes with 1, the others with (their share)^3."""
        import scipy.sparse as sp

        found = np.asarray((word_sets(contexts, self.weights.shape[1]) @ self._by_word).toarray(), np.float32)
        if self.votes is None:
            return found
        num = min(NEIGHBOURS, found.shape[1])
        best = np.argpartition(-found, num - 1, axis=1)[:, :num]
        share = np.take_along_axis(found, best, axis=1)
        share = (share / np.maximum(share.max(axis=1, keepdims=True), 1e-9)) ** 3
        rows = np.repeat(np.arange(len(found)), num)
        voters = sp.csr_array((share.ravel(), (rows, best.ravel())), shape=found.shape)
        return np.asarray((voters @ self.votes).toarray(), np.float32)

    def arrays(self) -> Arrays:
        """For saving."""
        return {**pack(self.weights), **(pack(self.votes, "votes_") if self.votes is not None else {})}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """What `arrays` gave."""
        return cls(unpack(arrays), unpack(arrays, "votes_") if "votes_shape" in arrays else None)


def context_counts(contexts: Contexts, num_words: int) -> Any:
    """How often each context holds each word: CSR (num_contexts, num_words)."""
    return _count_rows([[int(w) for w in row if w] for row in contexts.words], num_words)


def votes_of(gold: Sequence[Sequence[int]], num_items: int) -> Any:
    """1 for the items of each line (recommended after a context, named in a dialogue): CSR (num_lines, num_items)."""
    return _count_rows([sorted(set(g)) for g in gold], num_items)


def content_scores(contexts: Contexts, facts: Facts) -> Floats:
    """Likeness to what was named: sum over named items of the cosine of TF-IDF, not counting an item's with itself."""
    named = named_items(contexts, facts.content.shape[0], decay=1.0)
    alike = np.asarray(((named @ facts.content) @ facts.content_by_word).toarray(), np.float32)
    return alike - np.asarray(named.toarray(), np.float32)


def pack(matrix: Any, prefix: str = "") -> Arrays:
    """A CSR matrix as named arrays."""
    return {
        f"{prefix}data": matrix.data,
        f"{prefix}indices": matrix.indices,
        f"{prefix}indptr": matrix.indptr,
        f"{prefix}shape": np.array(matrix.shape),
    }


def unpack(arrays: Arrays, prefix: str = "") -> Any:
    """What `pack` gave."""
    import scipy.sparse as sp

    parts = (arrays[f"{prefix}data"], arrays[f"{prefix}indices"], arrays[f"{prefix}indptr"])
    return sp.csr_array(parts, shape=tuple(arrays[f"{prefix}shape"]))
