"""Recommenders made worse, what users make of them, and recommenders in the order of simulated users and of people."""

import asyncio
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.cli import main
from interplay.config import Sampling
from interplay.corpora import load_corpus
from interplay.corpora.encounters import Vote, read_arena, read_encounters, read_grades, read_votes, system_key
from interplay.corpora.tagger import RuleTagger
from interplay.errors import DataError, InputError
from interplay.evaluation.counterfactual import (
    ACCEPT,
    CRITIQUE,
    EXPECTED,
    REJECT_WORDS,
    SATISFIED,
    judge_reactions,
    peoples_reactions,
    reactions_in,
    vote_strengths,
)
from interplay.evaluation.system_ranking import (
    Scored,
    agree,
    read_scores,
    score_by_votes,
    scores_by_grades,
    scores_of_simulators,
)
from interplay.evaluation.values import Value
from interplay.metrics.agreement import kendall_tau_b, order_p, spearman_rho
from interplay.metrics.strength import bradley_terry
from interplay.simulation.agents import Agent
from interplay.simulation.specs import load_from_spec
from interplay.types import Action, Ending, Role, Turn, view_of
from makers import CATALOG, HEAT, UP, dialogue, recommender, scenario, user

R = Role.RECOMMENDER


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---- recommenders made worse -----------------------------------------------------------------------------------------


def agent(spec: str) -> Agent:
    return load_from_spec(spec, R, sampling=Sampling(), catalog=CATALOG, max_batch=1).agent


def spoken(spec: str, heard: list[str], seed: int = 0) -> list[Turn]:
    """What the recommender says first and to each turn of the user."""

    async def talk() -> list[Turn]:
        speaker = agent(spec).begin(view_of(scenario(), R, with_persona=False), seed, "s")
        turns = [await speaker.speak()]
        for text in heard:
            speaker.hear(user(Action.FEEDBACK, text))
            turns.append(await speaker.speak())
        speaker.end()
        return turns

    return asyncio.run(talk())


def named(turns: list[Turn]) -> list[str | None]:
    return [m.item_id for turn in turns for m in turn.items]


def test_who_ignores_the_user_names_the_same_items_in_the_same_order_whatever_it_hears():
    one = named(spoken("degraded:ignores-user", ["a crime film", "no", "no"], seed=1))
    other = named(spoken("degraded:ignores-user", ["something funny", "seen it", "yes?"], seed=2))
    assert one == other
    assert sorted(map(str, one)) == sorted(item.id for item in CATALOG)


def test_random_items_depend_on_the_seed_alone():
    drawn = {seed: named(spoken("degraded:random", ["hm", "hm"], seed=seed)) for seed in range(20)}
    assert drawn[3] == named(spoken("degraded:random", ["a crime film", "no"], seed=3))
    assert len({items[0] for items in drawn.values()}) == len(CATALOG)


@pytest.mark.parametrize("spec", ["degraded:repeats", "degraded:repeats:agenda", "degraded:repeats:degraded:random"])
def test_who_repeats_stays_with_its_first_item_in_changing_words(spec):
    turns = [t for t in spoken(spec, ["a crime film from the 90s", "no", "another", "no, another one"]) if t.items]
    assert len(turns) >= 2
    assert len(set(named(turns))) == 1
    assert all(a.text != b.text for a, b in itertools.pairwise(turns))


def test_with_the_turns_of_the_rules_only_the_item_is_another():
    heard = ["a crime film", "from the 90s", "nothing else"]
    good, bad = (spoken(spec, heard, seed=3) for spec in ("agenda", "degraded:ignores-user:agenda"))
    assert [t.action for t in good] == [t.action for t in bad]
    assert HEAT.id in named(good)
    assert named(bad)[0] == named(spoken("degraded:ignores-user", heard))[0]


def test_a_degraded_recommender_that_joins_late_knows_what_it_said():
    view = view_of(scenario(), R, with_persona=False).after(
        recommender(Action.RECOMMEND, "How about ", UP, "?"), user(Action.FEEDBACK, "no")
    )
    turn = asyncio.run(agent("degraded:repeats").begin(view, 0, "s").speak())
    assert (named([turn]), turn.text) == ([UP.id], "You could try Up (2009).")


