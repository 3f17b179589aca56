"""Judges: what a chat model's answers become, what the learned judge learns, and how either is compared with people."""

import asyncio
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, grammar_from
from transformers import PreTrainedTokenizerFast

from interplay.backends.backend import Request
from interplay.backends.http import HttpBackend
from interplay.backends.local_chat import LocalChat
from interplay.backends.scripted import ScriptedBackend
from interplay.cli import main
from interplay.corpora.quality_labels import ASPECT_RANGES, RatedTalk, RatedTalks, read_labels
from interplay.corpora.talks import Line, Talk
from interplay.errors import CheckpointError, ContextOverflow, DataError, InputError
from interplay.evaluation.judges.aspects import ASPECTS, CRITERIA
from interplay.evaluation.judges.features import dialogue_features, titles_in, turn_features
from interplay.evaluation.judges.judging import load_judge, pair_rows
from interplay.evaluation.judges.learned import BY_PERSON, BY_SYSTEM, LearnedJudge, text_hash
from interplay.evaluation.judges.llm import LlmJudge, PairJudge, PairVerdict, answer_grammar, read_answer
from interplay.evaluation.judges.verdicts import Verdict, agreements, read_card, verdict_rows
from interplay.evaluation.scoring import About
from interplay.metrics.correlation import estimate_agreement, group_spearman, spearman, within_spearman
from interplay.store import Run, write_records
from interplay.training.backbone import train_tokenizer
from interplay.types import Role
from makers import dialogue, plain_words, scenario
from server import Body, FakeServer

TALK = Talk(
    "one",
    (
        Line(Role.USER, "Could you recommend a crime movie?"),
        Line(Role.RECOMMENDER, "How about Heat (1995)? It is about a thief."),
        Line(Role.USER, "Sounds good, thanks"),
        Line(Role.RECOMMENDER, "Enjoy it!"),
    ),
)
ABOUT = About("made", "all", 0, "digest")
DIALOGUE_ASPECTS = [a.name for a in ASPECTS if not a.of_turns]
GOOD = json.dumps({a.name: len(a.grades) - 1 for a in ASPECTS})

lines = st.lists(st.builds(Line, st.sampled_from(Role), plain_words), max_size=6)


def backend_of(server: FakeServer) -> HttpBackend:
    return HttpBackend(server.base_url, "tiny", backoff_s=0.001, max_retries=0)


def judged(server: FakeServer, talk: Talk = TALK) -> Verdict:
    async def ask() -> Verdict:
        backend = backend_of(server)
        try:
            return await LlmJudge(backend, "tiny").judge(talk, seed=0)
        finally:
            await backend.close()

    return asyncio.run(ask())


def last_prompt(body: Body) -> str:
    return str(body["messages"][0]["content"])


def asked_again(body: Body) -> bool:
    return len(body["messages"]) > 1


def questions(server: FakeServer) -> list[Body]:
    return [r.body for r in server.requests if "seed" in r.body]


# ---- a chat model ----------------------------------------------------------------------------------------------------


def test_a_chat_model_grades_the_conversation_once_and_every_reply_of_the_recommender(fake_server: FakeServer) -> None:
    fake_server.reply_text = lambda body: f"Here you are: {GOOD}"
    verdict = judged(fake_server)
    assert verdict.scores == {"understanding": 2, "task_completion": 2, "interest_arousal": 2, "efficiency": 1, "overall": 4}
    assert verdict.turn_scores == {"relevance": (3, 3), "interestingness": (2, 2)}
    assert (verdict.failures, verdict.num_retried) == ({}, 0)
    assert len(questions(fake_server)) == 3


def test_a_judge_that_answers_prose_is_asked_once_more_and_then_gives_no_grade(fake_server: FakeServer) -> None:
    fake_server.reply_text = lambda body: "A lovely conversation, I would give it full marks."
    verdict = judged(fake_server)
    assert set(verdict.scores.values()) == {None}
    assert verdict.turn_scores == {"relevance": (None, None), "interestingness": (None, None)}
    assert verdict.failures == {"unparsable": 5 + 2 + 2}
    assert verdict.num_retried == 3
    assert len(questions(fake_server)) == 6
    rows = {r.metric: r for r in verdict_rows([verdict], ABOUT)}
    assert (rows["judge.overall"].value, rows["judge.overall"].n, rows["judge.overall"].num_skipped) == (None, 0, 1)
    assert (rows["judge.relevance"].value, rows["judge.relevance"].num_skipped) == (None, 2)
    assert rows["judge.failures.unparsable"].value == 9


