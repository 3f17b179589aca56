"""Protocols of evaluation, played with a small agent whose every decision is a function of what it sees."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.errors import BackendError, ContextOverflow, DataError, FormatError
from interplay.evaluation.asking import in_order
from interplay.evaluation.exposure import exposure_rows, gold_rank_rows
from interplay.evaluation.leak_scores import leak_rows
from interplay.evaluation.lists import title_list_rows
from interplay.evaluation.multiturn import multiturn_rows
from interplay.evaluation.ranking import ranking_rows
from interplay.evaluation.recommendation import gold_turn, recommend_at_gold_turn
from interplay.evaluation.replay import ReplayOutcome, replay, shuffled_attributes
from interplay.evaluation.scoring import (
    METRICS,
    About,
    data_digest,
    recommendation_rows,
    replay_rows,
    retry_rows,
    simulation_rows,
)
from interplay.evaluation.simulation import count_endings, summarise
from interplay.evaluation.turn_scores import turn_rows
from interplay.evaluation.turns import predict_turns
from interplay.metrics.replay import Outcome
from interplay.types import (
    DOMAINS,
    Action,
    Catalog,
    Dialogue,
    Ending,
    Item,
    Mention,
    Persona,
    Role,
    Scenario,
    ScoreRow,
    Split,
    Target,
    Turn,
    View,
)

USER, REC = Role.USER, Role.RECOMMENDER
ABOUT = About(subject="fake", split="test", seed=5, data_digest="d")
IDS = {"Heat (1995)": "m1", "Ronin (1998)": "m2", "Alien (1979)": "m3"}
CATALOG = Catalog(
    [
        Item(id="m1", title="Heat", year=1995, attributes={"genre": ("crime", "drama")}),
        Item(id="m2", title="Ronin", year=1998, attributes={"genre": ("action",)}),
        Item(id="m3", title="Alien", year=1979, attributes={"genre": ("horror",)}),
    ],
    DOMAINS["movie"],
)

Decide = Callable[[View], Turn]


def turn(role: Role, action: Action, text: str, *titles: str) -> Turn:
    places = [(text.index(title), title) for title in titles]
    mentions = tuple(Mention(start=p, end=p + len(t), item_id=IDS.get(t)) for p, t in places)
    return Turn(role=role, action=action, text=text, items=mentions)


def offer(*titles: str) -> Turn:
    return turn(REC, Action.RECOMMEND, f"How about {' or '.join(titles)}?", *titles)


HELLO = turn(REC, Action.GREETING, "Hello, what are you looking for?")
ASK = turn(USER, Action.DISCLOSE_GOAL, "Something tense please.")
NO = turn(USER, Action.FEEDBACK, "No, not that one today.")
YES = turn(USER, Action.ACCEPT, "Yes, I take it!")
BYE = turn(USER, Action.GIVE_UP, "Forget about it.")


class FakeSpeaker:
    def __init__(self, agent: "FakeAgent", view: View) -> None:
        self.agent, self.view = agent, view

    async def speak(self) -> Turn:
        await asyncio.sleep(0.001 * (self.agent.calls % 3))
        self.agent.calls += 1
        said = self.agent.decide(self.view)
        self.view = self.view.after(said)
        return said

    def hear(self, turn: Turn) -> None:
        self.view = self.view.after(turn)

    def end(self) -> None:
        self.agent.open -= 1


class FakeAgent:
    """Decides each turn from the View so far; counts what it is asked and what is under way."""

    name = "fake"

    def __init__(self, role: Role, decide: Decide) -> None:
        self.role, self.decide = role, decide
        self.calls = self.open = self.most_open = 0
        self.sessions: list[str] = []
        self.seeds: list[int] = []

    def begin(self, view: View, seed: int, session: str) -> FakeSpeaker:
        assert view.role is self.role
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.sessions.append(session)
        self.seeds.append(seed)
        return FakeSpeaker(self, view)


def user(decide: Decide) -> FakeAgent:
    return FakeAgent(USER, decide)


def accepts(title: str) -> Decide:
    """Accepts once the recommender's latest turn names the title."""
    return lambda view: YES if view.turns and title in view.turns[-1].titles else NO


def fails(error: Exception) -> Decide:
    def decide(view: View) -> Turn:
        raise error

    return decide


