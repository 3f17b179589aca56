"""Optimising a recommender: what is recorded, whose tokens are learned from, exact log-probabilities, resume, bad input."""

import asyncio
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interplay.backends.local import LocalBackend
from interplay.cli import main
from interplay.cli.optimize import require_held_out
from interplay.config import OptimizeConfig, RewardSpec, RewardWeights, Sampling, TinyConfig, TraceSettings, TrainConfig
from interplay.constraints import Allowed
from interplay.corpora.corpus import Corpus, Counts
from interplay.errors import ConfigError, InterplayError
from interplay.evaluation.strategies import StrategyClassifier
from interplay.formats.tags import title_tags
from interplay.items.ranker import ItemRanker, TrainingLog
from interplay.simulation.batch import Plan
from interplay.simulation.checkpoint import CARD, load_agent, load_form, read_card
from interplay.simulation.dialogue import Limits
from interplay.simulation.stubs import StubUser
from interplay.store import read_json_lines
from interplay.training import policy_gradient, sft
from interplay.training.advantages import segment_loss
from interplay.training.backbone import build_tiny
from interplay.training.credit import give_credit, list_advantages, list_places
from interplay.training.log_probs import log_probs
from interplay.training.policy_gradient import Environment, Measured, optimise, require_exact
from interplay.training.rewards.futures import multiturn_aware
from interplay.training.rewards.rollouts import Answer, Rollout
from interplay.training.rewards.scoring import Rewards, Scored
from interplay.training.rollouts import Recorder, Row, Sample, Spoken, choices, roll_out, rows_of, sample_futures
from interplay.types import Ending, Role, Split
from makers import CATALOG, MOVIE, TALK, dialogue, scenario
from test_reasoning import FILM_CATALOG, begin, talk
from test_strategies import labelled

SHAPE = TinyConfig(layers=1, width=64, vocab_size=320, context=512)
WARM = Sampling(temperature=0.7, max_new_tokens=24)
REWARDS = RewardSpec(weights=RewardWeights(format=0, recommend=0, preference=0, acceptance=1, turn_cost=0.5))
NUM = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("optimize") / "data"
    splits = [Split.TRAIN] * NUM + [Split.VALID] + [Split.TEST] * 2
    starts = [scenario(split=split, source_id=str(k)) for k, split in enumerate(splits)]
    Corpus("made", [dialogue(s) for s in starts], starts, CATALOG, Counts(len(starts), len(starts))).save(path)
    return path


@pytest.fixture(scope="module")
def trained(data) -> Path:
    out = data.parent / "recommender"
    sft.train(
        TrainConfig(
            role="recommender",
            data=[data],
            out=out,
            max_steps=12,
            max_length=128,
            learning_rate=1e-2,
            warmup_steps=0,
            tiny=SHAPE,
        )
    )
    return out


def config(data: Path, trained: Path, out: Path, **options) -> OptimizeConfig:
    settings: dict = {
        "recommender": trained,
        "users": ["stub:accept-first"],
        "held_out": ["stub:never-accept", "stub:accept-last"],
        "data": data,
        "out": out,
        "steps": 4,
        "scenarios_per_step": 2,
        "group_size": 3,
        "learning_rate": 1e-3,
        "check_every": 2,
        "save_every": 2,
        "check_dialogues": 2,
        "max_turns": 6,
        "sampling": WARM,
        "rewards": REWARDS,
    }
    return OptimizeConfig(**(settings | options))


def lines(path: Path) -> list[dict]:
    return [line for _, line in read_json_lines(path)]


# ---- what is recorded ------------------------------------------------------------------------------------------------


class Fixed:
    """A constraint that allows the same ids everywhere, and one alone after the first token."""

    def start(self, max_new_tokens: int) -> "Fixed":
        assert max_new_tokens == 9
        state = Fixed()
        state.num = 0
        return state

    def allowed(self) -> Allowed:
        return Allowed(np.array([5, 6]), True) if self.num == 0 else Allowed(np.array([7]), True)

    def advance(self, index: int) -> None:
        self.num += 1


def sample(prompt, ids, constraint=None) -> Sample:
    return Sample(tuple(prompt), tuple(ids), tuple(-0.5 for _ in ids), constraint, 9)


