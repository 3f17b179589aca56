"""Supervised fine-tuning of one role on conversations, on TRL's SFTTrainer with pre-tokenised, packed rows.

The only file that knows SFTTrainer. A training directory is

    OUT/training.json         what was asked for
    OUT/model.safetensors ... the model and tokenizer as transformers writes them
    OUT/cues.json             of a user trained with cues: how often people's sessions and turns were like what (counts alone)
    OUT/traces.jsonl          of a recommender that reasons as a language model wrote it: what that model wrote
    OUT/interplay.json        the checkpoint's card; written last, so that a directory that has it is whole
    OUT/logs/train.jsonl      loss and learning rate over the steps
    OUT/report/curves.png     the same as a picture (and .svg)
    OUT/checkpoints/          to resume from; removed when the training is done
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interplay import __version__
from interplay.config import TrainConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import ConfigError, DataError
from interplay.formats.tokens import IGNORED, TokenFormat
from interplay.simulation.checkpoint import CARD, CheckpointCard, KnowledgeCard, load_tokenizer
from interplay.simulation.control import write_counts
from interplay.simulation.facets import FacetIndex
from interplay.simulation.reasoning import Reasoner
from interplay.simulation.slots import Knowledge
from interplay.simulation.specs import ranker_at
from interplay.store import Run, write_lines
from interplay.training.backbone import build_tiny, load_base
from interplay.training.cue_labels import LoggedCues, people_counts, trained_cues
from interplay.training.rows import RowCounts, training_rows
from interplay.training.trace_writing import require_reasoning, traces_of
from interplay.training.traces import Traces
from interplay.training.user_tasks import mixture, trained_tasks
from interplay.types import STATE_CUES, Domain, Role, Split, content_hash, cues_for

# Read when huggingface_hub is imported: every trainer start would otherwise report itself.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class TrainingRun(Run):
    """A Run whose config stands beside the model's own `config.json`."""

    MARKER = "training.json"


Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (step, steps in all, latest log: loss, eval_loss, learning_rate)."""


def read_corpora(paths: list[Path]) -> list[Corpus]:
    """Read data directories that must be of one domain.

    Raises:
        DataError: one is missing or damaged, or they are of several domains.
    """
    if not paths:
        raise DataError("no data directory was given; pass one or more with --data")
    corpora = [Corpus.read(path) for path in paths]
    domains = sorted({c.domain.name for c in corpora})
    if len(domains) > 1:
        raise DataError(f"the data directories are of several domains ({', '.join(domains)}); train on one domain at a time")
    return corpora


def knowledge_of(config: TrainConfig, corpora: list[Corpus]) -> tuple[Knowledge | None, KnowledgeCard | None]:
    """The knowledge slot that `config.knowledge` asks for, and what the checkpoint's card says of it.

    Raises:
        InputError: it is for another role, or is no ranker of the corpora's items.
    """
    if config.knowledge is None:
        return None, None
    if config.role != "recommender":
        raise ConfigError(f"--knowledge gives candidates to a recommender, not to a {config.role}")
    for corpus in corpora:
        path, ranker = ranker_at(config.knowledge, corpus.catalog)
    kinds = tuple(config.trace.attributes) if config.reasoning else ()
    card = KnowledgeCard(
        ranker=path.absolute(), digest=content_hash(ranker.card), num_candidates=config.num_candidates, attributes=kinds
    )
    catalog = corpora[0].catalog
    reasoner = Reasoner(catalog, kinds, config.trace.list_length) if config.reasoning else None
    return Knowledge(ranker, catalog, config.num_candidates, reasoner), card


def rows_of(
    config: TrainConfig,
    corpora: list[Corpus],
    form: TokenFormat,
    split: Split,
    knowledge: Knowledge | None = None,
    traces: Traces | None = None,
) -> tuple[list[dict[str, list[int]]], RowCounts]:
    """The rows of one split. A base gets a row per conversation and role, each in the role's own view."""
    roles = [Role(config.role)] if config.role != "base" else list(Role)
    kinds = trained_cues(config)
    rows: list[dict[str, list[int]]] = []
    total = RowCounts()
    for role in roles:
        for corpus in corpora:
            index = FacetIndex(corpus.catalog) if set(kinds) & set(STATE_CUES) else None
            cues = LoggedCues(kinds, config.cue_dropout, config.seed, index) if kinds else None
            more, counts = training_rows(
                corpus.pairs(split),
                role,
                form,
                with_persona=config.with_persona,
                max_length=config.max_length,
                knowledge=knowledge,
                cues=cues,
                traces=traces,
            )
            rows += more
            for name in RowCounts.__slots__:
                setattr(total, name, getattr(total, name) + getattr(counts, name))
    return rows, total


