"""Tables of papers: what was published, with our Runs below it, as Markdown, LaTeX and CSV, and as a figure.

The published figures, their sources, and which of our metrics stands under which heading are in `published.toml`. A Run fills
a row by what it measured (protocol and role), not by its name. What nobody measured is a dash, never zero.
"""

import csv
import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interplay.errors import RunError
from interplay.evaluation.scoring import HUMAN
from interplay.metrics.match import ANCHORS
from interplay.report.tables import latex_escape, number
from interplay.store import write_lines
from interplay.types import ScoreRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STANDARD = "standard"
DASH = "–"


@dataclass(slots=True, frozen=True)
class Column:
    """A heading and what stands under it."""

    head: str
    metric: str
    conditions: tuple[str, ...] = (STANDARD,)
    """The variants of the protocol that may fill it; the first that a Run holds does."""


@dataclass(slots=True, frozen=True)
class PaperTable:
    """One table of `published.toml`."""

    name: str
    title: str
    source: str
    measured_on: str
    """What the published figures are of."""
    role: str
    """Whom it is about: user or recommender."""
    protocols: tuple[str, ...]
    """The protocols whose Runs fill it."""
    columns: tuple[Column, ...]
    controls: tuple[Column, ...]
    """Columns of ours beside the paper's, shown where a Run holds one."""
    published: tuple[tuple[str, Mapping[str, str]], ...]
    """Name of each published row, and its figures by heading, as printed."""


@dataclass(slots=True, frozen=True)
class FilledRow:
    """One row: published, or measured here."""

    name: str
    measured_on: str
    is_published: bool
    cells: tuple[str | ScoreRow | None, ...]
    """By column: the figure as printed, our score (whose value is None where all was skipped), or None: nobody measured it."""


@dataclass(slots=True, frozen=True)
class FilledTable:
    """A paper's table with our rows."""

    table: PaperTable
    columns: tuple[Column, ...]
    """Those of the paper, then the controls that a Run holds."""
    rows: tuple[FilledRow, ...]


@dataclass(slots=True, frozen=True)
class Measured:
    """What a table takes of one Run."""

    name: str
    config: Mapping[str, Any]
    scores: Sequence[ScoreRow]


@dataclass(slots=True)
class _Row:
    name: str
    measured_on: str
    scores: dict[tuple[str, str], ScoreRow] = field(default_factory=dict)


@cache
def paper_tables() -> dict[str, PaperTable]:
    """The tables of `published.toml` by name."""
    text = files("interplay.report").joinpath("published.toml").read_text(encoding="utf-8")
    return {
        table["name"]: PaperTable(
            name=table["name"],
            title=table["title"],
            source=table["source"],
            measured_on=table["measured_on"],
            role=table["role"],
            protocols=tuple(table["protocols"]),
            columns=tuple(map(_column, table["columns"])),
            controls=tuple(map(_column, table.get("controls", ()))),
            published=tuple((row["name"], row["values"]) for row in table["rows"]),
        )
        for table in tomllib.loads(text)["table"]
    }


def _column(given: Mapping[str, Any]) -> Column:
    return Column(given["head"], given["metric"], tuple(given.get("conditions", (STANDARD,))))


