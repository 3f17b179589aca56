"""What a round of `interplay optimize` costs: generating against training, and rollouts against plain simulation.

    python benchmarks/rollouts.py                                  a tiny recommender is trained first, a few minutes
    python benchmarks/rollouts.py --recommender runs/quickstart/recommender --data runs/quickstart/data --rounds 5

Every round of the optimisation is held once more as a plain simulation, with the same scenarios, seeds and (the learning rate
being next to nothing) the same weights: the conversations must come out the same, and only what a rollout does beside them
is left: keeping what was said, replaying the constraint, rewards. Both are measured in one process, in turns, wall clock and
processor time. Nothing else should run on the machine.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from interplay.cli import main
from interplay.config import OptimizeConfig, RewardSpec, RewardWeights, Sampling
from interplay.corpora.corpus import Corpus
from interplay.simulation.agenda_user import AgendaUser
from interplay.simulation.batch import Plan, simulate
from interplay.simulation.checkpoint import load_agent
from interplay.simulation.dialogue import Limits
from interplay.training.policy_gradient import STEPS, Environment, Measured, optimise
from interplay.training.rewards.scoring import Rewards
from interplay.types import Dialogue, Role, Split, derive_seed


def clocks() -> tuple[float, float]:
    """Wall clock and processor time of this process, in seconds."""
    return time.perf_counter(), time.process_time()


def made(folder: Path) -> tuple[Path, Path]:
    """A tiny recommender and its data."""
    data, model = folder / "data", folder / "recommender"
    assert main(["data", "agenda", "--out", str(data), "--num-dialogues", "600", "--num-items", "200"]) == 0
    shape = ["--tiny.layers", "3", "--tiny.width", "128", "--tiny.vocab-size", "2048"]
    steps = ["--max-steps", "300", "--max-length", "512", "--learning-rate", "3e-3"]
    assert main(["train", "recommender", "--data", str(data), "--out", str(model), *shape, *steps]) == 0
    return model, data


def measure(model: Path, data: Path, rounds: int, scenarios: int, group: int, out: Path) -> dict[str, Any]:
    """The figures of one run."""
    corpus = Corpus.read(data)
    user = AgendaUser(corpus.catalog)
    sampling = Sampling(temperature=0.8, max_new_tokens=80)
    config = OptimizeConfig(
        recommender=model,
        users=["agenda"],
        data=data,
        out=out,
        steps=rounds + 1,
        scenarios_per_step=scenarios,
        group_size=group,
        learning_rate=1e-12,
        concurrency=scenarios * group,
        save_every=1000,
        check_every=1000,
        sampling=sampling,
        rewards=RewardSpec(weights=RewardWeights(format=0, preference=0, acceptance=1, turn_cost=0.25)),
    )

    async def unmeasured(*_: object) -> Measured:
        return Measured((), ())

    async def nothing() -> None:
        pass

    train = [s for s in corpus.scenarios if s.split is Split.TRAIN]
    environment = Environment(
        scenarios=train, catalog=corpus.catalog, user=user, rewards=Rewards(config.rewards), check=unmeasured, close=nothing
    )
    plain: list[tuple[float, float]] = []
    held: list[int] = []
    agent, card = load_agent(model, Role.RECOMMENDER, sampling=sampling, catalog=corpus.catalog, max_batch=config.concurrency)
    runner = asyncio.Runner()

    def run(job: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[float, float]:
        before = clocks()
        runner.run(job())
        after = clocks()
        return after[0] - before[0], after[1] - before[1]

    from interplay.training import policy_gradient

    real, real_look_back = policy_gradient.PolicyTrainer._hold, policy_gradient.PolicyTrainer._look_back
    rollouts: list[float] = []
    looked_back = 0.0

    def look_back(self: Any, lessons: Any) -> None:
        nonlocal looked_back
        before = time.process_time()
        real_look_back(self, lessons)
        looked_back = time.process_time() - before

    def hold(self: Any, chosen: Any) -> Any:
        number = self.state.global_step // config.iterations + 1
        plan = Plan(
            seed=derive_seed(config.seed, "round", number),
            num_samples=group,
            concurrency=config.concurrency,
            limits=Limits(config.max_turns, config.max_repeats),
            with_persona=card.with_persona,
        )
        dialogues: list[Dialogue] = []
        plain.append(run(lambda: simulate(chosen, user, agent, plan, on_dialogue=dialogues.append)))
        before = time.process_time()
        found = real(self, chosen)
        rollouts.append(time.process_time() - before - looked_back)
        held.append(len(dialogues))
        turns = sum(len(dialogue.turns) for dialogue in dialogues) / len(dialogues)
        assert abs(turns - self._line["turns"]) < 1e-9, "the two held different conversations"
        return found

    policy_gradient.PolicyTrainer._hold = hold  # to measure beside it
    policy_gradient.PolicyTrainer._look_back = look_back  # which is training
    try:
        optimise(config, environment)
    finally:
        policy_gradient.PolicyTrainer._hold, policy_gradient.PolicyTrainer._look_back = real, real_look_back
        runner.run(agent.backend.close())
        runner.close()
    lines = [json.loads(line) for line in (out / STEPS).read_text(encoding="utf-8").splitlines()][1:]  # the first warms up
    generating = sum(line["seconds_generating"] for line in lines)
    training = sum(line["seconds_training"] for line in lines)
    seconds_plain = sum(wall for wall, _ in plain[1:])
    conversations = sum(held[1:])
    return {
        "conversations": conversations,
        "turns_per_conversation": sum(line["turns"] for line in lines) / len(lines),
        "plain_per_second": conversations / seconds_plain,
        "rollouts_per_second": conversations / generating,
        "ratio": seconds_plain / generating,
        "ratio_of_processor_time": sum(cpu for _, cpu in plain[1:]) / sum(rollouts[1:]),
        "generating_share": generating / (generating + training),
        "seconds_per_round": (generating + training) / len(lines),
        "seconds_generating": generating / len(lines),
        "seconds_training": training / len(lines),
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def report(argv: list[str] | None = None) -> int:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recommender", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenarios", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(argv)
    if (asked.recommender is None) != (asked.data is None):
        parser.error("--recommender and --data go together")
    with tempfile.TemporaryDirectory() as folder:
        model, data = made(Path(folder)) if asked.recommender is None else (asked.recommender, asked.data)
        found = measure(model, data, asked.rounds, asked.scenarios, asked.group, Path(folder) / "out")
    found |= {"machine": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
    for name, value in found.items():
        print(f"{name:>24}  {value:.3f}" if isinstance(value, float) else f"{name:>24}  {value}")
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(report())