@pytest.mark.parametrize(
    ("spec", "role", "message"),
    [
        ("degraded:rude", R, "accepted: degraded:random"),
        ("degraded:random:", R, "no degraded recommender"),
        ("degraded:random", Role.USER, "can't be the user"),
    ],
)
def test_a_degraded_recommender_that_does_not_exist_is_refused(spec, role, message):
    with pytest.raises(InputError, match=message):
        load_from_spec(spec, role, sampling=Sampling(), catalog=CATALOG, max_batch=1)


# ---- counterfactual --------------------------------------------------------------------------------------------------


def test_reactions_are_counted_per_scenario_and_faults_are_left_out():
    start = scenario()
    gave_up = (*dialogue(start).turns[:-1], user(Action.GIVE_UP, "never mind"))
    found = reactions_in(
        [
            dialogue(start),
            dialogue(start, gave_up, ending=Ending.GAVE_UP, sample=1),
            dialogue(start, ending=Ending.BACKEND_FAILURE, sample=2),
        ]
    )
    assert found[ACCEPT] == {start.key: Value(1.0, 2)}
    assert found[CRITIQUE] == {start.key: Value(2.0, 6)}
    assert found[REJECT_WORDS][start.key].units == 4


def values(accepts: list[int], critiques: list[int]) -> dict[str, dict[str, Value]]:
    return {
        ACCEPT: {str(i): Value(float(v), 1) for i, v in enumerate(accepts)},
        CRITIQUE: {str(i): Value(float(v), 4) for i, v in enumerate(critiques)},
    }


def test_a_user_that_reacts_passes_one_of_fixed_behaviour_fails_and_a_perverse_one_is_called_so():
    reacts, fixed = values([1] * 20, [1] * 20), values([1] * 20, [1] * 20)
    bad = values([0] * 18 + [1] * 2, [3] * 20)
    assert {r.verdict for r in judge_reactions(reacts, {"random": bad}, 0)} == {"as expected"}
    assert {r.verdict for r in judge_reactions(fixed, {"random": fixed}, 0)} == {"the same"}
    assert {r.verdict for r in judge_reactions(bad, {"random": reacts}, 0)} == {"the opposite"}


def test_a_difference_that_few_scenarios_show_is_not_shown():
    found = judge_reactions(values([1, 1, 1], [1, 1, 1]), {"random": values([0, 1, 1], [1, 1, 2])}, 0)
    assert {r.verdict for r in found} == {"not shown"}
    assert all(r.p_holm is not None and r.test.p is not None and r.p_holm >= r.test.p for r in found)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "d"
    args = ["data", "agenda", "--out", path, "--num-dialogues", 40, "--num-items", 100, "--test-fraction", 0.6]
    assert main([str(arg) for arg in args]) == 0
    return path


