"""The realism page: scores, radar, distributions, telling n-grams, the most and least human conversations; one HTML file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interplay import __version__
from interplay.corpora.talks import Talk
from interplay.evaluation.realism import DEFINITIONS, Comparison, Judgement
from interplay.metrics.bootstrap import Estimate
from interplay.metrics.fingerprint import DIMENSIONS, FEATURES
from interplay.report.figures import inline_svg
from interplay.report.realism_figures import distributions_figure, radar_figure
from interplay.report.rendering import render
from interplay.report.tables import number
from interplay.store import write_lines

PAGE = "index.html"


@dataclass(slots=True, frozen=True)
class ShownTalk:
    """A conversation on the page."""

    talk: Talk
    p_human: float


@dataclass(slots=True, frozen=True)
class Section:
    """What the page shows of one set of users."""

    one: Comparison
    distributions: str
    most: tuple[ShownTalk, ...]
    least: tuple[ShownTalk, ...]


def write_realism_page(found: Judgement, command: str, out: Path, *, num_shown: int = 3) -> Path:
    """Write the page.

    Args:
        found: the judgement.
        command: what was typed.
        out: directory of the page.
        num_shown: most and least human conversations shown of each simulator.

    Returns:
        Path of the page.

    Raises:
        RunError: it can't be written.
    """
    sections = [_section(one, found, f"d{place}", num_shown) for place, one in enumerate(found.comparisons)]
    columns = [f"{one.side.name} ({'people' if one.kind == 'human' else 'simulated'})" for one in found.comparisons]
    html = render(
        "realism.html",
        title=f"How human are they? Beside {found.human.name}",
        version=__version__,
        found=found,
        sections=sections,
        columns=[f"{found.human.name}: people themselves", *columns],
        table=_table(found),
        radar=inline_svg(radar_figure(found.comparisons), "radar"),
        dimensions=DIMENSIONS,
        features=FEATURES,
        number=number,
        command=command,
    )
    write_lines(out / PAGE, [html])
    return out / PAGE


def _section(one: Comparison, found: Judgement, prefix: str, num_shown: int) -> Section:
    scores = one.by_words.verdicts.by_conversation(simulated=True)
    order = [int(i) for i in np.argsort(scores, kind="stable") if len(one.side.turns[int(i)]) > 1]
    shown = [ShownTalk(one.side.talks[i], float(scores[i])) for i in order]
    num = min(num_shown, len(shown) // 2)
    svg = inline_svg(distributions_figure(one, found.human), prefix)
    return Section(one, svg, tuple(shown[::-1][:num]), tuple(shown[:num]))


def _table(found: Judgement) -> list[tuple[str, str, list[Estimate | None]]]:
    """Metric, definition, and a cell per column; people's own column holds halves or, where measured of one set, the people."""
    out = []
    for name, definition in DEFINITIONS.items():
        people = found.ceiling.get(name) or found.human_estimates.get(name)
        cells = [people, *(one.estimates.get(name) for one in found.comparisons)]
        if any(cell is not None for cell in cells):
            out.append((name.removeprefix("realism."), definition, cells))
    return out
