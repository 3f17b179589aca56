"""A matrix as files: matrix.json with everything, CSV, Markdown and LaTeX tables, heat maps, and one HTML page."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interplay import __version__
from interplay.evaluation.matrix import FAULT_ENDINGS, Cell, Correlation, Matrix, Ranking
from interplay.evaluation.scoring import METRICS
from interplay.report.figures import inline_svg, write_figure
from interplay.report.heatmap import HeatCell, heat_map
from interplay.report.rendering import render
from interplay.report.tables import latex_table, markdown_table, number
from interplay.store import write_lines
from interplay.types import ScoreRow

STEM = "matrix"
PAGE = "index.html"
FIGURES = "figures"
MATRIX_VERSION = 1
"""Version of matrix.json; raised when an older reader would misread it."""
_FAULTS = tuple(ending.value for ending in FAULT_ENDINGS)


def write_matrix(matrix: Matrix, about: Mapping[str, Any], out: Path, *, title: str = "interplay matrix") -> Path:
    """Write the files of a matrix; earlier ones of the same names are replaced.

    Args:
        matrix: what was measured.
        about: what all its numbers have in common (requirement I2): agents, seed, data, code; JSON-serialisable.
        out: the matrix's directory.
        title: heading of the page.

    Returns:
        Path of the page.

    Raises:
        RunError: a file can't be written.
    """
    figures: list[tuple[str, str, str]] = []
    for place, metric in enumerate(matrix.metrics):
        write_figure(matrix_figure(matrix, metric), out / FIGURES / metric.replace(".", "-"))
        inline = inline_svg(matrix_figure(matrix, metric, titled=False), f"m{place}")
        figures.append((metric, METRICS.get(metric, ""), inline))
    html = render(
        "matrix.html",
        title=title,
        version=__version__,
        matrix=matrix,
        figures=figures,
        faults=_FAULTS,
        facts=list(_facts(about)),
        config_text=json.dumps(about.get("config", {}), indent=2, ensure_ascii=False),
        number=number,
        rank=rank_text,
    )
    write_lines(out / f"{STEM}.json", [json.dumps(matrix_record(matrix, about), indent=1, ensure_ascii=False)])
    write_lines(out / f"{STEM}.csv", [matrix_csv(matrix).rstrip("\n")])
    write_lines(out / f"{STEM}.md", [matrix_markdown(matrix).rstrip("\n")])
    write_lines(out / f"{STEM}.tex", [matrix_latex(matrix).rstrip("\n")])
    write_lines(out / PAGE, [html])
    return out / PAGE


def matrix_figure(matrix: Matrix, metric: str, *, titled: bool = True) -> Any:
    """The heat map of one metric, a matplotlib Figure; without a title where the page around it has one."""
    cells = [[_heat_cell(matrix, user, recommender, metric) for recommender in matrix.recommenders] for user in matrix.users]
    if not titled:
        return heat_map(matrix.users, matrix.recommenders, cells)
    num = max((cell.num_owed for cell in matrix.cells), default=0)
    subtitle = f"{METRICS.get(metric, metric)}; 95 % interval over scenarios; {num} conversations per cell"
    return heat_map(matrix.users, matrix.recommenders, cells, title=metric, subtitle=subtitle)


def _heat_cell(matrix: Matrix, user: str, recommender: str, metric: str) -> HeatCell:
    cell, score = matrix.cell(user, recommender), matrix.score(user, recommender, metric)
    if score is None or score.value is None:
        return HeatCell(None, note="failed" if cell.status == "failed" else "not measured")
    note = "" if score.n == cell.num_owed else f"n = {score.n}"
    return HeatCell(score.value, score.low, score.high, note)


def matrix_record(matrix: Matrix, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as JSON-serialisable values; what each scenario adds stays in the cells' Runs."""
    return {
        "version": MATRIX_VERSION,
        **about,
        "users": list(matrix.users),
        "recommenders": list(matrix.recommenders),
        "metrics": list(matrix.metrics),
        "cells": [_cell_record(cell) for cell in matrix.cells],
        "rankings": [asdict(ranking) for ranking in matrix.rankings],
        "agreements": [asdict(agreement) for agreement in matrix.agreements],
    }


def _cell_record(cell: Cell) -> dict[str, Any]:
    return {
        "user": cell.user,
        "recommender": cell.recommender,
        "run": cell.run,
        "status": cell.status,
        "reason": cell.reason,
        "num_dialogues": cell.num_dialogues,
        "num_owed": cell.num_owed,
        "faults": {ending: cell.faults.get(ending, 0) for ending in _FAULTS},
        "scores": [row.model_dump(mode="json") for row in cell.scores],
    }


