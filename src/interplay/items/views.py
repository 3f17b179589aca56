"""The two views that are learned, and their fusion by cross-attention (SMTPO, arXiv 2604.03671; SPEC 1.1).

Text view: words of the conversation, pooled by attention, against words of the item (title, genres, people, plot) plus a
vector of its own. Collaborative view: items of the conversation against items, started from factorised co-occurrence.
Both are trained by InfoNCE with the whole catalog as negatives, that is, a softmax over all items; on catalogs of some
ten thousand items that is faster than it is to argue about sampling.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from interplay.items.contexts import NUM_SLOTS, Contexts, Ints
from interplay.items.lexical import Arrays, Floats

BATCH = 512
"""Contexts scored at once."""


@dataclass(slots=True, frozen=True)
class Training:
    """How a view is trained."""

    dim: int = 96
    epochs: int = 7
    batch_size: int = 256
    """Pairs per step, at most: with few pairs batches are smaller, so that an epoch has some 40 steps."""
    learning_rate: float = 3e-3
    weight_decay: float = 3e-5
    dropout: float = 0.35
    """Share of the words and items of a context that are left out at each step."""


def start_vectors(dialogues: Any, dim: int) -> Floats:
    """Item vectors from factorised co-occurrence: positive PMI with smoothed contexts, truncated SVD, sqrt of the values.

    Source: Levy, Goldberg and Dagan (TACL 2015), section 3, with context exponent 0.75 and eigenvalue exponent 0.5.

    Args:
        dialogues: CSR (num_dialogues, num_items), 1 where a dialogue names an item.
        dim: of the vectors; what the matrix has no rank for stays 0.

    Returns:
        Shape (num_items, dim), mean absolute value 0.1.
    """
    import scipy.sparse as sp
    from scipy.sparse.linalg import svds

    num_items = dialogues.shape[1]
    pairs = sp.csr_array(dialogues.T @ dialogues).astype(np.float64)
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    out = np.zeros((num_items, dim), np.float32)
    degree = np.asarray(pairs.sum(axis=0)).ravel()
    coo = pairs.tocoo()
    smooth = degree**0.75
    pmi = np.log(coo.data * max(smooth.sum(), 1e-9) / np.maximum(degree[coo.row] * smooth[coo.col], 1e-9))
    keep = pmi > 0
    rank = min(dim, num_items - 1)
    if rank < 1 or not keep.any():
        return out
    positive = sp.csr_array((pmi[keep], (coo.row[keep], coo.col[keep])), shape=pairs.shape)
    start = np.random.default_rng(0).standard_normal(num_items)
    left, values, _ = svds(positive, rank, v0=start)
    found = left * np.sqrt(np.maximum(values, 0))
    out[:, :rank] = found / max(float(np.abs(found).mean()), 1e-9) * 0.1
    return out


def _pool(weights: Tensor, mask: Tensor, nothing: Tensor, vectors: Tensor) -> Tensor:
    """Attention over (batch, length, dim); `nothing` is a place to look at when nothing is worth looking at."""
    scores = torch.cat([weights.masked_fill(~mask, -1e9), nothing.expand(len(weights), 1)], dim=1)
    return (scores.softmax(dim=1)[:, None, :-1] @ vectors).squeeze(1)


class _KeepsVectors(nn.Module):
    """Item vectors are computed once and kept until the module is trained again: they cost more than one context's scores."""

    _kept: Tensor | None = None

    def item_vectors(self) -> Tensor:
        """Shape (num_items, dim)."""
        raise NotImplementedError

    def kept_vectors(self) -> Tensor:
        """`item_vectors` of a module that is not being trained."""
        if self._kept is None:
            self._kept = self.item_vectors().detach()
        return self._kept

    def train(self, mode: bool = True) -> Self:
        """As torch's; the weights are taken to change, whichever the mode."""
        self._kept = None
        return super().train(mode)


