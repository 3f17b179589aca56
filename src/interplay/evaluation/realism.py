"""Are simulated users like people? Everything is measured beside the human-vs-human ceiling and a second human corpus.

The user's turns of each simulator are compared with those of people by fingerprint, distributions, words and discriminators
(`metrics.fingerprint`, `similarity`, `diversity`, `discriminators`), and read for sense (`metrics.coherence`). The ceiling
compares random halves of the human corpus with each other in the same way.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from interplay.corpora.messages import Spoken
from interplay.corpora.tagger import ActionTagger
from interplay.corpora.talks import Talk, Talks
from interplay.errors import DataError
from interplay.evaluation.scoring import About, rows
from interplay.metrics.bootstrap import Estimate, estimate_ratio
from interplay.metrics.coherence import (
    NextTurnModel,
    copied_share,
    exchanges,
    glued,
    goal_followed,
    goal_kept,
    human_next_turn_consistency,
    next_turn_consistency,
    normal_form,
)
from interplay.metrics.discriminators import (
    Discrimination,
    TellingNgram,
    discriminate_by_behaviour,
    discriminate_by_words,
    telling_ngrams,
)
from interplay.metrics.diversity import distinct_share, mtld
from interplay.metrics.fingerprint import FEATURES, Fingerprints, Floats, fingerprint
from interplay.metrics.similarity import (
    FeatureComparison,
    centred_interval,
    compare_features,
    coverage,
    estimate_index,
    estimate_jensen_shannon,
    jensen_shannon,
    mean_ks,
    realism_index,
    repeated_halves,
    split_halves,
)
from interplay.metrics.text import estimate_dist_n, self_bleu, words
from interplay.types import Role, ScoreRow, content_hash

FEW = 30
"""Conversations below which a side is said to be small."""
CEILING_HALVES = 40
"""Random halves that the ceiling is a mean over; of discriminators `DISCRIMINATOR_HALVES`."""
DISCRIMINATOR_HALVES = 3
EQUAL_TOKENS = 20_000
"""Words that Dist-n and MTLD are taken from at most; all sides give equally many."""
EQUAL_TURNS = 500
"""Turns that self-BLEU and distinct openings are taken from at most; all sides give equally many."""
MAX_TAGGED = 2000
"""Conversations of a side whose turns are given Actions at most."""

DEFINITIONS: dict[str, str] = {
    "realism.index": "USI-style index: 100 x mean of the four dimensions' Dice (without outcomes and questionnaires)",
    "realism.dice_d1": "communication style: mean Dice of 8 features",
    "realism.dice_d2": "information pattern: mean Dice of 3 features",
    "realism.dice_d3": "clarification: mean Dice of 5 features",
    "realism.dice_d4": "reaction to errors: mean Dice of 3 features",
    "realism.mean_ks": "mean Kolmogorov-Smirnov distance of the features, per conversation",
    "realism.turn_auc": "n-gram logistic regression, turn by turn: area under the curve (0.5 can't tell)",
    "realism.turn_p_human": "its mean P(human) of simulated conversations",
    "realism.dialogue_auc": "the same on all of a user's turns together",
    "realism.dialogue_p_human": "its mean P(human)",
    "realism.fingerprint_auc": "random forest on the fingerprint of a conversation: area under the curve",
    "realism.fingerprint_p_human": "its mean P(human)",
    "realism.encoder_auc": "fine-tuned encoder, turn by turn: area under the curve",
    "realism.encoder_p_human": "its mean P(human)",
    "realism.words_per_turn": "words / user turns",
    "realism.turns_per_dialogue": "user turns / conversations",
    "realism.action_divergence": "Jensen-Shannon divergence of the user's actions, in bits; both sides tagged alike",
    "realism.coverage_of_human": "1 - distance from people to the nearest simulated user / mean distance of two people",
    "realism.coverage_of_simulated": "the other way round",
    "realism.coverage": "both (PPol's B)",
    "realism.next_turn_consistency": "the turn that was said beats a random one at its place (0.5 glued turns)",
    "realism.goal_kept": "later statements about an aspect that agree with the first one",
    "realism.goal_followed": "aspects asked for that the user was told to look for",
    "realism.copied_share": "turns of 8 words and more that stand word for word in the training text",
    "realism.dist_1": "distinct / all 1-grams, equally many words of each side",
    "realism.dist_2": "distinct / all 2-grams",
    "realism.dist_3": "distinct / all 3-grams",
    "realism.dist_4": "distinct / all 4-grams",
    "realism.mtld": "measure of textual lexical diversity: words per factor",
    "realism.self_bleu": "mean BLEU-4 of a turn with all others as references, equally many of each side; high is repetitive",
    "realism.distinct_openings": "distinct / all first turns, equally many of each side",
}
"""Every metric of this protocol in one line, in the order of tables."""

Discriminator = Callable[[Sequence[Sequence[str]], Sequence[Sequence[str]], np.random.Generator], Discrimination]
Report = Callable[[str], None]
Rows = NDArray[np.int_]


@dataclass(slots=True, frozen=True)
class Settings:
    """How to judge."""

    domain: str
    """Whose aspects count as identifiers."""
    kept: tuple[bool, ...]
    """Which of the 19 features count."""
    seed: int = 0
    encoder: Discriminator | None = None
    """A further discriminator, see `evaluation.encoder_discriminator`."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """`kept` as an array."""
        return np.array(self.kept)


class Side:
    """One set of conversations with what is computed of it once."""

    def __init__(self, source: Talks, domain: str) -> None:
        self.name = source.name
        self.source = source
        self.domain = source.domain or domain
        self.talks: list[Talk] = source.talks
        self.turns: list[list[str]] = [talk.texts(Role.USER) for talk in source.talks]
        self.fingerprints: Fingerprints = fingerprint(self.turns, domain)
        self.actions: list[list[str]] | None = None

    def __len__(self) -> int:
        return len(self.talks)

    @cached_property
    def spoken(self) -> list[list[tuple[bool, str]]]:
        """The conversations as coherence measures read them."""
        return [[(line.role is Role.USER, line.text) for line in talk.lines] for talk in self.talks]

    def tag(self, tagger: ActionTagger, rng: np.random.Generator) -> None:
        """Give the user's turns their actions, of at most `MAX_TAGGED` conversations, from the text alone."""
        index: Sequence[int] = range(len(self.talks))
        if len(self.talks) > MAX_TAGGED:
            index = sorted(rng.choice(len(self.talks), MAX_TAGGED, replace=False).tolist())
        spoken = [[Spoken(line.role, line.text) for line in self.talks[i].lines] for i in index]
        self.actions = [
            [action.value for turn, action in zip(turns, tagged, strict=True) if turn.role is Role.USER]
            for turns, tagged in zip(spoken, tagger.tag(spoken), strict=True)
        ]


