"""Training rows: one per conversation and role, with the role's own view and labels on the role's own words only.

One pass per conversation teaches every turn of the role at once; nothing is repeated per turn.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from interplay.formats.tokens import IGNORED, TokenFormat
from interplay.types import Dialogue, Role, Scenario, view_of


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


def training_rows(
    pairs: Iterable[tuple[Scenario, Dialogue]],
    role: Role,
    form: TokenFormat,
    *,
    with_persona: bool,
    max_length: int,
) -> tuple[list[dict[str, list[int]]], RowCounts]:
    """Rows `{"input_ids", "labels"}` of equal length, at most `max_length` tokens each.

    Args:
        pairs: scenarios with their dialogues.
        role: whose words are labelled and whose View is rendered.
        form: the rendering.
        with_persona: whether a recommender's View shows the persona.
        max_length: whole turns beyond it are left out.
    """
    rows: list[dict[str, list[int]]] = []
    counts = RowCounts()
    for scenario, dialogue in pairs:
        view = view_of(scenario, role, with_persona=with_persona)
        turns = dialogue.turns
        rendered = form.render(view.after(*turns))
        shortened = False
        while len(rendered.ids) > max_length and turns:
            turns, shortened = turns[:-1], True
            rendered = form.render(view.after(*turns))
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
