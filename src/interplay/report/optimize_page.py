"""The page of an optimisation: the table that proves it, curves, alarms, and conversations before and after side by side."""

import csv
import io
import json
import random
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interplay import __version__
from interplay.errors import RunError
from interplay.evaluation.multiturn import by_turn, courses_of, multiturn_rows
from interplay.evaluation.optimisation import (
    Column,
    Measured,
    Optimisation,
    ProofTable,
    check_curves,
    is_share,
    metrics_of,
    pairs_of,
    proof_table,
    read_optimisation,
    step_curve,
    term_names,
)
from interplay.evaluation.scoring import About, data_digest
from interplay.metrics.bootstrap import Estimate
from interplay.report.figures import FIGURES, inline_svg, write_figure
from interplay.report.optimize_figures import curves_figure
from interplay.report.page import pieces
from interplay.report.rendering import render
from interplay.report.tables import latex_table, number
from interplay.store import CODE_VERSIONS, prepare_output, write_lines
from interplay.types import Check, Dialogue, Scenario, ScoreRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
_STEP_FIGURES: tuple[tuple[str, str, tuple[tuple[str, str], ...], bool], ...] = (
    ("Success in training", "share of conversations", (("success", "success"), ("acceptance", "acceptance")), True),
    ("Length of the conversations", "turns of both sides", (("turns", "turns"),), False),
    ("Length of the recommender's turns", "words", (("words", "words"),), False),
    ("Distance from the start", "KL, nats per token", (("KL", "kl"),), False),
    (
        "What it says",
        "share",
        (
            ("names a title", "title_rate"),
            ("repeats itself", "repetition"),
            ("place in popularity", "mean_popularity_rank"),
            ("off the catalog", "off_catalog"),
            ("can be read", "format_valid"),
        ),
        True,
    ),
)


@dataclass(slots=True, frozen=True)
class ShownPair:
    """A conversation before and after, on one scenario."""

    before: Dialogue
    after: Dialogue
    scenario: Scenario | None


@dataclass(slots=True, frozen=True)
class TurnTable:
    """Results turn by turn, before and after."""

    name: str
    num_turns: int
    rows: tuple[tuple[str, str, tuple[ScoreRow, ...], tuple[ScoreRow, ...]], ...]
    """Metric, condition, and the rows of each turn before and after."""
    whole: tuple[tuple[str, ScoreRow, ScoreRow], ...]
    """Metric, before, after: what is no matter of turns."""


