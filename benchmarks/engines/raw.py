"""The raw rate: the forward passes that the workload needs, and nothing else.

A batch of conversations of equal lengths in lock-step through transformers' own modules, each token through each model
once: at a turn the speaker's model reads in one pass what it has not yet read, then one token at a time. The caches are
set up before with room for everything. Ids are given: no sampling, no logits but the last position's, no masks of
padding, no coroutines, no scheduling.
"""

import time
from typing import Any

import torch

from engines.torch_engines import models_of
from engines.workload import Workload
from interplay.types import Role


def _cache(config: Any, rows: int, capacity: int) -> Any:
    """A cache whose tensors are laid out in full at once; a pass writes its columns and copies nothing."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class Layer(DynamicLayer):
        room: tuple[torch.Tensor, torch.Tensor] | None = None

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
            if self.room is None:
                self.lazy_initialization(key_states, value_states)
                shape = (rows, key_states.shape[1], capacity, key_states.shape[3])
                self.room = (key_states.new_zeros(shape), value_states.new_zeros(shape))
            begin = self.get_seq_length()
            end = begin + key_states.shape[-2]
            for room, states in zip(self.room, (key_states, value_states), strict=True):
                room[:, :, begin:end] = states
            self.keys, self.values = (room[:, :, :end] for room in self.room)
            return self.keys, self.values

    cache = DynamicCache(config=config)
    cache.layers = [Layer() for _ in cache.layers]
    return cache


@torch.inference_mode()
def run(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds for one batch of the workload's conversations, reading and writing apart."""
    workload = Workload.from_json(job["workload"])
    length = workload.turn_tokens[0]
    if workload.turn_tokens != (length, length):
        return {"error": "the raw rate is defined for turns of one length"}
    models = dict(zip((Role.USER, Role.RECOMMENDER), models_of(job), strict=True))
    batch = workload.conversations
    room = workload.persona_tokens + workload.turns * length
    device = next(iter(models.values())).device
    ids = torch.randint(1, workload.vocab_size, (batch, room), device=device, generator=torch.Generator(device).manual_seed(0))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def once(turns: int) -> tuple[float, float]:
        caches = {role: _cache(model.config, batch, room) for role, model in models.items()}
        unread = dict.fromkeys(models, workload.persona_tokens)
        reading = writing = 0.0
        role = Role.RECOMMENDER
        for _ in range(turns):
            wait()
            start = time.perf_counter()
            models[role](input_ids=ids[:, : unread[role]], past_key_values=caches[role], use_cache=True, logits_to_keep=1)
            wait()
            between = time.perf_counter()
            for _ in range(length - 1):
                models[role](input_ids=ids[:, :1], past_key_values=caches[role], use_cache=True, logits_to_keep=1)
            wait()
            reading += between - start
            writing += time.perf_counter() - between
            unread[role] = 1
            unread[role.other] += length
            role = role.other
        return reading, writing

    once(2)
    runs = [once(workload.turns) for _ in range(2)]
    reading, writing = min(runs, key=sum)
    return {"reading_seconds": reading, "writing_seconds": writing, "seconds": reading + writing}
