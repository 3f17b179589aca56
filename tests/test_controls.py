"""Controls of replay: what is changed in a log, and what they say of users that read and of users that do not."""

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.cli import main
from interplay.errors import BackendError, FormatError, InputError
from interplay.evaluation.attributes import AttributeIndex
from interplay.evaluation.control_scores import control_rows, offer_places
from interplay.evaluation.controls import Control, Swap, controlled_pairs, moved, replay_controls, stood_in, swapped
from interplay.evaluation.leakage import LeakChecker, replay_reports
from interplay.evaluation.replay import reason_to_skip
from interplay.evaluation.scoring import About
from interplay.simulation.agenda_user import AgendaUser
from interplay.simulation.agents import Agent
from interplay.simulation.stubs import StubUser
from interplay.store import Run
from interplay.titles import names_title
from interplay.types import (
    Action,
    Catalog,
    Dialogue,
    Item,
    Persona,
    Role,
    Scenario,
    ScoreRow,
    Split,
    Target,
    Turn,
    View,
    derive_seed,
    view_of,
)
from makers import MOVIE, dialogue, recommender, user

ABOUT = About("made", "test", 0, "digest")


def film(title: str, year: int, *genres: str) -> Item:
    return Item(id=title.lower().replace(" ", "-"), title=title, year=year, attributes={"genre": genres})


HEAT = film("Heat", 1995, "crime", "thriller")
CASINO = film("Casino", 1995, "crime", "thriller")
HAIRSPRAY = film("Hairspray", 1988, "musical", "comedy")
GREASE = film("Grease", 1978, "musical", "romance")
CHICAGO = film("Chicago", 2002, "musical", "romance")
ALIEN = film("Alien", 1979, "horror")
SCREAM = film("Scream", 1996, "horror")
SHREK = film("Shrek", 2001, "animation")
COCO = film("Coco", 2017, "animation")
CATALOG = Catalog([HEAT, CASINO, HAIRSPRAY, GREASE, CHICAGO, ALIEN, SCREAM, SHREK, COCO], MOVIE)
INDEX = AttributeIndex(CATALOG)


def scene(gold: Item, attributes: tuple[str, ...], name: str = "a", persona: str = "") -> Scenario:
    return Scenario(
        corpus="made",
        domain="movie",
        split=Split.TEST,
        source_id=name,
        persona=Persona(general_preferences=persona, target_attributes=attributes),
        targets=(Target(item_id=gold.id, title=gold.label),),
    )


def late_log(start: Scenario, gold: Item, other: Item) -> tuple[Scenario, Dialogue]:
    """As in PEARL: something else first, the gold item last, and the user takes it."""
    return start, dialogue(
        start,
        (
            recommender(Action.GREETING, "Hello! What do you feel like?"),
            user(Action.DISCLOSE_GOAL, "hm"),
            recommender(Action.RECOMMEND, "Maybe ", other, "?"),
            user(Action.FEEDBACK, "not that"),
            recommender(Action.RECOMMEND, "Then ", gold, "."),
            user(Action.ACCEPT, "yes"),
        ),
    )


PAIRS = [
    late_log(scene(HEAT, ("crime", "1990s"), "a"), HEAT, SHREK),
    late_log(scene(GREASE, ("musical", "romance"), "b"), GREASE, ALIEN),
    late_log(scene(SHREK, ("animation",), "c"), SHREK, GREASE),
    late_log(scene(ALIEN, ("horror",), "d"), ALIEN, HEAT),
]


class Reader:
    """Accepts the latest offer if and only if the catalog says that it has everything that is wanted."""

    role = Role.USER
    name = "reader"

    def begin(self, view: View, seed: int, session: str) -> "ReaderSpeaker":
        return ReaderSpeaker(view)


