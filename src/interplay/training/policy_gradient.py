"""Optimising a recommender against user simulators, on TRL's GRPOTrainer. The only file that knows GRPOTrainer.

    OUT/optimize.json            what was asked for
    OUT/logs/steps.jsonl         a line per round; see docs/optimize.md
    OUT/logs/checks.jsonl        a line per measured number (`types.Check`)
    OUT/alarms.jsonl             what the monitor found (`types.Alarm`)
    OUT/before.jsonl, after.jsonl  conversations on the same held-out scenarios with the first held-out simulator
    OUT/start.jsonl              where realism is rewarded: conversations before the first round, which its judge learned from
    OUT/model.safetensors ...    the model and tokenizer as transformers writes them
    OUT/interplay.json           the checkpoint's card; written last
    OUT/checkpoints/             to resume from; removed when the training is done

TRL gives the loop: order of scenarios, optimiser, schedule, processes, adapters, the frozen reference, checkpoints. Ours
are the conversations, their rewards, the advantages and the loss, which TRL has no place for in a talk of several turns.
The engine serves the very weights that are trained: after a step there is nothing to be copied.
"""

import asyncio
import gc
import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

# Read when huggingface_hub is imported: every trainer start would otherwise report itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from accelerate import PartialState  # type: ignore[import-untyped]  # no stubs
from accelerate.utils import gather_object  # type: ignore[import-untyped]  # no stubs
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

from interplay import __version__
from interplay.backends.local import LocalBackend, pick_device
from interplay.config import OptimizeConfig
from interplay.errors import CheckpointError, ConfigError, DataError, InterplayError
from interplay.simulation.agents import Agent
from interplay.simulation.batch import Plan, simulate
from interplay.simulation.checkpoint import CARD, CheckpointCard, load_agent, load_tokenizer, require_role
from interplay.simulation.dialogue import Limits
from interplay.simulation.model_agents import TokenAgent
from interplay.simulation.specs import slots_of
from interplay.store import Run, cut_torn_line, read_json, read_json_lines, read_records, write_lines, write_records
from interplay.training.advantages import segment_loss
from interplay.training.credit import Lesson, Lessons, give_credit, list_advantages
from interplay.training.log_probs import log_probs
from interplay.training.monitor import Monitor, behaviour
from interplay.training.rewards.futures import multiturn_aware
from interplay.training.rewards.judges import PolicyDiscriminator
from interplay.training.rewards.rollouts import Rollout, answers_of
from interplay.training.rewards.scoring import Rewards, Scored, summarise
from interplay.training.rollouts import Recorder, Row, Spoken, roll_out, sample_futures
from interplay.types import Alarm, Catalog, Check, Dialogue, Role, Scenario, derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

STEPS, CHECKS = Path("logs") / "steps.jsonl", Path("logs") / "checks.jsonl"
ALARMS = "alarms.jsonl"
BEFORE, AFTER = "before.jsonl", "after.jsonl"
START = "start.jsonl"
CHECKPOINTS = "checkpoints"
CLIP = 0.2
"""How far a ratio may be from 1 where neither the config nor Rank-GRPO says otherwise (PPO's)."""
CLIP_OF_RANK = (0.06, 0.08)


class OptimizeRun(Run):
    """A Run whose config stands beside the model's own `config.json`."""

    MARKER = "optimize.json"


@dataclass(slots=True, frozen=True)
class Measured:
    """What a check found."""

    checks: tuple[Check, ...]
    dialogues: tuple[Dialogue, ...]
    """With the first held-out simulator, in the order of the scenarios."""


@dataclass(slots=True, frozen=True)
class Environment:
    """What the policy is trained in."""

    scenarios: Sequence[Scenario]
    catalog: Catalog
    user: Agent
    """Whom it talks to."""
    rewards: Rewards
    check: Callable[[int, Agent, bool], Awaitable[Measured]]
    """Measures the policy: called with the round (0 before the first), the policy, and whether it is shown the persona."""
    close: Callable[[], Awaitable[None]]
    """Gives back what the simulators hold."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What the Run's config says beside the flags, and a resume must match."""
    popularity: Mapping[str, float] | None = None
    """See `monitor.behaviour`."""
    realism: PolicyDiscriminator | None = None
    """What `rewards` asks for `realism`; it is fitted before the first round."""


OnProgress = Callable[[int, int, Mapping[str, Any]], None]
"""Called with (rounds done, rounds in all, the latest line of the log)."""


