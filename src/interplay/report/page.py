"""One self-contained HTML page of one or several Runs: scores, endings, lengths, dialogues, configs. No script, no network."""

import json
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interplay import __version__
from interplay.errors import RunError
from interplay.evaluation.admission import require_one_domain, require_provenance
from interplay.evaluation.turn_scores import confusion_of, num_turns
from interplay.report.figures import FIGURES, endings_figure, inline_svg, turns_figure, words_figure, write_figure
from interplay.report.papers import Measured, fill, paper_cell, write_paper_table
from interplay.report.rendering import render
from interplay.report.tables import number, score_table, to_csv, to_latex
from interplay.store import Run, prepare_output, read_records, write_lines
from interplay.types import Dialogue, Scenario, ScoreRow, Turn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "index.html"
"""Name of the page in its directory; also what tells a directory of reports from others."""


@dataclass(slots=True, frozen=True)
class RunSection:
    """What the page shows of one Run."""

    name: str
    config: dict[str, Any]
    agents: tuple[tuple[str, str, str], ...]
    """The distinct (user, recommender, corpus) of its dialogues."""
    scores: list[ScoreRow]
    num_dialogues: int
    figures: tuple[tuple[str, "Figure"], ...]
    """What each shows, and the figure."""
    prefix: str
    """Makes the ids inside its figures distinct."""
    shown: tuple[tuple[Dialogue, Scenario | None], ...]
    """Some dialogues, with their scenarios where the Run holds them."""

    @property
    def command(self) -> str | None:
        """The command that made the Run, where its config tells."""
        command = self.config.get("command")
        if isinstance(command, list):
            return shlex.join(str(word) for word in command)
        return command if isinstance(command, str) else None

    @property
    def inline_figures(self) -> list[str]:
        """The figures as SVG for the page."""
        return [inline_svg(figure, f"{self.prefix}{name[0]}") for name, figure in self.figures]

    @property
    def confusions(self) -> dict[str, dict[str, dict[str, ScoreRow]]]:
        """By what was scored: turns by the logged action and that of the model (see `turn_scores.confusion_of`)."""
        subjects = dict.fromkeys(row.subject for row in self.scores)
        found = {subject: confusion_of(row for row in self.scores if row.subject == subject) for subject in subjects}
        return {subject: matrix for subject, matrix in found.items() if matrix}

    @property
    def config_text(self) -> str:
        """The config as indented JSON."""
        return json.dumps(self.config, indent=2, ensure_ascii=False)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was run, in a few words each."""
        facts: list[tuple[str, str]] = []
        if self.num_dialogues:
            facts.append(("dialogues", f"{self.num_dialogues:,}"))
        for label, values in zip(("user", "recommender", "corpus"), zip(*self.agents, strict=True), strict=False):
            facts.append((label, ", ".join(dict.fromkeys(values))))
        for label, found in (
            ("scored", [s.subject for s in self.scores]),
            ("split", [s.split for s in self.scores]),
            ("seed", [str(s.seed) for s in self.scores]),
            ("data", [s.data_digest for s in self.scores]),
            ("package version", [s.package_version for s in self.scores]),
        ):
            if found:
                facts.append((label, ", ".join(dict.fromkeys(found))))
        return facts


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "interplay report",
    num_dialogues: int = 6,
    seed: int = 0,
    overwrite: bool = False,
    tables: Sequence[str] = (),
) -> Path:
    """Write the page and its tables.

    Args:
        runs: Run directories; of each, config.json, dialogues.jsonl, scores.jsonl and scenarios.jsonl are read.
        out: the directory to write: index.html, scores.csv, scores.tex, and in figures/ each figure as SVG and PDF.
        title: heading of the page.
        num_dialogues: dialogues shown per Run, drawn without looking at them.
        seed: of that draw.
        overwrite: whether an earlier report at `out` may be replaced.
        tables: tables of papers to fill with the Runs (see `papers.paper_tables`), also written as NAME.md, .tex and .csv.

    Returns:
        Path of the page.

    Raises:
        RunError: no Run is given, one of them is none or holds neither dialogues nor scores, no Run fills a table of
            `tables`, or `out` is not empty.
        DataError: a file of a Run is damaged.
    """
    if not runs:
        raise RunError("no Run was given; a report takes one or more Run directories")
    names = _names(runs)
    sections = [
        _section(path, name, f"r{place}", num_dialogues, random.Random(seed))
        for place, (path, name) in enumerate(zip(runs, names, strict=True))
    ]
    scores = {section.name: section.scores for section in sections if section.scores}
    filled = [fill(name, [Measured(s.name, s.config, s.scores) for s in sections]) for name in tables]
    html = render(
        "page.html",
        title=title,
        version=__version__,
        sections=sections,
        runs=list(scores),
        table=score_table(scores),
        number=number,
        pieces=pieces,
        num_turns=num_turns,
        papers=filled,
        paper_cell=paper_cell,
        command=shlex.join(
            ["interplay", "report", *map(str, runs), *(["--table", *tables] if tables else []), "--out", str(out)]
        ),
    )
    prepare_output(out, overwrite=overwrite, marker=PAGE)
    write_lines(out / "scores.csv", [to_csv(scores).rstrip("\n")])
    write_lines(out / "scores.tex", [to_latex(scores).rstrip("\n")])
    for table in filled:
        write_paper_table(table, out)
    for section in sections:
        for what, figure in section.figures:
            write_figure(figure, out / FIGURES / f"{section.name.replace('/', '-')}-{what}")
    write_lines(out / PAGE, [html])
    return out / PAGE


def pieces(turn: Turn) -> list[tuple[str, bool]]:
    """The turn's text cut at its titles: (piece, whether it is a title); joined they are the text."""
    out: list[tuple[str, bool]] = []
    end = 0
    for mention in turn.items:
        if mention.start > end:
            out.append((turn.text[end : mention.start], False))
        out.append((turn.text[mention.start : mention.end], True))
        end = mention.end
    if end < len(turn.text):
        out.append((turn.text[end:], False))
    return out


def _names(runs: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parents as it takes to tell them apart."""
    parts = [path.resolve().parts for path in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise RunError(f"a Run was given twice: {', '.join(map(str, runs))}")


def _section(path: Path, name: str, prefix: str, num_shown: int, rng: random.Random) -> RunSection:
    run = Run.read(path)
    dialogues = list(run.dialogues())
    scores = run.scores()
    if not dialogues and not scores:
        raise RunError(f"{path} holds neither dialogues nor scores: there is nothing to report; let its command finish first")
    require_provenance(run, scores)
    require_one_domain(run, dialogues)
    drawn = sorted(rng.sample(range(len(dialogues)), min(num_shown, len(dialogues))))
    wanted = {dialogues[i].scenario_key for i in drawn}
    scenarios: dict[str, Scenario] = {}
    if (path / "scenarios.jsonl").is_file():
        scenarios = {s.key: s for s in read_records(path / "scenarios.jsonl", Scenario) if s.key in wanted}
    figures: dict[str, Figure | None] = {}
    if dialogues:
        figures = {"endings": endings_figure(dialogues), "turns": turns_figure(dialogues), "words": words_figure(dialogues)}
    return RunSection(
        name=name,
        config=run.config,
        agents=tuple(dict.fromkeys((d.user, d.recommender, d.corpus) for d in dialogues)),
        scores=scores,
        num_dialogues=len(dialogues),
        figures=tuple((what, figure) for what, figure in figures.items() if figure is not None),
        prefix=prefix,
        shown=tuple((dialogues[i], scenarios.get(dialogues[i].scenario_key)) for i in drawn),
    )
