"""Which sociable and elicitation strategies a recommender's turn uses: INSPIRED's labels, and a classifier learnt from them.

    DIR/strategies.json   the n-grams with their weights, and the thresholds
    DIR/card.json         where it comes from, and its macro-F1 on conversations it has not seen; see `StrategyCard`

A logistic regression per strategy (a turn may use several) scores every sentence; a turn has the highest score of its
sentences. Learnt are single messages, which INSPIRED's annotators labelled; judged are whole turns cut into sentences, which
is what a simulated conversation has.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from interplay.corpora.inspired import ELICITATION, SOCIABLE
from interplay.corpora.messages import Spoken, merge_messages, sentences
from interplay.errors import DataError
from interplay.metrics.bootstrap import cluster_interval
from interplay.metrics.discriminators import folds, tokens
from interplay.provenance import code_version
from interplay.store import read_json, write_lines
from interplay.types import Mention, Record, Role, Turn, content_hash

STRATEGIES = SOCIABLE + ELICITATION
"""What is learnt and reported. INSPIRED's further labels (acknowledgment, rephrase_preference, transparency, no_strategy) are
kept in the records and are none of the ten."""

MODEL = "strategies.json"
CARD = "card.json"

PENALTIES = (1.0, 4.0, 16.0)
"""Inverse strengths C of the regularisation; one is chosen by cross-validation inside the training part."""
MIN_DIALOGUES = 10
"""Fewer labelled conversations are not learnt from."""
_NUM_INNER = 4
_NUM_RANDOM = 200
"""Draws of the random baseline."""
_NEVER = 1e6
"""Threshold of a strategy that the training part does not have."""
_TITLE = " xitemx "
_OPENING = 4
"""Turns by which a conversation is known again."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
OnStep = Callable[[int, int], None]

_FLAGS = ("asks", "names an item", "an item was named", "was asked", "nothing said", "begins the turn", "short", "long")


class StrategyScore(Record):
    """How well one strategy is predicted, over all recommender turns in cross-validation."""

    strategy: str
    f1: float | None
    """Of the turns with the strategy; None where no turn has it."""
    low: float | None = None
    """95 % interval over conversations."""
    high: float | None = None
    precision: float | None
    """None where nothing is predicted."""
    recall: float | None
    num_turns: int
    """Turns labelled with it."""
    num_predicted: int
    random_f1: float | None
    """Of drawing it with the share that it has in the training part."""
    always_f1: float | None
    """Of giving it to every turn."""


class StrategyCard(Record):
    """What is known of a classifier. All figures are of conversations that neither weights nor settings have seen."""

    name: str
    fingerprint: str
    data_digest: str
    """Of the labelled conversations."""
    seed: int
    package_version: str
    num_dialogues: int
    num_messages: int
    """Recommender messages that were learnt from."""
    num_turns: int
    """Recommender turns that it was measured on."""
    num_folds: int
    penalty: float
    """One of PENALTIES, of the classifier that is stored."""
    macro_f1: float
    """Unweighted mean of the F1 of the strategies that occur."""
    low: float | None = None
    high: float | None = None
    majority_macro_f1: float
    """Of giving each turn what most turns of the training part have of each strategy (none of the ten is had by most)."""
    random_macro_f1: float
    always_macro_f1: float
    scores: tuple[StrategyScore, ...]
    trained_openings: tuple[str, ...]
    """Hashes of the conversations it has learnt from; see `opening_hash`."""


class _Model(Record):
    ngrams: tuple[str, ...]
    idf: tuple[float, ...]
    weights: dict[str, tuple[float, ...]]
    """By strategy: one per n-gram, then one per flag."""
    bias: dict[str, float]
    thresholds: dict[str, float]
    """A turn uses a strategy when its score is above."""