def fill(name: str, runs: Sequence[Measured]) -> FilledTable:
    """A paper's table with a row for everything that the Runs measured of it.

    Runs of one agent on the same data under the same decoding are one row, whatever protocol each is of. Where two hold the
    same score (another seed, another part of the data), all of the later one is a row with the name of its Run. The logged
    turns ("people") and the anchors of Match Score have rows of their own. A Run that could score nothing keeps its row.

    Args:
        name: of the table; see `paper_tables`.
        runs: any Runs; those of other protocols or of the other role are passed over.

    Raises:
        RunError: there is no such table, or no Run measured anything of it.
    """
    table = paper_tables().get(name)
    if table is None:
        raise RunError(f"there is no table {name}; the tables are {', '.join(paper_tables())}")
    metrics = {column.metric for column in (*table.columns, *table.controls)}
    found: dict[tuple[str, ...], _Row] = {}
    for run in runs:
        if run.config.get("protocol") not in table.protocols or not _is_of_role(run.config, table.role):
            continue
        by_subject: dict[str, list[ScoreRow]] = {}
        for score in run.scores:
            if score.metric in metrics:
                by_subject.setdefault(score.subject, []).append(score)
        for subject, scores in by_subject.items():
            _place(found, run, subject, scores)
    if not found:
        protocols = " or ".join(f"evaluate {protocol}" for protocol in table.protocols)
        raise RunError(f"no Run fills the table {name}; it takes those of {protocols} of a {table.role}")
    held = {place for row in found.values() for place in row.scores}
    shown = (c for c in table.controls if any((c.metric, condition) in held for condition in c.conditions))
    columns = (*table.columns, *shown)
    published = [
        FilledRow(who, table.measured_on, True, tuple(values.get(column.head) for column in columns))
        for who, values in table.published
    ]
    ours = [
        FilledRow(row.name, row.measured_on, False, tuple(_score(row, column) for column in columns)) for row in found.values()
    ]
    return FilledTable(table, columns, (*published, *(row for row in ours if any(cell is not None for cell in row.cells))))


def _is_of_role(config: Mapping[str, Any], role: str) -> bool:
    flags = {"user": ("user",), "recommender": ("recommender", "ranker", "lists")}[role]
    return any(config.get(flag) is not None for flag in flags)


def _place(found: dict[tuple[str, ...], _Row], run: Measured, subject: str, scores: Sequence[ScoreRow]) -> None:
    config = run.config
    agent = next((s.subject for s in run.scores if s.subject not in (HUMAN, *ANCHORS)), subject)
    decoding = json.dumps([config.get(name) for name in ("agent", "sampling", "constrained", "data_digest")], sort_keys=True)
    data = Path(str(config.get("data", ""))).name
    name = subject
    if name == HUMAN:
        name = f"people (the logged turns of {agent})"
    elif name in ANCHORS:
        name = f"anchor: {name} (beside {agent})"
    by_split: dict[str, dict[tuple[str, str], ScoreRow]] = {}
    for score in scores:
        by_split.setdefault(score.split, {})[score.metric, score.condition] = score
    for split, held in by_split.items():
        measured_on = " ".join(part for part in (data, split) if part)
        # Two directories may have one name too.
        names = chain((name, f"{name} ({run.name})"), (f"{name} ({run.name}, {n})" for n in count(2)))
        for own in names:
            row = found.setdefault((own, measured_on, decoding), _Row(own, measured_on))
            if row.scores.keys().isdisjoint(held):
                row.scores |= held
                break


def _score(row: _Row, column: Column) -> ScoreRow | None:
    for condition in column.conditions:
        found = row.scores.get((column.metric, condition))
        if found is not None:
            return found
    return None


def paper_cell(cell: str | ScoreRow | None) -> str:
    """A cell as text: the figure as printed, our score with its interval, or a dash, with what was skipped for it."""
    if cell is None:
        return DASH
    if isinstance(cell, str):
        return cell
    if cell.value is None:
        return f"{DASH} ({cell.num_skipped:,} skipped)" if cell.num_skipped else DASH
    between = "" if cell.low is None or cell.high is None else f" [{number(cell.low)}, {number(cell.high)}]"
    return f"{number(cell.value)}{between}"


def _count(row: FilledRow) -> str:
    """The denominator of the first figure; published rows tell theirs in what they were measured on."""
    scores = [cell for cell in row.cells if isinstance(cell, ScoreRow)]
    return next((f"{score.n:,}" for score in scores if score.value is not None), "0" if scores else "")


def _head(filled: FilledTable) -> list[str]:
    return [filled.table.role, *(column.head for column in filled.columns), "measured on", "n"]


def _lines(filled: FilledTable) -> list[list[str]]:
    return [
        [
            f"{row.name} (published)" if row.is_published else row.name,
            *map(paper_cell, row.cells),
            row.measured_on,
            _count(row),
        ]
        for row in filled.rows
    ]


def _note(filled: FilledTable) -> str:
    return (
        f"Published figures: {filled.table.source}; {filled.table.measured_on}. Ours are of other data and other models: they "
        "stand beside the published ones and are not ranked with them. In brackets 95 % intervals; n is the denominator of a "
        f"row's first figure, the others are in the CSV; {DASH} was not measured."
    )


