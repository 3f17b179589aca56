"""What gives the target away: each detector, the parts of a success, and that what was checked is what was heard."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from interplay.cli import main
from interplay.corpora.bundled import bundled_movies
from interplay.evaluation.guessing import BlindGuesser, Question
from interplay.evaluation.leak_scores import leak_rows, recommendation_part_rows, replay_part_rows, simulation_part_rows
from interplay.evaluation.leakage import (
    Detector,
    LeakChecker,
    LeakReport,
    Subset,
    condition_of,
    gold_turn_reports,
    is_first_turn,
    replay_reports,
    texts_of,
)
from interplay.evaluation.recommendation import recommend_at_gold_turn
from interplay.evaluation.replay import ReplayOutcome, replay
from interplay.evaluation.scoring import About
from interplay.evaluation.simulation import summarise
from interplay.formats.chat import ChatFormat
from interplay.metrics import naming
from interplay.metrics.naming import MIN_FUZZY, MIN_RATIO, Naming, how_named, pieces_of
from interplay.metrics.replay import Outcome
from interplay.simulation.dialogue import converse
from interplay.simulation.scripted import ScriptedAgent, ScriptedSpeaker
from interplay.titles import EVERYDAY_WORDS, names_title, title_key
from interplay.types import (
    Action,
    Catalog,
    Dialogue,
    Ending,
    Item,
    KnownItem,
    Persona,
    Role,
    Scenario,
    Split,
    Target,
    Turn,
    View,
    view_of,
)
from makers import MOVIE, recommender, scenarios, user

ABOUT = About("made", "test", 0, "digest")


def film(title: str, year: int, text: str = "", **attributes: str) -> Item:
    kinds = {kind: tuple(values.split(", ")) for kind, values in attributes.items()}
    return Item(id=title.lower().replace(" ", "-"), title=title, year=year, text=text, attributes=kinds)


PLOT = "An ageing thief plans one last robbery while a tired detective follows him through the night."
GOLD = film("Midnight Robbery", 1995, PLOT, genre="crime, thriller", director="Ann Ford", cast="Bo Lee")
CATALOG = Catalog(
    [
        GOLD,
        film("Midnight Robbery 2", 1999, genre="crime, thriller", director="Cy Gray"),
        film("Quiet Town", 1995, genre="drama"),
        film("Blue Night", 1991, genre="crime, thriller"),
        film("Red Night", 1992, genre="crime, thriller"),
        film("Labyrinth", 1986, genre="fantasy"),
        film("Pan's Labyrinth", 2006, genre="fantasy"),
    ],
    MOVIE,
)
OTHER = CATALOG["quiet-town"]


def scene(
    attributes: tuple[str, ...] = ("crime",), general: str = "", known: tuple[KnownItem, ...] = (), gold: Item | None = GOLD
) -> Scenario:
    return Scenario(
        corpus="made",
        domain="movie",
        split=Split.TEST,
        source_id="1",
        persona=Persona(general_preferences=general, known_items=known, target_attributes=attributes),
        targets=(Target(item_id=gold.id, title=gold.label),) if gold else (),
    )


def talk(start: Scenario, *turns: Turn, by: str = "model", ending: Ending = Ending.TURN_LIMIT, sample: int = 0) -> Dialogue:
    return Dialogue(
        scenario_key=start.key,
        sample=sample,
        corpus="made",
        domain="movie",
        user=by,
        recommender=by,
        turns=turns,
        ending=ending,
    )


def checked(start: Scenario, *turns: Turn, by: str = "model", **options: bool) -> LeakReport:
    checker = LeakChecker(CATALOG, **options)
    checker.take([start])
    return checker.check(talk(start, *turns, by=by))


def found(report: LeakReport) -> list[tuple[str, str, str]]:
    assert report.leaks is not None
    return [(leak.detector.value, leak.place, leak.how) for leak in report.leaks]


HELLO = recommender(Action.GREETING, "Hello!")
OFFER = recommender(Action.RECOMMEND, "Try ", GOLD, ".")
SPELLINGS = {
    "I want Midnight Robbery (1995).": "exact",
    "i want midnight robbery": "normalised",
    "the MIDNIGHT-ROBBERY please": "normalised",
    "Midnight Robbery (1996)?": "normalised",
    "have you midnight robery?": "fuzzy",
    "Midnigth Robbery": "fuzzy",
}
CLEAN = [
    "Something at midnight about a robbery.",
    "Midnight Robbery 2 (1999) was great.",
    "I liked midnight robbery 2",
    "Midnight Robbery (2015)",
    "Crime, please.",
    "",
]


@pytest.mark.parametrize(("text", "how"), SPELLINGS.items())
def test_every_spelling_of_the_title_in_a_reply_is_found(text: str, how: str) -> None:
    assert found(checked(scene(), HELLO, user(Action.DISCLOSE_GOAL, text), OFFER)) == [("reply", "turn 1", how)]


@pytest.mark.parametrize("text", CLEAN)
def test_other_titles_other_years_and_ordinary_words_are_no_leak(text: str) -> None:
    assert checked(scene(), HELLO, user(Action.CHAT, text or "hm"), OFFER).leaks == ()
    assert how_named(text, GOLD.label, {"midnight robbery 2"}) is None


def test_a_title_inside_a_longer_one_is_not_meant() -> None:
    labyrinth, other = CATALOG["labyrinth"], CATALOG["pan's-labyrinth"]
    start = scene((), gold=labyrinth)
    linked = user(Action.CHAT, "I love ", other)
    plain = user(Action.CHAT, "I love Pan's Labyrinth")
    assert checked(start, linked, plain).leaks == ()
    assert found(checked(start, user(Action.CHAT, "I love Labyrinth"))) == [("reply", "turn 0", "normalised")]


def test_seeded_titles_are_all_found_and_titles_that_were_not_named_hardly_ever() -> None:
    movies = bundled_movies()
    keys = {title_key(item.title) for item in movies}
    num_seeded = num_found = num_asked = num_alarms = 0
    items = list(movies)[::3]
    for item, other in zip(items, [*items[150:], *items[:150]], strict=True):
        everyday = title_key(item.title) in EVERYDAY_WORDS or item.title.isdigit()
        for name in {item.label} | (set() if everyday else {item.title, item.title.lower(), title_key(item.title)}):
            num_seeded += 1
            num_found += how_named(f"Well, I would love to see {name}, if I may.", item.label, keys) is not None
        num_asked += 1
        text = f"Do you know {other.label}? It is a {', '.join(v for vs in other.attributes.values() for v in vs)} film."
        num_alarms += how_named(text, item.label, keys) is not None
    assert num_found == num_seeded
    assert num_alarms <= 0.01 * num_asked


def test_accents_apostrophes_and_ampersands_hide_no_title() -> None:
    assert how_named("we saw ryans daughter", "Ryan's Daughter (1970)", {"ryans daughter"}) is Naming.NORMALISED
    assert how_named("lilo and stitch", "Lilo & Stitch") is how_named("LES MISERABLES!", "Les Misérables") is Naming.NORMALISED


@given(
    st.text("abe 3", min_size=MIN_FUZZY, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.sampled_from(["", "b", "xy"])), max_size=5),
)
def test_what_is_as_alike_as_a_misspelling_must_be_is_always_looked_at(text: str, edits: list[tuple[int, str]]) -> None:
    wanted = " ".join(text.split())
    written = wanted
    for place, letters in edits:
        written = written[:place] + letters + written[place + 1 :]
    alike = fuzz.ratio(wanted, written) >= MIN_RATIO and len(wanted) >= MIN_FUZZY
    assert alike <= any(piece in written for piece in pieces_of(wanted))


ODD_WORDS = ("The", "a", "Pan's", "pans", "Lilo", "&", "and", "Stitch", "Amélie", "amelie", "stich", "(1995)", "-", "Heat")
ODD_TEXTS = st.lists(st.sampled_from(ODD_WORDS), max_size=6).map(" ".join)


@given(ODD_TEXTS, ODD_TEXTS.filter(title_key))
def test_no_text_that_names_a_title_is_passed_over_without_a_closer_look(text: str, title: str) -> None:
    is_spelt = f" {title_key(title)} " in f" {title_key(text)} "
    assert naming._may_name(text, title) >= (names_title(text, title) or is_spelt or title in text)


def test_a_linked_mention_is_found_whatever_it_is_called() -> None:
    said = user(Action.CHAT, "that one")
    said = said.model_copy(update={"items": (OFFER.items[0].model_copy(update={"start": 0, "end": 8}),)})
    assert found(checked(scene(), said)) == [("reply", "turn 0", "linked")]


def test_naming_the_target_once_it_was_offered_is_no_leak_and_offering_it_is_none() -> None:
    after = user(Action.FEEDBACK, "Midnight Robbery? Sure.")
    assert checked(scene(), HELLO, OFFER, after).leaks == ()
    unlinked = recommender(Action.RECOMMEND, "Try Midnight Robbery.")
    assert checked(scene(), unlinked, after).leaks == ()


def test_in_a_log_the_same_words_are_history_and_an_offer_without_a_link_is_too() -> None:
    said = user(Action.CHAT, "not Midnight Robbery")
    hint = recommender(Action.CHAT, "Like Midnight Robbery?")
    assert found(checked(scene(), hint, said, OFFER, by="human")) == [
        ("history", "turn 0", "normalised"),
        ("history", "turn 1", "normalised"),
    ]


def test_a_replay_with_the_logs_own_user_turns_shows_what_they_name() -> None:
    start = scene()
    log = talk(start, user(Action.CHAT, "not Midnight Robbery"), OFFER, user(Action.ACCEPT, "ok"), by="human")
    replayed = talk(start, user(Action.CHAT, "hm"), OFFER, user(Action.ACCEPT, "ok"))
    reports = {
        shown: replay_reports(LeakChecker(CATALOG), [(start, log)], [replayed], logged_history=shown) for shown in (False, True)
    }
    assert [found(r) for r in reports[False] if r] == [[]]
    assert [found(r) for r in reports[True] if r] == [[("history", "turn 0", "normalised")]]


def test_a_persona_that_describes_the_target_and_hardly_anything_else_is_a_leak() -> None:
    describing = scene(general="Wants a crime film by Ann Ford with Bo Lee.")
    assert found(checked(describing)) == [("prompt", "general_preferences", "description")]
    copying = scene(general="Likes how a tired detective follows him through the night, always.")
    assert found(checked(copying)) == [("prompt", "general_preferences", "description")]
    misspelling = scene(known=(KnownItem(title="Quiet Town", review="better than Midnight Robery", item_id="quiet-town"),))
    assert found(checked(misspelling)) == [("prompt", "known_items[0].review", "fuzzy")]


def test_a_persona_of_ordinary_likes_is_none() -> None:
    about_another = KnownItem(title="Blue Night", review="a crime thriller", item_id="blue-night")
    for start in (scene(general="Likes crime and thriller."), scene(general="Ann Ford."), scene(known=(about_another,))):
        prompt = [leak for leak in found(checked(start)) if "title" not in leak[1]]
        assert prompt == [], start.persona


def test_a_user_that_was_told_its_target_leaks_by_construction() -> None:
    assert found(checked(scene(), tell_target=True)) == [("prompt", "told_targets[0]", "exact")]
    assert checked(scene()).leaks == ()


def test_attributes_that_only_the_target_has_are_a_leak_and_common_ones_are_not() -> None:
    unique = checked(scene(("crime", "Ann Ford")))
    assert (found(unique), unique.blind_rank) == ([("attributes", "target_attributes", "rank 1")], 1)
    common = checked(scene(("crime",)))
    assert common.leaks == ()
    assert common.blind_rank == 4  # of four crime films the one of which most else is known


def test_a_blind_guess_counts_ties_against_itself_and_knows_when_it_can_not_guess() -> None:
    same = Catalog([Item(id=i, title=f"Film {i}", attributes={"genre": ("crime",)}) for i in "xyz"], MOVIE)
    asked = [Question(("crime",), ("y",)), Question((), ("y",)), Question(("crime",), ("w",)), Question(("crime",), ("x", "y"))]
    assert list(BlindGuesser(same).ranks(asked)) == [3, None, None, 2]
    assert list(BlindGuesser(CATALOG).ranks([Question(("a tired detective", "robbery"), (GOLD.id,))])) == [1]


def test_a_question_that_comes_again_is_answered_the_same() -> None:
    asked = [Question(a, (i.id,)) for i in CATALOG for a in (("crime",), ("fantasy",), ("crime", "Ann Ford"))]
    alone = [rank for question in asked for rank in BlindGuesser(CATALOG).ranks([question])]
    assert list(BlindGuesser(CATALOG).ranks([*asked, *asked[::-1]])) == [*alone, *alone[::-1]]


def test_a_trained_ranker_can_guess_instead() -> None:
    class Ranker:
        def scores(self, contexts):  # type: ignore[no-untyped-def]
            assert [turns[0].text for turns in contexts] == ["crime, thriller"]
            return np.array([[0.5, 0.9, 0.1, 0.2, 0.0, 0.0, 0.0]], np.float32)

    assert list(BlindGuesser(CATALOG, Ranker()).ranks([Question(("crime", "thriller"), (GOLD.id,))])) == [2]


def test_without_a_target_or_a_scenario_nothing_can_be_checked_and_that_is_counted() -> None:
    start = scene(gold=None)
    report = checked(start, HELLO)
    assert report.leaks is None
    assert not report.is_in(Subset.LEAK_FREE)
    stray = LeakChecker(CATALOG).check(talk(start, HELLO))
    rows = {row.metric: (row.value, row.n, row.num_skipped) for row in leak_rows([report, stray], ABOUT)}
    assert set(rows.values()) == {(None, 0, 2)}


def report(key: str, *detectors: Detector, rank: int | None = 5, first: bool = False, sample: int = 0) -> LeakReport:
    from interplay.evaluation.leakage import Leak

    return LeakReport(key, sample, tuple(Leak(d, "turn 1", "exact", "") for d in detectors), rank, first)


def test_leak_rates_are_shares_of_the_conversations_that_were_checked() -> None:
    reports = [
        report("a", Detector.REPLY, Detector.REPLY),
        report("b", Detector.ATTRIBUTES, rank=1),
        report("c", rank=11),
        report("d", rank=None),
    ]
    rows = {row.metric: (row.value, row.n, row.num_skipped) for row in leak_rows(reports, ABOUT)}
    assert rows == {
        "leakage.prompt_rate": (0.0, 4, 0),
        "leakage.history_rate": (0.0, 4, 0),
        "leakage.reply_rate": (0.25, 4, 0),
        "leakage.guess@1": (pytest.approx(1 / 3), 3, 1),
        "leakage.guess@10": (pytest.approx(2 / 3), 3, 1),
        "leakage.any_rate": (0.5, 4, 0),
    }


def test_a_replays_rates_are_given_without_leaks_and_without_first_turns() -> None:
    outcomes = [
        ReplayOutcome(key, outcome)
        for key, outcome in zip("abcd", (Outcome.SUCCESS, Outcome.SUCCESS, Outcome.FAILURE, None), strict=True)
    ]
    reports = [report("a", Detector.REPLY), report("b", first=True), report("c"), None]
    rows = {
        (row.metric, row.condition): (row.value, row.n, row.num_skipped) for row in replay_part_rows(outcomes, reports, ABOUT)
    }
    assert rows["replay.success_rate", "leak-free"] == (0.5, 2, 2)  # b of b and c
    assert rows["replay.success_rate", "first-turn-excluded"] == (0.5, 2, 2)  # a of a and c
    assert condition_of("gold-random", Subset.LEAK_FREE) == "gold-random, leak-free"


def test_recall_at_gold_turns_is_given_in_the_same_parts() -> None:
    other, ask = recommender(Action.RECOMMEND, "See ", OTHER), user(Action.FEEDBACK, "no")
    logs = {
        "plain": (HELLO, ask, other, ask, OFFER),
        "leaks": (HELLO, user(Action.CHAT, "not Midnight Robery"), other, ask, OFFER),
        "first": (HELLO, ask, OFFER),
        "named": (HELLO, user(Action.CHAT, "not Midnight Robbery"), OFFER),
        "fails": (HELLO, ask, other, ask, OFFER),
    }
    pairs = [(s := scene().model_copy(update={"source_id": name}), talk(s, *turns, by="human")) for name, turns in logs.items()]
    script = iter([OFFER, OFFER, OFFER, HELLO])
    gold = asyncio.run(recommend_at_gold_turn(pairs, ScriptedAgent(Role.RECOMMENDER, [OFFER]), seed=0))
    gold = [g if g.skipped else replace(g, generated=(said := next(script)), rank=1 if said is OFFER else None) for g in gold]
    reports = gold_turn_reports(LeakChecker(CATALOG), pairs, gold)
    assert [r is None for r in reports] == [g.skipped is not None for g in gold] == [False, False, False, True, False]
    rows = {
        (row.metric, row.condition): (row.value, row.n, row.num_skipped)
        for row in recommendation_part_rows(pairs, gold, reports, ABOUT, catalog=CATALOG)
    }
    for metric in ("recommendation.recall@1", "recommendation.recall@10", "recommendation.mrr"):
        assert rows[metric, "leak-free"] == (pytest.approx(2 / 3), 3, 2)  # all but "leaks", and "named" was never asked
        assert rows[metric, "first-turn-excluded"] == (pytest.approx(2 / 3), 3, 2)
    assert {condition for _, condition in rows} == {"leak-free", "first-turn-excluded"}


def test_a_simulations_accepts_are_given_in_the_same_parts() -> None:
    start = scene()
    yes = user(Action.ACCEPT, "ok")
    again = recommender(Action.RECOMMEND, "Or ", OTHER, "?")
    no = user(Action.FEEDBACK, "no")
    dialogues = [
        talk(start, OFFER, yes, ending=Ending.ACCEPTED),  # the first offer decides
        talk(start, again, no, OFFER, yes, ending=Ending.ACCEPTED, sample=1),
        talk(start, user(Action.CHAT, "Midnight Robbery!"), again, no, OFFER, yes, ending=Ending.ACCEPTED, sample=2),
        talk(start, again, no, again, no, sample=3),
        talk(start, HELLO, ending=Ending.BACKEND_FAILURE, sample=4),
    ]
    checker = LeakChecker(CATALOG)
    checker.take([start])
    reports: list[LeakReport] = []
    summary = summarise(checker.watch(dialogues, reports), [start], CATALOG)
    rows = {
        (row.metric, row.condition): (row.value, row.n, row.num_skipped)
        for row in simulation_part_rows(summary, reports[::-1], ABOUT)
    }
    assert rows["simulation.accept_rate", "leak-free"] == (pytest.approx(2 / 3), 3, 2)
    assert rows["simulation.accept_rate", "first-turn-excluded"] == (pytest.approx(2 / 3), 3, 2)
    assert rows["simulation.goal_satisfaction", "leak-free"] == (1.0, 2, 0)


def test_where_the_offers_are_a_logs_the_first_turn_does_not_depend_on_the_user() -> None:
    start = scene()
    wrong = recommender(Action.RECOMMEND, OTHER)
    hasty = talk(start, wrong, user(Action.ACCEPT, "ok"), ending=Ending.ACCEPTED)
    assert is_first_turn(hasty, start.targets)
    assert not is_first_turn(hasty, start.targets, by_offer=True)
    assert is_first_turn(talk(start, OFFER, user(Action.FEEDBACK, "no")), start.targets, by_offer=True)
    assert not is_first_turn(talk(start, HELLO), start.targets)


# ---- what was checked is what was heard ------------------------------------------------------------------------------


class Listener(ScriptedAgent):
    """A scripted agent that keeps what it is shown and what it hears."""

    def __init__(self, role: Role, script: list[Turn]) -> None:
        super().__init__(role, script)
        self.views: list[View] = []
        self.heard: list[Turn] = []

    def begin(self, view: View, seed: int, session: str) -> "ListeningSpeaker":
        self.views.append(view)
        return ListeningSpeaker(self._script, self.heard)


class ListeningSpeaker(ScriptedSpeaker):
    def __init__(self, script: tuple[Turn, ...], heard: list[Turn]) -> None:
        super().__init__(script, 0)
        self._heard = heard

    def hear(self, turn: Turn) -> None:
        self._heard.append(turn)


def test_the_recommender_hears_exactly_the_turns_that_are_checked() -> None:
    start = scene(general="Likes long films.")
    leaky = [user(Action.CHAT, "hm"), user(Action.DISCLOSE_GOAL, "Midnight Robery"), user(Action.ACCEPT, "ok")]
    speaks = [HELLO, recommender(Action.INQUIRE, "What?"), OFFER]
    simulator, system = Listener(Role.USER, leaky), Listener(Role.RECOMMENDER, speaks)
    dialogue = asyncio.run(converse(start, simulator, system, seed=0, with_persona=True))
    spoken = {role: [turn for turn in dialogue.turns if turn.role is role] for role in Role}
    # The very objects, not equal ones: nothing is rewritten between the check and the ear.
    for listener, said in ((system, spoken[Role.USER][:-1]), (simulator, spoken[Role.RECOMMENDER])):
        assert all(a is b for a, b in zip(listener.heard, said, strict=True))
    checker = LeakChecker(CATALOG)
    checker.take([start])
    assert checker.check(dialogue).leaks == tuple(checker.turn_leaks(dialogue.turns, start.targets, ()))
    assert found(checker.check(dialogue)) == [("reply", "turn 3", "fuzzy")]
    checked_texts = set(texts_of(view_of(start, Role.USER, with_persona=True)))
    assert all(set(texts_of(view)) <= checked_texts for view in (*simulator.views, *system.views))


def test_a_replayed_user_hears_exactly_the_logged_turns_that_are_checked() -> None:
    start = scene()
    log = talk(start, HELLO, user(Action.CHAT, "hm"), OFFER, user(Action.ACCEPT, "ok"), by="human")
    simulator = Listener(Role.USER, [user(Action.CHAT, "hm"), user(Action.ACCEPT, "ok")])
    (replayed,), _ = asyncio.run(replay([(start, log)], simulator, seed=0))
    assert [id(turn) for turn in simulator.heard] == [id(turn) for turn in replayed.turns if turn.role is Role.RECOMMENDER]


@given(start=scenarios())
def test_no_rendering_shows_more_of_a_scenario_than_the_texts_that_are_checked(start: Scenario) -> None:
    marked = start.model_copy(
        update={
            "source_id": "MARK-source",
            "user_id": "MARK-user",
            "recommender_id": "MARK-recommender",
            "targets": (Target(item_id="MARK-id", title="MARK-title"),),
        }
    )
    said = Turn(role=Role.USER, action=Action.CHAT, text="hm", raw=("MARK-raw",))
    answer = Turn(role=Role.RECOMMENDER, action=Action.CHAT, text="ah", strategies=("MARK-strategy",), raw=("MARK-raw",))
    for role in Role:
        view = view_of(marked, role, with_persona=True).after(answer, said)
        rendered = "\n".join(message.content for message in ChatFormat(view.domain).messages(view))
        assert "MARK" not in rendered
        # Take out what is checked, and of the scenario nothing is left.
        empty = replace(view, general_preferences="", known_items=(), target_attributes=())
        assert not [text for _, text in texts_of(empty) if text]


# ---- command line ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("leakage") / "data"
    assert main(["data", "agenda", "--out", str(out), "--num-dialogues", "40", "--num-items", "150"]) == 0
    return out


def test_any_conversations_on_disk_can_be_checked(data: Path, tmp_path: Path, capsys) -> None:
    simulated, replayed = tmp_path / "sim", tmp_path / "replay"
    agents = ["--user", "agenda", "--recommender", "agenda"]
    common = ["--split", "train", "--num-dialogues", "8"]
    assert main(["simulate", *agents, "--scenarios", str(data), *common, "--out", str(simulated)]) == 0
    assert main(["evaluate", "replay", "--user", "agenda", "--data", str(data), *common, "--out", str(replayed)]) == 0
    printed = capsys.readouterr().out
    for text in ("simulation.accept_rate [leak-free]", "replay.success_rate [first-turn-excluded]", "leakage.reply_rate"):
        assert text in printed
    assert len((simulated / "leaks.jsonl").read_text().splitlines()) == 8
    out = tmp_path / "out"
    assert main(["evaluate", "leakage", str(simulated), "--out", str(out)]) == 0
    again = json.loads((out / "scores.jsonl").read_text().splitlines()[0])
    assert again["metric"] == "leakage.prompt_rate"
    assert "simulation.accept_rate" in capsys.readouterr().out
    assert main(["evaluate", "leakage", str(replayed)]) == 0
    assert "replay.success_rate [leak-free]" in capsys.readouterr().out
    assert main(["evaluate", "leakage", str(data), "--split", "test"]) == 0
    assert main(["evaluate", "leakage", str(data / "dialogues.jsonl"), "--data", str(data)]) == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["{data}/dialogues.jsonl"], "pass --data"),
        (["{data}/nothing"], "does not exist"),
        (["{data}", "--data", "{data}"], "holds its own scenarios"),
        (["{data}/.."], "neither a Run"),
    ],
)
def test_what_can_not_be_checked_is_refused_in_one_line(data: Path, args: list[str], said: str, capsys) -> None:
    assert main(["evaluate", "leakage", *(arg.format(data=data) for arg in args)]) == 1
    assert said in capsys.readouterr().err
