"""The learned judge: a ridge regression per aspect on `features`, small enough to be a JSON file and to run anywhere.

    DIR/judge.json   for each aspect the features with their mean, scale and weight
    DIR/card.json    where it comes from, and its agreement with people; see `verdicts.JudgeCard`

All its settings are chosen by cross-validation inside the training part, so the figures in the card are of conversations
that neither the weights nor the settings have seen.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from interplay import __version__
from interplay.corpora.quality_labels import ASPECT_RANGES, TURN_ASPECTS, RatedTalk, RatedTalks
from interplay.corpora.talks import Talk
from interplay.errors import DataError
from interplay.evaluation.judges.features import dialogue_features, turn_features
from interplay.evaluation.judges.verdicts import CARD, Agreement, JudgeCard, Verdict, agreements, read_card
from interplay.metrics.bootstrap import NUM_RESAMPLES
from interplay.metrics.correlation import spearman
from interplay.metrics.text import words_per_turn
from interplay.provenance import code_version
from interplay.store import read_json, write_lines
from interplay.types import Record, Role, content_hash

MODEL = "judge.json"
"""File that holds the weights."""

BY_PERSON = "cross-validated, split by person"
BY_SYSTEM = "cross-validated, each system left out in turn"
TRANSFER = "on labels it has not learned from"

_OF_TALKS = tuple(a for a in ASPECT_RANGES if a not in TURN_ASPECTS)
_NUM_INNER = 5
_ALPHAS = (100.0, 300.0, 1000.0)
_TURN_ALPHA = 100.0
"""Fixed: with five times as many turns as conversations, thrice more or less changes the third digit."""
_FEATURE_SETS = {"means": ("mean.",), "all": ("",)}
_WEIGHTS_OF_OTHERS = (0.1, 0.3)
"""What a conversation of further labels counts, beside 1 for one of the first."""

Floats = NDArray[np.float64]
OnStep = Callable[[int, int], None]


class Linear(Record):
    """One aspect's weights: intercept + sum(weight * (feature - mean) / scale), held to the aspect's scale."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def predict(self, rows: Sequence[Mapping[str, float]], aspect: str) -> Floats:
        """Grades of the rows, shape (len(rows),), within the aspect's range."""
        if not rows:
            return np.zeros(0)
        table = np.array([[row[name] for name in self.features] for row in rows])
        grades = self.intercept + ((table - np.array(self.mean)) / np.array(self.scale)) @ np.array(self.weights)
        return np.asarray(np.clip(grades, *ASPECT_RANGES[aspect]), dtype=np.float64)


class _Model(Record):
    aspects: dict[str, Linear]


@dataclass(slots=True, frozen=True)
class _Settings:
    """What is chosen by cross-validation."""

    feature_set: str
    alpha: float
    weight: float
    """Of further labels; 0 leaves them out."""

    def __str__(self) -> str:
        return f"features {self.feature_set}, ridge {self.alpha:g}, weight of further labels {self.weight:g}"


@dataclass(slots=True)
class _Table:
    """Rows of features with their labels, and who they are of."""

    names: tuple[str, ...]
    features: Floats
    """Shape (rows, names)."""
    labels: Floats
    """Shape (rows, aspects); NaN where there is none."""
    persons: NDArray[np.str_]
    systems: NDArray[np.str_]
    talks: NDArray[np.int64]
    """Index of the conversation, shape (rows,)."""

    def columns(self, feature_set: str) -> NDArray[np.int64]:
        """Which columns belong to a feature set."""
        starts = _FEATURE_SETS[feature_set]
        return np.array([k for k, name in enumerate(self.names) if name.startswith(starts)])