def test_a_grade_that_comes_at_the_second_time_of_asking_counts(fake_server: FakeServer) -> None:
    fake_server.reply_text = lambda body: GOOD if asked_again(body) else "hm, let me think"
    verdict = judged(fake_server)
    assert verdict.scores["overall"] == 4
    assert (verdict.failures, verdict.num_retried) == ({}, 3)


def test_a_grade_outside_the_scale_is_none(fake_server: FakeServer) -> None:
    fake_server.reply_text = lambda body: GOOD.replace('"overall": 4', '"overall": 9')
    verdict = judged(fake_server)
    assert verdict.scores["overall"] is None
    assert verdict.scores["understanding"] == 2
    assert verdict.failures == {"unparsable": 1}


def test_a_server_that_fails_is_counted_and_leaves_the_conversation_owed(fake_server: FakeServer) -> None:
    fake_server.fail(500, times=None)
    verdict = judged(fake_server)
    assert verdict.failures == {"server": 3}
    assert verdict.is_owed
    assert "500" in verdict.reason
    assert verdict.scores["overall"] is None


def test_a_question_that_is_too_long_is_counted_and_one_that_only_grows_too_long_keeps_what_was_read() -> None:
    def graded_with_room_for(messages: int) -> Verdict:
        def fault(request: Request) -> Exception | None:
            return ContextOverflow("no room") if len(request.prompt) > messages else None

        backend = ScriptedBackend(lambda request: '{"overall": 3}', fail_on=fault)
        return asyncio.run(LlmJudge(backend, "x", level="dialogue").judge(TALK, seed=0))

    never, once = graded_with_room_for(0), graded_with_room_for(1)
    assert (never.failures, never.num_retried, never.scores["overall"]) == ({"too_long": 1}, 0, None)
    assert (once.failures, once.num_retried, once.scores["overall"]) == ({"unparsable": 4}, 1, 3)


def test_a_conversation_in_which_the_recommender_says_nothing_is_counted_and_not_asked_about(fake_server: FakeServer) -> None:
    verdict = judged(fake_server, Talk("mute", TALK.lines[:1]))
    assert verdict.failures == {"no_reply": 1}
    assert not fake_server.requests


@given(data=st.data())
@settings(max_examples=20)
def test_an_answer_in_json_is_read_back_whatever_stands_around_it(data: st.DataObject) -> None:
    options = {a.name: tuple(str(g) for g in range(len(a.grades))) for a in ASPECTS}
    values = {name: data.draw(st.sampled_from(allowed)) for name, allowed in options.items()}
    before, after = data.draw(plain_words), data.draw(plain_words)
    written = json.dumps({n: data.draw(st.sampled_from([v, int(v), float(v)])) for n, v in values.items()})
    assert read_answer(f"{before}{written}{after}", options) == values


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("overall: 3", "3"),
        ("**Overall** = 3/4", "3"),
        ('{"overall": "3"}', "3"),
        ('{"note": "x"} {"overall": 2}', "2"),
        ("overall: 2, no, overall: 3", None),
        ('{"overall": 2, "overall": 3}', None),
        ('{"overall": 2.5}', None),
        ('{"overall": true}', None),
        ('{"overall": 12}', None),
        ("3", None),
        ("", None),
    ],
)
def test_only_one_grade_of_the_scale_is_read(text: str, grade: str | None) -> None:
    assert read_answer(text, {"overall": ("0", "1", "2", "3", "4")}) == {"overall": grade}


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ('{"relevance": 3, "flow": "tie"}', True),
        ('{"relevance": 0, "flow": 2}', True),
        ('{"relevance": 4, "flow": 1}', False),
        ('{"flow": 1}', False),
        ("I would say 3.", False),
    ],
)
def test_the_grammar_of_an_answer_takes_such_answers_and_no_others(text: str, is_taken: bool) -> None:
    options = {"relevance": ("0", "1", "2", "3"), "flow": ("1", "2", "tie")}
    matcher = LLMatcher(LLTokenizer("byte"), grammar_from("gbnf", answer_grammar(options)))
    tokens = list(text.encode())
    assert (matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()) == is_taken
    if is_taken:
        assert None not in read_answer(text, options).values()