def starting_point(config: TrainConfig, corpora: list[Corpus]) -> tuple["PreTrainedModel", "PreTrainedTokenizerFast"]:
    """The model and tokenizer to train, by `config.model` and `config.tuning`."""
    import torch

    domain = corpora[0].domain
    if config.model == "tiny":
        if config.tuning != "full":
            raise ConfigError(
                f"--tuning {config.tuning} adapts a trained model; --model tiny starts from nothing: use --tuning full"
            )
        if config.max_length > config.tiny.context:
            raise ConfigError(
                f"--max-length {config.max_length} exceeds the tiny model's context, --tiny.context {config.tiny.context}"
            )
        return build_tiny(
            corpora,
            domain,
            config.tiny,
            config.seed,
            notes=config.notes,
            candidates=bool(config.knowledge),
            tasks=trained_tasks(config.tasks, config.role),
            cues=trained_cues(config),
            reasoning=config.reasoning,
        )
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    # Full fine-tuning keeps master weights in float32; adapters are float32 over a frozen base in the compute type.
    weights = torch.float32 if config.tuning == "full" else dtype
    return load_base(
        config.model,
        domain,
        dtype=weights,
        quantize=config.tuning == "qlora",
        notes=config.notes,
        candidates=bool(config.knowledge),
        tasks=trained_tasks(config.tasks, config.role),
        cues=trained_cues(config),
        reasoning=config.reasoning,
    )


def tokenizer_for(config: TrainConfig, corpora: list[Corpus]) -> "PreTrainedTokenizerFast":
    """The tokenizer alone, for looking at masks without loading a model."""
    from interplay.formats.tokens import add_structural_tokens
    from interplay.training.backbone import corpus_texts, train_tokenizer

    if config.model == "tiny":
        tokenizer = train_tokenizer(corpus_texts(corpora), config.tiny.vocab_size)
    else:
        tokenizer = load_tokenizer(config.model)
    add_structural_tokens(
        tokenizer,
        corpora[0].domain,
        notes=config.notes,
        candidates=bool(config.knowledge),
        tasks=trained_tasks(config.tasks, config.role),
        cues=trained_cues(config),
        reasoning=config.reasoning,
    )
    return tokenizer


