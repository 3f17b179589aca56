"""Re-ranking the head of the fused list with features that know of copying, time, genre and titles.

Trained on scores that the views gave to dialogues they were not trained on (cross-fitting), because a view's scores on its
own training data are far too sure, and a re-ranker trained on them would trust them blindly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from interplay.errors import MissingExtra
from interplay.items.contexts import Contexts
from interplay.items.lexical import Arrays, Facts, Floats, named_items, word_sets

NUM_CANDIDATES = 120
"""Items re-ranked: everything the context names, then the head of the fused list."""
FUSION = {"text": 1.0, "collaborative": 0.5, "content": 0.5, "cooccurrence": 0.2}
"""Weights of the views, each standardised per context; chosen on the validation split of ReDial (docs/recommendation.md)."""
VIEWS = ("text", "collaborative", "cooccurrence", "cooccurrence_last", "bm25", "bm25_items", "content")
FEATURES = (
    *VIEWS,
    "fused",
    "below_best",
    "popularity",
    "by_user",
    "by_recommender",
    "age",
    "times_named",
    "year",
    "years_from_mean",
    "years_from_last",
    "genre_like_all",
    "genre_like_last",
    "title_words_said",
    "title_like_last",
    "num_named",
)
"""In the order of the last axis of `features`."""


def standardised(scores: Floats) -> Floats:
    """Each context's scores with mean 0 and deviation 1."""
    spread = scores.std(axis=1, keepdims=True)
    return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-6), np.float32)


def fused_scores(scores: Mapping[str, Floats], weights: Mapping[str, float] = FUSION) -> Floats:
    """The weighted sum of the standardised views, shape (num_contexts, num_items)."""
    return np.asarray(sum(weight * standardised(scores[name]) for name, weight in weights.items()), np.float32)


