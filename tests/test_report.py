"""The page and the tables, written from Runs that were made up here."""

import csv
import importlib.util
import io
import random
from html.parser import HTMLParser
from pathlib import Path

import pytest

from interplay import __version__
from interplay.errors import RunError
from interplay.evaluation.replay import ReplayOutcome
from interplay.evaluation.scoring import About, data_digest, replay_rows, simulation_rows
from interplay.evaluation.simulation import summarise
from interplay.metrics.replay import Outcome
from interplay.report import figures
from interplay.report.page import pieces, write_report
from interplay.report.tables import score_table, to_csv, to_latex
from interplay.store import Run, write_records
from interplay.types import (
    Action,
    Dialogue,
    Ending,
    Failure,
    KnownItem,
    Mention,
    Persona,
    Role,
    Scenario,
    ScoreRow,
    Split,
    Target,
    Turn,
)

TITLES = ["The Long Tide (2004)", "Copper Sky (1997)", "A Quiet Orbit (2012)", "Seven Lanterns (1988)"]


def say(role: Role, action: Action, text: str, title: str | None = None) -> Turn:
    items: tuple[Mention, ...] = ()
    if title is not None:
        start = text.index(title)
        items = (Mention(start=start, end=start + len(title), item_id=title),)
    return Turn(role=role, action=action, text=text, items=items)


def made_run(path: Path, num_dialogues: int = 30, seed: int = 0, scores: bool = True) -> Path:
    """A Run of made-up conversations with every kind of ending."""
    rng = random.Random(seed)
    scenarios, dialogues = [], []
    for number in range(num_dialogues):
        target = rng.choice(TITLES)
        start = Scenario(
            corpus="made",
            domain="movie",
            split=Split.TEST,
            source_id=str(number),
            persona=Persona(
                general_preferences="Likes slow films with a strong sense of place; dislikes loud endings.",
                known_items=(KnownItem(title="Northern Ferry (2001)", review="Loved the calm and the music <b>so</b> much."),),
                target_attributes=("drama", "1990s", "melancholic"),
            ),
            targets=(Target(item_id=target, title=target),),
        )
        turns = [
            say(Role.RECOMMENDER, Action.GREETING, "Hi there! What kind of film are you in the mood for tonight?"),
            say(Role.USER, Action.DISCLOSE_GOAL, "Something melancholic, from the 1990s if you have it & not too long."),
        ]
        for _ in range(rng.randrange(4)):
            title = rng.choice(TITLES)
            turns += [
                say(Role.RECOMMENDER, Action.RECOMMEND, f"Have you seen {title}? It has a wonderful, slow first hour.", title),
                say(Role.USER, Action.FEEDBACK, "Hmm, " + "not quite what I meant, " * rng.randrange(1, 4) + "sorry."),
            ]
        turns.append(say(Role.RECOMMENDER, Action.RECOMMEND, f"Then {target} could be it.", target))
        ending = rng.choices(list(Ending), weights=[12, 4, 3, 1, 2, 0.5, 0.5])[0]
        failure = None
        if ending is Ending.ACCEPTED:
            turns.append(say(Role.USER, Action.ACCEPT, f"Oh yes, {target} sounds perfect, thank you!", target))
        elif ending is Ending.GAVE_UP:
            turns.append(say(Role.USER, Action.GIVE_UP, "Never mind, I will read a book."))
        elif ending is Ending.FORMAT_FAILURE:
            failure = Failure(boundary="format", role=Role.USER, reason="no-action", raw="<script>alert(1)</script> film")
        dialogues.append(
            Dialogue(
                scenario_key=start.key,
                corpus="made",
                domain="movie",
                user="runs/user",
                recommender="runs/recommender",
                seed=number,
                turns=tuple(turns),
                ending=ending,
                failure=failure,
            )
        )
        scenarios.append(start)
    config = {"verb": "simulate", "seed": seed, "user": "runs/user", "sampling": {"temperature": 0.8, "top_p": 1.0}}
    config["catalog_digest"] = "c"
    config["agents"] = {"user": "runs/user 1", "recommender": "runs/recommender 1"}
    config["command"] = ["interplay", "simulate", "--user", "runs/user", "--out", path.name]
    run = Run.create(path, config)
    for dialogue in dialogues:
        run.append(dialogue)
    write_records(path / "scenarios.jsonl", scenarios)
    if scores:
        about = About(
            subject="runs/recommender", split="test", seed=seed, data_digest=data_digest(scenarios), simulator="runs/user"
        )
        outcomes = [ReplayOutcome(str(i), rng.choice([*Outcome, Outcome.SUCCESS, None])) for i in range(60)]
        shuffled = About(subject="runs/user", split="test", seed=seed, data_digest="d", condition="shuffled-attributes")
        run.write_scores(
            [
                *simulation_rows(summarise(dialogues, scenarios), about),
                *replay_rows(outcomes, about),
                *replay_rows(outcomes[:20], shuffled),
                ScoreRow(
                    metric="own.metric_of_mine",
                    value=12.34,
                    n=5,
                    split="test",
                    subject="s",
                    seed=0,
                    data_digest="d",
                    package_version=__version__,
                ),
            ]
        )
    return path