class LearnedJudge:
    """Grades conversations by their words, without any model or server.

    Args:
        name: how its scores call it.
        aspects: the weights of each aspect.
        card: where it comes from.
    """

    def __init__(self, name: str, aspects: Mapping[str, Linear], card: JudgeCard) -> None:
        self.name = name
        self.aspects = dict(aspects)
        self.card = card
        self.fingerprint = f"{name} {content_hash({a: w.model_dump(mode='json') for a, w in self.aspects.items()})}"

    def grade(self, talk: Talk) -> Verdict:
        """The verdict on one conversation; one in which the recommender says nothing gets none."""
        if not any(line.role is Role.RECOMMENDER for line in talk.lines):
            return Verdict(
                id=talk.id, scores={a: None for a in self.aspects if a not in TURN_ASPECTS}, failures={"no_reply": 1}
            )
        turns, whole = turn_features(talk.lines), [dialogue_features(talk.lines)]
        return Verdict(
            id=talk.id,
            scores={a: float(w.predict(whole, a)[0]) for a, w in self.aspects.items() if a not in TURN_ASPECTS},
            turn_scores={a: tuple(w.predict(turns, a).tolist()) for a, w in self.aspects.items() if a in TURN_ASPECTS},
        )

    async def judge(self, talk: Talk, seed: int) -> Verdict:
        """As `grade`; the seed changes nothing."""
        return self.grade(talk)

    @classmethod
    def fit(
        cls,
        name: str,
        labels: RatedTalks,
        others: Sequence[RatedTalks] = (),
        *,
        seed: int = 0,
        num_folds: int = 10,
        num_resamples: int = NUM_RESAMPLES,
        on_step: OnStep | None = None,
    ) -> Self:
        """Learn from labels, and measure by nested cross-validation how well that works.

        Args:
            name: how its scores will call it.
            labels: what it learns from and is measured on.
            others: further labels of whole conversations, which only ever stand in the training part; how much they count
                is chosen as the other settings are.
            seed: of the folds and the bootstrap.
            num_folds: outer folds of the split by person.
            num_resamples: bootstrap draws of each interval.
            on_step: called with (done, total) after each fold.

        Raises:
            DataError: there are too few persons or systems to leave some out.
        """
        rated = labels.talks
        if len({r.person for r in rated}) < 2 * num_folds:
            raise DataError(f"the labels {labels.name} are of fewer than {2 * num_folds} persons: too few to leave some out")
        if not any(r.turn_scores for r in rated):
            raise DataError(f"no conversation of the labels {labels.name} has a recommender turn")
        further = [r for other in others for r in other.talks]
        whole, turns = _dialogue_table(rated), _turn_table(rated)
        extra = _dialogue_table(further) if further else None
        ids = [r.talk.id for r in rated]
        rng = np.random.default_rng(seed)
        groupings = {BY_PERSON: _folds(whole.persons, num_folds, rng)}
        if len(set(whole.systems)) > 2:
            groupings[BY_SYSTEM] = _folds(whole.systems, len(set(whole.systems)), rng)
        total = sum(map(len, groupings.values())) + 1
        done = 0
        found: list[Agreement] = []
        for scheme, folds in groupings.items():
            predicted: dict[str, Verdict] = {}
            by_mean: dict[str, Verdict] = {}
            for held in folds:
                outside = np.setdiff1d(np.arange(len(rated)), held)
                fits, _ = _fit_aspects(whole, turns, extra, outside, scheme == BY_SYSTEM, seed)
                predicted |= _predict(fits, whole, turns, held, ids)
                if scheme == BY_PERSON:
                    by_mean |= _system_means([rated[k] for k in outside], [rated[k] for k in held])
                done += 1
                if on_step is not None:
                    on_step(done, total)
            scorers = {name: predicted}
            if scheme == BY_PERSON:
                scorers["baseline: the system's mean label (knows the system, reads nothing)"] = by_mean
            for scorer, verdicts in scorers.items():
                found += agreements(
                    rated, verdicts, scorer=scorer, scheme=scheme, labels=labels.name, rng=rng, num_resamples=num_resamples
                )
        for scorer, verdicts in simple_baselines(rated).items():
            found += agreements(
                rated,
                verdicts,
                scorer=scorer,
                scheme="nothing learned",
                labels=labels.name,
                rng=rng,
                num_resamples=num_resamples,
            )
        fits, settings = _fit_aspects(whole, turns, extra, np.arange(len(rated)), False, seed)
        models = {a: fit.linear(turns.names if a in TURN_ASPECTS else whole.names) for a, fit in fits.items()}
        if on_step is not None:
            on_step(total, total)
        card = JudgeCard(
            judge=name,
            fingerprint=cls(name, models, _no_card(name)).fingerprint,
            trained_on=(labels.name, *(other.name for other in others)),
            data_digest=content_hash([labels.digest, *(other.digest for other in others)]),
            seed=seed,
            package_version=code_version(),
            settings=settings | _told_apart(whole, groupings[BY_PERSON]),
            trained_texts=tuple(sorted({text_hash(r.talk) for r in [*rated, *further]})),
            agreements=tuple(found),
        )
        return cls(name, models, card)

    def write(self, path: Path) -> None:
        """Write it into an existing directory; the card comes last."""
        write_lines(path / MODEL, [_Model(aspects=self.aspects).to_json()])
        write_lines(path / CARD, [self.card.to_json()])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a directory that `write` filled.

        Raises:
            DataError: it is missing or damaged.
        """
        card = read_card(path)
        if not (path / MODEL).is_file():
            raise DataError(f"{path} holds no {MODEL}: it is a calibration, not a judge; expected what train-judge wrote")
        try:
            model = _Model.model_validate(read_json(path / MODEL))
        except ValueError:
            raise DataError(f"{path / MODEL} is not a judge; train it again") from None
        known = {*dialogue_features(()), *turn_features_names()}
        strangers = {name for linear in model.aspects.values() for name in linear.features} - known
        if strangers:
            raise DataError(f"{path} was trained by another version ({card.package_version}): train it again")
        return cls(card.judge, model.aspects, card)


def text_hash(talk: Talk) -> str:
    """Identifies a conversation by its words."""
    return content_hash([[line.role.value, line.text] for line in talk.lines])


def turn_features_names() -> tuple[str, ...]:
    """Names of the features of a turn."""
    from interplay.corpora.talks import Line

    return tuple(turn_features([Line(Role.RECOMMENDER, "")])[0])


def simple_baselines(rated: Sequence[RatedTalk]) -> dict[str, dict[str, Verdict]]:
    """What a judge must beat: lengths, which need no reading. The direction is the one that people's labels follow."""
    out: dict[str, dict[str, Verdict]] = {}
    counts: dict[str, Callable[[Talk], float | None]] = {
        "baseline: fewer turns": lambda t: -float(len(t.lines)),
        "baseline: words of the recommender": lambda t: float(sum(len(x.split()) for x in t.texts(Role.RECOMMENDER))),
        "baseline: words per recommender turn": lambda t: words_per_turn(t.texts(Role.RECOMMENDER)),
        "baseline: words of the user": lambda t: float(sum(len(x.split()) for x in t.texts(Role.USER))),
    }
    for name, count in counts.items():
        out[name] = {r.talk.id: Verdict(id=r.talk.id, scores=dict.fromkeys(_OF_TALKS, count(r.talk))) for r in rated}
    turn_counts: dict[str, Callable[[int, str], float]] = {
        "baseline: earlier turns": lambda place, _: float(-place),
        "baseline: words of the turn": lambda _, text: float(len(text.split())),
    }
    for name, of_turn in turn_counts.items():
        out[name] = {}
        for r in rated:
            grades = tuple(of_turn(k, text) for k, text in enumerate(r.talk.texts(Role.RECOMMENDER)))
            out[name][r.talk.id] = Verdict(id=r.talk.id, turn_scores=dict.fromkeys(TURN_ASPECTS, grades))
    return out


