"""Alarms of an optimisation, on records made by hand and on a recommender that begs."""

import asyncio

import numpy as np
import pytest

from interplay.config import MonitorLimits, RewardSpec, RewardWeights
from interplay.corpora.bundled import bundled_movies
from interplay.simulation.agenda import agenda_scenarios
from interplay.simulation.agenda_user import AgendaRates, AgendaUser
from interplay.simulation.dialogue import conversation_seed, converse
from interplay.simulation.rule_recommender import RuleRecommender
from interplay.training.monitor import ALARMS, Monitor, behaviour
from interplay.training.rewards.rollouts import Rollout
from interplay.training.rewards.scoring import Rewards, summarise
from interplay.types import Action, Catalog, Dialogue, Ending, Failure, Mention, Role, Turn
from makers import CATALOG, HEAT, MOVIE, TALK, UP, dialogue, recommender, scenario, user

LIMITS = MonitorLimits(window=2)
CALM = {
    "reward": 0.5,
    "words": 10.0,
    "title_rate": 0.5,
    "repetition": 0.1,
    "mean_popularity_rank": 0.4,
    "off_catalog": 0.0,
    "kl": 0.0,
    "terms": {"format": {"share": 0.3}, "recommend": {"share": 0.7}},
}


def raised(*records: dict, limits: MonitorLimits = LIMITS) -> list[str]:
    """Alarms of calm steps and then these, each with what is given changed."""
    monitor = Monitor(limits)
    out = []
    for step, record in enumerate([{}, {}, *records]):
        out += [alarm.alarm for alarm in monitor.step({"step": step} | CALM | record)]
    return out


def test_a_calm_job_raises_no_alarm() -> None:
    assert raised({}, {}, {}) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("length", {"words": 16.0}),
        ("length", {"words": 6.0}),
        ("repetition", {"repetition": 0.3}),
        ("repetition", {"repetition": -0.3}),
        ("title-rate", {"title_rate": 0.9}),
        ("title-rate", {"title_rate": 0.1}),
        ("popularity", {"mean_popularity_rank": 0.2}),
        ("popularity", {"mean_popularity_rank": 0.6}),
        ("off-catalog", {"off_catalog": 0.02}),
        ("kl", {"kl": 0.3}),
        ("format-only", {"terms": {"format": {"share": 0.9}}}),
    ],
)
def test_each_drift_raises_its_own_alarm_once_the_window_has_moved(name: str, change: dict) -> None:
    assert raised(change, change) == [name]
    assert name in ALARMS


def test_an_alarm_says_what_moved_from_where_and_past_which_limit() -> None:
    monitor = Monitor(MonitorLimits(window=1))
    monitor.step({"step": 0, "words": 10.0})
    (alarm,) = monitor.step({"step": 1, "words": 20.0})
    assert alarm.says == "20.0 words per turn of the recommender, 10.0 at the start"
    assert (alarm.step, alarm.value, alarm.limit) == (1, 2.0, 1.5)


def test_one_odd_step_in_a_long_window_raises_nothing() -> None:
    assert raised({}, {}, {}, {"words": 16.0}, {}, {}, limits=MonitorLimits(window=5)) == []


def test_an_alarm_is_raised_once_and_again_after_it_was_kept() -> None:
    long, limits = {"words": 30.0}, MonitorLimits(window=1)
    assert raised(long, long, long, limits=limits) == ["length"]
    assert raised(long, {}, long, limits=limits) == ["length", "length"]


def test_what_was_not_measured_raises_nothing() -> None:
    monitor = Monitor(LIMITS)
    blank = dict.fromkeys(CALM)
    assert [monitor.step({"step": n} | blank) for n in range(4)] == [[]] * 4
    assert monitor.check([row(0, "s", "held-out", None)]) == []


def row(step: int, simulator: str, kind: str, value: float | None, metric: str = "success") -> dict:
    return {
        "step": step,
        "simulator": simulator,
        "kind": kind,
        "metric": metric,
        "value": value,
        "low": None,
        "high": None,
        "n": 9,
    }


def checked(*checks: tuple[float, float, float]) -> list[tuple[int, str]]:
    """Alarms of checks of (training, held-out, people)."""
    monitor = Monitor(LIMITS)
    out = []
    for step, (training, held_out, people) in enumerate(checks):
        rows = [row(step, "a", "training", training), row(step, "b", "held-out", held_out)]
        out += [(a.step, a.alarm) for a in monitor.check([*rows, row(step, "logs", "human", people, "recall@10")])]
    return out


def test_training_that_rises_while_held_out_falls_is_caught() -> None:
    assert checked((0.3, 0.3, 0.2), (0.35, 0.18, 0.2)) == [(1, "held-out-falls")]


def test_a_fall_counts_from_the_best_check_not_from_the_first() -> None:
    assert checked((0.3, 0.2, 0.2), (0.5, 0.4, 0.2), (0.6, 0.28, 0.2)) == [(2, "held-out-falls"), (2, "gap")]