def matrix_csv(matrix: Matrix) -> str:
    """A line per cell and score, with the cell's status and faults; a failed cell has one line without a score."""
    out = io.StringIO()
    names = ["user", "recommender", "status", "reason", "num_dialogues", "num_owed", *_FAULTS, *ScoreRow.model_fields]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for cell in matrix.cells:
        record = _cell_record(cell)
        shared = {name: record[name] for name in names[:6]} | record["faults"]
        for row in cell.scores:
            writer.writerow(shared | row.model_dump())
        if not cell.scores:
            writer.writerow(shared)
    return out.getvalue()


def matrix_markdown(matrix: Matrix) -> str:
    """Per success metric the cells with their places, then agreement, then what failed."""
    lines: list[str] = []
    for metric in matrix.metrics:
        lines += [
            f"**{metric}**: {METRICS.get(metric, '')}; in brackets the 95 % interval and the place in the row",
            "",
        ]
        lines += markdown_table(["user simulator", *matrix.recommenders], _value_rows(matrix, metric))
        lines.append("")
    if matrix.agreements:
        lines += ["**Rank agreement** of user simulators, with 95 % intervals over scenarios", ""]
        lines += markdown_table(
            ["metric", "user simulators", "recommenders", "Kendall tau-b", "Spearman"], _agreement_rows(matrix)
        )
        lines.append("")
    lines += ["**Conversations** and faults per cell", ""]
    lines += markdown_table(["user simulator", "recommender", "status", "held", *_FAULTS, "reason"], _fault_rows(matrix))
    return "\n".join(lines)


def matrix_latex(matrix: Matrix) -> str:
    """The tables of the Markdown file in LaTeX; needs the package booktabs."""
    lines = ["% Needs \\usepackage{booktabs}. Values with 95 % intervals, in brackets the place in the row."]
    for metric in matrix.metrics:
        lines += [f"% {metric}", *latex_table(["User simulator", *matrix.recommenders], _value_rows(matrix, metric))]
    if matrix.agreements:
        lines.append("% Rank agreement of user simulators")
        lines += latex_table(
            ["Metric", "User simulators", "Recommenders", "Kendall tau-b", "Spearman"], _agreement_rows(matrix)
        )
    lines.append("% Conversations and faults per cell")
    lines += latex_table(["User simulator", "Recommender", "Status", "Held", *_FAULTS, "Reason"], _fault_rows(matrix))
    return "\n".join(lines)


def _value_rows(matrix: Matrix, metric: str) -> list[list[str]]:
    rankings = {ranking.user: ranking for ranking in matrix.rankings if ranking.metric == metric}
    return [
        [user, *(_value_text(matrix, rankings[user], recommender, metric) for recommender in matrix.recommenders)]
        for user in matrix.users
    ]


def _value_text(matrix: Matrix, ranking: Ranking, recommender: str, metric: str) -> str:
    score = matrix.score(ranking.user, recommender, metric)
    if score is None or score.value is None:
        return "failed" if matrix.cell(ranking.user, recommender).status == "failed" else "–"
    place = next((p.rank for p in ranking.places if p.recommender == recommender), None)
    between = "" if score.low is None or score.high is None else f" [{number(score.low)}, {number(score.high)}]"
    few = "" if score.n == matrix.cell(ranking.user, recommender).num_owed else f", n = {score.n}"
    return f"{number(score.value)}{between}{few}{'' if place is None else f' ({rank_text(place)})'}"


def _agreement_rows(matrix: Matrix) -> list[list[str]]:
    return [
        [
            a.metric,
            f"{a.user_a}, {a.user_b}",
            str(a.num_recommenders),
            _correlation_text(a.tau_b),
            _correlation_text(a.spearman),
        ]
        for a in matrix.agreements
    ]


def _correlation_text(found: Correlation) -> str:
    if found.low is None or found.high is None:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _fault_rows(matrix: Matrix) -> list[list[str]]:
    return [
        [
            cell.user,
            cell.recommender,
            cell.status,
            f"{cell.num_dialogues} of {cell.num_owed}",
            *(str(cell.faults.get(ending, 0)) for ending in _FAULTS),
            cell.reason or "",
        ]
        for cell in matrix.cells
    ]


def rank_text(rank: float) -> str:
    """A place: "2", or "2.5" where it is shared.

    >>> rank_text(2.0), rank_text(2.5), rank_text(1.4875)
    ('2', '2.5', '1.5')
    """
    return f"{round(rank, 1):g}"


def _facts(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in about.items():
        if name == "agents":
            for side, agents in value.items():
                yield f"{side}s", "; ".join(agents.values())
        elif name != "config":
            yield name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)