class ReaderSpeaker:
    def __init__(self, view: View) -> None:
        self.wanted = view.target_attributes
        self.offer: tuple[str | None, ...] = ()

    async def speak(self) -> Turn:
        fits = INDEX.overlap(self.offer, self.wanted) == 1
        return user(Action.ACCEPT, "yes, please") if fits else user(Action.FEEDBACK, "no, thanks")

    def hear(self, turn: Turn) -> None:
        self.offer = tuple(m.item_id for m in turn.items)

    def end(self) -> None:
        pass


def measured(agent: Agent, history: str = "own") -> dict[tuple[str, str], ScoreRow]:
    played = asyncio.run(replay_controls(PAIRS, controlled_pairs(PAIRS, CATALOG, seed=0), agent, seed=0, history=history))  # type: ignore[arg-type]
    reports = replay_reports(LeakChecker(CATALOG), PAIRS, played[0].dialogues)
    return {(row.metric, row.condition): row for row in control_rows(played, reports, CATALOG, ABOUT)}


def values(rows: dict[tuple[str, str], ScoreRow]) -> dict[str, tuple[float | None, float | None]]:
    """Under each control: how often what is in the gold item's place is taken, and the difference from the standard."""
    names = {c: "replay.stand_in_rate" if c in (Control.RANDOM, Control.MATCHED) else "replay.success_rate" for c in Control}
    return {
        c.value: (rows[names[c], c.value].value, row.value if (row := rows.get(("replay.difference", c.value))) else None)
        for c in Control
    }


@pytest.mark.parametrize("history", ["own", "logged"])
def test_a_user_that_always_accepts_last_looks_perfect_and_the_controls_expose_it(history: str) -> None:
    rows = measured(StubUser("accept-last"), history)
    assert values(rows) == {
        "standard": (1.0, None),  # a perfect success rate ...
        "gold-random": (1.0, 0.0),  # ... with a random item in the gold item's place,
        "gold-matched": (1.0, 0.0),
        "gold-moved": (0.0, -1.0),  # ... lost when the gold item comes earlier,
        "shuffled-attributes": (1.0, 0.0),  # ... and kept with the wishes of somebody else.
    }
    assert rows["replay.early_termination_rate", "gold-moved"].value == 1.0
    accepts = {part: rows["replay.accept_rate", f"gold-random, {part}"] for part in ("last offer", "1 offer to come")}
    assert {part: (row.value, row.n) for part, row in accepts.items()} == {"last offer": (1.0, 4), "1 offer to come": (0.0, 4)}
    assert rows["replay.accept_rate", "gold-random, the stand-in on offer"].value == 1.0


def test_a_user_that_reads_loses_the_random_item_and_keeps_the_matched_and_the_moved_one() -> None:
    rows = measured(Reader())
    assert values(rows) == {
        "standard": (1.0, None),
        "gold-random": (0.0, -1.0),
        "gold-matched": (1.0, 0.0),
        "gold-moved": (1.0, 0.0),
        "shuffled-attributes": (0.0, -1.0),
    }
    overlap = {part: rows["replay.accept_rate", f"standard, {part} of the attributes"].value for part in ("none", "all")}
    assert overlap == {"none": 0.0, "all": 1.0}
    assert rows["replay.accept_rate", "gold-moved, offer 1"].value == 1.0


class Told(Reader):
    """Is told the target and accepts nothing but that, as iEvaLM's user."""

    name = "told"
    told_target = True

    def begin(self, view: View, seed: int, session: str) -> "ToldSpeaker":
        return ToldSpeaker(view)


class ToldSpeaker(ReaderSpeaker):
    def __init__(self, view: View) -> None:
        super().__init__(view)
        self.told = view.told_targets
        self.titles: tuple[str, ...] = ()

    async def speak(self) -> Turn:
        return user(Action.ACCEPT, "yes") if set(self.told) & set(self.titles) else user(Action.FEEDBACK, "no")

    def hear(self, turn: Turn) -> None:
        self.titles = turn.titles