def test_the_agenda_user_minds_a_bad_recommender_and_a_stub_does_not(data, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("INTERPLAY_DATA", raising=False)
    records = {}
    for name in ("agenda", "stub:accept-first"):
        out = tmp_path / name.replace(":", "-")
        args = ["evaluate", "counterfactual", "--user", name, "--recommender", "agenda", "--data", data, "--out", out]
        code, text, _ = run(capsys, *args, "--num-dialogues", 20, "--max-repeats", 9)  # a stub says no in the same words
        assert code == 0
        assert "people's reactions are not beside it" in text
        records[name] = json.loads((out / "counterfactual.json").read_text())
        assert (out / "cells" / "repeats" / "dialogues.jsonl").is_file()
    found = {(r["fault"], r["metric"]): r for r in records["agenda"]["reactions"]}
    assert found["random", ACCEPT]["verdict"] == "as expected"
    assert found["random", ACCEPT]["test"]["n"] == 20
    assert records["agenda"]["summary"]["the opposite"] == 0
    fixed = records["stub:accept-first"]
    assert {r["verdict"] for r in fixed["reactions"] if r["metric"] in EXPECTED} == {"the same"}
    assert {r["test"]["value_b"] for r in fixed["reactions"] if r["metric"] == ACCEPT} == {1.0}
    before = (tmp_path / "agenda" / "counterfactual.json").read_text()
    again = ["evaluate", "counterfactual", "--user", "agenda", "--recommender", "agenda", "--data", data]
    again += ["--num-dialogues", 20, "--max-repeats", 9, "--out", tmp_path / "agenda", "--resume"]
    assert run(capsys, *again)[0] == 0
    assert json.loads((tmp_path / "agenda" / "counterfactual.json").read_text())["reactions"] == json.loads(before)["reactions"]
    code, _, err = run(capsys, *again, "--seed", 3)
    assert (code, "seed: 0 -> 3" in err) == (1, True)


# ---- who spoke, and who was preferred --------------------------------------------------------------------------------


def kit(system: str, simulator: str, *texts: str, acts: str | None = None, **metadata: object) -> dict[str, object]:
    """A DialogueKit record in which the system opens."""
    turns = [{"participant": "AGENT" if i % 2 == 0 else "USER", "utterance": t} for i, t in enumerate(texts)]
    if acts is not None:
        turns[-1]["dialogue_acts"] = [{"intent": acts, "slot_values": []}]  # type: ignore[assignment]
    return {
        "conversation ID": "1",
        "conversation": turns,
        "agent": {"id": system, "type": "AGENT"},
        "user": {"id": simulator, "type": "USER"},
        "metadata": metadata,
    }


def write(path: Path, records: object) -> Path:
    path.write_text(json.dumps(records))
    return path


def test_encounters_tell_who_spoke_and_how_it_ended(tmp_path):
    greet, offer = "Hello!", "How about Heat?"
    records = [
        kit("KBRD_ReDial", "sim", greet, "a crime film", offer, "sounds good, I will watch it", "Bye", "\\end"),
        kit("KBRD_ReDial", "sim", greet, "a crime film", offer, "no, something else", "Bye", "\\giveup"),
        kit("KBRD_ReDial", "sim", greet, "sounds good", offer, "seen it", acts="accept_recommendation"),
        kit("KBRD_ReDial", "sim", greet, "a crime film", error={"error_type": "ValueError"}),
        kit("KBRD_ReDial", "sim", greet, "\\end"),
        kit("KBRD_ReDial", "p1", greet, "hi", sentiment="satisfied"),
    ]
    read = read_encounters(write(tmp_path / "kit.json", records))
    assert dict(read.dropped) == {"ended by an error of the tool": 1, "no turn of the user": 1}
    assert [(e.accepted, e.gave_up, e.by, e.satisfied) for e in read.found] == [
        (True, False, "words", None),
        (False, True, "words", None),
        (True, None, "acts", None),
        (False, None, "words", True),
    ]
    assert {e.system for e in read.found} == {"kbrd_redial"}
    assert not any("\\" in line.text for e in read.found for line in e.talk.lines)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"turns": [{"role": "user", "text": "hi"}]}], "does not tell who spoke"),
        ({"a": 1}, "not a list"),
        ([], "nothing was read"),
    ],
)
def test_dialogues_that_do_not_tell_who_spoke_are_refused(records, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_encounters(write(tmp_path / "d.json", records))


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=4, max_size=4), st.permutations(range(4)))
def test_strengths_do_not_depend_on_the_order_of_the_systems_and_have_the_same_mean(counts, order):
    wins = np.array(counts, dtype=float)
    np.fill_diagonal(wins, 0)
    found, moved = bradley_terry(wins), bradley_terry(wins[np.ix_(order, order)])
    np.testing.assert_allclose(moved, found[list(order)], atol=0.01)
    if np.isfinite(found).any():
        assert abs(np.nanmean(found) - 1000) < 0.01


def test_one_more_win_makes_a_system_stronger():
    wins = np.array([[0.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 0.0]])
    more = wins.copy()
    more[0, 1] += 1
    assert bradley_terry(more)[0] > bradley_terry(wins)[0]
    assert bradley_terry(more)[1] < bradley_terry(wins)[1]