def test_answers_whose_prompts_grow_are_one_row_and_the_other_side_s_tokens_are_no_choices() -> None:
    (row,) = rows_of([sample([1, 2], [3, 4]), sample([1, 2, 3, 4, 90, 91], [5])])
    assert row.ids == (1, 2, 3, 4, 90, 91, 5)
    assert row.places.tolist() == [2, 3, 6]
    assert row.turns.tolist() == [0, 0, 1]


def test_an_answer_whose_prompt_does_not_begin_with_what_was_said_begins_another_row() -> None:
    first, second = rows_of([sample([1, 2], [3, 4]), sample([1, 9], [5])])
    assert (first.ids, second.ids) == ((1, 2, 3, 4), (1, 9, 5))
    assert second.turns.tolist() == [1]


def test_a_token_without_an_alternative_is_no_choice() -> None:
    (row,) = rows_of([sample([1], [5, 7, 7], Fixed())])
    assert row.places.tolist() == [1]
    assert row.allowed[0].ids.tolist() == [5, 6]
    assert [len(found.ids) for found in choices(sample([1], [5, 7], Fixed()))] == [2, 1]


async def test_what_was_asked_for_again_is_kept_once() -> None:
    class Scripted:
        name = "scripted"
        answers = iter([(1, 2), (3, 4)])

        async def complete(self, request):
            from interplay.backends.backend import Completion

            return Completion("", next(self.answers), (-1.0, -1.0), "stop")

        def release(self, session): ...

        async def close(self): ...

    from interplay.backends.backend import Request

    recorder = Recorder(Scripted())
    recorder.is_on = True
    for seed in range(2):
        await recorder.complete(Request((7,), Sampling(), seed, "s"))
    assert [kept.ids for kept in recorder.take("s")] == [(3, 4)]
    assert recorder.take("s") == []


# ---- rollouts and exact log-probabilities ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(data, trained):
    """Two groups of three conversations of the trained recommender, its agent and its model."""
    agent, _ = load_agent(trained, Role.RECOMMENDER, sampling=WARM, catalog=CATALOG, exclude_rejected=True)
    engine = agent.backend
    assert isinstance(engine, LocalBackend)
    agent.backend = recorder = Recorder(engine)
    starts = [s for s in Corpus.read(data).scenarios if s.split is Split.TRAIN][:2]
    plan = Plan(seed=3, num_samples=3, limits=Limits(6))
    groups = asyncio.run(roll_out(starts, StubUser("never-accept"), agent, recorder, plan))
    return starts, groups, agent, engine.model, plan


def rows(groups: list[list[Spoken]]) -> list[Row]:
    return [row for group in groups for one in group for row in one.rows]


def test_rollouts_are_in_the_order_of_scenarios_and_samples_with_a_turn_for_each_answer(spoken) -> None:
    starts, groups, *_ = spoken
    assert [[one.dialogue.key for one in group] for group in groups] == [[f"{s.key}.{n}" for n in range(3)] for s in starts]
    for group in groups:
        for one in group:
            said = [turn for turn in one.dialogue.turns if turn.role is Role.RECOMMENDER]
            assert len(said) == 3
            assert {int(t) for row in one.rows for t in row.turns} == {0, 1, 2}


def test_a_simulator_may_have_another_tokenizer(data, trained, tmp_path) -> None:
    corpus = Corpus.read(data)
    other = TinyConfig(layers=1, width=32, vocab_size=350, context=512)
    model, tokenizer = build_tiny([corpus], MOVIE, other, 1)
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path)
    card = read_card(trained).model_copy(update={"role": Role.USER})
    (tmp_path / CARD).write_text(card.model_dump_json())
    talker, _ = load_agent(tmp_path, Role.USER, sampling=WARM, catalog=CATALOG)
    agent, _ = load_agent(trained, Role.RECOMMENDER, sampling=WARM, catalog=CATALOG)
    engine, agent.backend = agent.backend, Recorder(agent.backend)
    assert len(talker.form.tokenizer) != len(agent.form.tokenizer)
    starts = [s for s in corpus.scenarios if s.split is Split.TRAIN][:1]
    (group,) = asyncio.run(roll_out(starts, talker, agent, agent.backend, Plan(seed=2, num_samples=3, limits=Limits(4))))
    said = next(one for one in group if len(one.dialogue.turns) > 2)
    assert said.dialogue.turns[1].text in agent.form.decode(said.rows[0].ids)
    found = log_probs(engine.model, [said.rows[0]], temperature=WARM.temperature, padding=0)
    np.testing.assert_allclose(found.free[0].numpy(), said.rows[0].sampled, atol=2e-5)