def test_a_user_that_knows_its_target_takes_no_stand_in_even_a_matched_one() -> None:
    assert values(measured(Told())) == {
        "standard": (1.0, None),
        "gold-random": (0.0, -1.0),
        "gold-matched": (0.0, -1.0),
        "gold-moved": (1.0, 0.0),
        "shuffled-attributes": (1.0, 0.0),
    }


def test_accepting_first_succeeds_only_where_the_gold_item_comes_first_and_never_accepting_always_fails() -> None:
    first = measured(StubUser("accept-first"))
    assert first["replay.early_termination_rate", "standard"].value == 1.0
    assert values(first)["gold-moved"] == (1.0, 1.0)
    never = measured(StubUser("never-accept"))
    assert {never["replay.failure_rate", c.value].value for c in Control} == {1.0}


def test_the_three_rates_sum_to_one_under_every_control_and_part() -> None:
    rows = measured(StubUser("accept-first"))
    sums: dict[str, float] = {}
    for (metric, condition), row in rows.items():
        rates = ("success_rate", "stand_in_rate", "early_termination_rate", "failure_rate")
        if metric.removeprefix("replay.") in rates and row.value is not None:
            sums[condition] = sums.get(condition, 0.0) + row.value
    assert len(sums) == 3 * len(Control)
    assert set(sums.values()) == {1.0}


class Failing:
    """A model behind a server that gives up on whoever is offered Shrek, and writes what can't be read when offered Grease."""

    role = Role.USER
    name = "failing"

    def begin(self, view: View, seed: int, session: str) -> "FailingSpeaker":
        return FailingSpeaker()


class FailingSpeaker:
    def __init__(self) -> None:
        self.titles: tuple[str, ...] = ()

    async def speak(self) -> Turn:
        if SHREK.label in self.titles:
            raise BackendError("no answer", kind="timeout")
        if GREASE.label in self.titles:
            raise FormatError("cut-off", "How ab")
        return user(Action.FEEDBACK, "no")

    def hear(self, turn: Turn) -> None:
        self.titles += turn.titles

    def end(self) -> None:
        pass


def test_faults_are_counted_by_kind_under_every_control_and_are_in_no_rate() -> None:
    rows = measured(Failing())
    standard = rows["replay.faults", "user: timeout"]
    assert (standard.value, standard.n) == (1.0, 4)
    assert rows["replay.faults", "shuffled-attributes, user: timeout"].value == 1.0
    unreadable = rows["replay.format_failure_rate", "standard"]  # no fault: it is the model's own doing
    assert (unreadable.value, unreadable.n) == (pytest.approx(2 / 3), 3)


def rng_of(pair: tuple[Scenario, Dialogue]) -> random.Random:
    return random.Random(derive_seed("test", pair[0].source_id))


@pytest.mark.parametrize("matched", [False, True])
def test_no_trace_of_the_gold_item_is_left_and_the_stand_in_is_new_to_the_log(matched: bool) -> None:
    for pair in PAIRS:
        result = stood_in(pair, CATALOG, INDEX, rng_of(pair), matched=matched)
        assert not isinstance(result, str)
        (scenario, log), _ = result
        gold, new = pair[0].targets[0], scenario.targets[0]
        assert not any(names_title(turn.text, gold.title) for turn in log.turns)
        assert new.title in log.turns[4].titles
        assert log.turns[4].items[0].item_id == new.item_id
        assert new.title not in {title for turn in pair[1].turns for title in turn.titles}
        assert log.scenario_key == scenario.key
        assert reason_to_skip(scenario, log) is None
        wanted = INDEX.known(scenario.persona.target_attributes)
        assert (wanted <= INDEX.keys[new.item_id]) is matched