def test_the_p_of_an_order_is_the_share_of_all_orders_that_agree_as_much():
    x, rng = np.arange(5.0), np.random.default_rng(0)
    assert order_p(x, x, spearman_rho, rng) == pytest.approx(2 / 120)
    assert order_p(x, -x, kendall_tau_b, rng) == pytest.approx(2 / 120)
    assert order_p(x, np.ones(5), spearman_rho, rng) is None
    assert order_p(np.arange(10.0), np.arange(10.0), spearman_rho, rng) == pytest.approx(1e-4)


# ---- recommenders in two orders --------------------------------------------------------------------------------------


def scored(name: str, **by_system: float) -> Scored:
    return Scored(name, "score", by_system, {}, {})


def test_orders_are_compared_over_the_systems_that_both_have_scored():
    rng = np.random.default_rng(0)
    people = scored("people", a=5, b=4, c=3, d=2, e=1)
    same = agree(scored("sim", a=0.9, b=0.8, c=0.7, d=0.6, e=0.5, f=0.1), people, rng)
    assert (same.spearman, same.kendall, same.systems) == (1, 1, ("a", "b", "c", "d", "e"))
    assert same.spearman_p == pytest.approx(2 / 120)
    assert agree(scored("sim", a=1, b=2, c=3, d=4, e=5), people, rng).kendall == -1
    assert agree(scored("sim", a=1, b=1, c=1, d=1, e=1), people, rng).spearman is None
    assert agree(scored("sim", a=1, b=2), people, rng).spearman is None


def test_votes_become_strengths_with_resamples_by_person():
    votes = [Vote("a", "b", "a", f"p{i}", "x") for i in range(8)] + [Vote("b", "c", "b", f"p{i}", "x") for i in range(8)]
    people = score_by_votes("votes", votes, np.random.default_rng(0))
    assert list(vote_strengths(votes)) == ["a", "b", "c"]
    assert people.num == {"a": 8, "b": 16, "c": 8}
    assert (people.resampled["a"] >= people.resampled["c"]).mean() > 0.99
    found = agree(scored("sim", a=3, b=2, c=1), people, np.random.default_rng(0))
    assert (found.spearman, found.low, found.high) == (1, 1, 1)


def test_simulators_score_systems_by_what_they_accept_each_and_together(tmp_path):
    records = [
        kit(system, simulator, "Hello!", "a film", "Heat?", "sounds good" if accepts else "no, something else")
        for simulator in ("one", "two")
        for system, share in (("A", 3), ("B", 2), ("C", 1))
        for accepts in [True] * share + [False] * (4 - share)
    ]
    found = scores_of_simulators(read_encounters(write(tmp_path / "d.json", records)).found, np.random.default_rng(0))
    assert [s.judge for s in found] == ["one", "two", "2 simulators together"]
    assert all(s.values == {"a": 0.75, "b": 0.5, "c": 0.25} for s in found)
    assert found[-1].num == {"a": 8, "b": 8, "c": 8}


def test_a_tools_own_grades_rank_systems_and_other_files_are_refused(tmp_path):
    rows = {system: [{"conversation_id": f"{system}-sim-1-99", "score": score}] for system, score in (("A B", 3), ("C", 5))}
    write(tmp_path / "quality_evaluation_x.json", {system: {"OVERALL_SAT": found} for system, found in rows.items()})
    grades = read_grades(tmp_path)
    assert {(g.user, g.system) for g in grades} == {("sim-1", "a_b"), ("sim-1", "c")}
    (found,) = scores_by_grades(grades, "OVERALL_SAT", np.random.default_rng(0))
    assert found.values == {"a_b": 3, "c": 5}
    write(tmp_path / "quality_evaluation_y.json", {"A": 1})
    with pytest.raises(DataError, match="not grades of UserSimCRS"):
        read_grades(tmp_path)


