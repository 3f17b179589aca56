"""Reward terms by hand-made conversations, their weighted sum, their config, futures, and the page that describes them."""

import doctest
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.config import Config, RewardSpec, RewardWeights, parse_config
from interplay.errors import ConfigError
from interplay.training.rewards import futures, judges, scoring, terms
from interplay.training.rewards.futures import multiturn_aware
from interplay.training.rewards.judges import PolicyDiscriminator, WordDiscriminator, goal_by_rules
from interplay.training.rewards.rollouts import Answer, Rollout
from interplay.training.rewards.scoring import Judges, Rewards, Scored, summarise
from interplay.training.rewards.terms import (
    TERMS,
    GoalPart,
    acceptance_reward,
    catalog_validity,
    format_reward,
    gain_from_rank,
    goal_alignment,
    list_relevance,
    preference_reward,
    rank_reward,
    realism,
    recommend_gain,
    recommend_reward,
    repetition,
    satisfaction_reward,
    sociability,
    success_reward,
    turn_cost,
    turned_down,
)
from interplay.types import Action, Ending, Failure, Item, Role, Turn
from makers import ALIEN, CATALOG, HEAT, TALK, UP, dialogue, recommender, scenario, user

PAGE = Path(__file__).parent.parent / "docs" / "rewards.md"
GHOST = Item(id="ghost", title="A Film That Is Not There", year=1901)
GIVES_UP = (*TALK[:4], recommender(Action.INQUIRE, "What then?"), user(Action.GIVE_UP, "never mind"))


def rollout(
    turns: tuple[Turn, ...] = TALK,
    *,
    ending: Ending | None = Ending.ACCEPTED,
    target: Item | None = HEAT,
    answers: tuple[Answer, ...] | None = None,
    failed: Role | None = None,
    role: Role = Role.RECOMMENDER,
    attributes: tuple[str, ...] = ("crime", "1990s"),
) -> Rollout:
    start = scenario(target, attributes=attributes)
    held = dialogue(start, turns, ending=ending)
    if failed is not None:
        held = held.model_copy(update={"failure": Failure(boundary="format", role=failed, reason="no-action")})
    return Rollout(start, held, CATALOG, role=role, answers=answers)


def answer(*ranking: Item, preferences: tuple[str, ...] = (), candidates: tuple[Item, ...] | None = None) -> Answer:
    return Answer(
        tuple(item.label for item in ranking), preferences, None if candidates is None else tuple(i.title for i in candidates)
    )


UNREADABLE = rollout(TALK[:4], ending=Ending.FORMAT_FAILURE, failed=Role.RECOMMENDER)
"""Two readable steps and a third that was not."""
USER_UNREADABLE = rollout(TALK[:5], ending=Ending.FORMAT_FAILURE, failed=Role.USER)


