"""The engines that run on torch: the package's own, and transformers' generate and continuous batching."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engines.shapes import SHAPES, build
from engines.workload import Workload, play
from interplay.backends.local import LocalBackend
from interplay.types import Role

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Said = dict[int, list[list[int]]]


def models_of(job: dict[str, Any]) -> "tuple[PreTrainedModel, PreTrainedModel]":
    """The user's and the recommender's model."""
    torch.set_num_threads(job["threads"])
    shape = SHAPES[job["shape"]]
    dtype, device = job.get("dtype", "float32"), job.get("device", "cpu")
    return build(shape, 1, dtype=dtype, device=device), build(shape, 2, dtype=dtype, device=device)


def write(job: dict[str, Any]) -> dict[str, Any]:
    """Write both models to files, for engines that read them."""
    from engines.shapes import write_checkpoint

    for seed, role in enumerate(("user", "recommender"), 1):
        write_checkpoint(SHAPES[job["shape"]], seed, Path(job["folder"]) / role)
    return {}


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """The package's in-process backend."""
    user, recommender = models_of(job)
    workload = Workload.from_json(job["workload"])
    warm = Workload.from_json({**job["workload"], "conversations": job["warm_up"], "seed": 10_000})
    counted = _count_tokens(user, recommender)

    def once(load: Workload) -> Any:
        options = {"max_batch": job["batch"], "kv_cache": job.get("kv_cache", "model")}
        backends = [LocalBackend(model, "ours", **options) for model in (user, recommender)]
        return play(backends[0], backends[1], load, concurrency=job["concurrency"])

    once(warm)
    counted.clear()
    played = once(workload)
    return {"seconds": played.seconds, "said": played.said, "model_tokens": sum(counted) or None, **_versions()}


def _count_tokens(*models: "PreTrainedModel") -> list[int]:
    """A list that grows by the number of token positions, padding included, that each forward pass embeds."""
    counted: list[int] = []
    for model in models:
        model.get_input_embeddings().register_forward_hook(lambda _m, inputs, _out: counted.append(inputs[0].numel()))
    return counted


def _versions() -> dict[str, Any]:
    import transformers

    return {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}


def naive(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' generate, one conversation after the other, the full history at every turn."""
    return _with_histories(job, group=1, answer=_generate)


def lockstep(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' generate over a group of conversations in lock-step, the full history at every turn, padded left."""
    return _with_histories(job, group=job["group"], answer=_generate)


def continuous(job: dict[str, Any]) -> dict[str, Any]:
    """transformers' continuous batching with block sharing: the turns of a group handed over together, full histories.

    Off a GPU it lays all cached tokens of the group in one row and masks them densely, so time and memory per token grow
    with the group; a small group is its best case.
    """
    workload = Workload.from_json(job["workload"])
    longest = workload.persona_tokens + workload.turns * workload.turn_tokens[1]
    pages = job["group"] * (longest // PAGE + 2)
    # Left to itself it sizes its cache by a GPU's memory.
    sizes = {"page_size": PAGE, "num_blocks": pages, "max_batch_tokens": job["group"] * 32, "allow_block_sharing": True}
    return _with_histories(job, group=job["group"], answer=functools.partial(_generate_batch, sizes))


PAGE = 32
"""Tokens of a cache page of transformers' continuous batching, as OpenVINO's on a CPU."""


Answer = Callable[["PreTrainedModel", list[list[int]], list[int]], list[list[int]]]


@torch.inference_mode()
def _with_histories(job: dict[str, Any], *, group: int, answer: Answer) -> dict[str, Any]:
    models = dict(zip((Role.USER, Role.RECOMMENDER), models_of(job), strict=True))
    workload = Workload.from_json(job["workload"])

    def hold(load: Workload, members: range, turns: int) -> list[list[list[int]]]:
        """The turns that each of these conversations says."""
        histories = {role: [load.persona(i, role) for i in members] for role in models}
        said: list[list[list[int]]] = [[] for _ in members]
        role = Role.RECOMMENDER
        for turn in range(turns):
            replies = answer(models[role], histories[role], [load.length(i, turn) for i in members])
            for k, reply in enumerate(replies):
                said[k].append(reply)
                for history in histories.values():
                    history[k] += reply
            role = role.other
        return said

    warm = Workload.from_json({**job["workload"], "seed": 10_000})
    hold(warm, range(min(group, job["warm_up"])), 2)
    start = time.perf_counter()
    said: Said = {}
    for begin in range(0, workload.conversations, group):
        members = range(begin, min(begin + group, workload.conversations))
        said |= dict(zip(members, hold(workload, members, workload.turns), strict=True))
    return {"seconds": time.perf_counter() - start, "said": said, **_versions()}


def _generate(model: "PreTrainedModel", prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    out = model.generate(  # type: ignore[operator]  # torch types it as Tensor | Module
        input_ids=ids, attention_mask=mask, max_new_tokens=max(lengths), do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return [row[width : width + n] for row, n in zip(out.tolist(), lengths, strict=True)]


def _generate_batch(
    sizes: dict[str, Any], model: "PreTrainedModel", prompts: list[list[int]], lengths: list[int]
) -> list[list[int]]:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    if len(set(lengths)) > 1:
        raise RuntimeError("generate_batch takes one length for all of its prompts")
    config = GenerationConfig(max_new_tokens=lengths[0], do_sample=False, eos_token_id=-1, pad_token_id=0, use_cache=True)
    # Persistent: the conversations' next turns find their prefixes in the blocks of the last.
    answers = model.generate_batch(  # type: ignore[operator]  # as above
        prompts,
        generation_config=config,
        continuous_batching_config=ContinuousBatchingConfig(**sizes),
        persistent_manager=True,
        warmup=False,
    )
    replies = [list(a.generated_tokens) for a in answers.values()]
    if len(replies) != len(prompts) or any(len(r) != n for r, n in zip(replies, lengths, strict=True)):
        raise RuntimeError("generate_batch left requests unanswered")
    return replies