class StrategyClassifier:
    """Tells the strategies of recommender turns from their words.

    Args:
        model: its weights.
        card: where it comes from.
    """

    def __init__(self, model: _Model, card: StrategyCard) -> None:
        self.card = card
        self._model = model
        names = tuple(model.weights)
        self._strategies = names
        self._weights = _Weights(
            {gram: k for k, gram in enumerate(model.ngrams)},
            np.array(model.idf),
            np.array([model.weights[name] for name in names]).T,
            np.array([model.bias[name] for name in names]),
        )
        self._thresholds = np.array([model.thresholds[name] for name in names])

    def predict(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[tuple[str, ...]]]:
        """The strategies of every recommender turn.

        Args:
            dialogues: the turns of each conversation; what comes after a turn is not looked at.

        Returns:
            For each conversation, for each turn of its recommender in order, the strategies in the order of STRATEGIES.
        """
        talks = [[Spoken(t.role, t.text, t.items) for t in turns] for turns in dialogues]
        above = _turn_scores(self._weights, talks) > self._thresholds
        rows = iter(above.tolist())
        return [
            [
                tuple(name for name, has in zip(self._strategies, next(rows), strict=True) if has)
                for turn in turns
                if turn.role is Role.RECOMMENDER
            ]
            for turns in talks
        ]

    @classmethod
    def fit(
        cls,
        name: str,
        talks: Sequence[Sequence[Spoken]],
        *,
        seed: int = 0,
        num_folds: int = 5,
        penalties: Sequence[float] = PENALTIES,
        on_step: OnStep | None = None,
    ) -> Self:
        """Learn from labelled messages, and measure by nested cross-validation how well that works.

        Words and their pairs (TF-IDF, sublinear, a title is one word) and eight flags; logistic regression, L2. The threshold
        of a strategy is the score that as many held-out turns of the training part exceed as are labelled with it, so shares
        are about right and precision is about recall.

        Args:
            name: how its scores call it.
            talks: conversations message by message (`corpora.inspired.labelled_messages`); those without a label are left out.
            seed: of the folds, the random baseline and the intervals.
            num_folds: outer folds, drawn by conversation.
            penalties: values of C to choose from.
            on_step: called with (done, total) after each fold.

        Raises:
            DataError: fewer than MIN_DIALOGUES conversations have labels.
        """
        labelled = [list(talk) for talk in talks if any(m.strategies for m in talk)]
        if len(labelled) < max(MIN_DIALOGUES, num_folds):
            raise DataError(
                f"{len(labelled)} conversations have strategy labels; at least {max(MIN_DIALOGUES, num_folds)} are needed"
            )
        rng = np.random.default_rng(seed)
        examples = [_Example.of(talk) for talk in labelled]
        if not any(any(row) for e in examples for row in e.truth):
            raise DataError(f"none of the ten strategies is among the labels; they are: {', '.join(STRATEGIES)}")
        fold_of = folds(len(examples), rng, num_folds)
        truth, predicted, owner, shares = _cross_validate(examples, fold_of, penalties, rng, on_step)
        penalty, weights, thresholds = _learn(examples, penalties, rng)
        if on_step is not None:
            on_step(num_folds + 1, num_folds + 1)
        names = sorted(weights.vocabulary, key=weights.vocabulary.__getitem__)
        model = _Model(
            ngrams=tuple(names),
            idf=tuple(_rounded(weights.idf)),
            weights={s: tuple(_rounded(weights.matrix[:, k])) for k, s in enumerate(STRATEGIES)},
            bias={s: round(float(weights.bias[k]), 5) for k, s in enumerate(STRATEGIES)},
            thresholds={s: round(float(thresholds[k]), 5) for k, s in enumerate(STRATEGIES)},
        )
        card = StrategyCard(
            name=name,
            fingerprint=f"{name} {content_hash(model.model_dump(mode='json'))}",
            data_digest=content_hash([[[m.role.value, m.text, list(m.strategies)] for m in talk] for talk in labelled]),
            seed=seed,
            package_version=code_version(),
            num_dialogues=len(examples),
            num_messages=sum(len(e.messages) for e in examples),
            num_folds=num_folds,
            penalty=penalty,
            trained_openings=tuple(sorted({opening_hash(e.turns) for e in examples})),
            **_measured(truth, predicted, owner, shares, rng),
        )
        return cls(model, card)

    def write(self, path: Path) -> None:
        """Write it into an existing directory; the card comes last."""
        write_lines(path / MODEL, [self._model.to_json()])
        write_lines(path / CARD, [self.card.model_dump_json(indent=1)])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a directory that `write` filled.

        Raises:
            DataError: it is missing or damaged.
        """
        for file in (CARD, MODEL):
            if not (path / file).is_file():
                raise DataError(
                    f"{path} holds no {file}, so it is no classifier of strategies; make one with: "
                    "interplay evaluate train-strategies --out DIR"
                )
        try:
            model = _Model.model_validate(read_json(path / MODEL))
            card = StrategyCard.model_validate(read_json(path / CARD))
        except ValueError:
            raise DataError(f"{path} is not a classifier of strategies, or of another version; train it again") from None
        return cls(model, card)


def opening_hash(turns: Sequence[Spoken | Turn]) -> str:
    """Identifies a conversation by its first four turns; a log that was cut at the accepted item is known again."""
    return content_hash([[turn.role.value, turn.text] for turn in turns[:_OPENING]])


# ---- features --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class _Unit:
    """One sentence or message of the recommender."""

    turn: int
    """Number of the recommender turn within the conversation."""
    text: str
    flags: tuple[bool, ...]
    strategies: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class _Example:
    """A labelled conversation: its messages to learn from, its turns to judge."""

    messages: list[_Unit]
    turns: list[Spoken]

    @classmethod
    def of(cls, talk: Sequence[Spoken]) -> "_Example":
        return cls(list(_units(talk, cut=False)), merge_messages(talk)[0])

    @property
    def truth(self) -> list[list[bool]]:
        """Whether each recommender turn has each strategy."""
        return [[s in t.strategies for s in STRATEGIES] for t in self.turns if t.role is Role.RECOMMENDER]


def _units(talk: Sequence[Spoken], *, cut: bool) -> Iterator[_Unit]:
    """The recommender's messages as they are, or its turns cut into sentences; each sees only what was said before it."""
    number = -1
    asked = offered = user_spoke = False
    before: Role | None = None
    for turn in talk:
        if turn.role is Role.USER:
            asked, user_spoke = "?" in turn.text, True
        else:
            begins = before is not Role.RECOMMENDER or cut
            number += begins
            for start, end in sentences(turn.text, turn.mentions) if cut else [(0, len(turn.text))]:
                named = [m for m in turn.mentions if start <= m.start and m.end <= end]
                text = _masked(turn.text, start, end, named)
                size = len(text.split())
                flags = ("?" in text, bool(named), offered, asked, not user_spoke, begins, size < 4, size > 15)
                yield _Unit(number, text, flags, turn.strategies)
                begins = False
                offered = offered or bool(named)
        before = turn.role


