"""From replays under controls to ScoreRows.

What is accepted in the gold item's place, how far that is from the success rate, and when and for what the user accepts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from interplay.evaluation.attributes import AttributeIndex
from interplay.evaluation.controls import STAND_INS, Control, Played
from interplay.evaluation.faults import fault_rows
from interplay.evaluation.leak_scores import replay_part_rows
from interplay.evaluation.leakage import LeakReport
from interplay.evaluation.replay import Decision
from interplay.evaluation.scoring import About, data_digest, replay_rows, rows
from interplay.evaluation.values import Value, values_by_scenario
from interplay.metrics.bootstrap import Estimate, estimate_mean, estimate_ratio
from interplay.metrics.replay import Outcome
from interplay.types import Catalog, Dialogue, Role, ScoreRow

SUCCESS, STAND_IN = "replay.success_rate", "replay.stand_in_rate"
MOST_OFFERS = 5
"""Offers of a conversation that are told apart by their number; later ones are counted together."""


def control_rows(
    played: Sequence[Played], reports: Sequence[LeakReport | None], catalog: Catalog, about: About
) -> list[ScoreRow]:
    """All rows of a replay under controls: see `outcome_rows`, `difference_rows`, `accept_rows` and `faults.fault_rows`.

    Args:
        played: of `replay_controls`; the standard replay is the first.
        reports: of the standard replay's conversations, aligned with them; None where there was none.
        catalog: of the domain.
        about: the fields that the rows share.
    """
    index = AttributeIndex(catalog)
    found: list[ScoreRow] = []
    for one in played:
        digest = data_digest(log[0] for log in one.logs if log is not None)
        here = replace(about, condition=one.controlled.control.value, data_digest=digest)
        found += outcome_rows(one, reports, here)
        if one.controlled.control is not Control.STANDARD:
            found += difference_rows(played[0], one, here)
        found += accept_rows(one, index, here)
        found += fault_rows("replay", (dialogue.failure for dialogue in one.dialogues), here)
    return found


def outcome_rows(played: Played, reports: Sequence[LeakReport | None], about: About) -> list[ScoreRow]:
    """Success (or stand-in), early-termination, failure and format-failure rate, three times.

    Over all conversations, over those without a leak in the standard replay, and over those that the first offer there did
    not decide.
    """
    found = replay_rows(played.outcomes, about) + replay_part_rows(played.outcomes, reports, about)
    if played.controlled.control not in STAND_INS:
        return found
    return [row.model_copy(update={"metric": STAND_IN}) if row.metric == SUCCESS else row for row in found]


def difference_rows(standard: Played, control: Played, about: About) -> list[ScoreRow]:
    """How much the success rate changes under a control, paired by conversation.

    Mean of (accepted what is in the gold item's place under the control) - (accepted the gold item), each 0 or 1, over the
    conversations observed under both.
    """
    pairs = zip(standard.outcomes, control.outcomes, strict=True)
    differences = [
        float(c.outcome is Outcome.SUCCESS) - float(s.outcome is Outcome.SUCCESS)
        for s, c in pairs
        if s.outcome is not None and c.outcome is not None
    ]
    skipped = len(control.outcomes) - len(differences)
    return rows({"replay.difference": estimate_mean(differences, np.random.default_rng(about.seed), skipped)}, about)


def accept_rows(played: Played, index: AttributeIndex, about: About) -> list[ScoreRow]:
    """How often the user accepts when items are on offer.

    Told apart by the place of the offer in the log, by what is on offer, and by how much of the target attributes the best
    item on offer has.

    The clusters of the intervals are conversations. Offers whose overlap can't be told are skipped there and counted.
    """
    offers = list(_offers(played, index))
    rng = np.random.default_rng(about.seed)
    found: list[ScoreRow] = []
    for part, labels in _parts(played.controlled.control):
        told = [(key, part(offer), offer.decision.accepted) for key, offer in offers]
        skipped = sum(label is None for _, label, _ in told)
        for label in labels:
            inside = [(key, accepted) for key, where, accepted in told if where == label]
            if inside:
                values = values_by_scenario([key for key, _ in inside], [float(accepted) for _, accepted in inside])
                condition = f"{about.condition}, {label}"
                found += rows(
                    {"replay.accept_rate": _ratio(list(values.values()), rng, skipped)}, replace(about, condition=condition)
                )
    return found


@dataclass(slots=True, frozen=True)
class _Offer:
    """A decision with what must be known to sort it."""

    decision: Decision
    number: int
    """Of the offers of the conversation, from 1."""
    to_come: int
    """Offers that the log still holds."""
    overlap: float | None
    """See `AttributeIndex.overlap`."""


def _offers(played: Played, index: AttributeIndex) -> Iterator[tuple[str, _Offer]]:
    for outcome, log in zip(played.outcomes, played.logs, strict=True):
        if log is None:
            continue
        scenario, dialogue = log
        places = offer_places(dialogue)
        for number, decision in enumerate(outcome.decisions, start=1):
            to_come = sum(place > decision.turn for place in places)
            overlap = index.overlap(decision.item_ids, scenario.persona.target_attributes)
            yield scenario.key, _Offer(decision, number, to_come, overlap)


def offer_places(log: Dialogue) -> list[int]:
    """Indices of the user turns before which something was recommended since the user last spoke."""
    places: list[int] = []
    on_table = False
    for place, turn in enumerate(log.turns):
        if turn.role is Role.RECOMMENDER:
            on_table = on_table or bool(turn.items)
        elif on_table:
            places.append(place)
            on_table = False
    return places


def _parts(control: Control) -> list[tuple[Callable[[_Offer], str | None], list[str]]]:
    numbers = [f"offer {n}" for n in range(1, MOST_OFFERS)] + [f"offer {MOST_OFFERS} or later"]
    to_come = ["last offer", "1 offer to come", "2 or more offers to come"]
    gold = "the stand-in" if control in STAND_INS else "the gold item"
    held = [f"{gold} on offer", "other items on offer"]
    overlaps = ["none of the attributes", "some of the attributes", "all of the attributes"]

    def by_overlap(offer: _Offer) -> str | None:
        if offer.overlap is None:
            return None
        return overlaps[0 if offer.overlap == 0 else 2 if offer.overlap == 1 else 1]

    return [
        (lambda o: numbers[min(o.number, MOST_OFFERS) - 1], numbers),
        (lambda o: to_come[min(o.to_come, 2)], to_come),
        (lambda o: held[0 if o.decision.holds_target else 1], held),
        (by_overlap, overlaps),
    ]


def _ratio(values: Sequence[Value], rng: np.random.Generator, num_skipped: int) -> Estimate:
    return estimate_ratio([v.total for v in values], [v.units for v in values], rng, num_skipped)
