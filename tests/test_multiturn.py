"""Conversations turn by turn, on fixtures worked out by hand."""

from pathlib import Path

import pytest

from interplay.cli import main
from interplay.evaluation.multiturn import by_turn, course_of, courses_of, multiturn_rows, shown_by
from interplay.evaluation.scoring import About
from interplay.store import Run, write_records
from interplay.types import Action, Ending, Item, Listed, Reasoning, Scenario, Target, Turn
from makers import ALIEN, CATALOG, HEAT, TALK, UP, dialogue, recommender, scenario, user

ABOUT = About("rules", "test", 0, "d", simulator="agenda")
ASK = recommender(Action.INQUIRE, "What do you like?")
NO, YES = user(Action.FEEDBACK, "no"), user(Action.ACCEPT, "yes")


def offer(*items: Item) -> Turn:
    return recommender(Action.RECOMMEND, *(part for item in items for part in (" and ", item)))


def listing(*items: Item | str, says: tuple[str | Item, ...] = ("Try ", ALIEN)) -> Turn:
    """A turn of a recommender that reasons: its list, and other words."""
    places = tuple(Listed(title=i.label, item_id=i.id) if isinstance(i, Item) else Listed(title=i) for i in items)
    return recommender(Action.RECOMMEND, *says).model_copy(update={"reasoning": Reasoning(ranking=places)})


def several(*items: Item) -> Scenario:
    return scenario().model_copy(update={"targets": tuple(Target(item_id=i.id, title=i.label) for i in items)})


# Three conversations with the target Heat:
#   a  asks; Alien; Heat, accepted           lists: none, [Alien], [Heat]        ranks: -, -, 1
#   b  Up and Heat, accepted                 lists: [Up, Heat]                   ranks: 2
#   c  Alien, rejected; asks; gives up       lists: [Alien], none                ranks: -, -
A, B, C = (scenario(source_id=name) for name in "abc")
HELD = [
    dialogue(A, (ASK, NO, offer(ALIEN), NO, offer(HEAT), YES)),
    dialogue(B, (offer(UP, HEAT), YES)),
    dialogue(C, (offer(ALIEN), NO, ASK, user(Action.GIVE_UP, "bye")), ending=Ending.GAVE_UP),
]


@pytest.fixture(scope="module")
def rows():
    return multiturn_rows(*courses_of(HELD, [A, B, C]), ABOUT)


def values(rows, metric: str, *, all_conversations: bool = False) -> list[tuple[float | None, int]]:
    found = by_turn(rows, all_conversations=all_conversations)[f"multiturn.{metric}"]
    return [(None if row.value is None else round(row.value, 4), row.n) for row in found]


def test_recall_at_a_turn_is_over_the_conversations_that_got_there(rows) -> None:
    assert values(rows, "recall@1") == [(0.0, 3), (0.0, 2), (1.0, 1), (None, 0), (None, 0)]
    assert values(rows, "recall@10") == [(0.3333, 3), (0.0, 2), (1.0, 1), (None, 0), (None, 0)]


def test_over_all_conversations_one_that_is_over_keeps_its_last_list(rows) -> None:
    assert values(rows, "recall@1", all_conversations=True) == [(0.0, 3), (0.0, 3), *[(0.3333, 3)] * 3]
    assert values(rows, "recall@10", all_conversations=True) == [(0.3333, 3), (0.3333, 3), *[(0.6667, 3)] * 3]


def test_turns_that_show_nothing_are_counted(rows) -> None:
    assert values(rows, "listed_rate") == [(0.6667, 3), (0.5, 2), (1.0, 1), (None, 0), (None, 0)]
    assert "multiturn.listed_rate" not in by_turn(rows, all_conversations=True)


def test_coverage_only_grows_and_its_gains_add_up_to_it(rows) -> None:
    everyone = values(rows, "coverage", all_conversations=True)
    assert everyone == [(0.3333, 3), (0.3333, 3), *[(0.6667, 3)] * 3]
    gains = values(rows, "coverage_gain", all_conversations=True)
    assert gains == [(0.3333, 3), (0.0, 3), (0.3333, 3), (0.0, 3), (0.0, 3)]
    assert values(rows, "coverage") == [(0.3333, 3), (0.0, 2), (1.0, 1), (None, 0), (None, 0)]
    assert values(rows, "coverage_gain") == [(0.3333, 3), (0.0, 2), (1.0, 1), (None, 0), (None, 0)]