def train(config: TrainConfig, *, on_progress: Progress | None = None) -> dict[str, Any]:
    """Train and save a checkpoint to `config.out`.

    Args:
        config: what to train; see TrainConfig.
        on_progress: called after every optimiser step.

    Returns:
        What was measured: steps, row counts, first and last validation loss (nats per labelled token), seconds.

    Raises:
        InputError: bad data, model or output directory.
        KeyboardInterrupt: interrupted; `--resume` goes on from the latest checkpoint.
    """
    tasks = trained_tasks(config.tasks, config.role)
    cues = trained_cues(config)
    require_reasoning(config)
    corpora = read_corpora(config.data)
    record = config.record() | {"verb": "train", "data_digests": [c.digest for c in corpora], "package_version": __version__}
    run = (
        TrainingRun.resume(config.out, record)
        if config.resume
        else TrainingRun.create(config.out, record, overwrite=config.overwrite)
    )
    if config.resume and (config.out / CARD).is_file():
        return dict(json.loads((config.out / "logs" / "summary.json").read_text(encoding="utf-8")))

    knowledge, knowledge_card = knowledge_of(config, corpora)
    model, tokenizer = starting_point(config, corpora)
    traces, rejected = traces_of(config, corpora, knowledge)
    form = TokenFormat(
        tokenizer,
        corpora[0].domain,
        notes=config.notes,
        candidates=knowledge is not None,
        tasks=tasks,
        cues=cues,
        reasoning=config.reasoning,
        acts=config.acts,
    )
    train_rows, counts = rows_of(config, corpora, form, Split.TRAIN, knowledge, traces)
    traced = None if traces is None else asdict(traces.counts) | {"rejected": rejected}
    valid_rows, _ = rows_of(config, corpora, form, Split.VALID, knowledge, traces)
    if not train_rows:
        raise DataError(
            f"no conversation of the training split has a labelled turn within --max-length {config.max_length} "
            f"({counts.dropped} were looked at); raise it, or use more data"
        )
    mixed = None
    if tasks:
        train_rows, mixed = mixture(config.tasks, corpora, form, train_rows, max_length=config.max_length, seed=config.seed)
    trainer = _trainer(config, model, tokenizer, train_rows, valid_rows, on_progress)
    checkpoint = _last_checkpoint(config.out / "checkpoints") if config.resume else None
    result = trainer.train(resume_from_checkpoint=checkpoint)
    history = trainer.state.log_history
    if trainer.is_world_process_zero():
        _save(config, trainer, tokenizer, corpora[0].domain, [c.digest for c in corpora])
    summary = {
        "steps": trainer.state.global_step,
        "rows": counts.rows,
        "tokens": counts.tokens,
        "labelled_tokens": counts.labelled_tokens,
        "shortened": counts.shortened,
        "dropped": counts.dropped,
        "advised": counts.advised,
        "advised_held_out": counts.held_out,
        "traces": traced,
        "mixture": None if mixed is None else mixed.record(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "valid_loss_first": next((e["eval_loss"] for e in history if "eval_loss" in e), None),
        "valid_loss_last": next((e["eval_loss"] for e in reversed(history) if "eval_loss" in e), None),
        "seconds": round(result.metrics["train_runtime"], 1),
    }
    if trainer.is_world_process_zero():
        (run.path / "logs").mkdir(exist_ok=True)
        write_lines(run.path / "logs" / "train.jsonl", (json.dumps(entry) for entry in history))
        write_lines(run.path / "logs" / "summary.json", [json.dumps(summary, indent=1)])
        plot_curves(history, run.path / "report")
        card = CheckpointCard(
            role=None if config.role == "base" else Role(config.role),
            domain=corpora[0].domain.name,
            with_persona=config.with_persona or config.role == "user",
            notes=config.notes,
            knowledge=knowledge_card,
            tasks=tasks,
            cues=cues,
            reasoning=config.reasoning,
            acts=config.acts,
            list_length=config.trace.list_length,
            base_model=config.model,
            data_digests=tuple(c.digest for c in corpora),
            package_version=__version__,
        )
        if cues and config.role == "user":
            write_counts(people_counts(corpora), run.path)
        write_lines(run.path / CARD, [card.model_dump_json(indent=1)])
        shutil.rmtree(config.out / "checkpoints", ignore_errors=True)
    return summary


def _trainer(
    config: TrainConfig,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    train_rows: list[dict[str, list[int]]],
    valid_rows: list[dict[str, list[int]]],
    on_progress: Progress | None,
) -> Any:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    class Report(TrainerCallback):
        def __init__(self) -> None:
            self.latest: dict[str, float] = {}

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            self.latest = self.latest | {k: v for k, v in (logs or {}).items() if k in ("loss", "eval_loss", "learning_rate")}

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if on_progress is not None and state.is_world_process_zero:
                on_progress(state.global_step, state.max_steps, self.latest)

    class CompactTrainer(SFTTrainer):
        """Scores the labelled positions alone; the other role's words, three quarters of a row, get no logits.

        TRL leaves them out on a GPU with Triton; on a CPU it scores every position and masks the loss, which for a tiny
        model is a third of a step.
        """

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if return_outputs or inputs["input_ids"].shape[0] != 1:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]  # trl
            ahead = inputs["labels"][0, 1:]
            at = (ahead != IGNORED).nonzero().squeeze(-1)
            inputs = {name: value for name, value in inputs.items() if name != "labels"}
            logits = model(**inputs, use_cache=False, logits_to_keep=at).logits[0]
            total = torch.nn.functional.cross_entropy(logits.float(), ahead[at], reduction="sum")
            if num_items_in_batch is None:
                return total / max(1, len(at))
            return total / num_items_in_batch * self.accelerator.num_processes

    on_gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(config.out / "checkpoints"),
        packing=True,
        packing_strategy="bfd",
        max_length=config.max_length,
        eval_packing=True,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        activation_checkpointing=config.gradient_checkpointing,
        prediction_loss_only=True,
        eval_strategy="steps" if valid_rows else "no",
        eval_steps=config.eval_every,
        eval_on_start=bool(valid_rows),
        save_strategy="steps",
        save_steps=config.save_every,
        save_total_limit=1,
        logging_steps=10,
        use_cpu=not on_gpu and not torch.backends.mps.is_available(),
        bf16=on_gpu,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
        seed=config.seed,
        data_seed=config.seed,
    )
    is_compact = config.tuning == "full" and arguments.use_cpu
    trainer = (CompactTrainer if is_compact else SFTTrainer)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(valid_rows) if valid_rows else None,
        processing_class=tokenizer,
        peft_config=_lora(config, tokenizer),
        callbacks=[Report()],
    )
    trainer.remove_callback(PrinterCallback)
    trained: Any = trainer.model  # a PreTrainedModel, or peft's untyped wrapper of one
    head = trained.get_output_embeddings()
    if not hasattr(head, "bias"):
        # TRL 1.16 reads the head's weight and bias itself; peft's wrapper of trained token rows passes on the weight alone.
        head.bias = None
    return trainer


