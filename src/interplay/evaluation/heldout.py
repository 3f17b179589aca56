"""How good item vectors are: held-out ratings, against popularity, the text alone, and `implicit`'s BPR on the same split.

Of every user some liked items are held out (`items.ratings.leave_some_out`). They are to come before the items that anyone
rated and this user did not; what else the user rated is not ranked. AUC and Recall@20 are means over users.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interplay.errors import MissingExtra
from interplay.items.bpr import Bpr
from interplay.items.encoders import Floats
from interplay.items.ratings import Ratings
from interplay.metrics.bootstrap import Estimate, estimate_mean
from interplay.metrics.ranking import area_under_curve

RECALL_AT = 20
MAX_USERS = 5000
"""Users measured at most, drawn by the seed."""
ScoresOf = Callable[[int], NDArray[np.floating]]
"""Scores of all items for one user, shape (num_items,)."""
IMPLICIT_SETTINGS = ((64, 40), (64, 100), (128, 60), (100, 100))
"""Factors and iterations that `implicit`'s BPR is tried with; the last pair is its own default."""


@dataclass(slots=True, frozen=True)
class Quality:
    """What one method reaches on held-out likes, with intervals that resample users."""

    auc: Estimate
    recall: Estimate
    """Of the first `RECALL_AT`: share of a user's held-out items among them."""
    auc_unseen: Estimate
    """AUC of the held-out items that no training pair names."""

    def record(self) -> dict[str, float | int | None]:
        """The numbers as JSON."""
        named = {"auc": self.auc, f"recall@{RECALL_AT}": self.recall, "auc_unseen_items": self.auc_unseen}
        out: dict[str, float | int | None] = {}
        for name, found in named.items():
            out |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_users": found.n}
        return out


def quality(scores_of: ScoresOf, train: Ratings, held: Ratings, num_items: int, seed: int) -> Quality:
    """Measure one method.

    Args:
        scores_of: the method.
        train: what it was trained on.
        held: what was held out, of the same ratings.
        num_items: of the catalog.
        seed: of the intervals, and of which users are measured where there are more than `MAX_USERS`.
    """
    rng = np.random.default_rng(seed)
    pool = np.unique(held.rated[:, 1])
    unseen = train.popularity(num_items)[pool] == 0
    users = np.unique(held.users)
    if len(users) > MAX_USERS:
        users = np.sort(rng.choice(users, MAX_USERS, replace=False))
    auc, recall, auc_unseen = [], [], []
    for user in users.tolist():
        wanted = np.isin(pool, held.items[np.searchsorted(held.users, user) : np.searchsorted(held.users, user, "right")])
        low, high = np.searchsorted(held.rated[:, 0], [user, user + 1])
        free = ~np.isin(pool, held.rated[low:high, 1])
        if not free.any():
            continue
        scores = np.asarray(scores_of(user))[pool]
        areas = area_under_curve(scores[wanted], scores[free])
        auc.append(float(areas.mean()))
        if unseen[wanted].any():
            auc_unseen.append(float(areas[unseen[wanted]].mean()))
        ranked = np.flatnonzero(wanted | free)
        best = ranked[np.argsort(-scores[ranked], kind="stable")[:RECALL_AT]]
        recall.append(float(wanted[best].sum() / wanted.sum()))
    return Quality(estimate_mean(auc, rng), estimate_mean(recall, rng), estimate_mean(auc_unseen, rng))


def quality_table(
    text: Floats, train: Ratings, held: Ratings, trained: Mapping[str, Bpr], *, seed: int = 0, with_implicit: bool = True
) -> dict[str, Quality]:
    """All methods on one split.

    Args:
        text: vectors of the items' texts, shape (num_items, text_dim).
        train: what the methods are trained on.
        held: what was held out.
        trained: our vectors by name, trained on `train`.
        seed: see `quality`; also of `implicit`.
        with_implicit: whether `implicit`'s BPR is measured, at the best of `IMPLICIT_SETTINGS` for these held-out pairs (to its
            favour) and at its default.

    Raises:
        MissingExtra: `implicit` is asked for and not installed.
    """
    num_items = len(text)
    popularity = train.popularity(num_items).astype(np.float32)
    profile = np.zeros((train.num_users, text.shape[1]), np.float32)
    np.add.at(profile, train.users, text[train.items])

    def measured(scores_of: ScoresOf) -> Quality:
        return quality(scores_of, train, held, num_items, seed)

    out = {"popularity": measured(lambda user: popularity), "text alone": measured(lambda user: text @ profile[user])}
    if with_implicit:
        found = {s: measured(implicit_scores(train, num_items, *s, seed=seed)) for s in IMPLICIT_SETTINGS}
        best = max(found, key=lambda s: found[s].recall.value or 0.0)
        out["implicit's BPR, default"] = found[IMPLICIT_SETTINGS[-1]]
        out[f"implicit's BPR, best of {len(found)}"] = found[best]
    for name, bpr in trained.items():
        out[name] = measured(lambda user, bpr=bpr: bpr.scores(np.array([user]))[0])  # type: ignore[misc]
    return out


def implicit_scores(train: Ratings, num_items: int, factors: int, iterations: int, *, seed: int) -> ScoresOf:
    """The BPR of the package `implicit`, on the items of the training pairs; other items score 0, between liked and not.

    Args:
        train: what to train on.
        num_items: of the catalog.
        factors: its dimension.
        iterations: its epochs.
        seed: its seed.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from implicit.bpr import BayesianPersonalizedRanking
    except ImportError:
        raise MissingExtra("implicit", "bench", "the comparison with its BPR") from None
    import scipy.sparse as sp

    pool = np.unique(train.items)
    ones = np.ones(len(train), np.float32)
    matrix = sp.csr_matrix((ones, (train.users, np.searchsorted(pool, train.items))), shape=(train.num_users, len(pool)))
    # One thread: with more its updates race and the result is another each time.
    model = BayesianPersonalizedRanking(factors=factors, iterations=iterations, num_threads=1, random_state=seed)
    model.fit(matrix, show_progress=False)
    items, users = np.asarray(model.item_factors), np.asarray(model.user_factors)

    def scores_of(user: int) -> NDArray[np.floating]:
        scores = np.zeros(num_items, np.float32)
        scores[pool] = items @ users[user]
        return scores

    return scores_of
