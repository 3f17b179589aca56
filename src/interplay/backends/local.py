"""The in-process backend: one transformers model, requests of all conversations answered in batches.

Token ids in, token ids out. Requests that are outstanding together are decoded together; each row draws from its own
generator, so an answer depends on its own request and, up to rounding of the logits, on nothing else. Batches are
formed only when every coroutine has said what it wants, and one batch runs at a time in the whole process: which
requests share a batch does not depend on timing, so two runs with one seed agree to the last bit.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from interplay.backends.backend import Completion, Request
from interplay.errors import BackendError, CheckpointError, ContextOverflow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Event-loop turns after which every coroutine that could run has run: a finished conversation hands its slot to the
# next scenario, which asks its agent, which asks the backend; each hand-over takes one or two turns.
_SETTLE = 10

_ONE_AT_A_TIME: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@dataclass(slots=True)
class _Waiting:
    request: Request
    answer: "asyncio.Future[Completion]"


def pick_device() -> torch.device:
    """CUDA if there is a GPU, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _roomy_cache(config: Any, capacity: int) -> Any:
    """A key-value cache of full-attention layers with room for `capacity` tokens, so that a step writes one column.

    The library's DynamicCache copies everything that is cached at every step, which at these sizes costs more than the
    model. Models with other kinds of layers get the library's cache.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its base has an untyped __init_subclass__
        room: tuple[torch.Tensor, torch.Tensor]

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                rows, heads, _, size = key_states.shape
                self.room = (
                    key_states.new_empty(rows, heads, capacity, size),
                    value_states.new_empty(rows, heads, capacity, size),
                )
            begin = self.get_seq_length()
            end = begin + key_states.shape[-2]
            for room, states in zip(self.room, (key_states, value_states), strict=True):
                room[:, :, begin:end] = states
            self.keys, self.values = (room[:, :, :end] for room in self.room)
            return self.keys, self.values

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            end = self.get_seq_length()
            self.room = (self.room[0][indices], self.room[1][indices])
            self.keys, self.values = (room[:, :, :end] for room in self.room)

    cache = DynamicCache(config=config)
    if all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.layers = [RoomyLayer() for _ in cache.layers]  # type: ignore[no-untyped-call]  # as above
    return cache


class LocalBackend:
    """Answers token-id requests with a causal language model in this process.

    Args:
        model: in evaluation mode, on its device.
        name: for messages.
        max_batch: conversations decoded together at most.
        max_context: tokens of prompt and completion together; the model's own limit by default.
    """

    def __init__(self, model: "PreTrainedModel", name: str, *, max_batch: int = 64, max_context: int | None = None) -> None:
        self.model = model
        self.name = name
        self.max_batch = max_batch
        limit = getattr(model.config, "max_position_embeddings", None)
        self.max_context: int = max_context or limit or 2**31
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    @classmethod
    def load(cls, path: Path | str, *, max_batch: int = 64, device: torch.device | None = None) -> "LocalBackend":
        """Load a checkpoint: float32 on a CPU, bfloat16 elsewhere.

        Raises:
            CheckpointError: there is no model at `path`.
        """
        from transformers import AutoModelForCausalLM

        device = device or pick_device()
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} holds no model that can be loaded ({str(error).splitlines()[0]})") from None
        # transformers' decorator hides that `to` is a method.
        return cls(model.to(device).eval(), str(path), max_batch=max_batch)  # type: ignore[arg-type]  # .to is untyped

    async def complete(self, request: Request) -> Completion:
        """Answer one token-id request.

        Raises:
            ContextOverflow: the prompt, or the prompt with the completion so far, exceeds `max_context`.
            BackendError: the request is not made of token ids, or the model gave NaN.
        """
        ids = _token_ids(request, self.name)
        if len(ids) >= self.max_context:
            raise ContextOverflow(f"{len(ids)} tokens of prompt; {self.name} can hold {self.max_context} with the completion")
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(request, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    def release(self, session: str) -> None:
        """Nothing is kept between requests."""

    async def close(self) -> None:
        """Stop working; outstanding requests are cancelled."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None

    async def _work(self) -> None:
        lock = _ONE_AT_A_TIME.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        while self._waiting:
            async with lock:
                for _ in range(_SETTLE):
                    await asyncio.sleep(0)
                self._waiting = [w for w in self._waiting if not w.answer.cancelled()]
                batch, self._waiting = self._waiting[: self.max_batch], self._waiting[self.max_batch :]
                if not batch:
                    continue
                try:
                    answers = await asyncio.to_thread(self._answer, [w.request for w in batch])
                except asyncio.CancelledError:
                    raise
                except Exception as error:  # whatever torch raises must reach the conversations, not kill the worker
                    answers = [BackendError(f"{self.name}: {type(error).__name__}: {error}")] * len(batch)
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)

    @torch.inference_mode()
    def _answer(self, requests: Sequence[Request]) -> list[Completion | Exception]:
        """Decode one batch. Rows that have stopped leave the batch when half of it has."""
        device = self.model.device
        prompts = [_token_ids(r, self.name) for r in requests]
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):  # padded on the left, so that the last column is everyone's last token
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        position = (mask.cumsum(1) - 1).clamp(min=0)
        rows = [_Row(request, len(prompt), self.max_context) for request, prompt in zip(requests, prompts, strict=True)]
        active = list(range(len(rows)))
        cache = _roomy_cache(self.model.config, width + max(r.sampling.max_new_tokens for r in requests))
        while True:
            logits = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            sampled = self._draw(logits.double(), [rows[i] for i in active])
            keep = [k for k, i in enumerate(active) if not rows[i].done]
            if not keep:
                break
            if 2 * len(keep) <= len(active):
                chosen = torch.tensor(keep, device=device)
                cache.batch_select_indices(chosen)
                mask, position, sampled = mask[chosen], position[chosen], sampled[chosen]
                active = [active[k] for k in keep]
            ids = sampled[:, None]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            position = position[:, -1:] + 1
        return [row.result(self.name) for row in rows]

    def _draw(self, logits: torch.Tensor, rows: "Sequence[_Row]") -> torch.Tensor:
        """One token per row. `logits`: (num_rows, vocabulary), float64. Returns (num_rows,)."""
        greedy = logits.argmax(-1)
        temperature = torch.tensor(
            [r.request.sampling.temperature or 1.0 for r in rows], dtype=logits.dtype, device=logits.device
        )
        log_probs = torch.log_softmax(logits / temperature[:, None], dim=-1)
        probs = log_probs.exp()
        top_p = torch.tensor([r.request.sampling.top_p for r in rows], dtype=logits.dtype, device=logits.device)
        if bool((top_p < 1).any()):
            ordered, order = probs.sort(dim=-1, descending=True)
            ordered[(ordered.cumsum(-1) - ordered) >= top_p[:, None]] = 0.0  # the likeliest token always stays
            probs = torch.zeros_like(probs).scatter_(-1, order, ordered)
        cumulated = probs.cumsum(-1)
        # One uniform number per row from the row's own generator: inverse of the cumulative distribution.
        uniform = torch.tensor([[r.random.random()] for r in rows], dtype=logits.dtype, device=logits.device)
        drawn = (
            torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
        )
        is_greedy = torch.tensor([r.request.sampling.temperature == 0 for r in rows], device=logits.device)
        sampled = torch.where(is_greedy, greedy, drawn)
        chosen = log_probs.gather(-1, sampled[:, None]).squeeze(-1)
        for row, index, log_prob, is_nan in zip(
            rows, sampled.tolist(), chosen.tolist(), logits.isnan().any(-1).tolist(), strict=True
        ):
            row.take(index, log_prob, is_nan)
        return sampled


