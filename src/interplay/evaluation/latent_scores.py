"""How users are spread over the latents, and how well each latent is recovered from their words.

Of users that were told what to be like (`Dialogue.traits`, `Turn.cues`) what they were told is the label: how well it is
recovered, what was realised for each value that was asked for, and how often exactly that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interplay.evaluation.scoring import About, rows
from interplay.metrics.bootstrap import Estimate, estimate_ratio
from interplay.metrics.latents import (
    SESSION_LATENTS,
    TURN_LATENTS,
    DialogueLatents,
    SessionLatents,
    TurnLatents,
    derive_latents,
    length_of,
    nearest_length,
)
from interplay.metrics.recoverability import Recovery, recover
from interplay.types import Dialogue, ScoreRow

LATENTS = "latents.jsonl"
"""File of a DialogueLatents per line."""

FORETOLD = ("verbosity", "openness", "indecision", "expertise")
"""Latents that half a conversation has a value of."""
MIN_TURNS_HALVED = 4
"""User turns of a conversation that is cut in halves."""

TOLD_OF_TURNS = {"length": "length", "intent": "intent", "off_topic": "off-topic"}
"""Latents of turns and the kinds of cues that tell them."""

REALISED: dict[str, str] = {
    "verbosity": "words per user turn",
    "patience": "user turns up to the one that accepts or gives up",
    "openness": "share of conversations with a phrase of openness",
    "indecision": "share of conversations with a phrase of indecision",
    "expertise": "different items and names of a user",
    "length": "words of the turn",
    "intent": "share of turns that do it",
    "off_topic": "share of turns that are small talk",
}
"""The quantity behind each latent."""

DEFINITIONS: dict[str, str] = {
    "latents.share": "share of conversations (of user turns, for latents of turns) with the value",
    "latents.recovered": "balanced accuracy with which a classifier tells the value of unseen conversations (or turns)",
    "latents.foretold": "the same for the value of a conversation's second half, told from the user's words of the first",
    "latents.majority": "balanced accuracy of always saying the most frequent value: what to compare with",
    "latents.realised": "mean of the quantity behind the latent (REALISED) where the value was asked for",
    "latents.followed": "share of conversations (of turns) that show the value that was asked for",
}
"""The metrics, each followed by a dot and the latent, `share` also by its value."""


@dataclass(slots=True, frozen=True)
class LatentTable:
    """Scores, and the recoverability of each latent for a table."""

    rows: list[ScoreRow]
    recoveries: dict[str, Recovery]
    """By latent."""
    foretold: dict[str, Recovery]
    """By latent of the session: told from the first half of a conversation what its second half shows."""


def score_latents(
    dialogues: Sequence[Dialogue],
    latents: Sequence[DialogueLatents],
    about: About,
    *,
    given: Mapping[str, SessionLatents] | None = None,
) -> LatentTable:
    """The distribution of every latent, and its recoverability.

    Args:
        dialogues: the conversations.
        latents: theirs, in the same order.
        about: the fields that the rows share.
        given: by scenario key, labels of the session that come from elsewhere (what the users were meant to be like); then
            only these are recovered, else the labels are those of the text itself.
    """
    rng = np.random.default_rng(about.seed)
    keys = [d.scenario_key for d in dialogues]
    found: dict[str, Estimate] = {}
    recoveries: dict[str, Recovery] = {}
    foretold: dict[str, Recovery] = {}
    said = [[d.turns[t.turn].text for t in own.turns] for d, own in zip(dialogues, latents, strict=True)]
    for name, values in SESSION_LATENTS.items():
        labels = [session_label(own.session, name) for own in latents]
        found |= _shares(name, values, [[x] for x in labels], keys, rng)
        if given is not None:
            labels = [session_label(given[key], name) if key in given else None for key in keys]
        recoveries[name] = recover(said, labels, keys, rng)
    for name, values in TURN_LATENTS.items():
        of_turns = [[turn_label(turn, name) for turn in own.turns] for own in latents]
        found |= _shares(name, values, of_turns, keys, rng)
        if given is None:
            owners = [key for key, own in zip(keys, latents, strict=True) for _ in own.turns]
            texts = [[text] for turns in said for text in turns]
            recoveries[name] = recover(texts, [x for labels in of_turns for x in labels], owners, rng)
    if given is None:
        halves = [_halves(d, own) for d, own in zip(dialogues, latents, strict=True)]
        for name in FORETOLD:
            labels = [None if later is None else session_label(later, name) for _, later in halves]
            foretold[name] = recover([first for first, _ in halves], labels, keys, rng)
            found[f"latents.foretold.{name}"] = foretold[name].balanced_accuracy
    return LatentTable(rows(found | _recovered(recoveries), about), recoveries, foretold)


def score_told(dialogues: Sequence[Dialogue], latents: Sequence[DialogueLatents], about: About) -> LatentTable:
    """The same where the users were told what to be like, against what they were told.

    Args:
        dialogues: the conversations; those whose user was told nothing are counted as skipped.
        latents: theirs, in the same order.
        about: the fields that the rows share.
    """
    rng = np.random.default_rng(about.seed)
    keys = [d.scenario_key for d in dialogues]
    found: dict[str, Estimate] = {}
    recoveries: dict[str, Recovery] = {}
    said = [[d.turns[t.turn].text for t in own.turns] for d, own in zip(dialogues, latents, strict=True)]
    for name, values in SESSION_LATENTS.items():
        told = [dict(d.traits).get(name) for d in dialogues]
        found |= _shares(name, values, [[x] for x in told], keys, rng)
        recoveries[name] = recover(said, told, keys, rng)
        shown = [session_label(own.session, name) for own in latents]
        quantities = [realised_session(own.session, name) for own in latents]
        found |= _steered(name, values, told, shown, quantities, keys, rng)
    for name, kind in TOLD_OF_TURNS.items():
        units = [(d, t) for d, own in zip(dialogues, latents, strict=True) for t in own.turns]
        owners = [d.scenario_key for d, _ in units]
        told = [dict(d.turns[t.turn].cues).get(kind) for d, t in units]
        # Lengths are told as numbers of words, of which there are many; recovered is the bucket.
        labels = told if name != "length" else [None if words is None else length_of(int(words)) for words in told]
        found |= _shares(name, TURN_LATENTS[name], [[x] for x in labels], owners, rng)
        recoveries[name] = recover([[d.turns[t.turn].text] for d, t in units], labels, owners, rng)
        values = tuple(
            sorted({x for x in told if x is not None}, key=lambda x: (not x.isdecimal(), int(x) if x.isdecimal() else x))
        )
        shown = [str(nearest_length(t.num_words)) if name == "length" else turn_label(t, name) for _, t in units]
        quantities = [realised_turn(t, name, x) for (_, t), x in zip(units, told, strict=True)]
        found |= _steered(name, values, told, shown, quantities, owners, rng)
    found |= _recovered(recoveries)
    return LatentTable(rows(found, about), recoveries, {})


def _recovered(recoveries: Mapping[str, Recovery]) -> dict[str, Estimate]:
    found = {}
    for name, recovery in recoveries.items():
        estimate = recovery.balanced_accuracy
        found[f"latents.recovered.{name}"] = estimate
        found[f"latents.majority.{name}"] = Estimate(recovery.majority, None, None, estimate.n, estimate.num_skipped)
    return found


def realised_session(session: SessionLatents, name: str) -> float | None:
    """The quantity behind a latent of the session: see REALISED. None where the conversation does not tell."""
    match name:
        case "verbosity":
            return session.words_per_turn
        case "patience":
            return session.num_turns_to_end
        case "openness":
            return float(session.openness == "open")
        case "indecision":
            return float(session.indecision == "undecided")
        case "expertise":
            return float(session.num_named)
        case _:
            raise ValueError(f"{name!r} is no latent of the session")


def realised_turn(turn: TurnLatents, name: str, told: str | None) -> float:
    """The quantity behind a latent of a turn: see REALISED."""
    match name:
        case "length":
            return float(turn.num_words)
        case "intent":
            return float(turn.intent.value == told)
        case "off_topic":
            return float(turn.off_topic)
        case _:
            raise ValueError(f"{name!r} is no latent of a turn")


def _steered(
    name: str,
    values: Sequence[str],
    told: Sequence[str | None],
    shown: Sequence[str | None],
    quantities: Sequence[float | None],
    keys: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    """What was realised for each value that was asked for, and how often that was shown; resampled are scenarios."""
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    units = [(number[key], *unit) for key, unit in zip(keys, zip(told, shown, quantities, strict=True), strict=True)]
    found: dict[str, Estimate] = {}
    for value in values:
        asked = [(k, quantity) for k, label, _, quantity in units if label == value]
        if asked:
            known = [(k, quantity) for k, quantity in asked if quantity is not None]
            found[f"latents.realised.{name}.{value}"] = _mean(known, len(number), rng, len(asked) - len(known))
    judged = [(k, float(label == is_shown)) for k, label, is_shown, _ in units if label is not None and is_shown is not None]
    if any(label is not None for label in told):
        found[f"latents.followed.{name}"] = _mean(judged, len(number), rng, len(units) - len(judged))
    return found


def _mean(values: Sequence[tuple[int, float]], num_owners: int, rng: np.random.Generator, skipped: int) -> Estimate:
    sums, sizes = [0.0] * num_owners, [0] * num_owners
    for owner, value in values:
        sums[owner] += value
        sizes[owner] += 1
    return estimate_ratio(sums, sizes, rng, skipped)


def _halves(dialogue: Dialogue, latents: DialogueLatents) -> tuple[list[str], SessionLatents | None]:
    """What the user says in the first half of its turns, and the latents of the second; None with too few turns."""
    own = [dialogue.turns[turn.turn] for turn in latents.turns]
    if len(own) < MIN_TURNS_HALVED:
        return [turn.text for turn in own], None
    middle = len(own) // 2
    later = derive_latents(dialogue.model_copy(update={"turns": tuple(own[middle:]), "ending": None}))
    return [turn.text for turn in own[:middle]], later.session


def session_label(session: SessionLatents, name: str) -> str | None:
    """The value of one of SESSION_LATENTS; None where it is not known."""
    value: str | None = getattr(session, name)
    return value


def turn_label(turn: TurnLatents, name: str) -> str:
    """The value of one of TURN_LATENTS."""
    if name == "off_topic":
        return "yes" if turn.off_topic else "no"
    value: str = getattr(turn, name)
    return str(value)


def _shares(
    name: str,
    values: Sequence[str],
    labels: Sequence[Sequence[str | None]],
    keys: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    """Over units with a label; resampled are scenarios."""
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    sizes = [0] * len(number)
    counts = {value: [0.0] * len(number) for value in values}
    skipped = 0
    for key, own in zip(keys, labels, strict=True):
        for label in own:
            if label is None:
                skipped += 1
            else:
                sizes[number[key]] += 1
                counts[label][number[key]] += 1.0
    return {f"latents.share.{name}.{value}": estimate_ratio(counts[value], sizes, rng, skipped) for value in values}