def _lora(config: TrainConfig, tokenizer: "PreTrainedTokenizerFast") -> Any:
    if config.tuning == "full":
        return None
    from peft import LoraConfig

    from interplay.formats.tags import TASK_TAGS, cue_tag, reasoning_tags, structural_tags
    from interplay.types import DOMAINS

    tags = {tag for domain in DOMAINS.values() for tag in structural_tags(domain, notes=True, candidates=True, tasks=TASK_TAGS)}
    tags |= set(reasoning_tags())
    tags |= {cue_tag(kind) for role in Role for kind in (*cues_for(role), *STATE_CUES)}
    added = sorted(index for tag, index in tokenizer.get_added_vocab().items() if tag in tags)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules="all-linear",
        # Trains the rows of the new tokens alone, in the embedding and in the head, whether or not the two are tied.
        trainable_token_indices={"embed_tokens": added, "lm_head": added},
    )


def _save(config: TrainConfig, trainer: Any, tokenizer: "PreTrainedTokenizerFast", domain: Domain, digests: list[str]) -> None:
    tokenizer.save_pretrained(config.out)
    if config.tuning == "full":
        trainer.model.save_pretrained(config.out)
        return
    import torch
    from peft import PeftModel

    # Merged into a fresh base in full precision: also right when training ran over 4-bit weights.
    adapter = config.out / "adapter"
    trainer.model.save_pretrained(adapter)
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    base, _ = load_base(
        config.model,
        domain,
        dtype=dtype,
        notes=config.notes,
        candidates=bool(config.knowledge),
        tasks=trained_tasks(config.tasks, config.role),
        cues=trained_cues(config),
        reasoning=config.reasoning,
    )
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(config.out)


def _last_checkpoint(folder: Path) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    if not folder.is_dir():
        return None
    path: str | None = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return path


def plot_curves(history: list[dict[str, Any]], folder: Path) -> None:
    """Draw training and validation loss over the steps to `curves.png` and `curves.svg`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for key, label in (("loss", "training"), ("eval_loss", "validation")):
        points = [(e["step"], e[key]) for e in history if key in e]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if key == "eval_loss" else None, markersize=3)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats per labelled token)")
    axes.grid(alpha=0.3)
    if axes.lines:  # a training of a step or two logs nothing
        axes.legend()
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"curves.{suffix}", dpi=120)
    plt.close(figure)