def test_a_prompt_shows_the_words_and_no_one_s_name(fake_server: FakeServer) -> None:
    fake_server.reply_text = lambda body: GOOD
    judged(fake_server)
    prompts = [last_prompt(b) for b in questions(fake_server)]
    assert all("How about Heat (1995)?" in p for p in prompts)
    assert "Sounds good, thanks" in prompts[1].split("After:")[1]
    assert not any("$" in p or "one" == p for p in prompts)


# ---- pairs -----------------------------------------------------------------------------------------------------------

WORSE = Talk("one", (*TALK.lines[:1], Line(Role.RECOMMENDER, "I do not know."), Line(Role.USER, "Bye")))


def compared(server: FakeServer) -> PairVerdict:
    async def ask() -> PairVerdict:
        backend = backend_of(server)
        try:
            return await PairJudge(backend, "tiny").compare(TALK, WORSE, seed=0)
        finally:
            await backend.close()

    return asyncio.run(ask())


def all_criteria(choice: str) -> str:
    return json.dumps({c.name: choice for c in CRITERIA})


def test_the_better_conversation_wins_in_whichever_place_it_is_shown(fake_server: FakeServer) -> None:
    def choose(body: Body) -> str:
        first = last_prompt(body).split("Conversation 2:")[0]
        return all_criteria("1" if "Heat" in first else "2")

    fake_server.reply_text = choose
    verdict = compared(fake_server)
    assert set(verdict.choices.values()) == {"first"}
    rows = {r.metric: r.value for r in pair_rows([verdict], ABOUT)}
    assert rows["judge.pairs.relevance.win_rate"] == 1
    assert rows["judge.pairs.relevance.swayed_rate"] == 0
    assert rows["judge.pairs.relevance.shown_first_rate"] == 0.5


def test_a_judge_that_always_likes_the_first_place_gives_ties_and_is_exposed(fake_server: FakeServer) -> None:
    fake_server.reply_text = lambda body: all_criteria("1")
    verdict = compared(fake_server)
    assert set(verdict.choices.values()) == {"tie"}
    rows = {r.metric: r.value for r in pair_rows([verdict], ABOUT)}
    assert rows["judge.pairs.expertise.tie_rate"] == 1
    assert rows["judge.pairs.expertise.swayed_rate"] == 1
    assert rows["judge.pairs.expertise.shown_first_rate"] == 1


def test_two_answers_about_one_pair_are_one_observation_and_ties_choose_no_place() -> None:
    def pair(name: str, *shown: str | None) -> PairVerdict:
        one, two = (dict.fromkeys((c.name for c in CRITERIA), choice) for choice in shown)
        return PairVerdict(id=name, choices=one, shown=(one, two))

    rows = {r.metric: r for r in pair_rows([pair("a", "first", "second"), pair("b", "tie", None)], ABOUT)}
    row = rows["judge.pairs.relevance.shown_first_rate"]
    assert (row.value, row.n, row.num_skipped) == (1, 2, 2)
    alone = {r.metric: r for r in pair_rows([pair("a", "first", "first")], ABOUT)}["judge.pairs.relevance.shown_first_rate"]
    assert (alone.value, alone.low, alone.high) == (0.5, None, None)


def test_grades_of_one_scenario_are_drawn_together() -> None:
    verdicts = [Verdict(id=f"{k}.{n}", scores={"overall": float(k)}) for k in range(2) for n in range(20)]
    alone, together = (
        next(r for r in verdict_rows(verdicts, ABOUT, clusters=clusters) if r.metric == "judge.overall")
        for clusters in (None, {v.id: v.id[0] for v in verdicts})
    )
    assert alone.value == together.value == 0.5
    assert (together.low, together.high) == (0.0, 1.0)
    assert alone.low is not None
    assert alone.low > 0.2