class _View(_KeepsVectors):
    """A query from the context, a vector per item, a bias that starts from popularity, a bonus for what was named."""

    def __init__(self, num_items: int, log_popularity: Floats) -> None:
        super().__init__()
        self.num_items = num_items
        self.bias = nn.Parameter(torch.from_numpy(log_popularity.copy()))
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.copied = nn.Parameter(torch.zeros(NUM_SLOTS))
        self.slots = nn.Parameter(torch.tensor([-0.1 * (n // 2) for n in range(NUM_SLOTS)]))
        self.nothing = nn.Parameter(torch.tensor(0.0))

    def query(self, batch: "Batch") -> Tensor:
        """Shape (num_contexts, dim)."""
        raise NotImplementedError

    def forward(self, batch: "Batch", vectors: Tensor | None = None) -> Tensor:
        """Scores (num_contexts, num_items)."""
        vectors = self.item_vectors() if vectors is None else vectors
        bonus = self.copied[batch.item_slots] * (batch.items < self.num_items)
        named = torch.zeros(len(batch.items), self.num_items + 1).scatter(1, batch.items, bonus)[:, :-1]
        return self.bias + self.scale * (self.query(batch) @ vectors.T) + named

    def search_vectors(self) -> Tensor:
        """Vectors whose products with `search_queries` are the scores of items that the context does not name."""
        return torch.cat([self.item_vectors(), self.bias[:, None]], dim=1)

    def search_queries(self, batch: "Batch") -> Tensor:
        """Shape (num_contexts, dim + 1)."""
        return functional.pad(self.scale * self.query(batch), (0, 1), value=1.0)


@dataclass(slots=True, frozen=True)
class Batch:
    """Contexts as tensors; the masks say what is there and not dropped."""

    words: Tensor
    word_slots: Tensor
    word_mask: Tensor
    items: Tensor
    item_slots: Tensor
    item_mask: Tensor

    @classmethod
    def of(cls, contexts: Contexts, num_items: int, dropout: float = 0.0, generator: torch.Generator | None = None) -> Self:
        """The contexts, with a share of words and items dropped."""
        arrays = (contexts.words, contexts.word_slots, contexts.items, contexts.item_slots)
        words, word_slots, items, item_slots = (torch.from_numpy(a.astype(np.int64)) for a in arrays)
        word_mask, item_mask = words > 0, items < num_items
        if dropout:
            word_mask &= torch.rand(words.shape, generator=generator) > dropout
            item_mask &= torch.rand(items.shape, generator=generator) > dropout
        return cls(words, word_slots, word_mask, items, item_slots, item_mask)


class TextView(_View):
    """Words against words.

    Args:
        content: TF-IDF of the items' documents, CSR (num_items, num_words).
        idf: of the words, shape (num_words,); where attention starts.
        log_popularity: shape (num_items,).
        dim: of the vectors.
        generator: draws the first weights.
    """

    def __init__(self, content: Any, idf: Floats, log_popularity: Floats, dim: int, generator: torch.Generator) -> None:
        super().__init__(content.shape[0], log_popularity)
        first = torch.randn(content.shape[1], dim, generator=generator) * 0.1
        self.words = nn.Embedding(first.shape[0], dim, padding_idx=0, _weight=first)
        attention = torch.from_numpy(np.log(idf + 0.1))[:, None].clone()
        self.attention = nn.Embedding(len(attention), 1, _weight=attention)
        self.own = nn.Parameter(torch.randn(content.shape[0], dim, generator=generator) * 0.1)
        parts = (content.indptr.astype(np.int64), content.indices.astype(np.int64), content.data.astype(np.float32))
        indptr, indices, data = map(torch.from_numpy, parts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # CSR tensors are "beta"; what is used of them here is tested
            self.content = torch.sparse_csr_tensor(indptr, indices, data, size=content.shape, check_invariants=False)

    def item_vectors(self) -> Tensor:
        """The words of the documents plus a vector of the item's own."""
        words: Tensor = torch.sparse.mm(self.content, self.words.weight)
        return self.own + words

    def query(self, batch: Batch) -> Tensor:
        """The words said, weighed by what they are, who said them and when."""
        weights = self.attention(batch.words).squeeze(-1) + self.slots[batch.word_slots]
        return _pool(weights, batch.word_mask, self.nothing, self.words(batch.words))


class CollaborativeView(_View):
    """Items against items.

    Args:
        start: item vectors to start from, shape (num_items, dim).
        log_popularity: shape (num_items,).
    """

    def __init__(self, start: Floats, log_popularity: Floats) -> None:
        super().__init__(len(start), log_popularity)
        given = torch.from_numpy(start.copy())
        padded = torch.cat([given, torch.zeros(1, given.shape[1])])
        self.heard = nn.Embedding(len(padded), padded.shape[1], padding_idx=len(start), _weight=padded)
        self.own = nn.Parameter(given.clone())

    def item_vectors(self) -> Tensor:
        """As they are."""
        return self.own

    def query(self, batch: Batch) -> Tensor:
        """The items named, weighed by who named them and when."""
        return _pool(self.slots[batch.item_slots], batch.item_mask, self.nothing, self.heard(batch.items))


class CrossAttentionView(_KeepsVectors):
    """Both views at once: each view's query also looks over the other view's tokens, and all is trained together.

    Args:
        text: a trained text view.
        collaborative: a trained collaborative view of the same dimension.
    """

    def __init__(self, text: TextView, collaborative: CollaborativeView) -> None:
        super().__init__()
        self.text, self.collaborative = text, collaborative
        dim = collaborative.own.shape[1]
        # Nothing crosses at first: training starts from the sum of the views.
        self.to_items, self.to_words = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.from_items, self.from_words = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            for layer in (self.to_items, self.to_words):
                layer.weight.copy_(torch.eye(dim))
            for layer in (self.from_items, self.from_words):
                layer.weight.zero_()

    def item_vectors(self) -> Tensor:
        """Both views' vectors side by side, shape (num_items, 2 dim)."""
        return torch.cat([self.text.item_vectors(), self.collaborative.item_vectors()], dim=1)

    def query(self, batch: Batch) -> Tensor:
        """Both views' queries side by side, each with what it saw at the other's tokens; shape (num_contexts, 2 dim)."""
        t, c = self.text, self.collaborative
        words, items = t.words(batch.words), c.heard(batch.items)
        by_words, by_items = t.query(batch), c.query(batch)
        over_items = (items @ self.to_items(by_words)[:, :, None]).squeeze(-1)
        over_words = (words @ self.to_words(by_items)[:, :, None]).squeeze(-1)
        crossed_text = by_words + self.from_items(_pool(over_items, batch.item_mask, t.nothing, items))
        crossed_items = by_items + self.from_words(_pool(over_words, batch.word_mask, c.nothing, words))
        return torch.cat([t.scale * crossed_text, c.scale * crossed_items], dim=1)

    def forward(self, batch: Batch, vectors: Tensor | None = None) -> Tensor:
        """Scores (num_contexts, num_items)."""
        t, c = self.text, self.collaborative
        vectors = self.item_vectors() if vectors is None else vectors
        bonus = (t.copied + c.copied)[batch.item_slots] * (batch.items < t.num_items)
        named = torch.zeros(len(batch.items), t.num_items + 1).scatter(1, batch.items, bonus)[:, :-1]
        return (t.bias + c.bias) / 2 + self.query(batch) @ vectors.T + named

    def search_vectors(self) -> Tensor:
        """As those of the views."""
        return torch.cat([self.item_vectors(), (self.text.bias + self.collaborative.bias)[:, None] / 2], dim=1)

    def search_queries(self, batch: Batch) -> Tensor:
        """Shape (num_contexts, 2 dim + 1)."""
        return functional.pad(self.query(batch), (0, 1), value=1.0)


def train_view(
    view: nn.Module, contexts: Contexts, gold: Ints, which: Ints, num_items: int, how: Training, seed: int
) -> list[float]:
    """Train by InfoNCE over the whole catalog: minimise -log softmax(scores)[gold].

    Args:
        view: one of the views; changed in place.
        contexts: of the training cases.
        gold: rows of the items recommended, shape (num_pairs,).
        which: the context of each of them, shape (num_pairs,).
        num_items: of the catalog.
        how: the settings.
        seed: of the order and of what is dropped.

    Returns:
        Mean loss of each epoch, in nats.
    """
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(view.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay)
    batch_size = max(16, min(how.batch_size, len(gold) // 40))
    steps = how.epochs * math.ceil(len(gold) / batch_size)
    warmup = max(1, min(50, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warmup) * max(0.02, 1 - step / max(steps, 1))
    )
    view.train()
    losses = []
    for _ in range(how.epochs):
        order = rng.permutation(len(gold))
        total = 0.0
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = Batch.of(contexts.take(which[chosen]), num_items, how.dropout, generator)
            loss = functional.cross_entropy(view(batch), torch.from_numpy(gold[chosen].astype(np.int64)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        losses.append(total / max(len(order), 1))
    view.eval()
    return losses


@torch.no_grad()
def view_scores(view: Any, contexts: Contexts, num_items: int) -> Floats:
    """Scores (num_contexts, num_items) of a trained view."""
    vectors = view.kept_vectors()
    out = np.empty((len(contexts), num_items), np.float32)
    for start in range(0, len(contexts), BATCH):
        part = slice(start, start + BATCH)
        out[part] = view(Batch.of(contexts.take(part), num_items), vectors).numpy()
    return out


@torch.no_grad()
def search_vectors(view: "TextView | CollaborativeView | CrossAttentionView") -> Floats:
    """Vectors of the items for an `index.ItemIndex`, shape (num_items, dim): see `search_queries`."""
    return np.asarray(view.search_vectors().numpy())


@torch.no_grad()
def search_queries(view: "TextView | CollaborativeView | CrossAttentionView", contexts: Contexts, num_items: int) -> Floats:
    """Queries to `search_vectors`, shape (num_contexts, dim): products are the scores of items that a context does not name.

    What a context names has a bonus besides; where that is to be found, all scores have to be computed.
    """
    parts = [
        view.search_queries(Batch.of(contexts.take(slice(s, s + BATCH)), num_items)) for s in range(0, len(contexts), BATCH)
    ]
    return np.asarray(torch.cat(parts).numpy())


def view_arrays(view: nn.Module) -> Arrays:
    """The weights of a view, for saving."""
    return {name: np.asarray(tensor.detach().numpy()) for name, tensor in view.named_parameters()}


def set_view_arrays(view: nn.Module, arrays: dict[str, NDArray[Any]]) -> None:
    """Put saved weights into a view of the same shape.

    Raises:
        KeyError: one is missing.
    """
    with torch.no_grad():
        for name, parameter in view.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[name]))
    view.eval()