def write_optimize_page(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "interplay optimize",
    num_dialogues: int = 5,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write the page and its tables.

    Args:
        runs: outputs of interplay optimize that differ in their seed alone.
        out: the directory to write: index.html, proof.csv, proof.tex, checks.csv, and in figures/ each figure as SVG and PDF.
        title: heading of the page.
        num_dialogues: pairs of conversations shown, drawn without looking at them.
        seed: of that draw.
        overwrite: whether an earlier report at `out` may be replaced.

    Returns:
        Path of the page.

    Raises:
        RunError: one of them is none, is not finished, or was not measured on two held-out simulators and on people (see
            `optimisation.require_proof`); or `out` is not empty.
        DataError: a file is damaged.
    """
    found = [read_optimisation(path) for path in runs]
    table = proof_table(found)
    figures = list(_figures(found))
    html = render(
        "optimize.html",
        title=title,
        version=__version__,
        found=found,
        facts=list(_facts(found, table)),
        table=table,
        change=signed,
        alarms=[(name_of(one), alarm) for one in found for alarm in one.alarms],
        figures=[(name, inline_svg(figure, f"f{place}")) for place, (name, figure) in enumerate(figures)],
        turns=list(_turn_tables(found)),
        pairs=_pairs(found[0], num_dialogues, random.Random(seed)),
        num_pairs=len(pairs_of(found[0])),
        number=number,
        pieces=pieces,
        config_text=json.dumps(found[0].config, indent=2, ensure_ascii=False),
        command=shlex.join(["interplay", "report", *map(str, runs), "--out", str(out)]),
    )
    prepare_output(out, overwrite=overwrite, marker=PAGE)
    write_lines(out / "proof.csv", [proof_csv(table).rstrip("\n")])
    write_lines(out / "proof.tex", proof_latex(table))
    write_lines(out / "checks.csv", [checks_csv(found).rstrip("\n")])
    for name, figure in figures:
        write_figure(figure, out / FIGURES / name)
    write_lines(out / PAGE, [html])
    return out / PAGE


def signed(value: float | None) -> str:
    """A difference for a table.

    >>> signed(0.1234), signed(-2.0), signed(-1e-9), signed(None)
    ('+0.123', '-2.000', '0.000', '–')
    """
    if value is None or number(abs(value)) == number(0.0):
        return number(value if value is None else 0.0)
    return number(value) if value < 0 else f"+{number(value)}"


def name_of(one: Optimisation) -> str:
    """What an output is called: its directory, with the one above it where it is named by its seed alone."""
    path = one.path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name.isdecimal() else path.name


def proof_csv(table: ProofTable) -> str:
    """A line per metric and column, with before, after and change and their intervals; None is an empty field."""
    out = io.StringIO()
    ends = ("before", "after", "change")
    fields = [f"{end}{part}" for end in ends for part in ("", "_low", "_high")]
    writer = csv.DictWriter(out, ["metric", "measured_on", "kind", "step", "seeds", *fields, "n"], lineterminator="\n")
    writer.writeheader()
    for metric, column, cell in _cells(table):
        row: dict[str, object] = {
            "metric": metric,
            "measured_on": column.name,
            "kind": column.kind,
            "step": table.last_step,
            "seeds": table.num_seeds,
            "n": cell.after.n,
        }
        for end in ends:
            estimate: Estimate = getattr(cell, end)
            row |= {end: estimate.value, f"{end}_low": estimate.low, f"{end}_high": estimate.high}
        writer.writerow(row)
    return out.getvalue()


def proof_latex(table: ProofTable) -> list[str]:
    """The table in LaTeX; needs the package booktabs."""
    head = ["Metric", *(f"{column.name} ({column.kind})" if column.name != column.kind else "gap" for column in table.columns)]
    rows = []
    for metric in table.metrics:
        cells = [table.cells.get((metric, column)) for column in table.columns]
        for end in ("before", "after"):
            rows.append([f"{metric}, {end}", *("–" if c is None else _with_interval(getattr(c, end)) for c in cells)])
    seeds = f"{table.num_seeds} seeds: intervals over them" if table.num_seeds > 1 else "one seed: intervals over conversations"
    return [f"% Needs \\usepackage{{booktabs}}. After step {table.last_step}; {seeds}.", *latex_table(head, rows)]


def _with_interval(estimate: Estimate) -> str:
    between = "" if estimate.low is None else f" [{number(estimate.low)}, {number(estimate.high)}]"
    return number(estimate.value) + between


def _cells(table: ProofTable) -> Iterator[tuple[str, Column, Measured]]:
    for metric in table.metrics:
        for column in table.columns:
            if (metric, column) in table.cells:
                yield metric, column, table.cells[metric, column]


def checks_csv(found: Iterable[Optimisation]) -> str:
    """Every check of every seed, one per line."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ["run", "seed", *Check.model_fields], lineterminator="\n")
    writer.writeheader()
    for one in found:
        for check in one.checks:
            writer.writerow({"run": name_of(one), "seed": one.seed, **check.model_dump(mode="json")})
    return out.getvalue()


def _figures(found: Sequence[Optimisation]) -> "Iterator[tuple[str, Figure]]":
    for metric in metrics_of(found):
        curves = check_curves(found, metric)
        if len({estimate.value for curve in curves for _, estimate in curve.points}) > 1:  # else the table says it all
            title, label = metric.rpartition(".")[2].replace("_", " "), "measured every so often"
            yield f"check-{metric}", curves_figure(title.capitalize(), curves, label, is_share=is_share(metric), marks=True)
    rewards = [step_curve(found, "sum", ("reward",)), *(step_curve(found, n, ("terms", n, "paid")) for n in term_names(found))]
    measured = [curve for curve in rewards if curve is not None]
    if measured:
        yield "reward", curves_figure("Reward and what each term pays", measured, "per conversation")
    for title, label, fields, share in _STEP_FIGURES:
        curves = [curve for name, field in fields if (curve := step_curve(found, name, (field,))) is not None]
        if curves:
            yield title.lower().replace(" ", "-").replace("'", ""), curves_figure(title, curves, label, is_share=share)


def _turn_tables(found: Sequence[Optimisation]) -> Iterator[TurnTable]:
    for one in found:
        if not (one.before and one.after and one.scenarios):
            continue
        before, after = (_turn_rows(dialogues, one) for dialogues in (one.before, one.after))
        rows = []
        for condition, in_all in (("of those that got there", False), ("of all conversations", True)):
            earlier, later = by_turn(before, all_conversations=in_all), by_turn(after, all_conversations=in_all)
            rows += [(metric, condition, tuple(cells), tuple(later[metric])) for metric, cells in earlier.items()]
        whole = [(b.metric, b, a) for b in before for a in after if b.metric == a.metric and b.condition == a.condition]
        yield TurnTable(
            name=name_of(one),
            num_turns=len(rows[0][2]),
            rows=tuple(rows),
            whole=tuple(entry for entry in whole if entry[1].condition == "standard"),
        )


def _turn_rows(dialogues: Sequence[Dialogue], one: Optimisation) -> list[ScoreRow]:
    played = [one.scenarios[key] for key in dict.fromkeys(d.scenario_key for d in dialogues) if key in one.scenarios]
    about = About(
        subject=name_of(one),
        split=", ".join(dict.fromkeys(s.split.value for s in played)),
        seed=one.seed or 0,
        data_digest=data_digest(played),
        simulator=", ".join(dict.fromkeys(d.user for d in dialogues)),
    )
    return multiturn_rows(*courses_of(dialogues, played), about)


def _pairs(one: Optimisation, num: int, rng: random.Random) -> list[ShownPair]:
    pairs = pairs_of(one)
    drawn = sorted(rng.sample(range(len(pairs)), min(num, len(pairs))))
    return [ShownPair(*pairs[i], one.scenarios.get(pairs[i][0].scenario_key)) for i in drawn]


def _facts(found: Sequence[Optimisation], table: ProofTable) -> Iterator[tuple[str, str]]:
    config = found[0].config
    yield "outputs", ", ".join(map(name_of, found))
    yield "seeds", ", ".join(str(one.seed) for one in found)
    yield "compared", f"step {min(c.step for c in found[0].checks)} with step {table.last_step}"
    for name, label in (
        ("recommender", "started from"),
        ("algorithm", "algorithm"),
        ("users", "trained on"),
        ("noise", "rate of wrong feedback"),
        ("held_out", "held out"),
        ("data", "scenarios"),
        ("human", "logs of people"),
    ):
        value = config.get(name)
        if value not in (None, [], ""):
            yield label, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    weights = (config.get("rewards") or {}).get("weights") or {}
    paid = [f"{name} {weight:g}" for name, weight in weights.items() if weight]
    if paid:
        yield "reward", " + ".join(paid)
    yield from _counts(found)
    yield "code", ", ".join(dict.fromkeys(v for one in found for v in one.config.get(CODE_VERSIONS, [])))


def _counts(found: Sequence[Optimisation]) -> Iterator[tuple[str, str]]:
    """What a table of scores would hide: conversations without a reward, groups without a difference, time."""
    records = [record for one in found for record in one.steps]
    total = sum(record.get("num_conversations") or 0 for record in records)
    if total:
        missing = sum(record.get("num_missing") or 0 for record in records)
        yield "conversations", f"{total:,} in {len(records):,} steps, {missing:,} of them without a reward"
    flat = [record["num_flat"] for record in records if record.get("num_flat") is not None]
    if flat:
        yield "groups without a difference", f"{sum(flat):,}"
    generating, training = (
        sum(record.get(name) or 0.0 for record in records) for name in ("seconds_generating", "seconds_training")
    )
    if generating + training:
        share = generating / (generating + training)
        yield "time", f"{(generating + training) / 60:.1f} min, {share:.0%} of it holding conversations"


def require_alike(runs: Sequence[Path], optimisations: Sequence[Path]) -> None:
    """Refuse a report of Runs and of optimisations at once.

    Raises:
        RunError: there are both.
    """
    if optimisations and len(optimisations) < len(runs):
        other = next(path for path in runs if path not in optimisations)
        raise RunError(f"{optimisations[0]} is an output of interplay optimize and {other} is none: report them apart")