def test_a_choice_that_can_be_read_in_one_order_only_is_none(fake_server: FakeServer) -> None:
    def choose(body: Body) -> str:
        first = last_prompt(body).split("Conversation 2:")[0]
        return all_criteria("tie") if "Heat" in first else "Both have their charm."

    fake_server.reply_text = choose
    verdict = compared(fake_server)
    assert set(verdict.choices.values()) == {None}
    assert verdict.failures == {"unparsable": len(CRITERIA)}
    rows = {r.metric: r for r in pair_rows([verdict], ABOUT)}
    assert rows["judge.pairs.relevance.win_rate"].value is None
    assert rows["judge.pairs.relevance.win_rate"].num_skipped == 1


# ---- what the learned judge sees and learns --------------------------------------------------------------------------


@given(turns=lines)
@settings(max_examples=20)
def test_every_conversation_has_the_same_finite_features(turns: list[Line]) -> None:
    features = dialogue_features(turns)
    assert features.keys() == dialogue_features(TALK.lines).keys()
    assert np.isfinite(list(features.values())).all()
    assert len(turn_features(turns)) == sum(line.role is Role.RECOMMENDER for line in turns)


def test_features_tell_a_thanked_reply_from_one_that_is_complained_about() -> None:
    asked = Line(Role.USER, "Recommend me a comedy")
    reply = Line(Role.RECOMMENDER, "Try Heat (1995)")
    (liked,) = turn_features([asked, reply, Line(Role.USER, "Great, I'll watch it, thanks!")])
    (refused,) = turn_features([asked, reply, Line(Role.USER, "That's not what I asked. Recommend me a comedy")])
    assert liked["after.accepts"] > refused["after.accepts"]
    assert liked["after.complains"] < refused["after.complains"]
    assert liked["after.asks_again"] < refused["after.asks_again"]


def test_titles_are_found_by_year_in_a_list_and_in_quotes() -> None:
    assert titles_in('Have you seen Heat (1995)? Or "Alien"?') == ["heat", "alien"]
    assert titles_in("The following items: 1 Up (2009) 2 Alien (1979) 3 Heat (1995)") == ["up", "alien", "heat"]
    assert titles_in("I have 2 brothers") == []


def made_labels(num: int = 36, seed: int = 0) -> RatedTalks:
    """Conversations whose label is how many replies name a movie that the user then likes."""
    rng = random.Random(seed)
    talks = []
    for number in range(num):
        turns: list[Line] = []
        grades: list[dict[str, float]] = []
        for _ in range(4):
            turns.append(Line(Role.USER, rng.choice(["Recommend me a comedy", "Could you suggest a drama?"])))
            if rng.random() < (number % 6) / 5:
                turns += [Line(Role.RECOMMENDER, f"Try Movie {rng.randrange(99)} (1995)"), Line(Role.USER, "Great, thanks")]
                turns.append(Line(Role.RECOMMENDER, "You're welcome, anything else I can do?"))
                grades += [{"relevance": 3.0, "interestingness": 2.0}, {"relevance": 2.0, "interestingness": 1.0}]
            else:
                turns.append(Line(Role.RECOMMENDER, "I have never seen that one"))
                grades.append({"relevance": 0.0, "interestingness": 0.0})
        good = sum(g["relevance"] == 3 for g in grades)
        scores = {a: high * good / 4 for a, (_, high) in ASPECT_RANGES.items() if a not in ("relevance", "interestingness")}
        merged = tuple(turns)
        talks.append(RatedTalk(Talk(str(number), merged), f"system{number % 3}", f"p{number // 2}", scores, tuple(grades)))
    return RatedTalks("made", talks)


@pytest.fixture(scope="module")
def made_judge() -> LearnedJudge:
    return LearnedJudge.fit("learned:made", made_labels(), num_folds=2, num_resamples=5)