def scenario(name: str = "a", attributes: Sequence[str] = ("crime",), target: str | None = "Heat (1995)") -> Scenario:
    targets = () if target is None else (Target(item_id=IDS[target], title=target),)
    return Scenario(
        corpus="made",
        domain="movie",
        split=Split.TEST,
        source_id=name,
        persona=Persona(target_attributes=tuple(attributes)),
        targets=targets,
    )


def pair(*turns: Turn, name: str = "a", target: str | None = "Heat (1995)") -> tuple[Scenario, Dialogue]:
    start = scenario(name, target=target)
    log = Dialogue(
        scenario_key=start.key,
        corpus="made",
        domain="movie",
        user="human",
        recommender="human",
        turns=turns,
        ending=Ending.ACCEPTED,
    )
    return start, log


GOLD_LAST = (HELLO, ASK, offer("Ronin (1998)"), NO, offer("Heat (1995)"), YES)


def play(log: tuple[Scenario, Dialogue], agent: FakeAgent, **options: str) -> tuple[Dialogue, ReplayOutcome]:
    dialogues, outcomes = asyncio.run(replay([log], agent, seed=1, **options))  # type: ignore[arg-type]  # history
    return dialogues[0], outcomes[0]


def test_accepting_the_gold_item_is_a_success_and_ends_the_replay() -> None:
    dialogue, outcome = play(pair(*GOLD_LAST, offer("Alien (1979)")), user(accepts("Heat (1995)")))
    assert (outcome.outcome, outcome.accepted) == (Outcome.SUCCESS, ("Heat (1995)",))
    assert (dialogue.ending, len(dialogue.turns), dialogue.recommender) == (Ending.ACCEPTED, 6, "human")
    assert [(d.turn, d.item_ids, d.holds_target, d.accepted) for d in outcome.decisions] == [
        (3, ("m2",), False, False),
        (5, ("m1",), True, True),
    ]


def test_accepting_before_the_gold_item_is_early_termination() -> None:
    dialogue, outcome = play(pair(*GOLD_LAST), user(accepts("Ronin (1998)")))
    assert (outcome.outcome, outcome.accepted) == (Outcome.EARLY_TERMINATION, ("Ronin (1998)",))
    assert len(dialogue.turns) == 4


def test_accepting_another_item_after_the_gold_one_is_early_termination() -> None:
    log = pair(HELLO, ASK, offer("Heat (1995)"), NO, offer("Alien (1979)"), YES)
    assert play(log, user(accepts("Alien (1979)")))[1].outcome is Outcome.EARLY_TERMINATION


def test_going_back_to_the_gold_item_by_name_is_a_success() -> None:
    back = turn(USER, Action.ACCEPT, "Then Heat (1995) after all.", "Heat (1995)")
    log = pair(HELLO, ASK, offer("Heat (1995)"), NO, offer("Alien (1979)"), YES)
    agent = user(lambda view: back if "Alien (1979)" in view.turns[-1].titles else NO)
    assert play(log, agent)[1].outcome is Outcome.SUCCESS


def test_accepting_when_nothing_was_recommended_is_early_termination_without_an_item() -> None:
    _, outcome = play(pair(*GOLD_LAST), user(lambda view: YES))
    assert (outcome.outcome, outcome.accepted, outcome.decisions) == (Outcome.EARLY_TERMINATION, (), ())


def test_giving_up_is_a_failure() -> None:
    dialogue, outcome = play(pair(*GOLD_LAST), user(lambda view: BYE))
    assert (outcome.outcome, dialogue.ending) == (Outcome.FAILURE, Ending.GAVE_UP)


def test_rejecting_everything_is_a_failure_at_the_end_of_the_log() -> None:
    dialogue, outcome = play(pair(*GOLD_LAST), user(lambda view: NO))
    assert (outcome.outcome, dialogue.ending, len(dialogue.turns)) == (Outcome.FAILURE, Ending.TURN_LIMIT, 6)


def test_a_log_that_the_user_opens_lets_the_simulator_speak_first() -> None:
    agent = user(lambda view: accepts("Heat (1995)")(view) if view.turns else ASK)
    dialogue, outcome = play(pair(ASK, offer("Heat (1995)"), YES), agent)
    assert (dialogue.turns[0], outcome.outcome) == (ASK, Outcome.SUCCESS)