def _masked(text: str, start: int, end: int, mentions: Sequence[Mention]) -> str:
    """A stretch of a text with each title replaced by one word, so that no title is learnt."""
    out, at = "", start
    for mention in mentions:
        out += text[at : mention.start] + _TITLE
        at = mention.end
    return out + text[at:end]


def _grams(text: str) -> Counter[str]:
    """Words, punctuation marks and pairs of them; the start of the text counts as one."""
    found = ["^", *tokens(text)]
    return Counter([*found[1:], *(f"{a} {b}" for a, b in pairwise(found))])


# ---- learning --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class _Weights:
    """Scores = unit-length TF-IDF and flags, times `matrix`, plus `bias`."""

    vocabulary: dict[str, int]
    idf: Floats
    matrix: Floats
    """Shape (len(vocabulary) + len(_FLAGS), strategies)."""
    bias: Floats

    def features(self, units: Sequence[_Unit]) -> Any:
        """Sparse, shape (len(units), len(vocabulary) + len(_FLAGS))."""
        return _features(units, self.vocabulary, self.idf)


def _features(units: Sequence[_Unit], vocabulary: dict[str, int], idf: Floats) -> Any:
    from scipy.sparse import csr_matrix

    starts, columns, values = [0], [], []
    for unit in units:
        found = [(vocabulary[g], n) for g, n in _grams(unit.text).items() if g in vocabulary]
        own = [(1.0 + float(np.log(n))) * float(idf[k]) for k, n in found]
        norm = float(np.sqrt(sum(v * v for v in own))) or 1.0
        columns += [k for k, _ in found] + [len(vocabulary) + k for k, flag in enumerate(unit.flags) if flag]
        values += [v / norm for v in own] + [1.0] * sum(unit.flags)
        starts.append(len(columns))
    return csr_matrix((values, columns, starts), shape=(len(units), len(vocabulary) + len(_FLAGS)))