def features(contexts: Contexts, scores: Mapping[str, Floats], fused: Floats, facts: Facts) -> tuple[NDArray[np.intp], Floats]:
    """The candidates of each context and what is known of them.

    Args:
        contexts: the conversations so far.
        scores: of `VIEWS`, and popularity of shape (num_items,).
        fused: of `fused_scores`.
        facts: of the items.

    Returns:
        Rows of the catalog (num_contexts, num_candidates), and their features (num_contexts, num_candidates,
        num_features); NaN where nothing is known.
    """
    num_contexts, num_items = fused.shape
    named = named_items(contexts, num_items, decay=1.0)
    first = fused + 1e6 * np.asarray(named.toarray(), np.float32)
    num = min(NUM_CANDIDATES, num_items)
    rows = np.argpartition(-first, num - 1, axis=1)[:, :num]
    rows.sort(axis=1)
    last = named_items(contexts, num_items, last_only=True)
    held = np.maximum(np.asarray(named.sum(axis=1)), 1)[:, None].astype(np.float32)

    def at(dense: Floats) -> Floats:
        return np.take_along_axis(dense, rows, axis=1)

    def dense(values: NDArray[np.int32]) -> Floats:
        out = np.zeros((num_contexts, num_items + 1), np.float32)
        np.put_along_axis(out, contexts.items, values.astype(np.float32), axis=1)
        return out[:, :-1]

    def like(who: Any) -> Floats:
        return np.asarray(((who @ facts.genres) @ facts.items_by_genre).toarray(), np.float32)

    speakers, ages = at(dense(contexts.speakers)), at(dense(contexts.ages))
    padded_years = np.append(facts.years, np.float32(np.nan))
    said_years = padded_years[contexts.items]
    known = ~np.isnan(said_years)
    mean_year = np.where(known, said_years, 0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    years = facts.years[rows]
    columns = [
        *(at(standardised(scores[name])) for name in VIEWS),
        at(fused),
        fused.max(axis=1, keepdims=True) - at(fused),
        np.log1p(scores["popularity"])[rows],
        speakers % 2,
        speakers // 2,
        np.where(ages > 0, ages, 99.0),
        at(dense(contexts.counts)),
        years,
        years - mean_year[:, None],
        years - said_years[:, :1],
        at(like(named)) / held,
        at(like(last)),
        at(np.asarray((word_sets(contexts, facts.titles.shape[1]) @ facts.titles_by_word).toarray(), np.float32)),
        at(np.asarray(((last @ facts.in_titles) @ facts.titles_by_word).toarray(), np.float32)),
        np.broadcast_to(held, rows.shape),
    ]
    return rows, np.stack([np.asarray(c, np.float32) for c in columns], axis=2)


def reordered(fused: Floats, rows: NDArray[np.intp], scores: Floats) -> Floats:
    """Scores of all items: the candidates by their new scores, above all others in their old order."""
    out = standardised(fused) - 1000
    np.put_along_axis(out, rows, 1000 + scores.astype(np.float32), axis=1)
    return out


@dataclass(slots=True, frozen=True)
class LinearReranker:
    """A conditional logit over the candidates: P(item) = softmax(w . x), x the features and a few of their products."""

    mean: Floats
    spread: Floats
    weights: Floats

    @classmethod
    def fit(cls, given: Floats, gold: NDArray[np.bool_]) -> Self:
        """Minimise the mean negative log likelihood of the gold items, with an L2 penalty of 1e-4.

        Args:
            given: features (num_contexts, num_candidates, num_features).
            gold: which candidates were recommended, shape (num_contexts, num_candidates); at least one in each context.
        """
        from scipy.optimize import minimize

        x = _expanded(given)
        mean, spread = x.mean(axis=(0, 1)), np.maximum(x.std(axis=(0, 1)), 1e-6)
        x = (x - mean) / spread
        target = gold.astype(np.float32)
        num_gold = target.sum(axis=1, keepdims=True)

        def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            s = x @ w.astype(np.float32)
            top = s.max(axis=1, keepdims=True)
            e = np.exp(s - top)
            total = e.sum(axis=1, keepdims=True)
            value = float(((np.log(total) + top) * num_gold).sum() - (s * target).sum()) / len(x)
            slope = np.einsum("nc,ncf->f", e / total * num_gold - target, x) / len(x)
            return value + 1e-4 * float(w @ w), slope.astype(np.float64) + 2e-4 * w

        found = minimize(loss, np.zeros(x.shape[2]), jac=True, method="L-BFGS-B", options={"maxiter": 100})
        return cls(mean.astype(np.float32), spread.astype(np.float32), found.x.astype(np.float32))

    def scores(self, given: Floats) -> Floats:
        """Scores (num_contexts, num_candidates)."""
        return np.asarray(((_expanded(given) - self.mean) / self.spread) @ self.weights, np.float32)

    def arrays(self) -> Arrays:
        """For saving."""
        return {"mean": self.mean, "spread": self.spread, "weights": self.weights}


def _expanded(given: Floats) -> Floats:
    """The features for a linear model: distances instead of years, and what depends on an item having been named."""
    f = {name: given[..., n] for n, name in enumerate(FEATURES)}
    named = ((f["by_user"] + f["by_recommender"]) > 0).astype(np.float32)

    def distance(name: str) -> Floats:
        return np.asarray(np.clip(np.nan_to_num(np.abs(f[name]), nan=10), 0, 30) / 10, np.float32)

    columns = [
        *(f[name] for name in VIEWS),
        f["text"] * named,
        f["collaborative"] * named,
        f["popularity"],
        named,
        f["by_recommender"],
        f["by_recommender"] * (f["age"] <= 2),
        f["by_user"] * (f["age"] <= 1),
        f["by_user"] * (1 - f["by_recommender"]),
        named * np.log1p(f["num_named"]),
        np.minimum(f["times_named"], 3) * named,
        f["genre_like_all"],
        f["genre_like_last"],
        f["title_words_said"],
        f["title_words_said"] * (1 - named),
        f["title_like_last"] * (1 - named),
        distance("years_from_last"),
        distance("years_from_mean"),
        np.isnan(f["year"]),
        np.nan_to_num(np.maximum(f["year"] - 2010, 0)) / 10,
    ]
    return np.stack([np.asarray(c, np.float32) for c in columns], axis=-1)


@dataclass(slots=True, frozen=True)
class TreeReranker:
    """Gradient-boosted trees with a listwise loss (LightGBM's rank_xendcg: Bruch et al., WWW 2021)."""

    model: str
    """As LightGBM writes it."""
    booster: Any

    @classmethod
    def fit(cls, given: Floats, gold: NDArray[np.bool_], seed: int) -> Self:
        """Grow the trees.

        Args:
            given: features (num_contexts, num_candidates, num_features).
            gold: which candidates were recommended, shape (num_contexts, num_candidates).
            seed: of the shares of rows and features that each tree sees.

        Raises:
            MissingExtra: LightGBM is not installed.
        """
        lightgbm = _lightgbm()
        x = given.reshape(-1, given.shape[2])
        settings = {
            "objective": "rank_xendcg",
            "num_leaves": 15,
            "learning_rate": 0.05,
            "min_data_in_leaf": min(200, max(2, len(x) // 100)),
            "feature_fraction": 0.6,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 5,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed % 2**31,
            "verbose": -1,
        }
        data = lightgbm.Dataset(x, gold.reshape(-1).astype(np.int32), group=[given.shape[1]] * len(given))
        return cls.read(lightgbm.train(settings, data, 250).model_to_string())

    def scores(self, given: Floats) -> Floats:
        """Scores (num_contexts, num_candidates)."""
        flat = self.booster.predict(given.reshape(-1, given.shape[2]), num_threads=1)
        return np.asarray(flat, np.float32).reshape(given.shape[:2])

    @classmethod
    def read(cls, model: str) -> Self:
        """A model as LightGBM wrote it.

        Raises:
            MissingExtra: LightGBM is not installed.
        """
        return cls(model, _lightgbm().Booster(model_str=model))


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra("lightgbm", "rank", "re-ranking with trees") from None
    return lightgbm