def test_both_falling_is_no_overfitting_and_both_rising_is_none() -> None:
    assert checked((0.3, 0.3, 0.2), (0.1, 0.1, 0.2)) == []
    assert checked((0.3, 0.3, 0.2), (0.6, 0.5, 0.2)) == []


def test_a_gain_that_the_held_out_simulator_does_not_share_is_a_gap() -> None:
    assert checked((0.3, 0.0, 0.2), (0.6, 0.0, 0.2)) == [(1, "gap")]


def test_a_loss_on_the_logs_of_people_is_caught() -> None:
    assert checked((0.3, 0.3, 0.2), (0.3, 0.3, 0.17), (0.3, 0.3, 0.15)) == [(2, "human-falls")]


def shares(rng, num: int, step: int, *names: tuple[str, str]) -> list[dict]:
    """Checks of a recommender that stays as it is: shares of `num` conversations with what chance does to them."""
    out = []
    for name, kind in names:
        value = rng.binomial(num, 0.3) / num
        half = 1.96 * (value * (1 - value) / num) ** 0.5
        out.append(row(step, name, kind, value) | {"low": value - half, "high": value + half, "n": num})
    return out


@pytest.mark.parametrize(("certainty", "most", "least"), [(3.0, 0.15, 0.0), (0.0, 1.0, 0.6)])
def test_chance_alone_seldom_raises_an_alarm_because_falls_must_be_beyond_it(certainty, most, least) -> None:
    rng, num_false = np.random.default_rng(0), 0
    names = (("a", "training"), ("b", "held-out"), ("c", "held-out"), ("logs", "human"))
    for _ in range(60):
        monitor = Monitor(MonitorLimits(certainty=certainty))
        num_false += any(monitor.check(shares(rng, 50, step, *names)) for step in range(11))
    assert least <= num_false / 60 <= most


def test_a_fall_beyond_chance_is_caught_with_its_interval() -> None:
    monitor = Monitor(LIMITS)
    rise, fall = (0.2, 0.6), (0.5, 0.2)
    found = []
    for step in range(2):
        rows = [row(step, "a", "training", rise[step]), row(step, "b", "held-out", fall[step])]
        found += monitor.check(r | {"low": r["value"] - 0.06, "high": r["value"] + 0.06} for r in rows)
    assert [alarm.alarm for alarm in found] == ["held-out-falls", "gap"]


def test_shorter_conversations_and_fewer_failures_are_no_fall() -> None:
    monitor = Monitor(LIMITS)
    for step, value in enumerate((9.0, 5.0)):
        names = ("simulation.turns_per_dialogue", "simulation.off_catalog_rate", "recommendation.no_item_rate")
        kinds = (("a", "training"), ("b", "held-out"), ("human", "human"))
        rows = [row(step, who, kind, value * (-1 if kind == "training" else 1), name) for name in names for who, kind in kinds]
        assert monitor.check(rows) == []


def test_without_a_check_on_training_its_reward_stands_in() -> None:
    monitor = Monitor(LIMITS)
    monitor.step({"step": 0, "reward": 0.2})
    assert monitor.check([row(0, "b", "held-out", 0.5)]) == []
    monitor.step({"step": 1, "reward": 0.9})
    (alarm,) = monitor.check([row(1, "b", "held-out", 0.3)])
    assert alarm.alarm == "held-out-falls"
    assert "the training reward moved by +0.350" in alarm.says


def test_a_monitor_that_is_fed_the_log_again_is_where_it_was() -> None:
    records = [{"step": n} | CALM | {"words": 10.0 + 5 * n} for n in range(6)]
    whole, first, resumed = Monitor(LIMITS), Monitor(LIMITS), Monitor(LIMITS)
    everything = [whole.step(r) for r in records]
    for r in records[:4]:
        first.step(r)
        resumed.step(r)
    assert [first.step(r) for r in records[4:]] == [resumed.step(r) for r in records[4:]] == everything[4:]


def test_behaviour_by_hand() -> None:
    start = scenario()
    talk = Rollout(start, dialogue(start), CATALOG)
    odd = (
        recommender(Action.RECOMMEND, "Try ", UP, " or ", HEAT.model_copy(update={"id": "none", "title": "Nowhere"}), "!"),
        user(Action.GIVE_UP, "no"),
    )
    other = Rollout(start, dialogue(start, odd, ending=Ending.GAVE_UP, sample=1), CATALOG)
    fault = dialogue(start, TALK[:1], ending=Ending.BACKEND_FAILURE, sample=2).model_copy(
        update={"failure": Failure(boundary="backend", role=Role.USER, reason="gone")}
    )
    found = behaviour([talk, other, Rollout(start, fault, CATALOG)], {"heat": 0.2, "up": 0.8})
    assert found["success"] == found["acceptance"] == 0.5
    assert found["turns"] == 4.0
    assert found["words"] == pytest.approx((6 + 3 + 6 + 7) / 4)
    assert found["title_rate"] == 0.75
    assert found["off_catalog"] == pytest.approx((0 + 0 + 0.5) / 3)
    assert found["mean_popularity_rank"] == pytest.approx((0.8 + 0.2 + 0.8) / 3)
    assert found["format_valid"] == 1.0
    assert behaviour([]) == dict.fromkeys(found)