def test_scores_come_from_csv_and_json_and_their_systems_are_matched_by_letters(tmp_path):
    (tmp_path / "s.csv").write_text("system,good,fun\nBARCOR_ReDial,1,\nKBRD ReDial,2,3\nUniCRS-ReDial,3,1\n")
    good, fun = read_scores(tmp_path / "s.csv", "people")
    assert good.values == {"barcor_redial": 1, "kbrd_redial": 2, "unicrs_redial": 3}
    assert (fun.measure, len(fun.values)) == ("fun", 2)
    (tmp_path / "s.json").write_text('{"A": 1, "B": 2, "C": 3}')
    assert read_scores(tmp_path / "s.json", "people")[0].values == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,good\nA,1\n", "column system"),
        ("system,good\nA,1\nA,2\nB,1\n", "stands there twice"),
        ("system,good\nA,one\nB,2\nC,3\n", "'one' is no number"),
        ("system,good\nA,nan\nB,2\nC,3\n", "'nan' is no number"),
        ("system,good\nA,1\nB,2\n", "fewer than 3 systems"),
        ("", "column system"),
    ],
)
def test_scores_of_another_form_are_refused_in_one_line(text, message, tmp_path):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_scores(tmp_path / "s.csv", "people")
    assert "\n" not in str(caught.value)


def test_the_command_ranks_a_matrix_beside_scores_and_prints_the_published_correlation(tmp_path, capsys):
    places = [{"recommender": f"r{i}", "value": i / 10, "rank": i} for i in range(5)]
    matrix = tmp_path / "matrix"
    matrix.mkdir()
    rankings = [
        {"metric": "simulation.accept_rate", "user": "agenda", "places": [*places, {"recommender": "x", "value": None}]}
    ]
    (matrix / "matrix.json").write_text(json.dumps({"rankings": rankings}))
    people = tmp_path / "people.csv"
    people.write_text("system,liked\n" + "".join(f"R{i},{i}\n" for i in range(5)))
    args = ["evaluate", "system-ranking", matrix, "--people", f"our panel={people}", "--out", tmp_path / "out"]
    code, text, _ = run(capsys, *args)
    assert code == 0
    assert "-0.238 (published)" in text
    record = json.loads((tmp_path / "out" / "ranking.json").read_text())
    (found,) = record["agreements"]
    assert (found["spearman"], found["other"], len(found["systems"])) == (1.0, "our panel", 5)
    assert run(capsys, *args)[0] == 1
    few = tmp_path / "few.csv"
    few.write_text("system,liked\nA,1\nB,2\nR1,3\n")
    code, _, err = run(capsys, "evaluate", "system-ranking", matrix, "--people", few, "--out", tmp_path / "o2")
    assert (code, err.count("\n")) == (1, 1)
    assert "no simulator has scored 3" in err
    code, _, err = run(capsys, *args[:3], "--people", people, "--judge", "learned:x", "--out", tmp_path / "o3")
    assert (code, "--judge grades dialogues" in err) == (1, True)


def test_system_keys_ignore_case_and_punctuation():
    assert system_key("UniCRS_OpenDialKG") == system_key("unicrs-opendialkg") == "unicrs_opendialkg"


# ---- the real conversations ------------------------------------------------------------------------------------------


def test_people_of_crs_arena_like_the_systems_better_that_they_vote_for(shared_data):
    talks = read_arena(shared_data / "crs_arena")
    votes = read_votes(shared_data / "crs_arena")
    assert ({crowd: len(read.found) for crowd, read in talks.items()}, len(votes)) == ({"closed": 178, "open": 199}, 146)
    everyone = [encounter for read in talks.values() for encounter in read.found]
    people = peoples_reactions(everyone, votes, seed=0)
    assert len(people.strengths) == 9
    assert sum(part.num_conversations for part in people.parts) == len(everyone)
    difference = people.differences[SATISFIED]
    assert difference.high is not None
    assert difference.high < -0.2