def own(judge: LearnedJudge, scheme: str, aspect: str, level: str) -> float:
    (found,) = [
        a.spearman
        for a in judge.card.agreements
        if (a.scorer, a.scheme, a.aspect, a.level) == (judge.name, scheme, aspect, level)
    ]
    assert found is not None
    return found


def test_a_learned_judge_finds_what_the_labels_follow(made_judge: LearnedJudge) -> None:
    assert own(made_judge, BY_PERSON, "overall", "dialogue") > 0.9
    assert own(made_judge, BY_PERSON, "relevance", "turn") > 0.8
    assert own(made_judge, BY_SYSTEM, "overall", "system") > 0.9


def test_a_learned_judge_grades_within_the_scales_and_as_its_file_does(made_judge: LearnedJudge, tmp_path: Path) -> None:
    made_judge.write(tmp_path)
    again = LearnedJudge.read(tmp_path)
    verdict = again.grade(TALK)
    assert verdict == made_judge.grade(TALK)
    assert all(ASPECT_RANGES[a][0] <= s <= ASPECT_RANGES[a][1] for a, s in verdict.scores.items() if s is not None)
    assert len(verdict.turn_scores["relevance"]) == 2
    assert (again.fingerprint, again.card) == (made_judge.fingerprint, made_judge.card)
    assert again.card.fingerprint == again.fingerprint


def test_labels_that_mean_nothing_give_no_agreement_twice_the_same() -> None:
    labels = made_labels()
    shuffled = [r.scores for r in labels.talks]
    random.Random(1).shuffle(shuffled)
    talks = [
        RatedTalk(r.talk, r.system, r.person, scores, tuple({} for _ in r.turn_scores))
        for r, scores in zip(labels.talks, shuffled, strict=True)
    ]
    judge = LearnedJudge.fit("learned:noise", RatedTalks("noise", talks), num_folds=2, num_resamples=0)
    assert LearnedJudge.fit("learned:noise", RatedTalks("noise", talks), num_folds=2, num_resamples=0).card == judge.card
    # Cross-validation of nothing tends below zero: what a part lacks the others have too much of.
    assert own(judge, BY_PERSON, "overall", "dialogue") < 0.4
    assert "relevance" not in judge.aspects


def test_what_the_recommender_never_said_gets_no_grade(made_judge: LearnedJudge) -> None:
    verdict = made_judge.grade(Talk("mute", TALK.lines[:1]))
    assert set(verdict.scores.values()) == {None}
    assert verdict.failures == {"no_reply": 1}


def test_too_few_persons_are_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="persons"):
        LearnedJudge.fit("learned:few", made_labels(6), num_folds=3)