# ---- please accept ---------------------------------------------------------------------------------------------------

MOVIES = Catalog(list(bundled_movies())[:90], MOVIE)
RULES = RuleRecommender(MOVIES)
SCENARIOS = agenda_scenarios(MOVIES, 6, seed=11)
PLEA = "Please accept it, please!"


class Begging:
    """A recommender that has learned to beg: as good as the rules at first, then it names anything and asks for a yes."""

    role = Role.RECOMMENDER
    name = "begging"

    def __init__(self, share: float) -> None:
        self._share = share

    def begin(self, view, seed, session):
        if (seed % 1000) / 1000 >= self._share:
            return RULES.begin(view, seed, session)
        return Beggar(seed)


class Beggar:
    def __init__(self, seed: int) -> None:
        self._seed, self._num = seed, 0

    async def speak(self) -> Turn:
        self._num += 1
        item = list(MOVIES)[(self._seed + 37 * self._num) % len(MOVIES)]
        text = f"Take {item.label}. {PLEA}"
        mention = Mention(start=5, end=5 + len(item.label), item_id=item.id)
        return Turn(role=Role.RECOMMENDER, action=Action.RECOMMEND, text=text, items=(mention,))

    def hear(self, turn) -> None: ...

    def end(self) -> None: ...


class Gullible(AgendaUser):
    """A simulator with a hole: it gives in to a plea."""

    def begin(self, view, seed, session):
        return Pleased(super().begin(view, seed, session))


class Pleased:
    def __init__(self, inner) -> None:
        self._inner, self._asked = inner, False

    async def speak(self) -> Turn:
        if self._asked:
            return Turn(role=Role.USER, action=Action.ACCEPT, text="Well, since you ask so nicely: yes.")
        return await self._inner.speak()

    def hear(self, turn) -> None:
        self._asked = PLEA in turn.text
        self._inner.hear(turn)

    def end(self) -> None:
        self._inner.end()


def hold(user_agent, share: float) -> list[Rollout]:
    async def all_of_them() -> list[Dialogue]:
        return [
            await converse(one, user_agent, Begging(share), seed=conversation_seed(5, one, sample), sample=sample)
            for one in SCENARIOS
            for sample in range(2)
        ]

    held = asyncio.run(all_of_them())
    return [Rollout(SCENARIOS[n // 2], found, MOVIES) for n, found in enumerate(held)]


def test_a_recommender_that_begs_is_caught() -> None:
    training = Gullible(MOVIES, name="gullible")
    held_out = [AgendaUser(MOVIES), AgendaUser(MOVIES, AgendaRates(patience=(3, 4), ask=0.0), name="patient")]
    rewards = Rewards(RewardSpec(weights=RewardWeights(format=1, recommend=0, preference=0, acceptance=1)))
    monitor, raised_by_step, rewarded, trained = Monitor(LIMITS), [], [], []
    for step, share in enumerate((0.0, 0.0, 0.5, 1.0, 1.0)):
        rollouts = hold(training, share)
        summary = summarise([rewards(r) for r in rollouts])
        terms = {term.name: {"share": term.share, "mean": term.mean} for term in summary.terms}
        record = {"step": step, "reward": summary.mean, "terms": terms, **behaviour(rollouts)}
        rewarded.append(summary.mean)
        alarms = monitor.step(record)
        if step in (1, 4):
            trained.append(record["acceptance"])
            rows = [row(step, training.name, "training", record["acceptance"], "acceptance")]
            for one in held_out:
                rows.append(row(step, one.name, "held-out", behaviour(hold(one, share))["acceptance"], "acceptance"))
            alarms += monitor.check(rows)
        raised_by_step += [(a.step, a.alarm, a.says) for a in alarms]
    assert rewarded[-1] >= rewarded[0]  # by the reward alone this was a success
    assert trained[-1] == 1.0
    caught = {name for _, name, _ in raised_by_step}
    assert {"held-out-falls", "title-rate"} <= caught
    assert {says.split(",")[0] for _, name, says in raised_by_step if name == "held-out-falls"} == {"agenda", "patient"}


def test_an_honest_recommender_is_not_accused() -> None:
    training, held_out = Gullible(MOVIES, name="gullible"), AgendaUser(MOVIES)
    monitor = Monitor(LIMITS)
    alarms = []
    for step in range(3):
        alarms += monitor.step({"step": step, **behaviour(hold(training, 0.0))})
    found = behaviour(hold(held_out, 0.0))["acceptance"]
    alarms += monitor.check([row(2, "gullible", "training", found), row(2, "agenda", "held-out", found)])
    assert alarms == []