def test_what_can_not_be_changed_is_skipped_and_counted_not_scored_as_zero() -> None:
    lonely = scene(HAIRSPRAY, ("1980s",), "e")
    short = dialogue(lonely, (recommender(Action.RECOMMEND, "See ", HAIRSPRAY), user(Action.ACCEPT, "ok")))
    controlled = {c.control: c.pairs for c in controlled_pairs([(lonely, short)], CATALOG, seed=0)}
    assert controlled[Control.MATCHED] == ("no attribute-matched item",)
    assert controlled[Control.MOVED] == ("no other offer to change places with",)
    assert controlled[Control.SHUFFLED] == ("nobody else has target attributes",)
    pairs = [(lonely, short)]
    played = asyncio.run(replay_controls(pairs, controlled_pairs(pairs, CATALOG, seed=0), StubUser("accept-last"), seed=0))
    reports = replay_reports(LeakChecker(CATALOG), [(lonely, short)], played[0].dialogues)
    rows = {(r.metric, r.condition): r for r in control_rows(played, reports, CATALOG, ABOUT)}
    matched = rows["replay.stand_in_rate", "gold-matched"]
    assert (matched.value, matched.n, matched.num_skipped) == (None, 0, 1)
    assert (rows["replay.difference", "gold-moved"].value, rows["replay.difference", "gold-moved"].num_skipped) == (None, 1)


def test_a_pair_that_could_not_be_replayed_anyway_keeps_its_own_reason() -> None:
    start = scene(HEAT, ("crime",), "f")
    log = dialogue(start, (recommender(Action.RECOMMEND, "See ", ALIEN), user(Action.FEEDBACK, "no")))
    controlled = controlled_pairs([(start, log), *PAIRS], CATALOG, seed=0)
    assert {c.pairs[0] for c in controlled[1:4]} == {"target never recommended"}


def test_stand_ins_do_not_depend_on_the_other_conversations() -> None:
    alone = controlled_pairs(PAIRS[2:3], CATALOG, seed=3)[1].pairs[0]
    among = controlled_pairs(PAIRS, CATALOG, seed=3)[1].pairs[2]
    assert alone == among


SWAP = Swap(Target(item_id=HEAT.id, title=HEAT.label), Target(item_id=HAIRSPRAY.id, title=HAIRSPRAY.label), HEAT, HAIRSPRAY)


def changed(*turns: Turn, swaps: tuple[Swap, ...] = (SWAP,)) -> tuple[list[str], bool]:
    out, stale = swapped(turns, swaps)
    return [turn.text for turn in out], stale


def test_facts_that_a_turn_states_go_with_the_title() -> None:
    turn = recommender(Action.RECOMMEND, "Take ", HEAT, ", a Crime thriller from the 1990s.")
    (new,), stale = swapped([turn], [SWAP])
    assert (new.text, stale) == ("Take Hairspray (1988), a Musical comedy from the 1980s.", False)
    assert new.titles == ("Hairspray (1988)",)


def test_a_year_is_written_only_where_it_was_and_a_title_without_a_link_is_replaced_too() -> None:
    turn = Turn(role=Role.RECOMMENDER, action=Action.RECOMMEND, text="heat is good. HEAT (1995)!", raw=("heat",))
    (new,), _ = swapped([turn], [SWAP])
    assert new.text == "heat is good. Hairspray!"  # "heat" alone may be the weather: titles.EVERYDAY_WORDS
    assert new.raw == ()


def test_facts_in_the_turns_that_follow_go_along_until_another_item_is_named() -> None:
    texts, stale = changed(
        recommender(Action.RECOMMEND, "Take ", HEAT, "."),
        recommender(Action.ANSWER, "It is a thriller."),
        recommender(Action.RECOMMEND, "Or ", ALIEN, "?"),
        recommender(Action.ANSWER, "It is a thriller."),
    )
    assert texts[1::2] == ["It is a comedy.", "It is a thriller."]
    assert not stale


def test_facts_beside_another_title_are_left_and_counted() -> None:
    texts, stale = changed(recommender(Action.RECOMMEND, "A thriller: ", HEAT, " or ", ALIEN, "."))
    assert texts == ["A thriller: Hairspray (1988) or Alien (1979)."]
    assert stale


