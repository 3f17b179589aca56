"""Item vectors from text and ratings: a head over the items' text vectors, trained by BPR (Rendle et al., UAI 2009).

The score of an item for a user is  x_ui = p_u . v_i + b_i  with  v_i = head(text_i) + own_i . A pair (user, liked item) is
set against items drawn from those that anyone liked: minimise  -log sigmoid(x_ui - x_uj). The bias takes up popularity, so
that the vectors need not. `own_i`, what ratings say beyond the text, starts from 0 and stays 0 for an item that nobody liked:
its vector is that of its text alone, in the same space as the others.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from interplay.items.encoders import Floats, cached
from interplay.items.ratings import Ratings
from interplay.store import cache_directory
from interplay.types import content_hash

FORM = 1
"""Version of the training; part of the cache's key."""


@dataclass(slots=True, frozen=True)
class HeadTraining:
    """How the head is trained."""

    dim: int = 64
    """Of the vectors."""
    hidden: int = 0
    """Width of a hidden layer of the head; 0: the head is linear."""
    own: bool = True
    """Whether liked items have a part of their own besides their text."""
    epochs: int = 20
    batch_size: int = 2048
    learning_rate: float = 0.01
    decay: float = 3e-3
    """Weight of the squared vectors of the pairs of a step in the loss."""
    own_decay: float = 1e-2
    """The same of the items' own parts."""
    negatives: int = 4
    """Items drawn against each liked one."""

    def record(self) -> dict[str, Any]:
        """The settings as JSON."""
        return asdict(self)


@dataclass(slots=True, frozen=True)
class Bpr:
    """What was learned."""

    vectors: Floats
    """Shape (num_items, dim)."""
    bias: Floats
    """Shape (num_items,); 0 for an item that nobody liked."""
    users: Floats
    """Shape (num_users, dim)."""

    def scores(self, users: NDArray[np.integer]) -> Floats:
        """Scores of all items for some users, shape (len(users), num_items)."""
        scores: Floats = self.users[users] @ self.vectors.T + self.bias
        return scores


class _Head(nn.Module):
    """The parameters; items are counted among the liked ones."""

    def __init__(self, text: Floats, num_users: int, how: HeadTraining, generator: torch.Generator) -> None:
        super().__init__()
        self.text = torch.from_numpy(text)
        num_items, width = text.shape
        sizes = [width, *([how.hidden] if how.hidden else []), how.dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layer = nn.Linear(before, after, bias=False)
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / math.sqrt(before))
            layers += [layer, nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])
        self.own = nn.Parameter(torch.zeros(num_items, how.dim), requires_grad=how.own)
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.users = nn.Parameter(torch.randn(num_users, how.dim, generator=generator) * 0.1)


def train_bpr(
    text: Floats,
    ratings: Ratings,
    how: HeadTraining | None = None,
    *,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Bpr:
    """Learn item vectors.

    Args:
        text: vectors of the items' texts, shape (num_items, text_dim).
        ratings: who liked what.
        how: the settings.
        seed: of first weights, order and drawn items; equal inputs on one machine give equal vectors.
        on_epoch: called with (epochs done, mean loss of the last).
    """
    how = how or HeadTraining()
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    pool = np.unique(ratings.items)
    places = np.searchsorted(pool, ratings.items)
    model = _Head(text[pool], ratings.num_users, how, generator)
    liked = np.unique(ratings.users * len(pool) + places)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=how.learning_rate)
    steps = how.epochs * math.ceil(len(ratings) / how.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.02, 1 - step / max(steps, 1)))
    for epoch in range(how.epochs):
        order = rng.permutation(len(ratings))
        total = 0.0
        for start in range(0, len(order), how.batch_size):
            chosen = order[start : start + how.batch_size]
            users, items = ratings.users[chosen], places[chosen]
            drawn = rng.integers(len(pool), size=(len(chosen), how.negatives))
            # What a user likes is nothing to set against it; the few such draws are left out.
            keys = users[:, None] * len(pool) + drawn
            valid = liked[np.minimum(np.searchsorted(liked, keys), len(liked) - 1)] != keys
            loss, penalty = _loss(model, how, *map(torch.from_numpy, (users, items, drawn, valid)))
            optimizer.zero_grad()
            (loss + penalty).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        if on_epoch is not None:
            on_epoch(epoch + 1, total / len(order))
    with torch.no_grad():
        vectors, bias = model.head(torch.from_numpy(text)).numpy(), np.zeros(len(text), np.float32)
        vectors[pool] += model.own.numpy()
        bias[pool] = model.bias.numpy()
        return Bpr(vectors, bias, model.users.numpy().copy())


def cached_bpr(
    text: Floats,
    ratings: Ratings,
    how: HeadTraining | None = None,
    *,
    seed: int = 0,
    cache: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Bpr:
    """As `train_bpr`, but trained once: kept in the cache under a hash of everything that the result depends on.

    Args:
        text: see `train_bpr`, as the other arguments.
        ratings: see there.
        how: see there.
        seed: see there.
        cache: see `encoders.encode_items`.
        on_epoch: not called when the result was at hand.
    """
    how = how or HeadTraining()
    digest = hashlib.sha256(np.ascontiguousarray(text).tobytes()).hexdigest()
    key = content_hash(
        [FORM, digest, list(text.shape), ratings.digest, ratings.num_users, how.record(), seed, torch.__version__]
    )
    num_items = len(text)

    def make() -> Floats:
        found = train_bpr(text, ratings, how, seed=seed, on_epoch=on_epoch)
        below = np.pad(found.users, ((0, 0), (0, 1)))
        return np.concatenate([np.concatenate([found.vectors, found.bias[:, None]], axis=1), below])

    whole = cached((cache or cache_directory() / "items") / f"bpr-{key}.npy", num_items + ratings.num_users, make)
    return Bpr(whole[:num_items, :-1], whole[:num_items, -1], whole[num_items:, :-1])


def _loss(model: _Head, how: HeadTraining, users: Tensor, items: Tensor, drawn: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    which, back = torch.unique(torch.cat([items[:, None], drawn], dim=1), return_inverse=True)
    own, bias, user = model.own[which], model.bias[which], model.users[users]
    vectors = functional.embedding(back, model.head(model.text[which]) + own)
    scores = (vectors @ user[:, :, None]).squeeze(-1) + bias[back]
    loss = (functional.softplus(scores[:, 1:] - scores[:, :1]) * valid).sum() / valid.sum().clamp(min=1)
    penalty = how.decay * ((user**2).sum(1).mean() + (vectors**2).sum(2).mean())
    if how.own:
        penalty = penalty + how.own_decay * functional.embedding(back, (own**2).sum(1, keepdim=True)).mean()
    return loss, penalty