def _vocabulary(units: Sequence[_Unit]) -> tuple[dict[str, int], Floats]:
    """The n-grams of at least two units, and their smoothed inverse document frequencies."""
    counts = Counter(gram for unit in units for gram in _grams(unit.text))
    kept = sorted(gram for gram, n in counts.items() if n > 1)
    idf = np.log((1 + len(units)) / (1 + np.array([counts[g] for g in kept], dtype=np.float64))) + 1
    return {gram: k for k, gram in enumerate(kept)}, idf


def _fit(units: Sequence[_Unit], penalties: Sequence[float]) -> list[_Weights]:
    """Weights for each penalty."""
    from sklearn.linear_model import LogisticRegression

    vocabulary, idf = _vocabulary(units)
    features = _features(units, vocabulary, idf)
    out = []
    for penalty in penalties:
        matrix, bias = np.zeros((features.shape[1], len(STRATEGIES))), np.full(len(STRATEGIES), -_NEVER)
        for k, strategy in enumerate(STRATEGIES):
            has = np.array([strategy in unit.strategies for unit in units])
            if has.any() and not has.all():
                model = LogisticRegression(C=penalty, solver="liblinear", tol=1e-3).fit(features, has)
                matrix[:, k], bias[k] = model.coef_[0], model.intercept_[0]
        out.append(_Weights(vocabulary, idf, matrix, bias))
    return out


def _turn_scores(weights: _Weights, talks: Sequence[Sequence[Spoken]]) -> Floats:
    """The highest score of each recommender turn's sentences, shape (turns of all conversations, strategies)."""
    units: list[_Unit] = []
    places: list[int] = []
    first = 0
    for talk in talks:
        own = list(_units(talk, cut=True))
        units += own
        places += [first + unit.turn for unit in own]
        first += sum(t.role is Role.RECOMMENDER for t in talk)
    out = np.full((first, weights.matrix.shape[1]), -np.inf)
    if units:
        np.maximum.at(out, np.array(places), weights.features(units) @ weights.matrix + weights.bias)
    return out


def _learn(
    examples: Sequence[_Example], penalties: Sequence[float], rng: np.random.Generator
) -> tuple[float, _Weights, Floats]:
    """The penalty with the best macro-F1 on inner folds, the weights with it on everything, and the thresholds."""
    truth = np.array([row for e in examples for row in e.truth], dtype=bool)
    place = np.repeat(np.arange(len(examples)), [len(e.truth) for e in examples])
    fold_of = folds(len(examples), rng, _NUM_INNER)
    scores = np.zeros((len(penalties), *truth.shape))
    for fold in range(_NUM_INNER):
        learn = [u for k in np.flatnonzero(fold_of != fold).tolist() for u in examples[k].messages]
        held = np.flatnonzero(fold_of == fold).tolist()
        for choice, weights in enumerate(_fit(learn, penalties)):
            scores[choice][np.isin(place, held)] = _turn_scores(weights, [examples[k].turns for k in held])
    thresholds = [_thresholds(own, truth) for own in scores]
    reached = [_macro(*_counts(truth, own > cut)) for own, cut in zip(scores, thresholds, strict=True)]
    best = int(np.argmax(reached))
    (weights,) = _fit([u for e in examples for u in e.messages], [penalties[best]])
    return penalties[best], weights, thresholds[best]


def _thresholds(scores: Floats, truth: Flags) -> Floats:
    """Midway between the last score that counts and the next, with as many counting as are labelled."""
    out = np.full(truth.shape[1], _NEVER)
    for k in range(truth.shape[1]):
        num = int(truth[:, k].sum())
        falling = np.sort(scores[:, k])[::-1]
        if num:
            out[k] = falling[num - 1 : num + 1].mean()
    return out