def test_rounds_of_recommendation_and_accepts_per_length(rows) -> None:
    found = {row.metric: row for row in rows if row.condition == "standard"}
    # SRRR: a 1 of 2 rounds, b 1 of 1, c 0 of 1. RDL: a 1 / 6, b 1 / 2, c 0 / 4.
    assert found["multiturn.srrr"].value == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["multiturn.rdl"].value == pytest.approx((1 / 6 + 1 / 2 + 0) / 3)
    assert {row.n for row in found.values()} == {3}


def test_coverage_of_several_targets_by_hand() -> None:
    start = several(HEAT, UP, ALIEN)
    course = course_of(dialogue(start, (offer(HEAT), NO, ASK, NO, offer(HEAT, UP), YES)), start.targets)
    assert [round(course.coverage(turn), 4) for turn in range(6)] == [0.0, 0.3333, 0.3333, 0.6667, 0.6667, 0.6667]
    assert course.ranks == (1, None, 1)
    assert [course.latest_rank(turn) for turn in (1, 2, 3, 9)] == [1, 1, 1, 1]


def test_a_recommender_that_reasons_is_measured_by_its_list_and_not_by_its_words() -> None:
    turn = listing(UP, "Nowhere (1990)", HEAT)
    assert [title for title, _ in shown_by(turn)] == [UP.label, "Nowhere (1990)", HEAT.label]
    assert course_of(dialogue(A, (turn, YES)), A.targets).ranks == (3,)


def test_a_repeated_title_of_a_list_keeps_its_place_and_one_in_words_does_not() -> None:
    assert course_of(dialogue(A, (listing(UP, UP, HEAT), YES)), A.targets).ranks == (3,)
    assert course_of(dialogue(A, (offer(UP, UP, HEAT), YES)), A.targets).ranks == (2,)


def test_beyond_the_fiftieth_place_nothing_is_covered() -> None:
    turn = listing(*(f"Film {n} (1990)" for n in range(50)), HEAT)
    course = course_of(dialogue(A, (turn, YES)), A.targets)
    assert (course.ranks, course.coverage(1)) == ((51,), 0.0)


def test_a_turn_that_reasons_without_a_list_shows_what_it_says() -> None:
    assert [title for title, _ in shown_by(listing(says=("Try ", HEAT)))] == [HEAT.label]


def test_an_accept_before_any_recommendation_is_no_round() -> None:
    course = course_of(dialogue(A, (ASK, YES)), A.targets)
    assert (course.num_rounds, course.num_accepted_rounds, course.num_accepts) == (0, 0, 1)


def test_faults_and_scenarios_without_a_target_are_skipped_and_counted() -> None:
    bare = scenario(None, source_id="n")
    fault = dialogue(A, TALK[:2], ending=Ending.BACKEND_FAILURE, sample=1)
    found = multiturn_rows(*courses_of([*HELD, dialogue(bare), fault], [A, B, C, bare]), ABOUT, num_turns=1)
    by_metric = {row.metric: row for row in found if row.condition in ("turn 1", "standard")}
    assert (by_metric["multiturn.recall@1"].n, by_metric["multiturn.recall@1"].num_skipped) == (3, 2)
    assert (by_metric["multiturn.srrr"].n, by_metric["multiturn.srrr"].num_skipped) == (4, 1)


def made_run(path: Path) -> Path:
    run = Run.create(path, {"verb": "simulate", "seed": 0})
    for held in HELD:
        run.append(held)
    write_records(path / "scenarios.jsonl", [A, B, C])
    write_records(path / "catalog.jsonl", CATALOG)
    return path


def test_the_form_prints_a_table_per_run_and_writes_scores(tmp_path: Path, capsys) -> None:
    runs = [made_run(tmp_path / name) for name in ("one", "two")]
    assert main(["evaluate", "multiturn", *map(str, runs), "--num-turns", "3", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "one: 3 conversations" in shown
    assert "  multiturn.recall@10                   0.333    0.000    1.000" in shown
    assert "  n                                         3        2        1" in shown
    scores = Run.read(tmp_path / "out").scores()
    assert {row.subject for row in scores} == {"one", "two"}
    assert {row.condition for row in scores} >= {"turn 1", "turn 3, all conversations", "standard"}


def test_a_run_without_scenarios_is_refused(tmp_path: Path, capsys) -> None:
    Run.create(tmp_path / "bare", {}).append(HELD[0])
    assert main(["evaluate", "multiturn", str(tmp_path / "bare"), "--out", str(tmp_path / "out")]) == 1
    assert "holds no scenarios.jsonl" in capsys.readouterr().err