def test_published_recalls_beside_peoples_votes(shared_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("INTERPLAY_DATA", str(shared_data))
    assert run(capsys, "evaluate", "system-ranking", "ievalm", "--out", tmp_path / "o")[0] == 0
    record = json.loads((tmp_path / "o" / "ranking.json").read_text())
    assert [len(a["systems"]) for a in record["agreements"]] == [8, 8]
    crowds = record["people_with_people"][0]
    assert crowds["spearman"] > 0.8
    assert crowds["spearman_p"] < 0.01


# ---- the transfer matrix ---------------------------------------------------------------------------------------------


def transfer_file(folder: Path, data: Path, *more: str, tested: tuple[Path, ...] = ()) -> Path:
    corpora = ", ".join(f'"{path}"' for path in (data, *tested))
    lines = [f'out = "{folder / "out"}"', f"tested = [{corpora}]", 'users = ["stub:accept-first"]', f'played = "{data}"']
    lines += ["num_dialogues = 2", "max_turns = 6", *more, "[sampling]", "max_new_tokens = 8"]
    (folder / "t.toml").write_text("\n".join(lines))
    return folder / "t.toml"


def test_a_transfer_matrix_from_one_file_trains_tests_and_goes_on_where_it_stopped(data, tmp_path, capsys):
    rows = ["[trained]", f'own = ["{data}"]', "[given]", 'rules = "agenda"', 'gone = "no/model"', "[training]", "max_steps = 1"]
    tiny = ["max_length = 64", "[training.tiny]", "layers = 1", "width = 32", "vocab_size = 400", "context = 128"]
    source = Path(__file__).parent / "fixtures" / "opendialkg"
    books = load_corpus(
        "opendialkg-books", source, tagger=RuleTagger(), split_by="dialogue", valid_fraction=0, test_fraction=0.9
    )
    books.save(tmp_path / "books")
    path = transfer_file(tmp_path, data, "across_domains = true", *rows, *tiny, tested=(tmp_path / "books",))
    code, text, _ = run(capsys, "evaluate", "transfer", "--config", path)
    assert code == 0
    record = json.loads((tmp_path / "out" / "transfer.json").read_text())
    cells = {(c["trained_on"], c["tested_on"]): c for c in record["cells"]}
    assert len(cells) == 9
    # A model's tags are those of films whatever stands between them; the rules know the facts of films alone.
    assert (cells["own", "books"]["status"], cells["rules", "books"]["status"]) == ("complete", "impossible")
    in_books = {r["metric"]: r["value"] for r in cells["own", "books"]["scores"] if r["subject"] != "human"}
    assert in_books["turns.nats_per_turn"] > 0
    assert {cells["gone", c]["status"] for c in ("d", "stub:accept-first")} == {"impossible"}
    assert "no/model is not a directory" in text
    assert (cells["own", "d"]["seen"], cells["rules", "d"]["seen"]) == (True, False)
    found = {r["metric"]: r for r in cells["own", "d"]["scores"] if r["subject"] != "human"}
    assert found["turns.nats_per_turn"]["value"] > 0
    standard = [r for r in cells["rules", "stub:accept-first"]["scores"] if r["condition"] == "standard"]
    assert {r["metric"]: r["n"] for r in standard}["simulation.accept_rate"] == 2
    trained = tmp_path / "out" / "models" / "own" / "model.safetensors"
    before = trained.stat().st_mtime_ns
    (tmp_path / "out" / "cells" / "rules--d.turns" / "scores.jsonl").unlink()
    assert run(capsys, "evaluate", "transfer", "--config", path, "--resume")[0] == 0
    assert trained.stat().st_mtime_ns == before
    again = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert [c["status"] for c in again["cells"]] == [c["status"] for c in record["cells"]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "a transfer matrix has rows"),
        (["[given]", '"a b" = "agenda"', '"a-b" = "agenda"'], "have one name"),
        (["[given]", 'gone = "no/model"'], "no cell of the transfer matrix"),
    ],
)
def test_a_transfer_matrix_without_rows_or_with_nothing_to_measure_is_one_line(data, tmp_path, capsys, more, message):
    code, _, err = run(capsys, "evaluate", "transfer", "--config", transfer_file(tmp_path, data, *more))
    assert (code, message in err) == (1, True)
    assert "Traceback" not in err