def test_log_probabilities_of_training_are_those_the_sampler_told_at_its_temperature(spoken) -> None:
    _, groups, _, model, _ = spoken
    found = log_probs(model, rows(groups), temperature=WARM.temperature, padding=0)
    for free, row in zip(found.free, rows(groups), strict=True):
        np.testing.assert_allclose(free[: len(row.sampled)].numpy(), row.sampled, atol=2e-5)
    other = log_probs(model, rows(groups), temperature=1.0, padding=0)
    assert not torch.allclose(other.free, found.free, atol=1e-2)


def test_a_constrained_choice_has_its_probability_among_what_was_allowed(spoken) -> None:
    _, groups, _, model, _ = spoken
    row = max(rows(groups), key=lambda row: len(row.places))
    found = log_probs(model, [row], temperature=WARM.temperature, padding=0)
    with torch.no_grad():
        logits = model(torch.tensor([row.ids])).logits[0].double() / WARM.temperature
    for number, (place, allowed) in enumerate(zip(row.places, row.allowed, strict=True)):
        p = logits[place - 1].softmax(-1)
        may = torch.zeros(len(p), dtype=torch.bool)
        may[allowed.ids] = True
        may = may if allowed.only else ~may
        assert may[row.ids[place]]
        assert float(found.chosen[0, number].detach().exp()) == pytest.approx(float(p[row.ids[place]] / p[may].sum()), rel=1e-4)


def test_nothing_is_learned_from_what_the_simulator_said(spoken) -> None:
    _, groups, _, model, _ = spoken
    row = rows(groups)[0]
    embedded = model.get_input_embeddings()(torch.tensor([row.ids])).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits[0].log_softmax(-1)
    told = logits[torch.from_numpy(row.places) - 1, torch.tensor([row.ids[p] for p in row.places])]
    gradient = torch.autograd.grad(told.sum(), logits, retain_graph=True)[0]
    own = {int(place) - 1 for place in row.places}
    others = [place for place in range(len(row.ids)) if place not in own]
    assert others
    assert not gradient[others].any()
    said = np.concatenate([np.arange(s, s + n) for s, n in user_spans(groups[0][0], spoken[2])])
    assert not set(said.tolist()) & set(row.places.tolist())
    assert len(said)


def user_spans(one: Spoken, agent) -> list[tuple[int, int]]:
    """Where the user's turns stand in the row."""
    spans, row = [], one.rows[0]
    for turn in one.dialogue.turns:
        if turn.role is Role.USER:
            ids = tuple(agent.form.turn_ids(turn))
            starts = [s for s in range(len(row.ids)) if row.ids[s : s + len(ids)] == ids and s not in dict(spans)]
            if starts:  # the last answer is in no prompt
                spans.append((starts[0], len(ids)))
    return spans


def test_another_word_of_the_user_changes_no_loss_but_through_what_the_policy_reads(spoken) -> None:
    _, groups, _, model, _ = spoken
    row = rows(groups)[0]
    found = log_probs(model, [row], temperature=1.0, padding=0).chosen
    longer = replace(row, ids=(*row.ids, 1, 2, 3))
    assert torch.equal(log_probs(model, [longer], temperature=1.0, padding=0).chosen, found)


# ---- credit ----------------------------------------------------------------------------------------------------------


