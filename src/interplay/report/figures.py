"""Figures of a Run: endings and lengths.

On the page they are inline SVG whose text takes the page's colour, so that they serve light and dark alike; as files they are
SVG and PDF.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from interplay.evaluation.simulation import count_endings
from interplay.types import Dialogue, Role

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FIGURES = "figures"
"""Directory of figures beside a page."""

INK = "#010203"
"""Stands for the page's text colour until the SVG is written; no figure uses it for anything else."""
USER_COLOUR = "#0d8f7a"
RECOMMENDER_COLOUR = "#6d63d8"
_ENDING_COLOUR = "#4a7fc4"
PDF_FONT_TYPE = 42
"""Whole outlines (TrueType), as journals ask for; 3 is drawn five times as fast and refused by some."""
_DRAWN: "WeakKeyDictionary[Figure, str]" = WeakKeyDictionary()
"""Figures that were drawn, and so are finished, as SVG."""


def endings_figure(dialogues: Sequence[Dialogue]) -> "Figure":
    """Bars: how many dialogues (of one Run, at least one) ended how. Endings that did not occur are left out."""
    counts = {ending.value: num for ending, num in count_endings(dialogues).items() if num}
    unknown = len(dialogues) - sum(counts.values())
    if unknown:
        counts["not told"] = unknown
    figure, axes = new_figure()
    names = list(counts)[::-1]
    bars = axes.barh(names, [counts[name] for name in names], color=_ENDING_COLOUR, height=0.62)
    labels = [f"{counts[name]} ({counts[name] / len(dialogues):.0%})" for name in names]
    axes.bar_label(bars, labels, padding=4, color=INK, fontsize=10)
    axes.set_xlim(0, max(counts.values()) * 1.32)
    axes.set_ylim(-0.6, max(len(names), 3) - 0.4)
    axes.set_title("How the dialogues ended", fontsize=12, fontweight="bold")
    axes.set_xlabel("dialogues")
    whole_numbers(axes.xaxis)
    axes.grid(axis="y", visible=False)
    return figure


def turns_figure(dialogues: Sequence[Dialogue]) -> "Figure":
    """Histogram: turns of both sides per dialogue, of at least one dialogue."""
    lengths = [len(dialogue.turns) for dialogue in dialogues]
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // 24))  # at most 24 bars, each a whole number of turns wide
    figure, axes = new_figure()
    edges = [low - 0.5 + width * i for i in range((high - low) // width + 2)]
    axes.hist(lengths, bins=edges, color=_ENDING_COLOUR, rwidth=0.86)
    axes.set_title("Length of the dialogues", fontsize=12, fontweight="bold")
    axes.set_xlabel("turns of both sides per dialogue")
    whole_numbers(axes.xaxis)
    whole_numbers(axes.yaxis)
    axes.set_ylabel("dialogues")
    axes.grid(axis="x", visible=False)
    return figure


def words_figure(dialogues: Sequence[Dialogue]) -> "Figure | None":
    """Histogram: words per turn, by role, as shares of the role's turns; None when nobody spoke.

    Turns beyond the 99th percentile are drawn in the last bar, so that one long turn does not flatten the rest.
    """
    words = {role: [t.num_words for d in dialogues for t in d.turns if t.role is role] for role in Role}
    everything = sorted(n for counts in words.values() for n in counts)
    if not everything:
        return None
    top = max(everything[int(0.99 * (len(everything) - 1))], 4)
    width = max(1, -(-top // 20))
    edges = [width * i - 0.5 for i in range(top // width + 2)]
    figure, axes = new_figure()
    colours = {Role.RECOMMENDER: RECOMMENDER_COLOUR, Role.USER: USER_COLOUR}
    speaking = [role for role in colours if words[role]]
    axes.hist(
        [[min(n, top) for n in words[role]] for role in speaking],
        bins=edges,
        weights=[[100 / len(words[role])] * len(words[role]) for role in speaking],
        color=[colours[role] for role in speaking],
        label=[f"{role.value} (mean {sum(words[role]) / len(words[role]):.1f})" for role in speaking],
    )
    axes.set_title("Length of the turns", fontsize=12, fontweight="bold")
    axes.set_xlabel("words per turn")
    whole_numbers(axes.xaxis)
    axes.set_ylabel("% of the role's turns")
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper right")
    _, high = axes.get_ylim()
    axes.set_ylim(0, high * 1.25)
    return figure


def new_figure() -> tuple["Figure", "Axes"]:
    """A figure in the manner of all others, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_alpha(0.35)
    axes.tick_params(colors=INK, labelsize=10, length=0)
    axes.grid(color=INK, alpha=0.1, linewidth=0.8)
    axes.set_axisbelow(True)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(10)
    return figure, axes


def whole_numbers(axis: "Axis") -> None:
    """Label an axis with whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def write_figure(figure: "Figure", stem: Path) -> tuple[Path, Path]:
    """Write a figure as STEM.svg and STEM.pdf; the same figure gives the same files.

    Args:
        figure: finished; what is added to it after it was written or put on a page is not seen.
        stem: path without a suffix; its directory is made.

    Returns:
        The two paths.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".pdf")
    paths[0].write_text(_svg(figure), encoding="utf-8")
    with _as_file():
        figure.savefig(paths[1], metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return paths


def _svg(figure: "Figure") -> str:
    """The figure as SVG; the page and the file have the same drawing, which is made once and takes most of a report's time."""
    if figure not in _DRAWN:
        out = io.StringIO()
        with _as_file():
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # everything has its place now
        _DRAWN[figure] = out.getvalue()
    return _DRAWN[figure]


def _as_file() -> "AbstractContextManager[None]":
    """Real text instead of outlines: smaller, selectable, read aloud. A fixed salt: same figure, same file."""
    from matplotlib import rc_context

    return rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "interplay", "pdf.fonttype": PDF_FONT_TYPE, "font.family": "sans-serif"}
    )


def inline_svg(figure: "Figure", prefix: str) -> str:
    """A figure of this module for a page.

    Args:
        figure: what to write.
        prefix: makes the ids inside the SVG distinct from those of other figures on the page.
    """
    svg = _svg(figure)
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*sans-serif", "font-family: inherit", svg)
    svg = re.sub(r"font: ((?:\w+ )?[\d.]+px) [^;\"]*sans-serif", r"font: \1 sans-serif; font-family: inherit", svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)
