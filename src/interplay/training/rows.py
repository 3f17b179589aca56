"""Training rows: one per conversation and role, with the role's own view and labels on the role's own words only.

One pass per conversation teaches every turn of the role at once; nothing is repeated per turn.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from interplay.formats.tokens import IGNORED, TokenFormat
from interplay.simulation.slots import Knowledge
from interplay.training.cue_labels import LoggedCues
from interplay.training.traces import Traces
from interplay.types import Dialogue, Role, Scenario, View, view_of

CHUNK = 64
"""Conversations whose candidates are looked up together."""


@dataclass(slots=True)
class RowCounts:
    """What became of the conversations."""

    rows: int = 0
    tokens: int = 0
    labelled_tokens: int = 0
    shortened: int = 0
    """Rows whose last turns did not fit into `max_length` and were left out."""
    dropped: int = 0
    """Conversations of which not even one labelled turn fits, or in which the role never speaks."""
    advised: int = 0
    """Turns with candidates before them."""
    held_out: int = 0
    """Of these, turns of conversations that the ranker was trained on; their candidates come from views that were not."""


def training_rows(
    pairs: Iterable[tuple[Scenario, Dialogue]],
    role: Role,
    form: TokenFormat,
    *,
    with_persona: bool,
    max_length: int,
    knowledge: Knowledge | None = None,
    cues: LoggedCues | None = None,
    traces: Traces | None = None,
) -> tuple[list[dict[str, list[int]]], RowCounts]:
    """Rows `{"input_ids", "labels"}` of equal length, at most `max_length` tokens each.

    Args:
        pairs: scenarios with their dialogues.
        role: whose words are labelled and whose View is rendered.
        form: the rendering.
        with_persona: whether a recommender's View shows the persona.
        max_length: whole turns beyond it are left out.
        knowledge: puts candidates before each of a recommender's turns.
        cues: puts cues before each of the role's turns.
        traces: puts reasoning before each turn that has candidates; keeps counts of its own.
    """
    rows: list[dict[str, list[int]]] = []
    counts = RowCounts()
    views = (_view(scenario, dialogue, role, with_persona, cues) for scenario, dialogue in pairs)
    for plain in views if knowledge is None else with_candidates(views, knowledge, counts):
        view, unranked = (plain, frozenset[int]()) if traces is None else traces.label(plain)
        turns = view.turns
        rendered = form.render(view, unranked=unranked)
        shortened = False
        while len(rendered.ids) > max_length and turns:
            turns, shortened = turns[:-1], True
            advice = tuple(a for a in view.advice if a.turn < len(turns))
            told = tuple(c for c in view.cues if c.turn < len(turns))
            rendered = form.render(replace(view, turns=turns, advice=advice, cues=told), unranked=unranked)
        labels = rendered.labels(role)
        num_labelled = sum(label != IGNORED for label in labels)
        if not num_labelled or len(labels) > max_length:
            counts.dropped += 1
            continue
        rows.append({"input_ids": list(rendered.ids), "labels": labels})
        counts.rows += 1
        counts.tokens += len(labels)
        counts.labelled_tokens += num_labelled
        counts.shortened += shortened
    return rows, counts


def _view(scenario: Scenario, dialogue: Dialogue, role: Role, with_persona: bool, cues: LoggedCues | None) -> View:
    view = view_of(scenario, role, with_persona=with_persona).after(*dialogue.turns)
    return view if cues is None else cues.label(view, dialogue)


def with_candidates(views: Iterable[View], knowledge: Knowledge, counts: RowCounts) -> Iterator[View]:
    """The Views with candidates before each recommender turn, as if the ranker had not seen them; counts the turns."""
    rest = iter(views)
    while chunk := list(islice(rest, CHUNK)):
        advice, num_advised, num_held_out = knowledge.logged_advice(chunk)
        counts.advised += num_advised
        counts.held_out += num_held_out
        for view, own in zip(chunk, advice, strict=True):
            yield view.advised(*own)