def test_the_simulators_own_turns_are_its_history_and_the_log_only_on_request() -> None:
    seen: list[tuple[str, ...]] = []

    def note(view: View) -> Turn:
        seen.append(tuple(t.text for t in view.turns if t.role is USER))
        return NO

    play(pair(*GOLD_LAST), user(note))
    assert seen == [(), (NO.text,), (NO.text, NO.text)]
    seen.clear()
    agent = user(note)
    dialogue, _ = play(pair(*GOLD_LAST), agent, history="logged")
    assert seen == [(), (ASK.text,), (ASK.text, NO.text)]
    assert [t.text for t in dialogue.turns if t.role is USER] == [NO.text] * 3
    assert len(set(agent.sessions)) == 3
    assert agent.open == 0


def test_unreadable_output_is_a_failure_and_faults_are_skipped() -> None:
    errors = [FormatError("no-action", "??"), BackendError("gone"), ContextOverflow("too long")]
    results = [play(pair(*GOLD_LAST), user(fails(error))) for error in errors]
    assert [o.outcome for _, o in results] == [Outcome.FORMAT_FAILURE, None, None]
    assert [o.skipped for _, o in results] == [None, "backend", "context"]
    assert [d.ending for d, _ in results] == [Ending.FORMAT_FAILURE, Ending.BACKEND_FAILURE, Ending.CONTEXT_OVERFLOW]
    values = {row.metric: row for row in replay_rows([o for _, o in results], ABOUT)}
    assert values["replay.failure_rate"].value == values["replay.format_failure_rate"].value == 1.0
    assert (values["replay.failure_rate"].n, values["replay.failure_rate"].num_skipped) == (1, 2)


def test_pairs_that_no_user_could_succeed_in_are_skipped_and_counted() -> None:
    pairs = [
        pair(*GOLD_LAST, name="a"),
        pair(*GOLD_LAST, name="b", target=None),
        pair(HELLO, ASK, offer("Ronin (1998)"), NO, name="c"),
        pair(HELLO, ASK, offer("Heat (1995)"), name="d"),  # no user turn follows
    ]
    dialogues, outcomes = asyncio.run(replay(pairs, user(accepts("Heat (1995)")), seed=1))
    assert [o.skipped for o in outcomes] == [None, "no target", "target never recommended", "target never recommended"]
    assert [d.scenario_key for d in dialogues] == [pairs[0][0].key]
    row = replay_rows(outcomes, ABOUT)[0]
    assert (row.metric, row.value, row.n, row.num_skipped) == ("replay.success_rate", 1.0, 1, 3)


def test_order_and_concurrency_do_not_change_the_results() -> None:
    pairs = [pair(*GOLD_LAST, name=str(i), target=("Heat (1995)", "Ronin (1998)")[i % 2]) for i in range(20)]
    agents = [user(accepts("Heat (1995)")) for _ in range(2)]
    progress: list[tuple[int, int]] = []
    one = asyncio.run(replay(pairs, agents[0], seed=1, concurrency=1, on_progress=lambda d, n: progress.append((d, n))))
    many = asyncio.run(replay(pairs, agents[1], seed=1, concurrency=7))
    assert one == many
    assert (agents[0].most_open, agents[1].most_open) == (1, 7)
    assert progress == [(i, 20) for i in range(1, 21)]
    assert len(set(agents[0].seeds)) == 20


def test_conditions_are_played_on_the_same_seeds() -> None:
    pairs = [pair(*GOLD_LAST, name=str(i)) for i in range(3)]
    changed = [(s, log) for s, (_, log) in zip(shuffled_attributes(made_scenarios(), 0), pairs, strict=True)]
    agents = [user(lambda view: NO) for _ in range(2)]
    asyncio.run(replay(pairs, agents[0], seed=1))
    asyncio.run(replay(changed, agents[1], seed=1, condition="shuffled-attributes"))
    assert agents[0].seeds == agents[1].seeds


def made_scenarios() -> list[Scenario]:
    return [scenario(str(i), attributes=(a,)) for i, a in enumerate(["crime", "war", "funny"])]