# ---- agreement with people -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30))
@settings(max_examples=20)
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    left, right = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    ours = spearman(left, right)
    if len(set(left)) == 1 or len(set(right)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(spearmanr(left, right).statistic)


def test_who_only_knows_the_system_agrees_between_systems_and_not_within() -> None:
    groups = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    people = [0.0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7]
    means = [1.5] * 4 + [3.5] * 4 + [5.5] * 4
    assert group_spearman(means, people, groups) == 1
    assert within_spearman(means, people, groups) is None
    assert within_spearman(people, people, groups) == 1


def test_an_interval_over_persons_holds_the_value_and_needs_two_of_them() -> None:
    rng = np.random.default_rng(0)
    left = rng.normal(size=80)
    right = left + rng.normal(size=80)
    many = estimate_agreement(spearman, (left, right), [str(k) for k in range(80)], rng, num_resamples=200)
    few = estimate_agreement(spearman, (left, right), [str(k // 20) for k in range(80)], rng, num_resamples=200)
    assert None not in (many.low, many.value, many.high, few.low, few.high)
    assert many.low < many.value < many.high  # type: ignore[operator]
    assert few.high - few.low > 0  # type: ignore[operator]
    alone = estimate_agreement(spearman, (left, right), ["me"] * 80, rng)
    assert (alone.low, alone.high) == (None, None)


def test_what_has_no_grade_is_left_out_of_the_agreement_and_counted() -> None:
    labels = made_labels(12)
    perfect = {r.talk.id: Verdict(id=r.talk.id, scores=dict(r.scores)) for r in labels.talks}
    perfect["0"] = Verdict(id="0", scores={"overall": None})
    found = agreements(
        labels.talks, perfect, scorer="x", scheme="y", labels="made", rng=np.random.default_rng(0), num_resamples=0
    )
    (overall,) = [a for a in found if (a.aspect, a.level) == ("overall", "dialogue")]
    assert (overall.spearman, overall.n, overall.num_skipped) == (1.0, 11, 1)
    assert all(a.n == 3 for a in found if a.level == "system")


# ---- labels ----------------------------------------------------------------------------------------------------------


def write_gzip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)


def test_labels_of_crs_arena_are_read_with_system_person_and_turns(tmp_path: Path) -> None:
    record = {
        "conv_id": "bot_redial_p1",
        "dialogue": [
            {"role": "USER", "utterance": "hi"},
            {"role": "ASST", "utterance": "hello", "turn_level_aggregated": {"relevance": 2, "interestingness": 1}},
            {"role": "ASST", "utterance": "again", "turn_level_aggregated": {"relevance": 1, "interestingness": None}},
        ],
        "dial_level_aggregated": {"understanding": 1, "dialogue_overall": 3, "explanation": 2},
    }
    write_gzip(tmp_path / "crs_arena/crs_arena_eval.json.gz", json.dumps([record]))
    (rated,) = read_labels("crs-arena", tmp_path).talks
    assert (rated.system, rated.person) == ("bot_redial", "p1")
    assert rated.scores == {"understanding": 1, "overall": 3}
    assert rated.turn_scores == ({"relevance": 1.5, "interestingness": 1},)
    assert [line.text for line in rated.talk.lines] == ["hi", "hello again"]


def test_labels_of_redial_are_means_on_the_common_scale(tmp_path: Path) -> None:
    columns = "ConvId,utterance0,utterance1,understanding,task-completion,interest-arousal,efficiency,dialogue-overall"
    rows = ["a,SYSTEM\thi,USER\tyo,3,2,0,1,5", "a,SYSTEM\thi,USER\tyo,1,2,2,0,4"]
    write_gzip(tmp_path / "aba_redial/annotated_dialogues.csv.gz", "\n".join([columns, *rows]))
    write_gzip(tmp_path / "uss/ReDial.txt.gz", "USER\thi\t\t3,3\nSYSTEM\tyo\t\t\nUSER\tOVERALL\t\t3,4,5\n")
    aba = read_labels("aba-redial", tmp_path)
    (rated,) = aba.talks
    assert rated.scores == {"understanding": 1, "task_completion": 1, "interest_arousal": 1, "efficiency": 0.5, "overall": 3.5}
    assert aba.dropped == {"interest_arousal outside its scale": 1}
    (rated,) = read_labels("uss-redial", tmp_path).talks
    assert rated.scores == {"overall": 3}


@pytest.mark.parametrize("text", ["{}", '[{"conv_id": 3}]', "[]", "not json"])
def test_a_file_of_another_form_is_one_clear_line(tmp_path: Path, text: str) -> None:
    write_gzip(tmp_path / "crs_arena/crs_arena_eval.json.gz", text)
    with pytest.raises(DataError) as error:
        read_labels("crs-arena", tmp_path)
    assert "\n" not in str(error.value)


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def run_of_two(tmp_path: Path) -> Path:
    run = Run.create(tmp_path / "run", {"user": "agenda", "recommender": "bot"})
    for source in ("1", "2"):
        run.append(dialogue(scenario(source_id=source)))
    return run.path


@pytest.fixture
def judge_path(made_judge: LearnedJudge, tmp_path: Path) -> Path:
    path = tmp_path / "judge"
    path.mkdir()
    made_judge.write(path)
    return path


def called(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(w) for w in words])
    out = capsys.readouterr()
    return code, out.out + out.err


def test_a_learned_judge_s_agreement_stands_beside_its_grades(
    run_of_two: Path, judge_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", "judge", run_of_two, "--judge", f"learned:{judge_path}", "--out", tmp_path / "out")
    code, printed = called(capsys, *words)
    assert code == 0
    assert "agreement of learned:made with people" in printed
    rows = {(r.metric, r.condition): r for r in Run.read(tmp_path / "out").scores()}
    overall = rows["judge.overall", "by learned:made"]
    assert (overall.n, overall.subject, overall.simulator) == (2, "bot", "agenda")
    assert rows["judge.overall.spearman", f"dialogue level, {BY_PERSON}"].low is not None
    assert rows["judge.failures.unparsable", "by learned:made"].value == 0


def test_any_jsonl_of_conversations_can_be_judged(judge_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.jsonl"
    turns = [{"role": line.role.value, "content": line.text} for line in TALK.lines]
    path.write_text(json.dumps({"id": "x", "messages": turns}) + "\n")
    code, _ = called(capsys, "evaluate", "judge", path, "--judge", f"learned:{judge_path}", "--out", tmp_path / "out")
    assert code == 0
    assert json.loads((tmp_path / "out/verdicts.jsonl").read_text())["id"] == "x"


def test_a_resumed_judging_asks_only_what_the_server_left_unanswered(
    run_of_two: Path, fake_server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "judge", run_of_two, "--judge", f"{fake_server.base_url}#tiny", "--out", tmp_path / "out"]
    words += ["--level", "dialogue", "--concurrency", 1]
    fake_server.reply_text = lambda body: GOOD
    fake_server.fail(500, times=3)  # two of them meet the questions whether it takes a grammar
    code, printed = called(capsys, *words)
    assert code == 2
    assert "1 of 2 were left unfinished by the server" in printed
    rows = {r.metric: r for r in Run.read(tmp_path / "out").scores()}
    assert (rows["judge.overall"].value, rows["judge.overall"].num_skipped, rows["judge.failures.server"].value) == (4, 1, 1)
    fake_server.requests.clear()
    code, printed = called(capsys, *words, "--resume")
    assert code == 0
    assert "unfinished" not in printed
    assert "has not been measured" in printed
    assert len(questions(fake_server)) == 1
    rows = {r.metric: r for r in Run.read(tmp_path / "out").scores()}
    assert (rows["judge.overall"].n, rows["judge.failures.server"].value) == (2, 0)


def test_calibrating_a_chat_model_writes_a_card_that_its_grades_can_carry(
    run_of_two: Path, fake_server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        {
            "conv_id": f"bot{k % 3}_p{k}",
            "dialogue": [{"role": "USER", "utterance": "hi"}, {"role": "ASST", "utterance": f"good {k % 5}"}],
            "dial_level_aggregated": {"dialogue_overall": k % 5},
        }
        for k in range(10)
    ]
    write_gzip(tmp_path / "data/crs_arena/crs_arena_eval.json.gz", json.dumps(records))

    def reply(body: Body) -> str:
        said = last_prompt(body).split("good ")[-1][0]
        return json.dumps({a: min(int(said), ASPECT_RANGES[a][1]) for a in DIALOGUE_ASPECTS}) if said.isdigit() else GOOD

    fake_server.reply_text = reply
    spec = f"{fake_server.base_url}#tiny"
    card, out = tmp_path / "card", tmp_path / "out"
    common = ("--judge", spec, "--level", "dialogue")
    code, printed = called(capsys, "evaluate", "calibrate-judge", *common, "--labels-dir", tmp_path / "data", "--out", card)
    assert code == 0
    (overall,) = [a for a in read_card(card).agreements if (a.scorer, a.aspect, a.level) == (spec, "overall", "dialogue")]
    assert (overall.spearman, overall.n) == (1.0, 10)
    code, printed = called(capsys, "evaluate", "judge", run_of_two, *common, "--calibration", card, "--out", out)
    assert code == 0
    assert f"agreement of {spec} with people" in printed
    with pytest.raises(InputError, match="not of"):
        load_judge(f"{fake_server.base_url}#other", calibration=read_card(card))


def test_two_runs_are_compared_on_the_scenarios_they_share(
    run_of_two: Path, fake_server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Run.create(tmp_path / "other", {"user": "agenda", "recommender": "rival"})
    other.append(dialogue(scenario(source_id="1")))
    fake_server.reply_text = lambda body: all_criteria("tie")
    words = ["evaluate", "judge-pairs", run_of_two, other.path, "--judge", f"{fake_server.base_url}#tiny"]
    code, printed = called(capsys, *words, "--out", tmp_path / "out")
    assert code == 0
    assert "1 conversations have no partner" in printed
    rows = {r.metric: r for r in Run.read(tmp_path / "out").scores()}
    assert (rows["judge.pairs.consistency.tie_rate"].value, rows["judge.pairs.consistency.tie_rate"].n) == (1, 1)
    assert rows["judge.pairs.consistency.tie_rate"].subject == "bot against rival"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["judge", "EMPTY", "--judge", "learned:JUDGE"], "conversation"),
        (["judge", "RUN", "--judge", "learned:nowhere"], "card.json"),
        (["judge", "RUN", "--judge", "some-model"], "accepted: learned:PATH"),
        (["judge", "RUN", "--judge", "http://127.0.0.1:9/v1#m"], "no server answers"),
        (["judge", "RUN", "--judge", "learned:JUDGE", "--level", "turn"], "leave out --level"),
        (["judge-pairs", "RUN", "--judge", "http://127.0.0.1:9/v1#m"], "two Runs"),
        (["judge-pairs", "RUN", "RUN", "--judge", "learned:JUDGE"], "single conversations"),
        (["train-judge", "--labels-dir", "nowhere"], "does not exist"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, run_of_two: Path, judge_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = Run.create(tmp_path / "empty", {}).path
    write_records(empty / "dialogues.jsonl", [])
    places = {"EMPTY": str(empty), "RUN": str(run_of_two), "learned:JUDGE": f"learned:{judge_path}"}
    code, printed = called(capsys, "evaluate", *(places.get(w, w) for w in words), "--out", tmp_path / "out")
    assert code == 1
    assert said in printed
    assert len(printed.strip().splitlines()) == 1


# ---- a chat model in this process ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = train_tokenizer([GOOD, "user assistant : hello"], vocab_size=300)
    made.add_special_tokens({"eos_token": "</s>"})
    return made


def test_a_chat_model_in_this_process_is_asked_in_its_own_template(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    answer = (*tokenizer.encode(GOOD, add_special_tokens=False), tokenizer.eos_token_id, 5)
    backend = ScriptedBackend(lambda request: answer)
    verdict = asyncio.run(LlmJudge(LocalChat(backend, tokenizer), "chat:tiny").judge(TALK, seed=0))
    assert verdict.scores["overall"] == 4
    prompt = str(tokenizer.decode([i for i in backend.requests[0].prompt if isinstance(i, int)]))
    assert prompt.startswith("user: You grade")
    assert prompt.endswith("assistant:")
    assert backend.requests[0].grammar is None


def test_a_model_without_a_chat_template_is_no_judge_in_this_process(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = None
    with pytest.raises(CheckpointError, match="chat template"):
        LocalChat(ScriptedBackend(lambda request: ""), tokenizer)


# ---- real labels -----------------------------------------------------------------------------------------------------


def test_the_reported_agreement_with_crs_arena_holds(shared_data: Path) -> None:
    labels = read_labels("crs-arena", shared_data)
    judge = LearnedJudge.fit("learned", labels, num_folds=3, num_resamples=0)
    reported: Sequence[tuple[str, str, str, float]] = (
        (BY_PERSON, "overall", "dialogue", 0.62),
        (BY_PERSON, "overall", "system", 0.92),
        (BY_PERSON, "relevance", "turn", 0.59),
        (BY_SYSTEM, "overall", "dialogue", 0.54),
        (BY_SYSTEM, "overall", "system", 0.78),
        (BY_SYSTEM, "relevance", "turn", 0.53),
    )
    for scheme, aspect, level, value in reported:
        assert own(judge, scheme, aspect, level) == pytest.approx(value, abs=0.06)
    assert len(judge.card.trained_texts) == len({text_hash(r.talk) for r in labels.talks})
