"""Curves of an optimisation over its steps, with intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interplay.evaluation.optimisation import Curve
from interplay.report.figures import INK, new_figure, whole_numbers
from interplay.types import CheckKind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#4a7fc4", "#0d8f7a", "#c2762b", "#b04a87", "#7a8f1d", "#8a5bd0", "#b3503c", "#5c7d86", "#a08a1a", "#3f8fb0")
_KINDS = {
    CheckKind.TRAINING.value: ("#6d63d8", ":"),
    CheckKind.HELD_OUT.value: (None, "-"),
    CheckKind.HUMAN.value: ("#b3362b", "--"),
}


def curves_figure(title: str, curves: Sequence[Curve], label: str, *, is_share: bool = False, marks: bool = False) -> "Figure":
    """Curves over steps; their intervals as bands.

    Args:
        title: of the figure.
        curves: at least one.
        label: what the numbers are.
        is_share: they lie in [0, 1]; the axis shows all of it.
        marks: draw a dot at each point, for what is measured now and then.
    """
    figure, axes = new_figure()
    figure.set_size_inches(4.6, 3.1)
    free = iter(_COLOURS * 3)
    for curve in curves:
        colour, style = _KINDS.get(curve.kind, (None, "-"))
        colour = colour or next(free)
        steps = [step for step, _ in curve.points]
        values = [estimate.value or 0.0 for _, estimate in curve.points]
        name = f"{curve.name} ({curve.kind})" if curve.kind else curve.name
        axes.plot(steps, values, style, color=colour, label=name, linewidth=1.6, marker="o" if marks else "", markersize=3.5)
        spread = [(step, e.low, e.high) for step, e in curve.points if e.low is not None and e.high is not None]
        if spread:
            of_steps, low, high = (list(column) for column in zip(*spread, strict=True))
            axes.fill_between(of_steps, low, high, color=colour, alpha=0.14, linewidth=0)
    if is_share:
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(title, fontsize=12, fontweight="bold")
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    whole_numbers(axes.xaxis)
    if len(curves) > 1 or marks:
        axes.legend(
            frameon=False, labelcolor=INK, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1 if marks else 3
        )
    return figure