@pytest.mark.parametrize("module", [terms, futures, judges, scoring])
def test_the_examples_in_the_docstrings_are_right(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


# ---- steps -----------------------------------------------------------------------------------------------------------


def test_an_answer_that_could_not_be_read_is_a_step_of_whoever_gave_it() -> None:
    assert [step.place for step in rollout().steps] == [0, 2, 4]
    assert [step.turn is None for step in UNREADABLE.steps] == [False, False, True]
    assert len(USER_UNREADABLE.steps) == 3
    assert len(replace(USER_UNREADABLE, role=Role.USER).steps) == 3  # two that were read, one that was not


def test_a_rollout_refuses_the_dialogue_of_another_scenario_and_a_wrong_number_of_answers() -> None:
    with pytest.raises(ValueError, match="is of scenario"):
        Rollout(scenario(UP), dialogue(scenario(HEAT)), CATALOG)
    with pytest.raises(ValueError, match="1 answers were given for 3 steps of the recommender"):
        rollout(answers=(Answer(),))


# ---- terms -----------------------------------------------------------------------------------------------------------


def test_format_of_a_plain_policy_is_whether_it_could_be_read() -> None:
    assert format_reward(rollout()) == (1, 1, 1)
    assert format_reward(UNREADABLE) == (1, 1, 0)


@pytest.mark.parametrize(
    ("given_answer", "value"),
    [
        (answer(UP, HEAT), 1),
        (answer(UP, HEAT, candidates=(HEAT, UP, ALIEN)), 1),
        (answer(UP, HEAT, candidates=(HEAT, ALIEN)), 0),
        (answer(UP, UP), 0),
        (answer(UP), 0),
        (answer(UP, HEAT, ALIEN), 0),
        (Answer(ranking=("Up", "Heat"), preferences=None), 0),
        (Answer(ranking=None, preferences=()), 0),
        (Answer(ranking=("Up", "up (2010)"), preferences=()), 0),  # one item in two spellings
    ],
)
def test_format_of_a_policy_that_reasons_wants_a_full_list_of_distinct_candidates(given_answer: Answer, value: int) -> None:
    assert format_reward(rollout(TALK[:1], ending=None, answers=(given_answer,)), list_length=2) == (value,)


def test_recommend_is_the_discounted_rank_of_the_target_and_none_where_nothing_is_shown() -> None:
    assert recommend_reward(rollout()) == (None, 0, 1)
    both = (recommender(Action.RECOMMEND, UP, ", ", UP, " or ", HEAT),)
    assert recommend_reward(rollout(both, ending=None)) == pytest.approx((rank_reward(2),))
    assert recommend_reward(rollout(target=None)) == (None, None, None)


def test_recommend_of_a_policy_that_reasons_reads_its_list_where_repeated_titles_keep_their_places() -> None:
    answers = (answer(UP, UP, HEAT), answer(ALIEN), Answer())
    assert recommend_reward(rollout(answers=answers)) == (0.5, 0, 0)


def test_recommend_of_an_unreadable_answer_is_zero() -> None:
    assert recommend_reward(UNREADABLE) == (None, 0, 0)


def test_recommend_gain_sums_to_the_last_lists_reward() -> None:
    answers = (answer(UP, HEAT), answer(HEAT), answer(UP, ALIEN, HEAT))
    found = recommend_gain(rollout(answers=answers))
    assert found == pytest.approx((rank_reward(2), 1 - rank_reward(2), -0.5))
    assert sum(v for v in found if v is not None) == pytest.approx(0.5)
    assert recommend_gain(rollout()) == (None, 0, 1)


def test_preference_is_the_f1_of_what_was_inferred_and_what_the_target_has() -> None:
    # Heat has crime, thriller and 1990s
    answers = (answer(preferences=("Crime", "funny")), answer(preferences=("crime", "thriller", "1990s")), Answer())
    assert preference_reward(rollout(answers=answers)) == pytest.approx((0.4, 1, 0))
    assert preference_reward(rollout(answers=answers), ["decade"]) == pytest.approx((0, 0.5, 0))
    assert preference_reward(rollout(answers=answers), ["mood"]) == (None, None, None)


def test_preference_is_not_defined_without_reasoning_or_target() -> None:
    assert preference_reward(rollout()) == (None, None, None)
    assert preference_reward(rollout(target=None, answers=(Answer(),) * 3)) == (None, None, None)


def test_acceptance_and_success_tell_a_target_from_anything_accepted() -> None:
    assert acceptance_reward(rollout()) == success_reward(rollout()) == (None, None, 1)
    assert acceptance_reward(rollout(target=UP)) == (None, None, 1)
    assert success_reward(rollout(target=UP)) == (None, None, 0)
    assert success_reward(rollout(target=None)) == (None, None, None)


def test_an_accept_with_nothing_on_the_table_is_worth_nothing() -> None:
    begged = (recommender(Action.CHAT, "please accept!"), user(Action.ACCEPT, "ok, I accept"))
    assert acceptance_reward(rollout(begged)) == success_reward(rollout(begged)) == (0,)


@pytest.mark.parametrize(
    ("held", "value"),
    [
        (rollout(GIVES_UP, ending=Ending.GAVE_UP), 0),
        (rollout(TALK[:4], ending=Ending.TURN_LIMIT), 0),
        (rollout(TALK[:4], ending=Ending.LOOP), 0),
        (UNREADABLE, 0),
        (USER_UNREADABLE, None),
        (rollout(TALK[:4], ending=None), None),
        (rollout(TALK[:4], ending=Ending.BACKEND_FAILURE), None),
    ],
)
def test_acceptance_is_none_where_nobody_can_tell(held: Rollout, value: float | None) -> None:
    assert acceptance_reward(held)[-1] == success_reward(held)[-1] == value


def test_satisfaction_is_the_share_of_the_wishes_that_the_accepted_item_has() -> None:
    assert satisfaction_reward(rollout()) == (None, None, 1)
    assert satisfaction_reward(rollout(attributes=("crime", "2000s", "war"))) == pytest.approx((None, None, 1 / 3), nan_ok=True)
    assert satisfaction_reward(rollout(GIVES_UP, ending=Ending.GAVE_UP))[-1] == 0
    assert satisfaction_reward(rollout(attributes=())) == (None, None, None)


def test_an_offer_that_is_not_accepted_costs_and_a_question_does_not() -> None:
    assert turned_down(rollout()) == (None, -1, 0)
    assert turned_down(rollout(TALK[:5], ending=Ending.TURN_LIMIT)) == (None, -1, None)


def test_turn_cost_of_a_full_talk_is_one() -> None:
    assert turn_cost(rollout()) == pytest.approx((-0.1, -0.1, -0.1))
    assert sum(v or 0 for v in turn_cost(replace(rollout(), max_turns=5))) == pytest.approx(-1)


def test_catalog_validity_is_the_share_of_titles_that_exist() -> None:
    turns = (recommender(Action.RECOMMEND, "Try ", HEAT, " or ", GHOST), user(Action.FEEDBACK, "no"))
    assert catalog_validity(rollout(turns, ending=None)) == (0.5,)
    assert catalog_validity(rollout()) == (None, 1, 1)
    assert catalog_validity(rollout(answers=(answer(GHOST, GHOST, UP, HEAT), Answer(), answer(UP)))) == (0.5, None, 1)


def test_repetition_is_dear_within_a_turn_and_across_turns() -> None:
    turns = (
        recommender(Action.CHAT, "so good so good so good"),
        user(Action.CHAT, "so good so good so good"),
        recommender(Action.CHAT, "well, what now"),
        user(Action.CHAT, "eh"),
        recommender(Action.CHAT, "what now, well"),
    )
    assert repetition(rollout(turns, ending=None)) == pytest.approx((-0.5, 0, -1))
    assert repetition(rollout((recommender(Action.CHAT, "hi"),), ending=None)) == (None,)
    assert repetition(UNREADABLE)[-1] is None


def test_sociability_asks_the_labels_or_a_judge() -> None:
    opinion = recommender(Action.CHAT, "I loved it").model_copy(update={"strategies": ("personal_opinion",)})
    inquiry = recommender(Action.INQUIRE, "What do you like?").model_copy(update={"strategies": ("opinion_inquiry",)})
    turns = (opinion, TALK[1], inquiry, TALK[3], TALK[4])
    assert sociability(rollout(turns, ending=None)) == (1, 0, None)
    heard: list[int] = []

    def judge(before: tuple[Turn, ...]) -> tuple[str, ...]:
        heard.append(len(before))
        return ("Similarity",) if "1990s" in before[-1].text else ()

    assert sociability(rollout(), judge) == (0, 0, 1)
    assert heard == [1, 3, 5]


def test_realism_takes_any_callable_and_stands_at_the_end() -> None:
    assert realism(rollout(role=Role.USER), lambda turns: len(turns) / 10) == (None, None, 0.3)
    assert realism(rollout(TALK[:1], ending=None), lambda turns: None) == (None,)
    mute = rollout((), ending=Ending.FORMAT_FAILURE, failed=Role.RECOMMENDER)
    assert realism(mute, lambda turns: 1.0) == (None,)


def test_the_word_discriminator_tells_people_from_a_caricature() -> None:
    people = ["nah seen it", "lol ok", "something scary pls", "ok ill watch it", "not my thing tbh"]
    machines = ["I would love to explore that.", "That sounds delightful!", "I appreciate your suggestion.", "How delightful."]
    model = WordDiscriminator.fit(people, machines)
    human, simulated = model(["lol ok not seen it"]), model(["I appreciate that, how delightful!"])
    assert human is not None
    assert simulated is not None
    assert 0 <= simulated < 0.5 < human <= 1
    assert model([]) is None
    assert realism(rollout(role=Role.USER), model)[-1] is not None
    with pytest.raises(ValueError, match="0 and 4"):
        WordDiscriminator.fit([], machines)


def test_a_discriminator_of_a_policy_is_fitted_once_the_policy_has_spoken() -> None:
    judge = PolicyDiscriminator(["nah seen it", "lol ok"])
    rewards = Rewards(RewardSpec(weights=every_weight(["realism"])), judges=Judges(p_human=judge))
    with pytest.raises(ValueError, match="before it had any turn of the policy"):
        rewards(rollout())
    judge.fit([turn.text for turn in TALK if turn.role is Role.RECOMMENDER])
    total = rewards(rollout()).total
    assert total is not None
    assert 0 < total < 0.5
    with pytest.raises(ValueError, match="got none"):
        PolicyDiscriminator([])


def test_goal_alignment_is_half_a_point_for_each_of_five_parts() -> None:
    every = rollout(role=Role.USER)
    assert goal_alignment(every, lambda r, s: dict.fromkeys(GoalPart, True)) == (2.5, 2.5, 2.5)
    kept = {part: n < 3 for n, part in enumerate(GoalPart)}
    assert goal_alignment(every, lambda r, s: kept) == pytest.approx((1.5, 1.5, 1.5))
    assert goal_alignment(every, lambda r, s: {GoalPart.POLICY: None}) == (None, None, None)


def test_rules_judge_each_part_of_a_goal() -> None:
    def parts(turns: tuple[Turn, ...], **options: object) -> dict[str, bool | None]:
        held = rollout(turns, role=Role.USER, ending=None, **options)  # type: ignore[arg-type]
        return {part.value: kept for part, kept in goal_by_rules(held, held.steps[-1]).items()}

    assert parts(TALK) == {"profile": None, "policy": True, "objective": True, "requirement": True, "preference": None}
    assert parts((user(Action.DISCLOSE_GOAL, "some crime film"),))["preference"] is True
    assert parts((user(Action.DISCLOSE_GOAL, "a horror film"),))["preference"] is False
    assert parts((user(Action.FEEDBACK, "no crime please"),))["preference"] is False
    assert parts((user(Action.FEEDBACK, "no horror please"),))["preference"] is True
    assert parts((user(Action.CHAT, "How can I help you?"),))["policy"] is False
    assert parts((user(Action.GIVE_UP, "bye"),))["objective"] is False  # nothing was shown yet
    assert parts(GIVES_UP)["objective"] is True  # it was: the recommender had its chance
    alien = (recommender(Action.RECOMMEND, ALIEN), user(Action.ACCEPT, "yes"))
    assert parts(alien)["requirement"] is False  # of the 1970s, and seen before
    assert parts((recommender(Action.RECOMMEND, UP), user(Action.ACCEPT, "yes")), attributes=("funny",))["requirement"] is True
    assert goal_by_rules(USER_UNREADABLE, replace(USER_UNREADABLE, role=Role.USER).steps[-1]) == {}


def test_every_value_lies_in_the_range_that_its_term_states() -> None:
    answers = (answer(UP, HEAT, preferences=("crime",)), answer(GHOST), Answer())
    p_human, kept = (lambda turns: 0.7), (lambda r, s: {GoalPart.POLICY: True})
    for held in (rollout(), rollout(answers=answers), UNREADABLE, USER_UNREADABLE, rollout(GIVES_UP, ending=Ending.GAVE_UP)):
        for role in Role:
            if role is Role.USER and held.answers is not None:
                continue
            names = [name for name, term in TERMS.items() if role in term.roles]
            spec = RewardSpec(weights=every_weight(names))
            scored = Rewards(spec, role, Judges(p_human=p_human, goal=kept))(replace(held, role=role))
            assert list(scored.values) == names
            for name, values in scored.values.items():
                assert len(values) == len(scored.steps)
                assert all(v is None or TERMS[name].low <= v <= TERMS[name].high for v in values), name
                if TERMS[name].per == "conversation":
                    assert values[:-1] == (None,) * (len(values) - 1)


def test_a_list_is_worth_at_each_place_what_it_holds_there() -> None:
    targets = scenario(HEAT).targets
    assert list_relevance(["Up", "Heat (1995)", "Heat"], targets, CATALOG, num_ranks=4) == (0, 1, 0, 0)
    assert list_relevance(["Heat"], targets, CATALOG, seen=["heat"], num_ranks=2) == (0, 0)
    assert list_relevance(None, targets, CATALOG, num_ranks=2) == (0, 0)
    assert list_relevance(["Heat (1986)"], targets, CATALOG, num_ranks=1) == (0,)
    assert gain_from_rank([0.0, 1.0, 1.0]) == pytest.approx((rank_reward(2) + 0.5, rank_reward(2) + 0.5, 0.5))


# ---- the weighted sum --------------------------------------------------------------------------------------------------


def every_weight(names: list[str], **others: float) -> RewardWeights:
    return RewardWeights(**(dict.fromkeys(TERMS, 0.0) | dict.fromkeys(names, 1.0) | others))


def test_the_total_is_the_weighted_sum_of_what_each_step_is_paid() -> None:
    weights = every_weight([], format=0.5, recommend=2.0, acceptance=3.0, turn_cost=1.0)
    scored = Rewards(RewardSpec(weights=weights, pay="turn"))(rollout())
    assert scored.values == {
        "format": (1, 1, 1),
        "recommend": (None, 0, 1),
        "acceptance": (None, None, 1),
        "turn_cost": (-0.1,) * 3,
    }
    assert scored.steps == pytest.approx((0.4, 0.4, 5.4))
    assert scored.total == pytest.approx(6.2)
    assert scored.paid == pytest.approx({"format": 1.5, "recommend": 2, "acceptance": 3, "turn_cost": -0.3})


def test_paid_at_the_end_a_term_is_its_mean_and_only_the_cost_stays_per_turn() -> None:
    weights = every_weight([], format=0.5, recommend=2.0, acceptance=3.0, turn_cost=1.0)
    scored = Rewards(RewardSpec(weights=weights, pay="end"))(rollout())
    assert scored.steps == pytest.approx((-0.1, -0.1, 0.5 + 1 + 3 - 0.1))


def test_paid_at_the_end_a_longer_talk_of_the_same_quality_earns_no_more() -> None:
    rewards = {pay: Rewards(RewardSpec(weights=every_weight(["format"]), pay=pay)) for pay in ("turn", "end")}  # type: ignore[arg-type]
    short, long = rollout(TALK[:2], ending=None), rollout(TALK[:4], ending=None)
    assert (rewards["end"](short).total, rewards["end"](long).total) == (1, 1)
    assert (rewards["turn"](short).total, rewards["turn"](long).total) == (1, 2)


@given(st.dictionaries(st.sampled_from(sorted(TERMS)), st.floats(0.1, 5), min_size=1), st.sampled_from(["turn", "end"]))
def test_what_the_terms_pay_adds_up_to_the_total(weights: dict[str, float], pay: str) -> None:
    weights = {name: weight for name, weight in weights.items() if Role.RECOMMENDER in TERMS[name].roles} or {"format": 1.0}
    spec = RewardSpec(weights=every_weight([], **weights), pay=pay)  # type: ignore[arg-type]
    scored = Rewards(spec, judges=Judges(p_human=lambda turns: 0.25))(rollout())
    paid = [v for v in scored.paid.values() if v is not None]
    assert (scored.total is None) == (not paid)
    assert sum(paid) == pytest.approx(scored.total or 0)
    assert set(scored.values) == set(weights)


def test_by_default_nobody_is_paid_for_talking_longer() -> None:
    rewards = Rewards(RewardSpec())
    long = (*TALK[:4], *TALK[2:4], *TALK[2:4])
    assert rewards(rollout(TALK[:4], ending=None)).total == rewards(rollout(long, ending=None)).total


def test_nothing_defined_is_none_and_not_zero() -> None:
    scored = Rewards(RewardSpec(weights=every_weight(["success", "preference"])))(rollout(target=None))
    assert scored.total is None
    assert scored.paid == {"success": None, "preference": None}
    assert scored.steps == (None, None, None)


@pytest.mark.parametrize("ending", [Ending.BACKEND_FAILURE, Ending.CONTEXT_OVERFLOW])
def test_a_fault_leaves_a_conversation_without_reward(ending: Ending) -> None:
    scored = Rewards(RewardSpec())(rollout(TALK[:4], ending=ending))
    assert (scored.total, scored.values, scored.steps) == (None, {}, (None, None))


def test_a_conversation_without_a_step_of_the_policy_has_no_reward() -> None:
    for pay in ("turn", "end"):
        scored = Rewards(RewardSpec(pay=pay))(rollout((user(Action.GIVE_UP, "bye"),), ending=Ending.GAVE_UP))  # type: ignore[arg-type]
        assert (scored.total, scored.steps) == (None, ())


def test_a_summary_logs_every_term_and_counts_what_was_not_defined() -> None:
    rewards = Rewards(RewardSpec(weights=every_weight([], format=1.0, success=3.0), pay="turn"))
    fault = rewards(rollout(TALK[:4], ending=Ending.BACKEND_FAILURE))
    found = summarise([rewards(rollout()), rewards(rollout(target=None)), fault])
    by_name = {term.name: term for term in found.terms}
    assert list(by_name) == ["format", "success"]
    assert (by_name["format"].mean, by_name["format"].paid, by_name["format"].n) == (1, 3, 2)
    assert (by_name["success"].mean, by_name["success"].n, by_name["success"].num_undefined) == (1, 1, 2)
    assert [by_name[name].share for name in by_name] == pytest.approx([6 / 9, 3 / 9])
    assert (found.mean, found.n, found.num_missing) == (4.5, 2, 1)
    assert summarise([]).mean is None
    assert summarise([Scored()]).num_missing == 1


def test_terms_are_refused_for_a_role_without_a_judge_or_without_weight() -> None:
    with pytest.raises(ConfigError, match="recommend can't reward a user") as error:
        Rewards(RewardSpec(), Role.USER)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="needs a discriminator"):
        Rewards(RewardSpec(weights=every_weight(["realism"])))
    with pytest.raises(ConfigError, match="every reward weight is 0"):
        Rewards(RewardSpec(weights=every_weight([])))
    with pytest.raises(ValueError, match="these rewards are for a recommender"):
        Rewards(RewardSpec())(rollout(role=Role.USER))