@dataclass(slots=True, frozen=True)
class Comparison:
    """One set of users beside the people."""

    side: Side
    kind: str
    """"simulated", or "human" for the second human corpus."""
    features: tuple[FeatureComparison, ...]
    estimates: dict[str, Estimate]
    by_words: Discrimination
    by_behaviour: Discrimination
    telling: tuple[list[TellingNgram], list[TellingNgram]]
    """Typical of this side, typical of people."""


@dataclass(slots=True)
class Judgement:
    """Everything that was found."""

    human: Side
    ceiling: dict[str, Estimate]
    """People among themselves, by the names of `DEFINITIONS`."""
    human_estimates: dict[str, Estimate]
    """What is measured of the people alone: words per turn, diversity, coherence."""
    glued: Estimate
    """Next-turn consistency of the people's turns in random order."""
    comparisons: list[Comparison]
    dropped_features: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    """Warnings and what was left out, one sentence each."""


def judge(
    simulated: Sequence[Talks],
    human: Talks,
    *,
    second: Talks | None = None,
    training: Sequence[Talks] = (),
    tagger: ActionTagger | None = None,
    encoder: Discriminator | None = None,
    seed: int = 0,
    on_step: Report = lambda what: None,
) -> Judgement:
    """Compare the users of each simulated set, and of a second human corpus, with people.

    Args:
        simulated: sets of conversations with simulated users.
        human: conversations of people, the reference.
        second: another human corpus: what real people of another crowd or setting reach.
        training: what simulators were trained on: the source of copies, and more people to learn next turns from.
        tagger: gives turns their Action on all sides alike; None leaves the divergence of actions out.
        encoder: a further discriminator.
        seed: of halves, folds, trees and resamples.
        on_step: called with what is done next.

    Raises:
        DataError: a side has fewer than two conversations.
    """
    domain = human.domain or next((s.domain for s in simulated if s.domain), None) or "movie"
    notes: list[str] = []
    foreign = [s for s in (*simulated, *([second] if second else [])) if s.domain not in (None, domain)]
    kept = tuple(not (f.about_items and foreign) for f in FEATURES)
    dropped = tuple(f.name for f, k in zip(FEATURES, kept, strict=True) if not k)
    if foreign:
        named = ", ".join(f"{s.name} ({s.domain})" for s in foreign)
        notes.append(
            f"{named}: another domain than {human.name} ({domain}): the item features {', '.join(dropped)} are dropped, "
            "and what n-grams tell apart may be the topic"
        )
    for source in (*simulated, human, *([second] if second else [])):
        if len(source.talks) < 2:
            raise DataError(
                f"{source.name}: only {len(source.talks)} conversation; at least 2 are needed, 100 for firm figures"
            )
        if len(source.talks) < FEW:
            notes.append(f"{source.name} has only {len(source.talks)} conversations (fewer than {FEW}): intervals are widened")
        for reason, num in source.dropped.items():
            notes.append(f"{source.name}: conversations left out: {num}, {reason}")
    settings = Settings(domain, kept, seed, encoder)
    rng = np.random.default_rng([seed, 1])
    on_step("fingerprints")
    people = Side(human, domain)
    others = [(Side(s, domain), "simulated") for s in simulated] + ([(Side(second, domain), "human")] if second else [])
    if tagger is not None:
        on_step("actions")
        for side in (people, *(s for s, _ in others)):
            side.tag(tagger, rng)
    pool, learned = frozenset[str](), [*([second] if second else []), *training]
    if training:
        pool = frozenset(normal_form(t) for source in training for talk in source.talks for t in talk.texts(Role.USER))
    taught = [[(line.role is Role.USER, line.text) for line in talk.lines] for source in learned for talk in source.talks]
    on_step("coherence of people")
    model = NextTurnModel.fit(exchanges([*people.spoken, *taught]), rng, domain)
    equal = _equal_sizes([people, *(s for s, _ in others)])
    own = _alone(people, equal, pool, rng)
    own["realism.next_turn_consistency"] = human_next_turn_consistency(people.spoken, taught, rng, domain)
    shuffled = next_turn_consistency(model, glued(people.spoken, rng), rng)
    on_step("people among themselves")
    ceiling = human_ceiling(people, settings, rng)
    comparisons = []
    for side, kind in others:
        on_step(side.name)
        found = compare(side, people, settings, kind, rng)
        found.estimates.update(_alone(side, equal, pool, rng))
        if kind == "human" and second is not None:
            rest = [t for source in (human, *training) for t in _spoken(source)]
            consistency = human_next_turn_consistency(side.spoken, rest, rng, side.domain)
        else:
            consistency = next_turn_consistency(model, side.spoken, rng)
        found.estimates["realism.next_turn_consistency"] = consistency
        comparisons.append(found)
    return Judgement(people, ceiling, own, shuffled, comparisons, dropped, notes)