def _cross_validate(
    examples: Sequence[_Example],
    fold_of: NDArray[np.int_],
    penalties: Sequence[float],
    rng: np.random.Generator,
    on_step: OnStep | None,
) -> tuple[Flags, Flags, NDArray[np.int_], Floats]:
    """Labels and predictions (turns, strategies), the conversation of each turn, and the training part's share of each."""
    owner = np.repeat(np.arange(len(examples)), [len(e.truth) for e in examples])
    truth = np.array([row for e in examples for row in e.truth], dtype=bool)
    predicted = np.zeros_like(truth)
    shares = np.zeros(truth.shape)
    num_folds = int(fold_of.max()) + 1
    for fold in range(num_folds):
        held = np.flatnonzero(fold_of == fold).tolist()
        rows = np.isin(owner, held)
        _, weights, thresholds = _learn([examples[k] for k in np.flatnonzero(fold_of != fold).tolist()], penalties, rng)
        predicted[rows] = _turn_scores(weights, [examples[k].turns for k in held]) > thresholds
        shares[rows] = truth[~rows].mean(0)
        if on_step is not None:
            on_step(fold + 1, num_folds + 1)
    return truth, predicted, owner, shares


# ---- measuring -------------------------------------------------------------------------------------------------------


def _counts(truth: Flags, predicted: Flags) -> tuple[Floats, Floats, Floats]:
    """True positives, labelled and predicted turns of each strategy."""
    return (truth & predicted).sum(0).astype(float), truth.sum(0).astype(float), predicted.sum(0).astype(float)


def _f1(both: Floats, labelled: Floats, predicted: Floats) -> Floats:
    """2 both / (labelled + predicted); NaN where nothing is labelled."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(labelled > 0, 2 * both / (labelled + predicted), np.nan)


def _macro(both: Floats, labelled: Floats, predicted: Floats) -> float:
    values = _f1(both, labelled, predicted)
    return float(np.nanmean(values)) if (labelled > 0).any() else 0.0


def _measured(
    truth: Flags, predicted: Flags, owner: NDArray[np.int_], shares: Floats, rng: np.random.Generator
) -> dict[str, Any]:
    """The measured fields of a StrategyCard."""
    size = truth.shape[1]
    both, labelled, given = _counts(truth, predicted)
    per_talk = [
        [np.bincount(owner, marks[:, k]).tolist() for k in range(size)] for marks in (truth & predicted, truth, predicted)
    ]

    def macro(*drawn: Floats, axis: int) -> Floats:
        sums = np.stack([column.sum(axis=axis) for column in drawn])
        values = _f1(sums[:size], sums[size : 2 * size], sums[2 * size :])
        return np.asarray(np.nanmean(values, axis=0))

    def single(top: Floats, gold: Floats, found: Floats, axis: int) -> Floats:
        return _f1(top.sum(axis=axis), gold.sum(axis=axis), found.sum(axis=axis))

    low, high = cluster_interval([column for part in per_talk for column in part], macro, rng) or (None, None)
    draws = [_f1(*_counts(truth, rng.random(truth.shape) < shares)) for _ in range(_NUM_RANDOM)]
    random_f1 = np.mean(draws, axis=0)
    always_f1 = _f1(*_counts(truth, np.ones_like(truth)))
    scores = []
    for k, strategy in enumerate(STRATEGIES):
        spread = cluster_interval([part[k] for part in per_talk], single, rng) if labelled[k] else None
        scores.append(
            StrategyScore(
                strategy=strategy,
                f1=float(_f1(both, labelled, given)[k]) if labelled[k] else None,
                low=spread[0] if spread else None,
                high=spread[1] if spread else None,
                precision=float(both[k] / given[k]) if given[k] else None,
                recall=float(both[k] / labelled[k]) if labelled[k] else None,
                num_turns=int(labelled[k]),
                num_predicted=int(given[k]),
                random_f1=float(random_f1[k]) if labelled[k] else None,
                always_f1=float(always_f1[k]) if labelled[k] else None,
            )
        )
    return {
        "num_turns": len(truth),
        "macro_f1": _macro(both, labelled, given),
        "low": low,
        "high": high,
        "majority_macro_f1": _macro(*_counts(truth, shares > 0.5)),
        "random_macro_f1": float(np.nanmean(random_f1)),
        "always_macro_f1": float(np.nanmean(always_f1)),
        "scores": tuple(scores),
    }


def _rounded(values: Floats) -> list[float]:
    return [round(float(v), 5) for v in values]