class _Row:
    """One request while its batch is decoded."""

    def __init__(self, request: Request, prompt_length: int, max_context: int) -> None:
        self.request = request
        self.random = random.Random(request.seed)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.room = max_context - prompt_length
        self.stopped = False
        self.is_nan = False

    @property
    def done(self) -> bool:
        return self.stopped or self.is_nan or len(self.ids) >= min(self.request.sampling.max_new_tokens, self.room)

    def take(self, index: int, log_prob: float, is_nan: bool) -> None:
        if self.done:
            return  # the batch goes on for others
        if is_nan:
            self.is_nan = True
            return
        self.ids.append(index)
        self.logprobs.append(log_prob)
        self.stopped = index in self.request.stop_ids

    def result(self, name: str) -> Completion | Exception:
        if self.is_nan:
            return BackendError(f"{name}: the model's logits are NaN after {len(self.ids)} tokens")
        if not self.stopped and self.room < self.request.sampling.max_new_tokens:
            return ContextOverflow(f"{name}: the conversation and its next turn exceed the model's context")
        return Completion("", tuple(self.ids), tuple(self.logprobs), "stop" if self.stopped else "length")


def _token_ids(request: Request, name: str) -> tuple[int, ...]:
    if not request.prompt or not all(isinstance(i, int) for i in request.prompt):
        raise BackendError(f"{name} answers token-id prompts only; chat messages need an http backend")
    return request.prompt  # type: ignore[return-value]  # checked above; mypy can't narrow a union of tuples