def _spoken(source: Talks) -> Iterator[list[tuple[bool, str]]]:
    return ([(line.role is Role.USER, line.text) for line in talk.lines] for talk in source.talks)


def compare(side: Side, people: Side, settings: Settings, kind: str, rng: np.random.Generator) -> Comparison:
    """All that is measured of two sets of conversations against each other."""
    estimates: dict[str, Estimate] = {}
    index = estimate_index(side.fingerprints, people.fingerprints, rng, settings.mask)
    estimates |= {f"realism.{name}": found for name, found in index.items()}
    by_words = discriminate_by_words(side.turns, people.turns, rng)
    whole = discriminate_by_words(side.turns, people.turns, rng, whole=True)
    by_behaviour = discriminate_by_behaviour(_values(side, settings), _values(people, settings), rng)
    found = {"turn": by_words, "dialogue": whole, "fingerprint": by_behaviour}
    if settings.encoder is not None:
        found["encoder"] = settings.encoder(side.turns, people.turns, rng)
    for name, one in found.items():
        estimates |= {f"realism.{name}_auc": one.auc, f"realism.{name}_p_human": one.p_human}
    if side.actions is not None and people.actions is not None:
        estimates["realism.action_divergence"] = estimate_jensen_shannon(side.actions, people.actions, rng)
    covered = coverage(side.fingerprints, people.fingerprints, rng)
    if covered is not None:
        for name, value in zip(_COVERAGES, (covered.human_covered, covered.simulated_covered, covered.both), strict=True):
            estimates[name] = Estimate(value, None, None, len(side))
    features = tuple(
        f for f, k in zip(compare_features(side.fingerprints, people.fingerprints), settings.kept, strict=True) if k
    )
    telling = telling_ngrams([t for turns in side.turns for t in turns], [t for turns in people.turns for t in turns])
    return Comparison(side, kind, features, estimates, by_words, by_behaviour, telling)