@given(st.lists(st.sampled_from(["crime", "war", "funny", "tense", "1990s"]), min_size=2, max_size=12, unique=True))
def test_shuffling_leaves_nobody_their_own_attributes_and_loses_none(attributes: list[str]) -> None:
    scenarios = [scenario(str(i), attributes=(a,)) for i, a in enumerate(attributes)]
    shuffled = shuffled_attributes(scenarios, seed=3)
    got = [s.persona.target_attributes for s in shuffled]
    assert all(new != s.persona.target_attributes for new, s in zip(got, scenarios, strict=True))
    assert sorted(got) == sorted(s.persona.target_attributes for s in scenarios)
    assert shuffled_attributes(scenarios, seed=3) == shuffled
    assert [s.targets for s in shuffled] == [s.targets for s in scenarios]


def test_shuffling_separates_equal_attributes_where_it_can() -> None:
    scenarios = [scenario(str(i), attributes=("crime",) if i < 10 else ("war",)) for i in range(20)]
    shuffled = shuffled_attributes(scenarios, seed=0)
    assert all(a.persona.target_attributes != b.persona.target_attributes for a, b in zip(scenarios, shuffled, strict=True))


def test_shuffling_takes_out_what_names_the_receivers_target() -> None:
    given_ = [
        scenario("a", attributes=("crime",), target="Heat (1995)"),
        scenario("b", attributes=("like Heat (1995)", "tense"), target="Alien (1979)"),
        scenario("c", attributes=()),
    ]
    first, second, third = shuffled_attributes(given_, seed=0)
    assert first.persona.target_attributes == ("tense",)
    assert second.persona.target_attributes == ("crime",)
    assert third == given_[2]


def test_shuffling_a_single_scenario_is_refused() -> None:
    with pytest.raises(DataError, match="at least 2"):
        shuffled_attributes([scenario()], seed=0)


def test_single_turns_are_spoken_on_the_logged_history() -> None:
    seen: list[int] = []

    def decide(view: View) -> Turn:
        seen.append(len(view.turns))
        return NO

    agent = user(decide)
    predictions = asyncio.run(predict_turns([pair(*GOLD_LAST)], agent, seed=0, concurrency=1))
    assert (seen, [p.index for p in predictions]) == ([1, 3, 5], [1, 3, 5])
    assert [p.logged for p in predictions] == [ASK, NO, YES]
    assert agent.open == 0
    rows = {(row.metric, row.subject): row for row in turn_rows(predictions, ABOUT)}
    assert rows["turns.action_accuracy", "fake"].value == pytest.approx(1 / 3)
    assert rows["turns.words_per_turn", "fake"].value == 5.0
    assert rows["turns.words_per_turn", "human"].value == pytest.approx((3 + 5 + 4) / 3)
    assert rows["turns.dist_4", "fake"].value == pytest.approx(1 / 3)  # 2 distinct 4-grams of 6
    assert rows["turns.dist_4", "human"].value == 1.0
    assert rows["turns.format_failure_rate", "fake"].value == 0.0


def test_an_unreadable_turn_is_a_missed_action_and_a_fault_is_skipped() -> None:
    def decide(view: View) -> Turn:
        if len(view.turns) == 1:
            raise FormatError("no-action", "?")
        if len(view.turns) == 3:
            raise BackendError("gone")
        return YES

    predictions = asyncio.run(predict_turns([pair(*GOLD_LAST)], user(decide), seed=0))
    rows = {(row.metric, row.subject): row for row in turn_rows(predictions, ABOUT)}
    accuracy, words = rows["turns.action_accuracy", "fake"], rows["turns.words_per_turn", "human"]
    assert (accuracy.value, accuracy.n, accuracy.num_skipped) == (0.5, 2, 1)
    assert (words.value, words.n, words.num_skipped) == (4.0, 1, 2)
    assert rows["turns.format_failure_rate", "fake"].value == 0.5


def test_a_sample_of_turns_is_drawn_by_the_seed_and_kept_in_order() -> None:
    pairs = [pair(*GOLD_LAST, name=str(i)) for i in range(10)]

    def sample(seed: int) -> list[tuple[str, int]]:
        predictions = asyncio.run(predict_turns(pairs, user(lambda view: NO), seed=seed, max_turns=7))
        return [(p.scenario_key, p.index) for p in predictions]

    everything = [(s.key, i) for s, _ in pairs for i in (1, 3, 5)]
    assert len(sample(0)) == 7
    assert sample(0) == sample(0) != sample(1)
    assert [place for place in everything if place in sample(0)] == sample(0)