def scored_by(spoken, values) -> tuple:
    """Rewards whose totals are the given ones, all paid at the last turn."""
    _, groups, *_ = spoken
    scored = [
        [Scored({}, {}, (None,) * (len(one.dialogue.turns) // 2 - 1) + (value,)) for one, value in zip(group, own, strict=True)]
        for group, own in zip(groups, values, strict=True)
    ]
    return groups, scored


@pytest.mark.parametrize("algorithm", ["grpo", "turn", "dpo"])
def test_equal_rewards_teach_nothing_and_are_counted(spoken, data, trained, tmp_path, algorithm) -> None:
    groups, scored = scored_by(spoken, [[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    made = config(data, trained, tmp_path, algorithm=algorithm, kl_weight=0)
    found = give_credit(made, groups, scored)
    assert found.num_flat == 1
    keys = {one.dialogue.key for one in groups[0]}
    assert not keys & {lesson.conversation for lesson in found.lessons}
    assert found.lessons


def test_a_conversation_without_a_reward_is_no_lesson_and_is_counted(spoken, data, trained, tmp_path) -> None:
    groups, scored = scored_by(spoken, [[1.0, None, 0.0], [1.0, 0.0, 0.0]])
    for algorithm in ("grpo", "turn", "best-of-n", "dpo"):
        found = give_credit(config(data, trained, tmp_path, algorithm=algorithm), groups, scored)
        assert found.num_missing == 1
        assert groups[0][1].dialogue.key not in {lesson.conversation for lesson in found.lessons}


def test_best_of_n_learns_from_the_best_of_each_group_alone(spoken, data, trained, tmp_path) -> None:
    groups, scored = scored_by(spoken, [[0.1, 0.9, 0.2], [0.3, 0.2, 0.1]])
    made = config(data, trained, tmp_path, algorithm="best-of-n", kl_weight=0, at_least=0.5)
    found = give_credit(made, groups, scored)
    assert {lesson.conversation for lesson in found.lessons} == {groups[0][1].dialogue.key}
    assert found.num_close == 1


def test_at_the_old_policy_ratios_are_one_and_the_gradient_is_the_advantages(spoken, data, trained, tmp_path) -> None:
    _, groups, _, model, _ = spoken
    groups, scored = scored_by(spoken, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = give_credit(config(data, trained, tmp_path, algorithm="turn", kl_weight=0), groups, scored)
    lesson = found.lessons[0]
    told = log_probs(model, [lesson.row], temperature=1.0, padding=0).chosen
    out = segment_loss(
        told,
        told.detach(),
        torch.from_numpy(lesson.segments)[None],
        torch.from_numpy(lesson.advantages)[None],
        divisor=1.0,
    )
    assert out.clipped_share == 0
    gradient = torch.autograd.grad(out.loss, told)[0]
    np.testing.assert_allclose(gradient[0].numpy(), -lesson.advantages, rtol=1e-6)


# ---- futures ---------------------------------------------------------------------------------------------------------


async def test_one_future_and_no_window_is_the_immediate_reward_and_futures_go_on_from_what_was_said(data, trained) -> None:
    assert multiturn_aware(0.3, [[1.0]], window=0).value == 0.3
    agent, _ = load_agent(trained, Role.RECOMMENDER, sampling=WARM, catalog=CATALOG)
    start = next(iter(Corpus.read(data).scenarios))
    plan = Plan(seed=1, limits=Limits(8))
    said = dialogue(start, TALK[:4], ending=Ending.TURN_LIMIT)
    futures = await sample_futures(start, said, StubUser("never-accept"), agent, num=2, window=1, plan=plan)
    assert [len(found) for found in futures] == [2, 2]
    for place, found in zip((2, 4), futures, strict=True):
        for future in found:
            assert future.turns[:place] == TALK[:place]
            assert len(future.turns) == place + 2
    await agent.backend.close()


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data, trained) -> Path:
    out = data.parent / "optimized"
    assert main(arguments(data, trained, out)) == 0
    return out


def arguments(data: Path, trained: Path, out: Path, *more: str) -> list[str]:
    base = ["optimize", "--recommender", str(trained), "--users", "stub:accept-first", "--data", str(data), "--out", str(out)]
    base += ["--held-out", "stub:never-accept", "stub:accept-last", "--steps", "4", "--scenarios-per-step", "2"]
    base += ["--group-size", "3", "--learning-rate", "1e-3", "--check-every", "2", "--save-every", "2"]
    base += ["--check-dialogues", "2", "--max-turns", "6", "--sampling.temperature", "0.7", "--sampling.max-new-tokens", "24"]
    base += ["--rewards.weights.acceptance", "1", "--rewards.weights.turn-cost", ".5", "--rewards.weights.format", "0"]
    return [*base, "--rewards.weights.recommend", "0", "--rewards.weights.preference", "0", *more]


def test_a_run_leaves_a_recommender_its_logs_and_conversations_before_and_after(finished, trained, capsys) -> None:
    steps = lines(finished / "logs" / "steps.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    first = steps[0]
    assert first["num_conversations"] == 6
    assert first["format_valid"] == 1
    assert set(first["terms"]) == {"acceptance", "turn_cost"}
    assert first["clipped"] == 0
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert first["sampler_gap"] < 1e-4
    assert steps[-1]["kl"] > 0
    checks = lines(finished / "logs" / "checks.jsonl")
    assert {line["step"] for line in checks} == {0, 2, 4}
    assert {(line["kind"], line["simulator"]) for line in checks} == {
        ("training", "stub:accept-first"),
        ("held-out", "stub:never-accept"),
        ("held-out", "stub:accept-last"),
        ("human", "made"),
    }
    before, after = lines(finished / "before.jsonl"), lines(finished / "after.jsonl")
    assert [talk["scenario_key"] for talk in before] == [talk["scenario_key"] for talk in after]
    assert {talk["user"] for talk in before} == {"stub:never-accept"}
    assert read_card(finished).base_model == str(trained)
    assert not (finished / "checkpoints").exists()
    agent, _ = load_agent(finished, Role.RECOMMENDER, sampling=WARM, catalog=CATALOG)
    assert agent.role is Role.RECOMMENDER


def weights(path: Path) -> bytes:
    return (path / "model.safetensors").read_bytes()


def same_but_for_time(a: Path, b: Path) -> bool:
    def known(path: Path) -> list[dict]:
        return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines(path)]

    names = ("logs/steps.jsonl", "logs/checks.jsonl", "before.jsonl", "after.jsonl")
    return all(known(a / name) == known(b / name) for name in names)


def test_a_run_that_was_interrupted_and_then_killed_is_resumed_to_the_run_that_was_not(
    finished, data, trained, monkeypatch, capsys
) -> None:
    out = data.parent / "killed"
    real = policy_gradient.Reporter.on_step_end

    def interrupt(self, args, state, control, **rest):
        if state.global_step == 1:
            signal.raise_signal(signal.SIGINT)
        real(self, args, state, control, **rest)
        if state.global_step == 3:
            raise RuntimeError("killed")

    monkeypatch.setattr(policy_gradient.Reporter, "on_step_end", interrupt)
    assert main(arguments(data, trained, out)) == 130
    assert [line["step"] for line in lines(out / "logs" / "steps.jsonl")] == [1]
    assert (out / "checkpoints" / "checkpoint-1").is_dir()
    with pytest.raises(RuntimeError, match="killed"):
        main(arguments(data, trained, out, "--resume"))
    monkeypatch.undo()
    assert [line["step"] for line in lines(out / "logs" / "steps.jsonl")] == [1, 2, 3]
    assert read_card(out / "checkpoints" / "checkpoint-2").role is Role.RECOMMENDER
    capsys.readouterr()
    assert main(arguments(data, trained, out, "--resume", "--learning-rate", "1")) == 1
    assert "learning_rate: 0.001 -> 1.0" in capsys.readouterr().err
    assert main(arguments(data, trained, out, "--resume")) == 0
    assert weights(out) == weights(finished)
    assert same_but_for_time(out, finished)
    assert main(arguments(data, trained, out, "--resume")) == 0


@pytest.fixture(scope="module")
def judged(data) -> list[str]:
    """The flags of a short run that is rewarded for realism and sociability."""
    path = data.parent / "strategies"
    path.mkdir()
    StrategyClassifier.fit("made", labelled(10), num_folds=2, penalties=(4.0,)).write(path)
    short = ["--steps", "2", "--realism-dialogues", "3", "--check-dialogues", "1", "--strategies", str(path)]
    return [*short, "--rewards.weights.realism", "1", "--rewards.weights.sociability", "1"]


def test_realism_and_sociability_are_judged_alike_in_a_run_that_was_interrupted_and_resumed(
    data, trained, judged, monkeypatch, capsys
) -> None:
    whole, stopped = data.parent / "judged", data.parent / "judged-again"
    assert main(arguments(data, trained, whole, *judged)) == 0
    spoken = lines(whole / "start.jsonl")
    assert len({talk["scenario_key"] for talk in spoken}) == 3
    assert {talk["user"] for talk in spoken} == {"stub:accept-first"}
    for line in lines(whole / "logs" / "steps.jsonl"):
        assert line["terms"]["realism"]["n"] == line["terms"]["sociability"]["n"] == 6
        assert 0 < line["terms"]["realism"]["mean"] < 1
        assert 0 <= line["terms"]["sociability"]["mean"] <= 1

    real = policy_gradient.Reporter.on_step_end

    def interrupt(self, *told, **rest):
        signal.raise_signal(signal.SIGINT)
        real(self, *told, **rest)

    monkeypatch.setattr(policy_gradient.Reporter, "on_step_end", interrupt)
    assert main(arguments(data, trained, stopped, *judged)) == 130
    monkeypatch.undo()
    monkeypatch.delattr(policy_gradient.PolicyTrainer, "_speak")  # what the judge learned from is read, not held again
    assert main(arguments(data, trained, stopped, *judged, "--resume")) == 0
    assert [line["step"] for line in lines(stopped / "logs" / "steps.jsonl")] == [1, 2]
    assert same_but_for_time(stopped, whole)
    assert weights(stopped) == weights(whole)
    assert (stopped / "start.jsonl").read_bytes() == (whole / "start.jsonl").read_bytes()


async def nothing() -> None:
    pass


async def unmeasured(step, policy, with_persona) -> Measured:
    return Measured((), ())


def environment(data: Path, rewards: RewardSpec = REWARDS, **options) -> Environment:
    starts = [s for s in Corpus.read(data).scenarios if s.split is Split.TRAIN]
    settings = {
        "scenarios": starts,
        "catalog": CATALOG,
        "user": StubUser("accept-first"),
        "rewards": Rewards(rewards),
        "check": unmeasured,
        "close": nothing,
    }
    return Environment(**(settings | options))


@pytest.mark.parametrize("algorithm", ["dpo", "best-of-n"])
def test_the_other_algorithms_run_and_move_the_weights(data, trained, tmp_path, algorithm) -> None:
    asked = config(data, trained, tmp_path / "o", algorithm=algorithm, steps=1, iterations=2, warmup_steps=0)
    summary = optimise(asked, environment(data))
    assert summary["rounds"] == 1
    assert weights(tmp_path / "o") != weights(trained)


@pytest.mark.parametrize("window", [0, 1])
def test_futures_pay_each_turn_by_what_it_leads_to_and_without_a_window_at_once(
    data, trained, tmp_path, monkeypatch, window
) -> None:
    paid = []

    def credit(config, groups, scored, outlooks, *rest):
        steps = [[list(one.steps) for one in group] for group in scored]
        paid.append((steps, outlooks))
        return give_credit(config, groups, scored, outlooks, *rest)

    monkeypatch.setattr(policy_gradient, "give_credit", credit)
    asked = config(data, trained, tmp_path / "o", steps=1, num_futures=1, window=window)
    assert optimise(asked, environment(data, user=StubUser("never-accept")))["rounds"] == 1
    ((steps, outlooks),) = paid
    for one, outlook in zip((x for group in steps for x in group), (x for group in outlooks for x in group), strict=True):
        assert len(one) == len(outlook) == 3
        cost = REWARDS.weights.turn_cost / 3
        assert one == pytest.approx([-cost] * 3)
        # One more turn of the same price follows every turn but the last.
        assert outlook == pytest.approx([-2 * cost, -2 * cost, -cost] if window else one)


def test_adapters_are_trained_and_merged(data, trained, tmp_path) -> None:
    asked = config(data, trained, tmp_path / "o", steps=2, tuning="lora", warmup_steps=0, learning_rate=1e-2)
    optimise(asked, environment(data))
    assert weights(tmp_path / "o") != weights(trained)
    first = lines(tmp_path / "o" / "logs" / "steps.jsonl")[0]
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert first["sampler_gap"] < 1e-4
    agent, _ = load_agent(tmp_path / "o", Role.RECOMMENDER, sampling=WARM, catalog=CATALOG)
    assert agent.name == "o"


def test_learning_raises_the_reward(data, trained, tmp_path) -> None:
    asked = config(data, trained, tmp_path / "o", steps=8, group_size=6, learning_rate=5e-3, warmup_steps=0)
    optimise(asked, environment(data))
    rewards = [line["reward"] for line in lines(tmp_path / "o" / "logs" / "steps.jsonl")]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.1


def test_a_loss_that_is_no_number_stops_the_run_names_the_batch_and_keeps_the_checkpoint(
    data, trained, tmp_path, monkeypatch
) -> None:
    real = policy_gradient.PolicyTrainer._loss

    def broken(self, model, lessons):
        loss = real(self, model, lessons)
        return loss * float("nan") if self.state.global_step == 1 else loss

    monkeypatch.setattr(policy_gradient.PolicyTrainer, "_loss", broken)
    with pytest.raises(InterplayError, match=r"round 2: the loss is nan over .* of the conversations .*checkpoint-1 is kept"):
        optimise(config(data, trained, tmp_path / "o", save_every=1), environment(data))
    assert (tmp_path / "o" / "checkpoints" / "checkpoint-1").is_dir()


def test_a_recommender_that_says_nothing_readable_is_one_line(data, trained, tmp_path) -> None:
    asked = config(
        data, trained, tmp_path / "o", constrained=False, sampling=Sampling(temperature=5.0, max_new_tokens=8), steps=1
    )
    with pytest.raises(InterplayError, match=r"none of .* answers in 6 conversations could be read"):
        optimise(asked, environment(data))


# ---- reasoning and ranked lists --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reasoned(tmp_path_factory) -> Path:
    """A data directory, a ranker and a recommender that reasons, from two steps of training."""
    folder = tmp_path_factory.mktemp("reasoned")
    rng = random.Random(0)
    talks = [talk(rng) for _ in range(8)]
    starts = [
        begin(n, Split.TEST if n % 4 == 3 else Split.TRAIN, FILM_CATALOG[t[4].items[0].item_id]) for n, t in enumerate(talks)
    ]
    corpus = Corpus("made", [dialogue(s, t) for s, t in zip(starts, talks, strict=True)], starts, FILM_CATALOG, Counts(8, 8))
    corpus.write(folder / "data")
    logs = [TrainingLog(log, None) for _, log in corpus.pairs(Split.TRAIN)]
    (folder / "ranker").mkdir()
    ItemRanker.fit(FILM_CATALOG, logs, epochs=1).write(folder / "ranker")
    sft.train(
        TrainConfig(
            role="recommender",
            data=[folder / "data"],
            out=folder / "model",
            knowledge=f"ranker:{folder / 'ranker'}",
            num_candidates=5,
            reasoning=True,
            trace=TraceSettings(list_length=3, attributes=["genre"]),
            max_steps=2,
            max_length=700,
            tiny=TinyConfig(layers=1, width=32, vocab_size=400, context=1024),
        )
    )
    return folder


@pytest.mark.parametrize("credit", ["places", "shaped"])
def test_the_tokens_of_a_place_of_a_list_get_its_advantage_and_others_their_turn_s(reasoned, data, trained, credit) -> None:
    form = load_form(reasoned / "model", read_card(reasoned / "model"))
    tag = form.tag_id
    opening, closing = (tag(name) for name in title_tags(MOVIE))
    word = form.encode_text("film")[0]
    said = (tag("<ranking>"), tag("<candidate-2>"), opening, word, word, closing, tag("</reasoning>"), word)
    places, ends = list_places(form, said)
    assert places.tolist() == [-1, 0, 1, 1, 1, 1, -1, -1]
    assert np.flatnonzero(ends).tolist() == [6]
    (row,) = rows_of([sample([1], said)])
    starts = [scenario()]
    groups = [[Spoken(dialogue(starts[0], TALK[:2], sample=n), (row,)) for n in range(2)]]
    scored = [[Scored({}, {}, (value,)) for value in (1.0, 0.0)]]
    lists = [[np.array([[0.5, -0.25, 0.125]]), np.zeros((1, 3))]]
    asked = config(data, trained, Path("o"), algorithm="rank", constrained=credit == "places")
    first = give_credit(asked, groups, scored, lists=lists, form=form).lessons[0]
    paid = first.advantages[first.segments].tolist()
    end = 1.0 if credit == "places" else -0.1  # two places where three are wanted
    assert paid == [1.0, 0.5, -0.25, -0.25, -0.25, -0.25, end, 1.0]
    assert first.segments.tolist() == [0, 1, 2, 2, 2, 2, 6, 7]


def test_lists_of_one_turn_are_compared_place_by_place(reasoned) -> None:
    start = begin(0, Split.TRAIN, FILM_CATALOG["f1"])
    talks = [dialogue(start, TALK[:2], sample=n) for n in range(2)]
    lists = (("Film 1 (1991)", "Film 2 (1992)"), ("Film 2 (1992)", "Film 1 (1991)"))
    group = [Rollout(start, t, FILM_CATALOG, answers=(Answer(ranking=own),)) for t, own in zip(talks, lists, strict=True)]
    found, num_flat = list_advantages([group], 3)
    first, second = (own[0] for own in found[0])
    assert num_flat == 1
    np.testing.assert_allclose(first, -second)
    assert first[0] > 0 > first[1]
    assert first[2] == 0


def test_rank_trains_a_recommender_that_reasons_by_its_lists(reasoned, tmp_path) -> None:
    start = config(reasoned / "data", reasoned / "model", tmp_path / "o")
    asked = start.model_copy(
        update={
            "algorithm": "rank",
            "steps": 2,
            "warmup_steps": 0,
            "sampling": Sampling(temperature=1.0, max_new_tokens=80),
            "rewards": RewardSpec(list_length=3, weights=RewardWeights(format=1, recommend=1, preference=1)),
        }
    )
    corpus = Corpus.read(reasoned / "data")
    starts = [s for s in corpus.scenarios if s.split is Split.TRAIN]
    optimise(asked, environment(reasoned / "data", asked.rewards, scenarios=starts, catalog=FILM_CATALOG))
    first, second = lines(tmp_path / "o" / "logs" / "steps.jsonl")
    assert first["format_valid"] == 1
    assert first["terms"]["recommend"]["n"] > 0
    assert first["terms"]["preference"]["n"] > 0
    assert first["sampler_gap"] < 1e-4
    assert second["kl"] > 0
    assert read_card(tmp_path / "o").reasoning


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": ["agenda"]}, "1 held-out simulators were given; give at least two"),
        ({"held_out": ["stub:accept-first", "agenda"]}, "stub:accept-first is among --users and --held-out"),
        ({"held_out": ["agenda", "agenda"]}, "agenda is given twice"),
    ],
)
def test_simulators_that_prove_nothing_are_refused(data, trained, tmp_path, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        require_held_out(config(data, trained, tmp_path, **options))


@pytest.mark.parametrize(
    "sampling", [Sampling(top_p=0.9), Sampling(temperature=0), Sampling(min_p=0.1), Sampling(presence_penalty=1)]
)
def test_sampling_that_bends_the_policy_s_distribution_is_refused(data, trained, tmp_path, sampling) -> None:
    with pytest.raises(ConfigError, match="would draw from another distribution than the one that is trained"):
        require_exact(config(data, trained, tmp_path, sampling=sampling), NUM, read_card(trained))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "rank"}, "places of a ranked list, and .* writes none"),
        ({"algorithm": "grpo", "num_futures": 2}, "--num-futures is credit per turn"),
    ],
)
def test_credit_that_the_policy_can_t_have_is_refused(data, trained, tmp_path, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        require_exact(config(data, trained, tmp_path, **options), NUM, read_card(trained))


def test_a_round_that_takes_more_scenarios_than_there_are_is_one_line(data, trained, tmp_path, capsys) -> None:
    assert main([*arguments(data, trained, tmp_path / "o"), "--scenarios-per-step", "99"]) == 1
    assert "holds 6 scenarios, fewer than one round takes (99)" in capsys.readouterr().err


def test_a_reward_without_its_judge_is_one_line(data, trained, tmp_path, capsys) -> None:
    starts = [scenario(split=Split.TEST)]
    Corpus("late", [dialogue(starts[0])], starts, CATALOG, Counts(1, 1)).save(tmp_path / "late")
    realism, sociability = "--rewards.weights.realism", "--rewards.weights.sociability"
    for more, message in (
        ([sociability, "1"], "--strategies DIR, made by interplay evaluate train-strategies --out DIR"),
        ([sociability, "1", "--strategies", str(data)], "so it is no classifier of strategies"),
        (["--strategies", str(data)], "--strategies is asked by the reward sociability alone"),
        ([realism, "1", "--human", str(tmp_path / "late")], "late has no turn of a recommender who is a person"),
    ):
        assert main(arguments(data, trained, tmp_path / "o", *more)) == 1
        told = capsys.readouterr().err.strip()
        assert message in told
        assert "\n" not in told