def require_exact(config: OptimizeConfig, num_scenarios: int, card: CheckpointCard) -> None:
    """Make sure that what is asked for can be trained.

    Raises:
        ConfigError: the sampling bends the policy's distribution, the algorithm wants lists and the policy writes none, or
            futures are asked of an algorithm that has no turns.
        DataError: scenarios are too few.
    """
    if config.algorithm == "rank" and not card.reasoning:
        raise ConfigError(
            f"--algorithm rank gives credit to the places of a ranked list, and {config.recommender} writes none; train one "
            "with interplay train recommender --reasoning, or choose --algorithm turn"
        )
    if card.reasoning and config.rewards.list_length != card.list_length and config.rewards.weights.format:
        raise ConfigError(
            f"{config.recommender} writes lists of {card.list_length} titles, and rewards.list_length is "
            f"{config.rewards.list_length}: no answer would keep the form; pass --rewards.list-length {card.list_length}"
        )
    if config.num_futures and config.algorithm not in ("turn", "rank"):
        raise ConfigError(f"--num-futures is credit per turn, which --algorithm {config.algorithm} does not give")
    sampling = config.sampling
    bent = [
        name
        for name, plain in (("top_p", 1.0), ("min_p", 0.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0))
        if getattr(sampling, name) != plain
    ]
    if bent or sampling.temperature <= 0:
        wrong = f"sampling.{bent[0]}" if bent else "sampling.temperature 0"
        raise ConfigError(
            f"{wrong} would draw from another distribution than the one that is trained; leave the policy's sampling at "
            "top_p 1, min_p 0, no penalties and a temperature above 0"
        )
    if num_scenarios < config.scenarios_per_step:
        raise DataError(
            f"the {config.split} split of {config.data} holds {num_scenarios} scenarios, fewer than one round takes "
            f"({config.scenarios_per_step}); lower --scenarios-per-step or choose another --split"
        )