def test_two_items_change_places_at_once_linked_or_not() -> None:
    scream = Item(id="scream", title="Night Scream", year=1996, attributes={"genre": ("horror",)})
    town = Item(id="town", title="Quiet Town", year=2001, attributes={"genre": ("drama",)})
    one, two = (Target(item_id=i.id, title=i.label) for i in (scream, town))
    swaps = (Swap(one, two, scream, town), Swap(two, one, town, scream))
    texts, _ = changed(
        recommender(Action.RECOMMEND, scream, " or ", town, "?"),
        recommender(Action.CHAT, "Night Scream, not Quiet Town."),
        swaps=swaps,
    )
    assert texts == ["Quiet Town (2001) or Night Scream (1996)?", "Quiet Town, not Night Scream."]


def test_a_moved_gold_item_is_offered_in_the_other_turn_and_only_there() -> None:
    (scenario, log), stale = moved(PAIRS[0], CATALOG, rng_of(PAIRS[0]))  # type: ignore[misc]
    assert [turn.titles for turn in log.turns if turn.role is Role.RECOMMENDER] == [(), ("Heat (1995)",), ("Shrek (2001)",)]
    assert (scenario, stale) == (PAIRS[0][0], False)


@given(st.lists(st.sampled_from(["g", "o", "u", "t"]), max_size=8))
def test_every_offer_that_a_user_turn_follows_has_one_place(kinds: list[str]) -> None:
    made = {
        "g": recommender(Action.RECOMMEND, HEAT),
        "o": recommender(Action.RECOMMEND, ALIEN),
        "u": user(Action.FEEDBACK, "no"),
        "t": recommender(Action.CHAT, "well"),
    }
    start = scene(HEAT, ("crime",))
    places = offer_places(dialogue(start, tuple(made[k] for k in kinds)))
    assert all(kinds[p] == "u" for p in places)
    told = "".join(kinds).split("u")[:-1]
    assert len(places) == sum("g" in part or "o" in part for part in told)


def test_a_stub_without_a_rule_is_refused_and_an_agent_that_does_not_ask_is_told_nothing() -> None:
    with pytest.raises(InputError, match="accepted: stub:accept-first, stub:accept-last, stub:never-accept"):
        StubUser("sometimes")
    assert not hasattr(AgendaUser(CATALOG), "begin_of_length")


def test_in_a_simulation_no_turn_is_known_to_be_the_last() -> None:
    speaker = StubUser("accept-last").begin(view_of(PAIRS[0][0], Role.USER, with_persona=True), 0, "s")
    speaker.hear(recommender(Action.RECOMMEND, HEAT))
    assert asyncio.run(speaker.speak()).action is Action.FEEDBACK


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("controls") / "data"
    assert main(["data", "agenda", "--out", str(out), "--num-dialogues", "60", "--num-items", "200"]) == 0
    return out


def test_one_command_plays_every_control_and_prints_one_table(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    args = ["evaluate", "replay", "--controls", "--user", "stub:accept-last", "--data", str(data), "--split", "train"]
    assert main([*args, "--num-dialogues", "12", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for text in ("takes the gold item", "leak-free", "first turn excluded", "minus standard", *Control, "leakage.guess@1"):
        assert text in printed
    runs = [Run.read(out), *(Run.read(out / "controls" / c.value) for c in list(Control)[1:])]
    assert all(list(run.dialogues()) for run in runs)
    scores = {(row.metric, row.condition): row.value for row in runs[0].scores()}
    assert scores["replay.success_rate", "standard"] == scores["replay.stand_in_rate", "gold-random"] == 1.0


def test_controls_of_another_protocol_and_controls_twice_are_refused(data: Path, tmp_path: Path, capsys) -> None:
    common = ["--controls", "--data", str(data), "--out", str(tmp_path / "x"), "--user", "agenda"]
    assert main(["evaluate", "turns", *common]) == 1
    assert "controls of replay" in capsys.readouterr().err
    assert main(["evaluate", "replay", "--shuffle-attributes", *common]) == 1
    assert "is one of them" in capsys.readouterr().err