class Reader(HTMLParser):
    """Collects what a page would load, its ids, and whether tags are closed."""

    VOID = frozenset({"wbr", "meta", "br", "link", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if tag in ("script", "img", "link", "iframe"):
            self.loaded.append(tag)
        if given.get("src"):
            self.loaded.append(given["src"] or "")
        if given.get("id"):
            self.ids.append(given["id"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(page: Path) -> tuple[str, Reader]:
    html = page.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(html)
    return html, reader


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("report")
    runs = [made_run(base / "small", seed=0), made_run(base / "large", seed=1, num_dialogues=50)]
    return write_report(runs, base / "out", title="Two <runs> & more", num_dialogues=30)


def test_the_page_is_one_sound_file_that_loads_nothing(report: Path) -> None:
    html, reader = read_page(report)
    assert reader.loaded == []
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert "@import" not in html
    assert "url(http" not in html


def test_whatever_was_said_is_escaped(report: Path) -> None:
    html, reader = read_page(report)
    assert "script" not in reader.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt; film" in html
    assert "Two &lt;runs&gt; &amp; more" in html
    assert "if you have it &amp; not too long" in html


def test_the_page_shows_scores_endings_lengths_dialogues_configs_and_commands(report: Path) -> None:
    html, _reader = read_page(report)
    for text in (
        "How the dialogues ended",
        "turns of both sides per dialogue",
        "words per turn",
        "shuffled-attributes",
        "share of replayed conversations in which the user accepts the gold item",
        "Who the user is; looks for drama, 1990s, melancholic",
        "Target: <b>",
        "disclose-goal",
        "<mark>Copper Sky (1997)</mark>",
        "ending: <b>gave-up</b>",
        "&#34;temperature&#34;: 0.8",
        "interplay simulate --user runs/user --out large",
        "interplay report",
        " skipped",
    ):
        assert text in html, text
    assert html.count("<svg") == 6


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", num_dialogues=5)
    page = write_report([run], tmp_path / "out")
    first = page.read_bytes()
    assert write_report([run], tmp_path / "out", overwrite=True).read_bytes() == first


def test_the_csv_holds_every_row_and_leaves_none_empty(report: Path) -> None:
    table = list(csv.DictReader(io.StringIO((report.parent / "scores.csv").read_text(encoding="utf-8"))))
    assert {row["run"] for row in table} == {"small", "large"}
    goal = next(row for row in table if row["metric"] == "simulation.goal_satisfaction")
    assert (goal["value"], goal["n"]) == ("", "0")
    own = next(row for row in table if row["metric"] == "own.metric_of_mine")
    assert float(own["value"]) == 12.34


def test_the_latex_table_is_balanced_and_escaped(report: Path) -> None:
    tex = (report.parent / "scores.tex").read_text(encoding="utf-8")
    assert tex.count("{") == tex.count("}")
    assert r"own.metric\_of\_mine & 12.3" in tex
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")].splitlines()[1:]
    assert all(line.count(" & ") == 2 and line.endswith(r"\\") for line in body)


def row(metric: str, value: float | None, subject: str = "s", condition: str = "standard") -> ScoreRow:
    return ScoreRow(
        metric=metric,
        value=value,
        n=1,
        split="test",
        subject=subject,
        condition=condition,
        seed=0,
        data_digest="d",
        package_version=__version__,
    )


def test_runs_stand_side_by_side_and_conditions_in_rows_of_their_own() -> None:
    scores = {
        "a": [row("turns.dist_4", 0.5), row("turns.dist_4", 0.6, subject="human"), row("replay.success_rate", 1.0)],
        "b": [row("turns.dist_4", 0.7), row("replay.success_rate", None, condition="shuffled-attributes")],
    }
    table = score_table(scores)
    assert [(r.metric, r.note) for r in table] == [
        ("replay.success_rate", ""),
        ("replay.success_rate", "shuffled-attributes"),
        ("turns.dist_4", ""),
        ("turns.dist_4", "human"),
    ]
    assert [[s.value for s in cell] for cell in table[2].cells] == [[0.5], [0.7]]
    assert table[3].cells[1] == ()


def test_tables_of_no_scores_have_a_head_only() -> None:
    assert to_csv({}).startswith("run,metric,value")
    assert to_csv({}).count("\n") == 1
    assert r"\toprule" in to_latex({})


def test_a_run_of_scores_only_and_one_of_dialogues_only_are_reported(tmp_path: Path) -> None:
    scored = Run.create(tmp_path / "scored", {})
    scored.write_scores([row("replay.success_rate", 0.25)])
    spoken = made_run(tmp_path / "spoken", num_dialogues=2, scores=False)
    (spoken / "scenarios.jsonl").unlink()
    html, _ = read_page(write_report([scored.path, spoken], tmp_path / "out"))
    assert "This run holds scores only" in html
    assert "0.250" in html
    assert "Hidden from both sides" not in html


def test_a_dialogue_without_turns_and_ending_is_reported(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"seed": 0, "data_digest": "d"})
    run.append(Dialogue(scenario_key="k", corpus="c", domain="movie", user="u", recommender="r", turns=(), ending=None))
    html, _ = read_page(write_report([run.path], tmp_path / "out"))
    assert "how it ended is not told" in html


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / parent / "run", num_dialogues=2) for parent in ("x", "y")]
    html, _ = read_page(write_report(runs, tmp_path / "out"))
    assert "x/run" in html
    assert "y/run" in html


def test_what_can_not_be_reported_is_refused_in_one_line(tmp_path: Path) -> None:
    empty = Run.create(tmp_path / "empty", {}).path
    full = made_run(tmp_path / "full", num_dialogues=2)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear", encoding="utf-8")
    for runs, out, message in (
        ([], "out", "no Run was given"),
        ([empty], "out", "neither dialogues nor scores"),
        ([tmp_path / "missing"], "out", "not a directory"),
        ([full, full], "out", "given twice"),
        ([full], "taken", "not empty"),
    ):
        with pytest.raises(RunError, match=message) as caught:
            write_report(runs, tmp_path / out)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_pieces_join_to_the_text() -> None:
    turn = say(Role.RECOMMENDER, Action.RECOMMEND, "Try Copper Sky (1997)!", "Copper Sky (1997)")
    assert pieces(turn) == [("Try ", False), ("Copper Sky (1997)", True), ("!", False)]


def test_figures_for_papers_hold_their_fonts_as_whole_outlines(tmp_path: Path) -> None:
    # As it is imported: conftest.py gives the other tests the quicker fonts, which journals refuse.
    spec = importlib.util.spec_from_file_location("figures_as_shipped", str(figures.__file__))
    assert spec is not None
    assert spec.loader is not None
    shipped = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shipped)
    figure, axes = shipped.new_figure()
    axes.set_title("How the dialogues ended")
    written = shipped.write_figure(figure, tmp_path / "f")[1].read_bytes()
    assert b"/FontFile2" in written
    assert b"/Type3" not in written