def to_markdown(filled: FilledTable) -> str:
    """The table as Markdown, with its title above and its source below."""
    head = _head(filled)
    body = [[cell.replace("|", r"\|") for cell in line] for line in (head, *_lines(filled))]
    rule = ["---", *["---:"] * len(filled.columns), "---", "---:"]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (body[0], rule, *body[1:]))
    return f"**{filled.table.title}**\n\n{table}\n\n{_note(filled)}\n"


def to_latex(filled: FilledTable) -> str:
    """The table in LaTeX; needs the package booktabs. A rule stands between the published rows and ours."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(latex_escape(cell).replace(DASH, "--") for cell in cells) + r" \\"

    num_published = sum(row.is_published for row in filled.rows)
    body = [line(cells) for cells in _lines(filled)]
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}.",
            f"% {_note(filled).replace(DASH, 'a dash')}",
            f"\\begin{{tabular}}{{l{'r' * len(filled.columns)}lr}}",
            "\\toprule",
            line(_head(filled)),
            "\\midrule",
            *body[:num_published],
            *(["\\midrule"] if 0 < num_published < len(body) else []),
            *body[num_published:],
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def to_csv(filled: FilledTable) -> str:
    """One line per figure with its interval, n and source; what was not measured is an empty value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = ("value", "low", "high", "n", "num_skipped")
    writer.writerow(["row", "published", "column", "metric", "condition", *fields, "measured_on", "source"])
    for row in filled.rows:
        for column, cell in zip(filled.columns, row.cells, strict=True):
            condition = cell.condition if isinstance(cell, ScoreRow) else column.conditions[0]
            values = [getattr(cell, name) for name in fields] if isinstance(cell, ScoreRow) else [cell, *[None] * 4]
            source = filled.table.source if row.is_published else "measured here"
            writer.writerow(
                [row.name, row.is_published, column.head, column.metric, condition, *values, row.measured_on, source]
            )
    return out.getvalue()


def paper_figure(filled: FilledTable) -> "Figure":
    """A panel per column: filled dots with intervals are ours, hollow ones published; a row without a dot was not measured."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from interplay.report.figures import RECOMMENDER_COLOUR, USER_COLOUR

    colour = USER_COLOUR if filled.table.role == "user" else RECOMMENDER_COLOUR
    num = len(filled.rows)
    figure = Figure(figsize=(2.6 + 1.5 * len(filled.columns), 1.3 + 0.3 * num), layout="constrained")
    panels = figure.subplots(1, len(filled.columns), sharey=True, squeeze=False)[0]
    for place, (axes, column) in enumerate(zip(panels, filled.columns, strict=True)):
        for height, row in enumerate(filled.rows):
            cell = row.cells[place]
            if isinstance(cell, ScoreRow) and cell.value is not None:
                if cell.low is not None and cell.high is not None:
                    axes.plot([cell.low, cell.high], [height, height], color=colour, linewidth=1.4)
                axes.plot([cell.value], [height], "o", color=colour, markersize=5)
            elif isinstance(cell, str):
                axes.plot([float(cell)], [height], "o", color=colour, markerfacecolor="white", markersize=5)
        axes.set_title(column.head.replace(", ", ",\n"), fontsize=9)
        axes.grid(axis="y", alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3))
    names = [f"{row.name} (published)" if row.is_published else row.name for row in filled.rows]
    panels[0].set_yticks(range(num), names)
    panels[0].set_ylim(num - 0.5, -0.5)
    return figure


def write_paper_table(filled: FilledTable, out: Path) -> None:
    """Write a filled table into a directory as NAME.md, NAME.tex and NAME.csv, and its figure as figures/NAME.svg and .pdf."""
    from interplay.report.figures import FIGURES, write_figure

    for suffix, text in (("md", to_markdown(filled)), ("tex", to_latex(filled)), ("csv", to_csv(filled))):
        write_lines(out / f"{filled.table.name}.{suffix}", [text.rstrip("\n")])
    write_figure(paper_figure(filled), out / FIGURES / filled.table.name)