# ---- config ----------------------------------------------------------------------------------------------------------


class Verb(Config):
    """A verb that takes rewards."""

    rewards: RewardSpec = RewardSpec()


def parsed(folder: Path, toml: str, *flags: str) -> RewardSpec:
    (folder / "c.toml").write_text(toml)
    return parse_config(Verb, ["--config", str(folder / "c.toml"), *flags], "interplay verb").rewards


def test_every_term_has_a_weight_and_every_weight_a_term() -> None:
    assert list(RewardWeights.model_fields) == list(TERMS)
    assert set(Rewards(RewardSpec()).weights) == {"format", "recommend", "preference"}  # SMTPO's three


def test_rewards_are_named_in_toml_and_by_flags(tmp_path: Path) -> None:
    spec = parsed(
        tmp_path, '[rewards]\npay = "turn"\n[rewards.weights]\nsuccess = 2\nformat = 0', "--rewards.weights.turn-cost", "0.5"
    )
    assert (spec.pay, spec.weights.success, spec.weights.format, spec.weights.turn_cost) == ("turn", 2, 0, 0.5)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[rewards.weights]\nacceptence = 1", r"rewards\.weights\.acceptence .*did you mean acceptance\?"),
        ("[rewards.weights]\nformat = -1", r"rewards\.weights\.format"),
        ("[rewards.weights]\nformat = nan", r"rewards\.weights\.format"),
        ('[rewards]\npay = "later"', r"rewards\.pay"),
    ],
)
def test_an_unknown_reward_or_a_weight_that_is_none_is_refused_in_one_line(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        parsed(tmp_path, toml)
    assert "\n" not in str(error.value)


# ---- futures ---------------------------------------------------------------------------------------------------------


@given(st.none() | st.floats(-5, 5), st.lists(st.lists(st.floats(-5, 5), max_size=4), max_size=3))
def test_without_a_window_the_reward_is_the_immediate_one(immediate: float | None, sampled: list[list[float]]) -> None:
    assert multiturn_aware(immediate, sampled, window=0).value == immediate


@given(st.floats(-5, 5), st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_one_future_seen_to_its_end_is_the_return(immediate: float, future: list[float]) -> None:
    assert multiturn_aware(immediate, [future], window=9).value == pytest.approx(immediate + sum(future))


def test_futures_are_averaged_within_the_window_and_faults_dropped() -> None:
    found = multiturn_aware(1.0, [[1.0, 2.0, 4.0], [], None, [None, 3.0]], window=2, discount=0.5)
    assert found.value == pytest.approx(1 + (1.0 + 0 + 0.75) / 3)  # 0.5 + 0.5 | ended | fault | 0.75
    assert (found.num_futures, found.num_dropped) == (3, 1)


def test_an_outlook_without_a_usable_future_or_reward_is_none() -> None:
    assert multiturn_aware(1.0, [], window=1).value is None
    assert multiturn_aware(1.0, [None], window=1).num_dropped == 1
    assert multiturn_aware(None, [[None], []], window=1).value is None
    with pytest.raises(ValueError, match="window is -1"):
        multiturn_aware(1.0, [], window=-1)


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_tells_range_equation_source_and_gaming_of_every_term() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    for term in TERMS.values():
        for said in (f"### {term.name}", term.equation, term.source, term.gaming, f"[{term.low:g}, {term.high:g}]"):
            assert said in page, f"{term.name}: {said}"