def test_the_recommender_is_scored_at_the_turn_that_first_names_the_target() -> None:
    views: list[View] = []

    def decide(view: View) -> Turn:
        views.append(view)
        return offer("Heat (1995)", "Nowhere Film")

    pairs = [
        pair(*GOLD_LAST, name="a"),
        pair(HELLO, turn(USER, Action.CHAT, "I want to see heat (1995) again."), offer("Heat (1995)"), name="b"),
        pair(*GOLD_LAST, name="c", target=None),
        pair(HELLO, ASK, offer("Ronin (1998)"), NO, name="d"),
        pair(*GOLD_LAST, name="e", target="Ronin (1998)"),
    ]
    assert [gold_turn(*p) for p in pairs] == [
        4,
        "named by the user before",
        "no target",
        "target never recommended",
        2,
    ]
    gold = asyncio.run(recommend_at_gold_turn(pairs, FakeAgent(REC, decide), seed=0))
    assert [len(v.turns) for v in views] == [4, 2]
    assert all(v.target_attributes == () for v in views)
    assert [g.rank for g in gold] == [1, None, None, None, None]
    rows = {row.metric: row for row in recommendation_rows(gold, ABOUT, catalog=CATALOG)}
    recall = rows["recommendation.recall@1"]
    assert (recall.value, recall.n, recall.num_skipped) == (0.5, 2, 3)
    assert rows["recommendation.off_catalog_rate"].value == 0.5
    assert rows["recommendation.no_item_rate"].value == 0.0


def test_naming_the_target_second_or_nothing_at_all_is_a_miss() -> None:
    answers = iter([offer("Alien (1979)", "Heat (1995)"), HELLO])
    agent = FakeAgent(REC, lambda view: next(answers))
    pairs = [pair(*GOLD_LAST, name=str(i)) for i in range(3)]

    def decide(view: View) -> Turn:
        try:
            return next(answers)
        except StopIteration:
            raise FormatError("cut-off", "How ab") from None

    agent.decide = decide
    gold = asyncio.run(recommend_at_gold_turn(pairs, agent, seed=0, concurrency=1))
    assert [g.rank for g in gold] == [2, None, None]
    rows = {row.metric: row.value for row in recommendation_rows(gold, ABOUT)}
    assert rows["recommendation.recall@1"] == 0.0
    assert rows["recommendation.no_item_rate"] == pytest.approx(2 / 3)
    assert rows["recommendation.format_failure_rate"] == pytest.approx(1 / 3)


def simulated(ending: Ending, *turns: Turn, start: Scenario, sample: int = 0) -> Dialogue:
    return Dialogue(
        scenario_key=start.key,
        sample=sample,
        corpus="made",
        domain="movie",
        user="u",
        recommender="r",
        seed=1,
        turns=turns,
        ending=ending,
    )


def test_the_summary_of_a_run_counts_endings_lengths_and_met_goals() -> None:
    crime = scenario("a", attributes=("Crime", "1990s"))
    odd = scenario("b", attributes=("a phrase no item has",))
    dialogues = [
        simulated(Ending.ACCEPTED, HELLO, ASK, offer("Heat (1995)"), YES, start=crime),
        simulated(Ending.ACCEPTED, HELLO, ASK, offer("Alien (1979)"), YES, start=crime, sample=1),
        simulated(Ending.ACCEPTED, HELLO, ASK, offer("Alien (1979)"), YES, start=odd),
        simulated(Ending.GAVE_UP, offer("Nowhere Film"), BYE, start=crime, sample=2),
        simulated(Ending.BACKEND_FAILURE, HELLO, start=crime, sample=3),
    ]
    summary = summarise(dialogues, [crime, odd], CATALOG)
    rows = {row.metric: row for row in simulation_rows(summary, ABOUT)}
    accept = rows["simulation.accept_rate"]
    assert (accept.value, accept.n, accept.num_skipped) == (0.75, 4, 1)
    assert rows["simulation.give_up_rate"].value == 0.25
    goal = rows["simulation.goal_satisfaction"]
    assert (goal.value, goal.n, goal.num_skipped) == (0.5, 2, 1)
    assert rows["simulation.turns_per_dialogue"].value == 3.5
    off = rows["simulation.off_catalog_rate"]
    assert (off.value, off.n) == (0.25, 4)
    assert rows["simulation.user_words_per_turn"].value == pytest.approx((3 * 7 + 3) / 7)
    assert count_endings(dialogues)[Ending.ACCEPTED] == 3
    shares = [r.value for m, r in rows.items() if m.endswith(("accept_rate", "give_up_rate", "limit_rate", "loop_rate"))]
    assert sum(v for v in shares if v is not None) == 1.0