# ---- learning --------------------------------------------------------------------------------------------------------


def _no_card(name: str) -> JudgeCard:
    return JudgeCard(judge=name, fingerprint=name, data_digest="", seed=0, package_version=__version__)


def _table(
    rows: Sequence[Mapping[str, float]], labels: Iterable[Sequence[float]], owners: Sequence[tuple[int, RatedTalk]]
) -> _Table:
    names = tuple(rows[0])
    return _Table(
        names,
        np.array([[row[n] for n in names] for row in rows]),
        np.array(list(labels), dtype=np.float64),
        np.array([r.person for _, r in owners]),
        np.array([r.system for _, r in owners]),
        np.array([k for k, _ in owners]),
    )


def _dialogue_table(rated: Sequence[RatedTalk]) -> _Table:
    rows = [dialogue_features(r.talk.lines) for r in rated]
    return _table(rows, [[r.scores.get(a, np.nan) for a in _OF_TALKS] for r in rated], list(enumerate(rated)))


def _turn_table(rated: Sequence[RatedTalk]) -> _Table:
    rows, labels, owners = [], [], []
    for k, r in enumerate(rated):
        for features, scores in zip(turn_features(r.talk.lines), r.turn_scores, strict=True):
            rows.append(features)
            labels.append([scores.get(a, np.nan) for a in TURN_ASPECTS])
            owners.append((k, r))
    return _table(rows, labels, owners)