_COVERAGES = ("realism.coverage_of_human", "realism.coverage_of_simulated", "realism.coverage")


def _values(side: Side, settings: Settings) -> Floats:
    return side.fingerprints.values[:, settings.mask]


def human_ceiling(people: Side, settings: Settings, rng: np.random.Generator) -> dict[str, Estimate]:
    """People among themselves: what two random halves of the corpus reach against each other.

    Halves hold half as many conversations each, so this is, if anything, too strict; intervals are the middle 95 % of the
    halves drawn (with `DISCRIMINATOR_HALVES` draws: their range).
    """
    prints, mask = people.fingerprints, settings.mask

    def over(statistic: Callable[[Rows, Rows], float | None], times: int = CEILING_HALVES) -> Estimate:
        return repeated_halves(len(people), statistic, rng, times)

    def dimension(a: Rows, b: Rows, place: int) -> float | None:
        value = float(realism_index(prints.take(a).profile, prints.take(b).profile, mask)[1][place])
        return None if np.isnan(value) else value

    def covered(a: Rows, b: Rows, place: int) -> float | None:
        found = coverage(prints.take(a), prints.take(b), rng)
        return None if found is None else (found.human_covered, found.simulated_covered, found.both)[place]

    out = {"realism.index": over(lambda a, b: float(realism_index(prints.take(a).profile, prints.take(b).profile, mask)[0]))}
    for place in range(4):
        out[f"realism.dice_d{place + 1}"] = over(partial(dimension, place=place))
    out["realism.mean_ks"] = over(lambda a, b: mean_ks(prints.take(a), prints.take(b), mask))
    if people.actions is not None:
        tagged = people.actions

        def divergence(a: Rows, b: Rows) -> float | None:
            counts = [Counter(x for i in half.tolist() for x in tagged[i]) for half in (a, b)]
            return jensen_shannon(counts[0], counts[1])

        out["realism.action_divergence"] = repeated_halves(len(tagged), divergence, rng, CEILING_HALVES)
    for place, name in enumerate(_COVERAGES):
        out[name] = over(partial(covered, place=place), 10)
    drawn: dict[str, list[Estimate]] = {}
    if len(people) >= 4:
        for a, b in [split_halves(len(people), rng) for _ in range(DISCRIMINATOR_HALVES)]:
            sides = [[people.turns[i] for i in half.tolist()] for half in (a, b)]
            values = [_values(people, settings)[half] for half in (a, b)]
            found = {
                "turn": discriminate_by_words(sides[0], sides[1], rng),
                "dialogue": discriminate_by_words(sides[0], sides[1], rng, whole=True),
                "fingerprint": discriminate_by_behaviour(values[0], values[1], rng),
            }
            for name, one_found in found.items():
                drawn.setdefault(f"realism.{name}_auc", []).append(one_found.auc)
                drawn.setdefault(f"realism.{name}_p_human", []).append(one_found.p_human)
    for name, estimates in drawn.items():
        numbers = [e.value for e in estimates if e.value is not None]
        out[name] = Estimate(float(np.mean(numbers)), min(numbers), max(numbers), estimates[0].n)
    return out