def test_goal_satisfaction_is_none_where_the_catalog_has_no_attributes() -> None:
    bare = Catalog([Item(id="m1", title="Heat", year=1995)], DOMAINS["movie"])
    dialogues = [simulated(Ending.ACCEPTED, offer("Heat (1995)"), YES, start=scenario())]
    for catalog in (bare, None):
        rows = {r.metric: r for r in simulation_rows(summarise(dialogues, [scenario()], catalog), ABOUT)}
        assert (rows["simulation.goal_satisfaction"].value, rows["simulation.goal_satisfaction"].num_skipped) == (None, 1)


def all_rows_of_nothing() -> list[ScoreRow]:
    return [
        *replay_rows([], ABOUT),
        *turn_rows([], ABOUT),
        *recommendation_rows([], ABOUT),
        *simulation_rows(summarise([]), ABOUT),
        *ranking_rows([], ["popularity"], ABOUT),
        *title_list_rows([], CATALOG, ABOUT),
        *leak_rows([], ABOUT),
        *multiturn_rows([], 0, ABOUT),
        *gold_rank_rows([], [], ABOUT, catalog=CATALOG),
        *exposure_rows("recommendation", [], None, 3, ABOUT),
        *exposure_rows("simulation", [], None, 3, ABOUT),
        *exposure_rows("ranking", [], None, 3, ABOUT, suffix="@10"),
    ]


def test_every_score_of_nothing_is_none() -> None:
    rows = all_rows_of_nothing()
    assert {row.value for row in rows} == {row.low for row in rows} == {None}
    assert {row.n for row in rows} == {0}


def test_every_score_is_defined_in_one_line() -> None:
    optional = {"turns.bert_score", "turns.confusion", "recommendation.match_score", "simulation.match_score"}
    optional |= {"replay.stand_in_rate", "replay.difference", "replay.accept_rate"}
    optional |= {"ranking.readable", "ranking.list_valid", "ranking.wishes_met"}
    written_where_there_is_something = optional | {
        metric
        for metric in METRICS
        if metric.endswith((".format_retries", ".faults", ".noisy_turns"))
        or metric.startswith(("turns.end_", "recommendation.list_", "recommendation.candidates_"))
    }
    written = {row.metric for row in all_rows_of_nothing()}
    families = {metric.split(".")[0] for metric in written}
    defined = {metric for metric in METRICS if metric.split(".")[0] in families}
    assert written | (written_where_there_is_something & defined) == defined
    assert all(line and "\n" not in line for line in METRICS.values())


def test_the_digest_of_the_data_depends_on_the_scenarios_and_their_order() -> None:
    a, b = scenario("a"), scenario("b")
    assert data_digest([a, b]) == data_digest([a, b]) != data_digest([b, a])


def test_rows_carry_what_they_are_about() -> None:
    about = replace(ABOUT, condition="shuffled-attributes", simulator="s")
    row = replay_rows([ReplayOutcome("k", Outcome.SUCCESS)], about)[0]
    assert (row.subject, row.condition, row.simulator, row.seed, row.split) == ("fake", "shuffled-attributes", "s", 5, "test")


def test_an_error_that_is_no_fault_of_a_model_comes_out_as_itself() -> None:
    async def do(job: int) -> int:
        if job == 2:
            raise KeyError("a bug")
        return job

    with pytest.raises(KeyError, match="a bug"):
        asyncio.run(in_order(range(4), do))


def test_answers_asked_for_again_have_a_row_of_their_own_only_where_there_were_any() -> None:
    (row,) = retry_rows("simulation", {"cut-off": 2, "no-action": 1}, ABOUT, num_units=10, num_skipped=4, subject="model")
    assert (row.metric, row.value, row.low, row.n, row.num_skipped) == ("simulation.format_retries", 3.0, None, 10, 4)
    assert row.subject == "model"
    assert retry_rows("simulation", {}, ABOUT, num_units=10) == []