def _folds(groups: NDArray[np.str_], num: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of each fold; no group is in two."""
    names = sorted(set(groups.tolist()))
    rng.shuffle(names)
    num = min(num, len(names))
    return [np.flatnonzero(np.isin(groups, names[k::num])) for k in range(num)]


@dataclass(slots=True, frozen=True)
class _Fit:
    """A Linear as arrays, for the many that are only tried."""

    columns: NDArray[np.int64]
    mean: Floats
    scale: Floats
    weights: Floats
    intercept: float

    def apply(self, features: Floats) -> Floats:
        """Grades of rows of all features, not held to a scale."""
        scaled = (features[:, self.columns] - self.mean) / self.scale
        return np.asarray(self.intercept + scaled @ self.weights)

    def linear(self, names: Sequence[str]) -> Linear:
        """What is written to disk."""
        return Linear(
            features=tuple(names[c] for c in self.columns),
            mean=tuple(self.mean.tolist()),
            scale=tuple(self.scale.tolist()),
            weights=tuple(self.weights.tolist()),
            intercept=self.intercept,
        )


def _ridge(table: _Table, extra: _Table | None, rows: NDArray[np.int64], kinds: Sequence[_Settings]) -> list[list[_Fit | None]]:
    """For each of `kinds`, which differ in their ridge alone, one fit per column of labels; None where nothing is labelled."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    columns = table.columns(kinds[0].feature_set)
    features, labels, weights = table.features[rows][:, columns], table.labels[rows], np.ones(len(rows))
    if extra is not None and kinds[0].weight:
        features = np.concatenate([features, extra.features[:, columns]])
        labels = np.concatenate([labels, extra.labels])
        weights = np.concatenate([weights, np.full(len(extra.labels), kinds[0].weight)])
    out: list[list[_Fit | None]] = [[None] * labels.shape[1] for _ in kinds]
    known = ~np.isnan(labels)
    # Aspects that are labelled on the same rows share one call, and so do all alphas: the library's checks cost more than
    # its arithmetic here.
    together: dict[bytes, list[int]] = {}
    for target in range(labels.shape[1]):
        together.setdefault(known[:, target].tobytes(), []).append(target)
    for targets in together.values():
        there = known[:, targets[0]]
        if not there.any():
            continue
        scaler = StandardScaler().fit(features[there], sample_weight=weights[there])
        model = Ridge(np.repeat([kind.alpha for kind in kinds], len(targets))).fit(
            scaler.transform(features[there]), np.tile(labels[there][:, targets], len(kinds)), sample_weight=weights[there]
        )
        coefficients, intercepts = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
        for place in range(len(targets) * len(kinds)):
            kind, target = divmod(place, len(targets))
            out[kind][targets[target]] = _Fit(
                columns, scaler.mean_, scaler.scale_, coefficients[place], float(intercepts[place])
            )
    return out


def _choose(
    table: _Table, extra: _Table | None, rows: NDArray[np.int64], grid: Sequence[_Settings], by_system: bool, seed: int
) -> _Settings:
    """The settings with the best mean Spearman over the aspects, cross-validated inside `rows`."""
    groups = (table.systems if by_system else table.persons)[rows]
    folds = _folds(groups, _NUM_INNER, np.random.default_rng(seed))
    alike: dict[tuple[str, float], list[_Settings]] = {}
    for settings in grid:
        alike.setdefault((settings.feature_set, settings.weight), []).append(settings)
    truth = table.labels[rows]
    best, best_score = grid[0], -np.inf
    for kinds in alike.values():
        predicted = np.full((len(kinds), *truth.shape), np.nan)
        for held in folds:
            outside = np.setdiff1d(np.arange(len(rows)), held)
            for kind, fits in enumerate(_ridge(table, extra, rows[outside], kinds)):
                for aspect, fit in enumerate(fits):
                    if fit is not None:
                        predicted[kind, held, aspect] = fit.apply(table.features[rows[held]])
        for settings, found in zip(kinds, predicted, strict=True):
            scores = []
            for aspect in range(truth.shape[1]):
                both = ~np.isnan(truth[:, aspect]) & ~np.isnan(found[:, aspect])
                scores.append(spearman(found[both, aspect], truth[both, aspect]) or 0.0)
            if np.mean(scores) > best_score:
                best, best_score = settings, float(np.mean(scores))
    return best


def _fit_aspects(
    whole: _Table, turns: _Table, extra: _Table | None, talks: NDArray[np.int64], by_system: bool, seed: int
) -> tuple[dict[str, _Fit], dict[str, str]]:
    """The fit of every aspect from the given conversations alone, and the settings that were chosen, in words."""
    weights = (0.0, *_WEIGHTS_OF_OTHERS) if extra is not None else (0.0,)
    grid = [_Settings(f, a, w) for f in _FEATURE_SETS for a in _ALPHAS for w in weights]
    chosen = _choose(whole, extra, talks, grid, by_system, seed)
    fits = dict(zip(_OF_TALKS, _ridge(whole, extra, talks, [chosen])[0], strict=True))
    settings = {"conversations": str(chosen)}
    rows = np.flatnonzero(np.isin(turns.talks, talks) & ~np.isnan(turns.labels).all(axis=1))
    if len(rows):
        of_turns = _Settings("all", _TURN_ALPHA, 0.0)
        fits |= dict(zip(TURN_ASPECTS, _ridge(turns, None, rows, [of_turns])[0], strict=True))
        settings["turns"] = str(of_turns)
    return {a: fit for a in ASPECT_RANGES if (fit := fits.get(a)) is not None}, settings


def _predict(
    fits: Mapping[str, _Fit], whole: _Table, turns: _Table, held: NDArray[np.int64], ids: Sequence[str]
) -> dict[str, Verdict]:
    """The verdicts on the held conversations, as `LearnedJudge.grade` would give them."""
    out = {}
    graded = {a: np.clip(fits[a].apply(whole.features[held]), *ASPECT_RANGES[a]) for a in _OF_TALKS if a in fits}
    for place, k in enumerate(held.tolist()):
        rows = turns.features[turns.talks == k]
        out[ids[k]] = Verdict(
            id=ids[k],
            scores={a: float(grades[place]) for a, grades in graded.items()},
            turn_scores={a: tuple(np.clip(fits[a].apply(rows), *ASPECT_RANGES[a]).tolist()) for a in TURN_ASPECTS if a in fits},
        )
    return out


def _system_means(known: Sequence[RatedTalk], held: Sequence[RatedTalk]) -> dict[str, Verdict]:
    """What one would say who recognises the system and knows its mean label from other conversations."""
    sums: dict[tuple[str, str], list[float]] = {}
    for r in known:
        for aspect, score in r.scores.items():
            sums.setdefault((r.system, aspect), []).append(score)
        for scores in r.turn_scores:
            for aspect, score in scores.items():
                sums.setdefault((r.system, aspect), []).append(score)
    means = {key: float(np.mean(values)) for key, values in sums.items()}
    out = {}
    for r in held:
        out[r.talk.id] = Verdict(
            id=r.talk.id,
            scores={a: means.get((r.system, a)) for a in _OF_TALKS},
            turn_scores={a: (means.get((r.system, a)),) * len(r.turn_scores) for a in TURN_ASPECTS},
        )
    return out


def _told_apart(table: _Table, folds: Sequence[NDArray[np.int64]]) -> dict[str, str]:
    """Share of conversations whose system a linear classifier tells from the features: how much style they carry.

    In words, for the card; nothing where all labels are of one system.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    if len(set(table.systems.tolist())) < 2:
        return {}
    right = 0
    for held in folds:
        outside = np.setdiff1d(np.arange(len(table.systems)), held)
        scaler = StandardScaler().fit(table.features[outside])
        model = RidgeClassifier(alpha=300.0).fit(scaler.transform(table.features[outside]), table.systems[outside])
        right += int((model.predict(scaler.transform(table.features[held])) == table.systems[held]).sum())
    return {"systems told apart by the features": f"{right / len(table.systems):.2f} (share, by person)"}