def optimise(config: OptimizeConfig, environment: Environment, *, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Train, and save a recommender to `config.out`.

    Args:
        config: see OptimizeConfig.
        environment: scenarios, simulators, rewards and checks.
        on_progress: called after every round.

    Returns:
        What was measured: rounds, seconds generating and training, conversations.

    Raises:
        InputError: bad flags, model or output directory.
        InterplayError: the loss is no number, or no answer of the policy could be read; the last checkpoint is kept, if any.
        KeyboardInterrupt: interrupted; the round under way was finished and saved, and `--resume` goes on from there.
    """
    card = require_role(config.recommender, Role.RECOMMENDER)
    require_exact(config, len(environment.scenarios), card)
    state = PartialState(cpu=not torch.cuda.is_available()) if num_processes() > 1 else None
    if state is None or state.is_main_process:
        _begin(config, environment)
    if state is not None:
        state.wait_for_everyone()
    if config.resume and (config.out / CARD).is_file():
        return _summary(config)
    checkpoint = _last_checkpoint(config.out / CHECKPOINTS)

    tokenizer = load_tokenizer(config.recommender)
    trainer = PolicyTrainer(config, environment, card, _load(config), tokenizer)
    with asyncio.Runner() as runner, _Interrupts() as interrupts:
        trainer.start(runner, Reporter(trainer, interrupts, on_progress))
        if checkpoint is not None:
            trainer.remember()
        elif trainer.is_world_process_zero():
            trainer.check(0)
        trainer.fit_realism()
        gc.freeze()  # what is loaded stays; looking through it again and again is a tenth of a turn
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        finally:
            gc.unfreeze()
            runner.run(_close(trainer, environment))
    if interrupts.is_set:
        raise KeyboardInterrupt
    if trainer.is_world_process_zero():
        _save(config, trainer, tokenizer, card)
    return _summary(config)


def num_processes() -> int:
    """Processes that train together, as accelerate and torchrun say."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _begin(config: OptimizeConfig, environment: Environment) -> None:
    """Make the output, or, with --resume, take back what was logged after the latest checkpoint.

    Raises:
        RunError: see `Run.create` and `Run.resume`.
    """
    record = config.record() | {"verb": "optimize", **environment.record, "package_version": __version__}
    for name in ("concurrency", "memory_gib"):
        record.pop(name)
    if not config.resume:
        OptimizeRun.create(config.out, record, overwrite=config.overwrite)
    else:
        OptimizeRun.resume(config.out, record)
        if (config.out / CARD).is_file():
            return
        checkpoint = _last_checkpoint(config.out / CHECKPOINTS)
        done = -1
        if checkpoint is not None:
            done = int(read_json(Path(checkpoint) / "trainer_state.json")["global_step"]) // config.iterations
        for path in (STEPS, CHECKS, Path(ALARMS)):
            _keep_until(config.out / path, done)
    (config.out / "logs").mkdir(exist_ok=True)


def _summary(config: OptimizeConfig) -> dict[str, Any]:
    lines = _logged(config.out / STEPS)
    return {
        "rounds": len(lines),
        "conversations": sum(line["num_conversations"] for line in lines),
        "seconds_generating": sum(line["seconds_generating"] for line in lines),
        "seconds_training": sum(line["seconds_training"] for line in lines),
        "num_flat": sum(line["num_flat"] for line in lines),
        "num_groups": len(lines) * config.scenarios_per_step,
        "num_missing": sum(line["num_missing"] for line in lines),
    }


def _last_checkpoint(folder: Path) -> str | None:
    if not folder.is_dir():
        return None
    path: str | None = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return path


def _logged(path: Path) -> list[dict[str, Any]]:
    return [line for _, line in read_json_lines(path)] if path.is_file() else []


def _keep_until(path: Path, step: int) -> None:
    """Take lines of later rounds out of a log: they are done again."""
    if path.is_file():
        cut_torn_line(path)
        write_lines(path, [json.dumps(line) for _, line in read_json_lines(path) if line["step"] <= step])


def _append(path: Path, lines: Sequence[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _load(config: OptimizeConfig) -> "PreTrainedModel":
    device = pick_device()
    # All weights are trained in float32; under adapters the frozen base is in the compute type.
    dtype = torch.bfloat16 if config.tuning == "lora" and device.type != "cpu" else torch.float32
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(config.recommender, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{config.recommender} holds no model that can be loaded ({reason})") from None
    return model


class _Interrupts:
    """Ctrl-C once: finish the round and save. Twice: stop at once, and go on from the latest checkpoint."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: Any = None

    def __enter__(self) -> "_Interrupts":
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True


class Reporter(TrainerCallback):
    """After each round: the log, the checks, the progress, and whether to go on.

    Args:
        trainer: whose rounds.
        interrupts: whether somebody wants to stop.
        on_progress: see `optimise`.
    """

    def __init__(self, trainer: "PolicyTrainer", interrupts: _Interrupts, on_progress: OnProgress | None) -> None:
        self._trainer = trainer
        self._interrupts = interrupts
        self._on_progress = on_progress

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See TrainerCallback."""
        config = self._trainer.config
        if state.global_step % config.iterations:
            return
        done = state.global_step // config.iterations
        line = self._trainer.finish_round(done)
        if state.is_world_process_zero:
            _append(config.out / STEPS, [json.dumps(line, ensure_ascii=False)])
            self._trainer.warn(self._trainer.monitor.step(line))
            if done % config.check_every == 0 or done == config.steps:
                self._trainer.check(done)
            if self._on_progress is not None:
                self._on_progress(done, config.steps, line)
        if self._interrupts.is_set:
            control.should_save = control.should_training_stop = True


@dataclass(slots=True)
class _Tally:
    """What the passes over one round's lessons add up to."""

    loss: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    num_segments: int = 0
    gap: float = 0.0
    num_choices: int = 0


class PolicyTrainer(GRPOTrainer):
    """GRPOTrainer with whole conversations for completions.

    Args:
        config: see OptimizeConfig.
        environment: see there.
        card: of the checkpoint.
        model: its model, which is trained and served.
        tokenizer: its tokenizer.
    """

    def __init__(
        self,
        config: OptimizeConfig,
        environment: Environment,
        card: CheckpointCard,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerFast",
    ) -> None:
        self.config = config
        self.environment = environment
        sharing = num_processes()
        if config.scenarios_per_step % sharing:
            raise ConfigError(
                f"{config.scenarios_per_step} scenarios per step can't be shared by {sharing} processes; "
                "choose a multiple with --scenarios-per-step"
            )
        on_gpu = torch.cuda.is_available()
        super().__init__(
            model=model,
            reward_funcs=[_rewarded_elsewhere],
            args=GRPOConfig(
                output_dir=str(config.out / CHECKPOINTS),
                num_generations=config.group_size,
                num_iterations=config.iterations,
                per_device_train_batch_size=config.scenarios_per_step // sharing * config.group_size,
                steps_per_generation=1,
                gradient_accumulation_steps=1,
                shuffle_dataset=False,
                max_steps=config.steps * config.iterations,
                learning_rate=config.learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=config.warmup_steps,
                weight_decay=config.weight_decay,
                adam_beta2=config.adam_beta2,
                max_grad_norm=config.max_grad_norm,
                beta=config.kl_weight or (1.0 if config.algorithm == "dpo" else 0.0),
                temperature=config.sampling.temperature,
                activation_checkpointing=config.gradient_checkpointing,
                disable_dropout=True,
                save_strategy="steps",
                save_steps=config.save_every * config.iterations,
                save_total_limit=2,
                logging_strategy="no",
                use_cpu=not on_gpu and not torch.backends.mps.is_available(),
                bf16=on_gpu,
                dataloader_pin_memory=on_gpu,
                ddp_find_unused_parameters=False,
                disable_tqdm=True,
                report_to="none",
                seed=config.seed,
                data_seed=config.seed,
            ),
            train_dataset=Dataset.from_dict({"prompt": [str(n) for n in self._order()]}),
            processing_class=tokenizer,
            peft_config=_lora(config),
        )
        self.remove_callback(PrinterCallback)
        self._padding = int(tokenizer.pad_token_id or 0)
        self._threads = torch.get_num_threads()
        self._policy = cast("Any", self.model)
        served = self._policy
        if config.tuning == "lora":
            served = served.get_base_model()  # with the adapters in it
        served.eval()
        engine = LocalBackend(served, str(config.recommender), max_batch=config.concurrency, memory_gib=config.memory_gib)
        slots, _ = slots_of(config, card, environment.catalog, constrained=config.constrained)
        self.card = card
        self.agent: TokenAgent
        self.agent, _ = load_agent(
            config.recommender,
            Role.RECOMMENDER,
            sampling=config.sampling,
            catalog=environment.catalog,
            constrained=config.constrained,
            exclude_rejected=config.exclude_rejected,
            slots=slots,
            served=engine,
        )
        self.recorder = Recorder(engine)
        self.agent.backend = self.recorder
        self.monitor = Monitor(config.monitor)
        self._runner: asyncio.Runner
        self._lessons: Lessons | None = None
        self._line: dict[str, Any] = {}
        self._tally = _Tally()
        self._began_training = 0.0

    def _order(self) -> list[int]:
        """Of every round, in order, which scenarios are played: whole passes, each in an order of its own.

        Made beforehand, so that a resumed run plays what it would have played: the library's own shuffling forgets on which
        pass it was.
        """
        config = self.config
        num_wanted = config.steps * config.scenarios_per_step
        num_scenarios = len(self.environment.scenarios)
        num_used = num_scenarios // config.scenarios_per_step * config.scenarios_per_step
        out: list[int] = []
        passes = 0
        while len(out) < num_wanted:
            rng = np.random.default_rng(derive_seed(config.seed, "order", passes))
            out += rng.permutation(num_scenarios)[:num_used].tolist()  # a round over two passes could hold a scenario twice
            passes += 1
        return out[:num_wanted]

    def start(self, runner: asyncio.Runner, callback: TrainerCallback) -> None:
        """What is needed before the first round: an event loop for all conversations, and who is told."""
        self._runner = runner
        self.add_callback(callback)

    # ---- a round -------------------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if self.state.global_step % self.config.iterations == 0 or self._lessons is None:
            numbers = [int(row["prompt"]) for row in generation_batch[:: self.config.group_size]]
            self._lessons = self._hold([self.environment.scenarios[n] for n in numbers])
        return self._lessons

    def _hold(self, scenarios: Sequence[Scenario]) -> Lessons:
        """Hold the conversations of a round, reward them, and see what is to be learned."""
        config, environment = self.config, self.environment
        number = self.state.global_step // config.iterations + 1
        began = time.monotonic()
        plan = self._plan(derive_seed(config.seed, "round", number), config.group_size)
        self._policy.eval()
        groups = self._runner.run(roll_out(scenarios, environment.user, self.agent, self.recorder, plan))
        rollouts = [
            [self._rollout(scenario, spoken.dialogue) for spoken in group]
            for scenario, group in zip(scenarios, groups, strict=True)
        ]
        scored = [[environment.rewards(rollout) for rollout in group] for group in rollouts]
        outlooks = None
        if config.num_futures:
            outlooks = self._runner.run(self._outlooks(scenarios, groups, scored, plan))
        torch.set_num_threads(self._threads)  # the engine's threads change it
        self._began_training = time.monotonic()
        flat = [pair for group in zip(rollouts, scored, strict=True) for pair in zip(*group, strict=True)]
        everything = gather_object(flat) if self.accelerator.num_processes > 1 else flat
        told = [rollout for rollout, _ in everything]
        rewards = summarise([one for _, one in everything])
        self._line = {
            "step": number,
            "reward": rewards.mean,
            "terms": {
                term.name: {name: value for name, value in asdict(term).items() if name != "name"} for term in rewards.terms
            },
            **behaviour(told, environment.popularity, list_length=config.rewards.list_length),
            "num_missing": rewards.num_missing,
            "num_conversations": len(told),
        }
        self._require_something(number, told)
        lists = None
        if config.algorithm == "rank":
            lists, self._line["num_flat_places"] = list_advantages(rollouts, self.card.list_length)
        found = give_credit(config, groups, scored, outlooks, lists, self.agent.form)
        self._line |= {
            "num_flat": sum(gather_object([found.num_flat])) if self.accelerator.num_processes > 1 else found.num_flat,
            "num_close": found.num_close,
            "num_alone": found.num_alone,
            "seconds_generating": self._began_training - began,
        }
        if found.lessons:
            self._look_back(found.lessons)
        self._tally = _Tally()
        return found

    def _rollout(self, scenario: Scenario, dialogue: Dialogue) -> Rollout:
        answers = answers_of(dialogue) if self.card.reasoning else None
        return Rollout(scenario, dialogue, self.environment.catalog, answers=answers, max_turns=self.config.max_turns)

    async def _outlooks(
        self, scenarios: Sequence[Scenario], groups: Sequence[Sequence[Spoken]], scored: Sequence[Sequence[Scored]], plan: Plan
    ) -> list[list[list[float | None]]]:
        """Of each conversation, the multi-turn-aware reward of each of its turns (CollabLLM)."""
        config = self.config
        free = asyncio.Semaphore(max(1, config.concurrency // max(1, config.num_futures)))

        async def of(scenario: Scenario, spoken: Spoken, one: Scored) -> list[float | None]:
            if one.total is None:
                return []
            async with free:
                futures = await sample_futures(
                    scenario,
                    spoken.dialogue,
                    self.environment.user,
                    self.agent,
                    num=config.num_futures if config.window else 0,
                    window=max(1, config.window),
                    plan=plan,
                )
            out: list[float | None] = []
            for turn, immediate in enumerate(one.steps):
                found = [
                    None
                    if (later := self.environment.rewards(self._rollout(scenario, dialogue))).total is None
                    else later.steps[turn + 1 :]
                    for dialogue in (futures[turn] if turn < len(futures) else [])
                ]
                is_last = not found and config.window > 0
                outlook = multiturn_aware(immediate, [()] if is_last else found, window=config.window, discount=config.discount)
                out.append(outlook.value)
            return out

        jobs = [
            of(scenario, spoken, one)
            for scenario, group, own in zip(scenarios, groups, scored, strict=True)
            for spoken, one in zip(group, own, strict=True)
        ]
        found = iter(await asyncio.gather(*jobs))
        return [[next(found) for _ in group] for group in groups]

    def _require_something(self, number: int, rollouts: Sequence[Rollout]) -> None:
        """Make sure that there is something to learn from.

        Raises:
            InterplayError: every conversation ended by a fault, or the policy said nothing that could be read.
        """
        kept = f"; what was saved is in {self.config.out / CHECKPOINTS}"
        faults = [r.dialogue.failure for r in rollouts if r.is_faulty]
        if len(faults) == len(rollouts):
            reason = next((f.reason for f in faults if f is not None), "for no reason that was told")
            raise InterplayError(f"round {number}: a fault ended all {len(rollouts)} conversations, the first: {reason}{kept}")
        if self._line["format_valid"] == 0:
            raw = next((r.dialogue.failure.raw for r in rollouts if r.dialogue.failure is not None), "")
            raise InterplayError(
                f"round {number}: none of {self.config.recommender}'s answers in {len(rollouts)} conversations could be read, "
                f"so there is nothing to learn (the first: {raw[:80]!r}); train it further with interplay train recommender"
            )

    def _look_back(self, lessons: Sequence[Lesson]) -> None:
        """Ask the model that training started from, and, where the weights will move more than once, the present one."""
        config = self.config
        sources: list[tuple[str, Any]] = []
        if config.iterations > 1:
            sources.append(("old", None))
        if config.kl_weight or config.algorithm == "dpo":
            sources.append(("reference", self.ref_model))
        for name, model in sources:
            for part in self._parts(lessons):
                with torch.no_grad(), self._adapters_off(name == "reference"), self.compute_loss_context_manager():
                    found = self._log_probs(self.model if model is None else model, part).chosen.double().cpu().numpy()
                for lesson, values in zip(part, found, strict=True):
                    setattr(lesson, name, values[: len(lesson.row.places)])

    def _adapters_off(self, off: bool) -> Any:
        if not off or self.config.tuning == "full":
            return nullcontext()
        model: Any = self.accelerator.unwrap_model(self.model)
        return model.disable_adapter()

    def _log_probs(self, model: Any, lessons: Sequence[Lesson]) -> Any:
        rows: list[Row] = [lesson.row for lesson in lessons]
        return log_probs(model, rows, temperature=self.config.sampling.temperature, padding=self._padding)

    def _parts(self, lessons: Sequence[Lesson]) -> list[list[Lesson]]:
        """Lessons of about the same length together."""
        ordered = sorted(lessons, key=lambda lesson: (len(lesson.row.ids), lesson.conversation))
        size = self.config.micro_batch
        return [list(ordered[start : start + size]) for start in range(0, len(ordered), size)]

    # ---- learning ------------------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Generate where it is due, and go backwards through all lessons of the round, a few conversations at a time."""
        lessons = self._prepare_inputs(inputs)
        model.train()
        # Work for each: conversations, or, for dpo, pairs of them.
        parts: list[Any] = (
            [lessons.pairs[start : start + max(1, self.config.micro_batch // 2)] for start in self._pair_starts(lessons)]
            if self.config.algorithm == "dpo"
            else self._parts(lessons.lessons)
        )
        self._step += 1
        total = torch.zeros((), device=self.accelerator.device)
        if not parts and self.accelerator.num_processes > 1:
            # The other processes wait for this one's gradients.
            nothing = torch.full((1, 1), self._padding, device=self.accelerator.device)
            self.accelerator.backward(model(input_ids=nothing, use_cache=False).logits.sum() * 0.0)
        for index, part in enumerate(parts):
            is_last = index + 1 == len(parts)
            with nullcontext() if is_last else self.accelerator.no_sync(model), self.compute_loss_context_manager():
                loss = self._pair_loss(model, part, len(lessons.pairs)) if lessons.pairs else self._loss(model, part)
                if not bool(torch.isfinite(loss)):
                    said = part if not lessons.pairs else [x for pair in part for side in pair for x in side]
                    raise self._broken("loss", float(loss.detach()), [lesson.conversation for lesson in said])
                self.accelerator.backward(loss)
            total += loss.detach()
        self._tally.loss += float(total)
        return total

    def _pair_starts(self, lessons: Lessons) -> range:
        return range(0, len(lessons.pairs), max(1, self.config.micro_batch // 2))

    def _loss(self, model: Any, lessons: Sequence[Lesson]) -> torch.Tensor:
        """The clipped loss of some conversations, divided by a constant."""
        config = self.config
        found = self._log_probs(model, lessons)
        width = found.chosen.shape[1]
        device = found.chosen.device
        segments = torch.full((len(lessons), width), -1, dtype=torch.long)
        advantages = torch.zeros(len(lessons), max(len(lesson.advantages) for lesson in lessons))
        for row, lesson in enumerate(lessons):
            segments[row, : len(lesson.segments)] = torch.from_numpy(lesson.segments)
            advantages[row, : len(lesson.advantages)] = torch.from_numpy(lesson.advantages)
        is_rank = config.algorithm == "rank"
        low, high = CLIP_OF_RANK if is_rank else (CLIP, CLIP)
        num_local = config.scenarios_per_step * config.group_size / self.accelerator.num_processes
        out = segment_loss(
            found.chosen,
            self._stacked(lessons, "old", found.chosen),
            segments.to(device),
            advantages.to(device),
            reference=self._stacked(lessons, "reference", found.chosen) if config.kl_weight else None,
            clip_low=low if config.clip_low is None else config.clip_low,
            clip_high=high if config.clip_high is None else config.clip_high,
            kl_weight=config.kl_weight,
            divisor=num_local * config.tokens_per_conversation,
        )
        self._count(lessons, found, out.kl, out.clipped_share, out.num_segments)
        return out.loss

    def _pair_loss(self, model: Any, pairs: Sequence[tuple[list[Lesson], list[Lesson]]], num_pairs: int) -> torch.Tensor:
        """DPO (arXiv 2305.18290, equation 7): -log sigmoid(beta (margin of the better less that of the worse)).

        A margin is the log-likelihood of everything the policy chose in a conversation, less that under the reference.
        """
        lessons = [lesson for pair in pairs for side in pair for lesson in side]
        found = self._log_probs(model, lessons)
        reference = self._stacked(lessons, "reference", found.chosen)
        margins = iter((found.chosen - reference).sum(-1))  # both are 0 where a row has no choice
        gaps = [
            sum((next(margins) for _ in better), torch.zeros(())) - sum((next(margins) for _ in worse), torch.zeros(()))
            for better, worse in pairs
        ]
        difference = (reference - found.chosen).detach()
        num = sum(len(lesson.row.places) for lesson in lessons)
        kl = float((difference.exp() - difference - 1).sum()) / num
        self._count(lessons, found, kl, None, num)
        return -torch.nn.functional.logsigmoid(self.config.dpo_beta * torch.stack(gaps)).sum() / num_pairs

    def _stacked(self, lessons: Sequence[Lesson], name: str, like: torch.Tensor) -> torch.Tensor:
        """A field of some lessons as a matrix; where it is not known, the present values themselves."""
        if any(getattr(lesson, name) is None for lesson in lessons):
            return like.detach()
        out = torch.zeros(like.shape, dtype=like.dtype)
        for row, lesson in enumerate(lessons):
            values = getattr(lesson, name)
            out[row, : len(values)] = torch.from_numpy(values)
        return out.to(like.device)

    def _count(self, lessons: Sequence[Lesson], found: Any, kl: float | None, clipped: float | None, num: int) -> None:
        tally = self._tally
        tally.num_segments += num
        tally.kl += (kl or 0.0) * num
        tally.clipped += (clipped or 0.0) * num
        if self.state.global_step % self.config.iterations == 0:
            free = found.free.cpu()
            for row, lesson in zip(free, lessons, strict=True):
                told = torch.from_numpy(lesson.row.sampled)
                tally.gap += float((row[: len(told)] - told).abs().sum())
                tally.num_choices += len(told)

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        value = float(norm) if norm is not None else 0.0
        if not math.isfinite(value):
            keys = [] if self._lessons is None else [lesson.conversation for lesson in self._lessons.lessons]
            raise self._broken("gradient's norm", value, keys)
        self._line["grad_norm"] = value
        return norm

    def _broken(self, what: str, value: float, conversations: Sequence[str]) -> InterplayError:
        number = self.state.global_step // self.config.iterations + 1
        path = _last_checkpoint(self.config.out / CHECKPOINTS)
        kept = "no checkpoint had been saved" if path is None else f"the checkpoint {path} is kept"
        said = ", ".join(sorted(set(conversations))[:4])
        return InterplayError(
            f"round {number}: the {what} is {value} over {len(conversations)} rows, of the conversations {said}, ...; {kept}: "
            "start again from it with a lower --learning-rate"
        )

    def finish_round(self, number: int) -> dict[str, Any]:
        """The line of the log, once the weights have moved for the last time in a round."""
        tally = self._tally
        if self.accelerator.num_processes > 1:
            told: list[_Tally] = gather_object([tally])
            tally = _Tally(**{name: sum(getattr(one, name) for one in told) for name in _Tally.__slots__})
            tally.loss /= len(told)
        has_kl = bool(self.config.kl_weight) or self.config.algorithm == "dpo"
        self._line |= {
            "kl": tally.kl / tally.num_segments if tally.num_segments and has_kl else None,
            "clipped": tally.clipped / tally.num_segments if tally.num_segments else None,
            "loss": tally.loss / self.config.iterations,
            "sampler_gap": tally.gap / tally.num_choices if tally.num_choices else None,
            "seconds_training": time.monotonic() - self._began_training,
        }
        self._line.setdefault("grad_norm", None)
        return self._line

    def check(self, number: int) -> None:
        """Measure the policy after a round, and keep what was found; conversations of the first and the last one too."""
        out = self.config.out
        self._policy.eval()
        found = self._runner.run(_awaited(self.environment.check(number, self.agent, self.card.with_persona)))
        torch.set_num_threads(self._threads)
        _append(out / CHECKS, [check.to_json() for check in found.checks])
        self.warn(self.monitor.check(check.model_dump(mode="json") for check in found.checks))
        if number in (0, self.config.steps):
            write_records(out / (AFTER if number else BEFORE), found.dialogues)

    def fit_realism(self) -> None:
        """Fit the judge of `realism` on conversations of the policy as it starts; nothing where it is not rewarded.

        They are kept, so a resumed run has the judge that the run began with. Called before any weight has moved: when
        resuming, the checkpoint is not loaded yet.

        Raises:
            InterplayError: the policy said nothing that could be read.
        """
        judge, config, path = self.environment.realism, self.config, self.config.out / START
        if judge is None:
            return
        if self.is_world_process_zero() and not path.is_file():
            self._policy.eval()
            write_records(path, self._runner.run(self._speak()))
            torch.set_num_threads(self._threads)
        self.accelerator.wait_for_everyone()
        dialogues = list(read_records(path, Dialogue))
        said = [turn.text for dialogue in dialogues for turn in dialogue.turns if turn.role is Role.RECOMMENDER]
        if not said:
            raise InterplayError(
                f"{config.recommender} said nothing that could be read in {len(dialogues)} conversations before the first "
                f"round ({path}), so realism has nothing to tell from people"
            )
        judge.fit(said)

    async def _speak(self) -> list[Dialogue]:
        """Conversations of the policy with the training users on some scenarios, in the order of these."""
        config, scenarios = self.config, self.environment.scenarios
        seed = derive_seed(config.seed, "realism")
        drawn = np.random.default_rng(seed).permutation(len(scenarios))[: config.realism_dialogues]
        plan = self._plan(seed, 1)
        found: dict[str, Dialogue] = {}

        def keep(dialogue: Dialogue) -> None:
            found[dialogue.scenario_key] = dialogue

        chosen = [scenarios[n] for n in drawn]
        await simulate(chosen, self.environment.user, self.agent, plan, on_dialogue=keep)
        return [found[scenario.key] for scenario in chosen]

    def _plan(self, seed: int, num_samples: int) -> Plan:
        config = self.config
        return Plan(
            seed=seed,
            num_samples=num_samples,
            concurrency=config.concurrency,
            limits=Limits(config.max_turns, config.max_repeats),
            with_persona=self.card.with_persona,
        )

    def remember(self) -> None:
        """Tell the monitor what was logged before a resume."""
        out = self.config.out
        checks: dict[int, list[dict[str, Any]]] = {}
        for line in _logged(out / CHECKS):
            checks.setdefault(line["step"], []).append(line)
        self.monitor.check(checks.get(0, []))
        for line in _logged(out / STEPS):
            self.monitor.step(line)
            self.monitor.check(checks.get(line["step"], []))

    def warn(self, alarms: Sequence[Alarm]) -> None:
        """Keep alarms, and say them."""
        if alarms:
            _append(self.config.out / ALARMS, [alarm.to_json() for alarm in alarms])
        for alarm in alarms:
            logger.warning("round %d: alarm %s: %s (limit %g)", alarm.step, alarm.alarm, alarm.says, alarm.limit)

    # ---- what the library must not do ----------------------------------------------------------------------------------

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: a round's inputs are no tensors."""
        return 0

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None is written: `interplay.json` says what a checkpoint is."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]  # trl leaves it untyped
        if self.config.tuning == "full" and self.is_world_process_zero():
            folder = self.config.out / CHECKPOINTS / f"checkpoint-{self.state.global_step}"
            write_lines(folder / CARD, [_card(self.config, self.card).model_dump_json(indent=1)])


def _rewarded_elsewhere(**_: Any) -> list[float | None]:
    """The library wants a function; it is never called, as `_prepare_inputs` is ours."""
    raise AssertionError("conversations are rewarded in PolicyTrainer._hold")


async def _close(trainer: PolicyTrainer, environment: Environment) -> None:
    await trainer.recorder.close()
    await environment.close()


async def _awaited(found: Awaitable[Measured]) -> Measured:
    return await found


def _lora(config: OptimizeConfig) -> Any:
    if config.tuning == "full":
        return None
    from peft import LoraConfig

    # No token rows, as in supervised training: the checkpoint knows its structural tokens already.
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules="all-linear",
    )


def _card(config: OptimizeConfig, card: CheckpointCard) -> CheckpointCard:
    return card.model_copy(update={"base_model": str(config.recommender), "package_version": __version__})


def _save(config: OptimizeConfig, trainer: PolicyTrainer, tokenizer: "PreTrainedTokenizerFast", card: CheckpointCard) -> None:
    tokenizer.save_pretrained(config.out)
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if config.tuning == "lora":
        model.save_pretrained(config.out / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(config.out)
    write_lines(config.out / CARD, [_card(config, card).model_dump_json(indent=1)])
    shutil.rmtree(config.out / CHECKPOINTS, ignore_errors=True)
