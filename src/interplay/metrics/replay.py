"""What a replayed user did with the logged recommendations: accepted the gold item, accepted another, or nothing.

Source: Interplay (arXiv 2603.18573), section 4: success rate, early-termination rate, failure rate. The three come from
`rates` alone and sum to 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from interplay.metrics.matching import is_any_target
from interplay.types import Target


class Outcome(StrEnum):
    """How one replayed conversation came out."""

    SUCCESS = "success"
    """The user accepted the gold item."""
    EARLY_TERMINATION = "early-termination"
    """The user accepted something else, or accepted when nothing had been recommended."""
    FAILURE = "failure"
    """The user accepted nothing up to the end of the log, or gave up."""
    FORMAT_FAILURE = "format-failure"
    """The user model's output could not be read: a failure, counted once more under its own name."""


def classify(accepted: Sequence[tuple[str, str | None]] | None, targets: Sequence[Target]) -> Outcome:
    """The outcome of one replayed conversation.

    Args:
        accepted: title as written and catalog id of each accepted item; empty when the user accepted although nothing
            was on the table; None when the user never accepted.
        targets: the gold items; accepting any of them is a success, also when others are accepted in the same breath.

    >>> heat = Target(item_id="m1", title="Heat (1995)")
    >>> classify([("Heat", None)], [heat]).value, classify([("Up", "m7")], [heat]).value, classify(None, [heat]).value
    ('success', 'early-termination', 'failure')
    """
    if accepted is None:
        return Outcome.FAILURE
    if any(is_any_target(title, item_id, targets) for title, item_id in accepted):
        return Outcome.SUCCESS
    return Outcome.EARLY_TERMINATION


@dataclass(slots=True, frozen=True)
class Rates:
    """Shares of the observed conversations, each in [0, 1]; None when none was observed."""

    success: float | None
    early_termination: float | None
    failure: float | None
    """Format failures included."""
    format_failure: float | None
    """Part of `failure`."""
    n: int
    """Conversations observed: the denominator of all four."""
    num_skipped: int
    """Conversations not observed: no outcome was possible, or a backend failed."""


def rates(outcomes: Iterable[Outcome | None]) -> Rates:
    """Success, early-termination and failure rate: count of the outcome / observed conversations; they sum to 1.

    Conversations without an outcome (None: the gold item never occurs in the log, the backend failed, the context
    overflowed) are left out of the denominator and counted in `num_skipped`.

    >>> r = rates([Outcome.SUCCESS, Outcome.SUCCESS, Outcome.EARLY_TERMINATION, Outcome.FORMAT_FAILURE, None])
    >>> r.success, r.early_termination, r.failure, r.format_failure, r.n, r.num_skipped
    (0.5, 0.25, 0.25, 0.25, 4, 1)
    """
    everything = list(outcomes)
    observed = [outcome for outcome in everything if outcome is not None]
    n = len(observed)

    def share(*which: Outcome) -> float | None:
        return sum(outcome in which for outcome in observed) / n if n else None

    return Rates(
        success=share(Outcome.SUCCESS),
        early_termination=share(Outcome.EARLY_TERMINATION),
        failure=share(Outcome.FAILURE, Outcome.FORMAT_FAILURE),
        format_failure=share(Outcome.FORMAT_FAILURE),
        n=n,
        num_skipped=len(everything) - n,
    )