def _equal_sizes(sides: Sequence[Side]) -> tuple[int, int, int]:
    """Words, turns and conversations that every side can give."""
    num_words = min(sum(len(words(t)) for turns in side.turns for t in turns) for side in sides)
    num_turns = min(sum(map(len, side.turns)) for side in sides)
    return min(num_words, EQUAL_TOKENS), min(num_turns, EQUAL_TURNS), min(EQUAL_TURNS, *map(len, sides))


def _alone(side: Side, equal: tuple[int, int, int], pool: frozenset[str], rng: np.random.Generator) -> dict[str, Estimate]:
    """What is measured of one set alone."""
    num_words = [float(sum(len(t.split()) for t in turns)) for turns in side.turns]
    sizes = [len(turns) for turns in side.turns]
    out = {
        "realism.words_per_turn": estimate_ratio(num_words, sizes, rng),
        "realism.turns_per_dialogue": estimate_ratio([float(s) for s in sizes], [1] * len(sizes), rng),
        "realism.goal_kept": goal_kept(side.spoken, side.domain, rng),
    }
    if side.source.goals:
        goals = [side.source.goal_of(talk) for talk in side.talks]
        out["realism.goal_followed"] = goal_followed(side.spoken, goals, side.domain, rng)
    if pool:
        out["realism.copied_share"] = copied_share(side.spoken, pool, rng)
    limit, num_turns, num_openings = equal
    chosen: list[list[str]] = []
    room = limit
    for place in rng.permutation(len(side)).tolist():
        if room <= 0:
            break
        texts = []
        for text in side.turns[place]:
            taken = words(text)[: max(room, 0)]
            room -= len(taken)
            texts.append(" ".join(taken))
        chosen.append(texts)
    for n in range(1, 5):
        out[f"realism.dist_{n}"] = estimate_dist_n(chosen, n)
    read = [[w for t in texts for w in t.split()] for texts in chosen]
    value = mtld([w for tokens in read for w in tokens])
    drawn = [mtld([w for i in rng.integers(len(read), size=len(read)) for w in read[i]]) for _ in range(100)]
    resampled = np.array([np.nan if d is None else d for d in drawn])
    ends = None if value is None else centred_interval(value, resampled, len(read), (0.0, float("inf")))
    low, high = ends or (None, None)
    out["realism.mtld"] = Estimate(value, low, high, limit)
    turns = [t for own in side.turns for t in own]
    some = [turns[i] for i in rng.choice(len(turns), num_turns, replace=False).tolist()]
    scores = [score for score in self_bleu(some) if score is not None]
    mean = sum(scores) / len(scores) if scores else None
    out["realism.self_bleu"] = Estimate(mean, None, None, len(scores), num_turns - len(scores))
    first = [side.turns[i][0] for i in rng.choice(len(side), num_openings, replace=False).tolist()]
    out["realism.distinct_openings"] = Estimate(distinct_share(first), None, None, num_openings)
    return out


def realism_rows(found: Judgement, seed: int) -> list[ScoreRow]:
    """The figures as score rows: of each simulator, the second corpus, the people, their halves and their glued turns."""
    people = found.human
    digest = content_hash([[line.text for line in talk.lines] for talk in people.talks])

    def listed(estimates: dict[str, Estimate], about: About) -> list[ScoreRow]:
        return rows({name: estimates[name] for name in DEFINITIONS if name in estimates}, about)

    out: list[ScoreRow] = []
    for one in found.comparisons:
        condition = f"against {people.name}" + (", another human corpus" if one.kind == "human" else "")
        out += listed(one.estimates, About(one.side.name, "all", seed, digest, condition=condition))
    out += listed(found.ceiling, About(people.name, "all", seed, digest, condition="people among themselves (random halves)"))
    out += listed(found.human_estimates, About(people.name, "all", seed, digest, condition="people themselves"))
    control = {"realism.next_turn_consistency": found.glued}
    return out + listed(control, About(people.name, "all", seed, digest, condition="people's turns glued at random"))


def tagger_for(data: Path | None) -> ActionTagger:
    """The tagger of `corpora`, trained on IARD where `data` holds it, else by rules."""
    from interplay.corpora.tagger import load_tagger

    return load_tagger(None if data is None else data / "iard")
