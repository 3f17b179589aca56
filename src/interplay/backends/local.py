"""The in-process backend: an engine that decodes many conversations with one transformers model.

Each conversation side keeps its keys and values in a slot between its turns, so every token goes through the model once.
Requests join and leave the running batch at every step; tokens of first prompts, of turns just heard and of decoding go
through the model together, as one row without padding. The engines of one process (the user's and the recommender's) step
in rounds, side by side in threads of their own, and finished completions are handed over between rounds, when every
coroutine has said what it wants next. What a batch is made of does not depend on timing, so two runs with one seed agree.
"""

import asyncio
import random
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from interplay.backends.attention import CompiledSlots, Pieces, ServedModel, Slots, TorchSlots
from interplay.backends.backend import Completion, Request
from interplay.backends.compiled_model import CompiledModel, is_served_compiled
from interplay.backends.sampling import Draws, draw
from interplay.config import KvCache
from interplay.errors import BackendError, CheckpointError, ContextOverflow

if TYPE_CHECKING:
    import numpy.typing as npt
    from transformers import PreTrainedModel

# Event-loop turns after which every coroutine that could run has run: a finished conversation hands its place to the
# next scenario, which asks its agent, which asks the backend; each hand-over takes one or two turns.
_SETTLE = 10

FIRST_CAPACITY = 512
"""Tokens a slot has room for at first; it doubles when a conversation needs more."""

_STEP_COST = 48
"""What a forward pass costs besides its tokens, in tokens: how much more a round lets the engine with the shorter step do."""


def pick_device() -> torch.device:
    """CUDA if there is a GPU, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_dtype(device: torch.device, num_parameters: int) -> torch.dtype:
    """bfloat16 on accelerators and on CPUs that multiply it; float32 otherwise and for models too small to gain by it."""
    if device.type != "cpu":
        return torch.bfloat16
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 and num_parameters > 50_000_000 else torch.float32


@dataclass(slots=True, eq=False)
class _Session:
    """One conversation side: what its slot holds."""

    slot: int | None = None
    ids: list[int] = field(default_factory=list)
    """Tokens whose keys and values lie in the slot; what was drawn since the run began is added when it is over."""
    run: "_Run | None" = None
    last_used: int = 0


@dataclass(slots=True, eq=False)
class _Run:
    """One request while it is answered."""

    request: Request
    session: _Session
    answer: "asyncio.Future[Completion]"
    draws: Draws
    room: int
    """Tokens that may be drawn: the request's own limit, or what the context leaves."""
    pending: list[int] = field(default_factory=list)
    """Tokens that must go through the model before the next one can be drawn; none once the engine's `_Rows` lead."""
    logprobs: list[float] = field(default_factory=list)
    result: Completion | Exception | None = None


class _Rows:
    """What changes with every token, of all slots at once: a step over a hundred rows must not be a hundred steps in Python."""

    def __init__(self, num_slots: int) -> None:
        self.held = np.zeros(num_slots, np.int64)
        """(num_slots,) tokens whose keys and values lie in the slot."""
        self.latest = np.zeros(num_slots, np.int64)
        """(num_slots,) the token drawn last, which has not gone through the model."""
        self.count = np.zeros(num_slots, np.int64)
        """(num_slots,) tokens drawn in the run."""
        self.room = np.zeros(num_slots, np.int64)
        """(num_slots,) tokens that may be drawn in it."""
        self.stops = np.full((num_slots, 1), -1, np.int64)
        """(num_slots, n) ids that end it."""
        self.drawn = np.zeros((num_slots, 64), np.int64)
        """(num_slots, n) the tokens drawn."""
        self.logprobs = np.zeros((num_slots, 64), np.float32)
        """(num_slots, n) their log-probabilities."""

    def expect(self, run: _Run) -> None:
        """Have room for what `begin` will write. Replaces arrays: not while threads write into them."""
        missing = len(run.request.stop_ids) - self.stops.shape[1]
        if missing > 0:
            self.stops = np.pad(self.stops, ((0, 0), (0, missing)), constant_values=-1)
        self.widen(len(run.draws.ids))

    def begin(self, slot: int, run: _Run) -> None:
        """The slot's run draws from now on."""
        stops, ids = run.request.stop_ids, run.draws.ids
        self.stops[slot] = -1
        self.stops[slot, : len(stops)] = stops
        self.room[slot] = run.room
        self.count[slot] = len(ids)
        self.drawn[slot, : len(ids)] = ids
        self.logprobs[slot, : len(ids)] = run.logprobs

    def widen(self, longest: int) -> None:
        """Have room for one more than `longest` drawn tokens. Replaces arrays, as `expect`."""
        more = longest + 1 - self.drawn.shape[1]
        if more > 0:
            more = max(more, self.drawn.shape[1])
            self.drawn = np.pad(self.drawn, ((0, 0), (0, more)))
            self.logprobs = np.pad(self.logprobs, ((0, 0), (0, more)))

    def take(
        self,
        slots: "npt.NDArray[np.int64]",
        tokens: "npt.NDArray[np.int64]",
        logprobs: "npt.NDArray[np.float32]",
    ) -> "npt.NDArray[np.bool_]":
        """Take in a token for each of these slots. Returns which of the runs that ends."""
        at = self.count[slots]
        self.drawn[slots, at] = tokens
        self.logprobs[slots, at] = logprobs
        self.latest[slots] = tokens
        self.count[slots] = at + 1
        ended: npt.NDArray[np.bool_] = (tokens[:, None] == self.stops[slots]).any(1) | (at + 1 >= self.room[slots])
        return ended

    def resize(self, num_slots: int) -> None:
        """Keep the first slots."""
        for name in ("held", "latest", "count", "room", "stops", "drawn", "logprobs"):
            setattr(self, name, getattr(self, name)[:num_slots].copy())


class _Share(NamedTuple):
    """A step, or one thread's share of it."""

    drawing: "list[_Run]"
    """Runs whose latest token goes through the model."""
    reading: "list[tuple[_Run, int]]"
    """Runs with how many of their pending tokens go through it."""


class LocalBackend:
    """Answers token-id requests with a causal language model in this process.

    Args:
        model: in evaluation mode, on its device (see `attention.ServedModel`).
        name: for messages.
        max_batch: conversation sides that keep a slot at once, at most; fewer where memory does not allow so many.
        max_context: tokens of prompt and completion together; the model's own limit by default.
        memory_gib: for the caches; by default half of what is free when the first request comes, shared by the engines of
            this process.
        max_step_tokens: tokens of prompts that go through the model in one step; decoding tokens come on top, one a row.
        kv_cache: the type in which keys and values are kept: "model", the type the model computes in, so that greedy answers
            equal `generate`'s; or "bfloat16", rounded once and computed with in the model's type: half the memory of float32.

    Raises:
        BackendError: the model is of a kind that can't be served here.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        name: str,
        *,
        max_batch: int = 64,
        max_context: int | None = None,
        memory_gib: float | None = None,
        max_step_tokens: int = 1024,
        kv_cache: KvCache = "model",
    ) -> None:
        self.model = model
        self.name = name
        self._served = _serve(model, name)
        self.max_context: int = max_context or self._served.max_context or 2**31
        self.num_model_tokens = 0
        """Tokens that went through the model."""
        self.num_steps = 0
        """Forward passes."""
        self._max_batch = max_batch
        self._memory_gib = memory_gib
        self._max_step_tokens = max_step_tokens
        self._cache_dtype = torch.bfloat16 if kv_cache == "bfloat16" else model.dtype
        self._slots: Slots | None = None
        self._rows = _Rows(0)
        self._free: list[int] = []
        self._sessions: dict[str, _Session] = {}
        self._waiting: deque[_Run] = deque()
        self._reading: list[_Run] = []
        """Runs with pending tokens."""
        self._drawing: list[_Run] = []
        """Runs of which only the latest token has to go through the model."""
        self._plan = _Share([], [])
        self._finished: list[_Run] = []
        self._released: list[_Session] = []
        self._budget = 0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._helpers = ThreadPoolExecutor(thread_name_prefix="engine-helper")
        # Weights in the cache: threads share a step by rows, each with all weights. Others are shared among the threads, so
        # that each is read from memory once. transformers' own forward pass is entered by one thread at a time, as its
        # attention is replaced while it runs.
        self._is_small = isinstance(self._served, CompiledModel) and self._served.is_cached
        self._threads = 1

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        max_batch: int = 64,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        memory_gib: float | None = None,
        kv_cache: KvCache = "model",
    ) -> "LocalBackend":
        """Load a checkpoint.

        Args:
            path: a directory or hub id.
            max_batch: see the class.
            device: by default see `pick_device`.
            dtype: by default see `pick_dtype`.
            memory_gib: see the class.
            kv_cache: see the class.

        Raises:
            CheckpointError: there is no model at `path`.
            BackendError: the model is of a kind that can't be served here.
        """
        from transformers import AutoModelForCausalLM

        device = device or pick_device()
        try:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype or "auto", trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} holds no model that can be loaded ({str(error).splitlines()[0]})") from None
        # transformers' decorator hides that `to` is a method.
        model.to(device=device, dtype=dtype or pick_dtype(device, model.num_parameters()))  # type: ignore[call-arg]
        model.train(False)
        return cls(model, str(path), max_batch=max_batch, memory_gib=memory_gib, kv_cache=kv_cache)

    @property
    def token_bytes(self) -> int:
        """Bytes that the cache takes per token of a conversation."""
        return sum(shape.numbers for shape in self._served.shapes) * self._cache_dtype.itemsize

    @property
    def num_slots(self) -> int:
        """Conversation sides that can keep their cache now; 0 before the first request."""
        return self._slots.num_slots if self._slots else 0

    async def complete(self, request: Request) -> Completion:
        """Answer one token-id request.

        Raises:
            ContextOverflow: the prompt, or the prompt with the completion so far, exceeds `max_context`.
            BackendError: the request is not made of token ids, the model gave NaN, or memory is out.
        """
        ids = _token_ids(request, self.name)
        if len(ids) >= self.max_context:
            raise ContextOverflow(f"{len(ids)} tokens of prompt; {self.name} can hold {self.max_context} with the completion")
        session = self._sessions.setdefault(request.session, _Session())
        if session.run is not None:
            session = _Session()  # asked twice at once: the second has nothing to build upon
        limit = request.sampling.max_new_tokens
        constraint = request.constraint.start(limit) if request.constraint else None
        run = _Run(
            request,
            session,
            asyncio.get_running_loop().create_future(),
            Draws(request.sampling, random.Random(request.seed), constraint),
            min(limit, self.max_context - len(ids)),
        )
        session.run = run
        self._waiting.append(run)
        _rounds().join(self)
        return await run.answer

    async def logprobs(self, ids: Sequence[int], places: Sequence[int]) -> tuple[float, ...]:
        """Natural log-probability of `ids[place]` given all ids before it, for each of `places`; see `backend.Scorer`.

        The model reads all ids at once, in the engine's thread, without its slots.

        Raises:
            ContextOverflow: there are more ids than `max_context`.
            BackendError: the model gave NaN, or memory is out.
        """
        if len(ids) > self.max_context:
            raise ContextOverflow(f"{len(ids)} tokens; {self.name} can hold {self.max_context}")
        if not places:
            return ()

        def read() -> tuple[float, ...]:
            device = self.model.device
            at = torch.tensor(places, device=device)
            row = torch.tensor([list(ids)], device=device)
            with torch.inference_mode():
                # The logits before each place, and no others: a large vocabulary makes them the largest tensor by far.
                logits = self.model(row, use_cache=False, logits_to_keep=at - 1).logits[0]
                found = torch.log_softmax(logits.float(), -1).gather(1, row[0, at, None])[:, 0]
            if not bool(torch.isfinite(found).all()):
                raise BackendError(f"{self.name} gives a token no finite probability")
            return tuple(found.tolist())

        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, read)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            raise BackendError(f"{self.name}: {type(error).__name__}: {error}") from None

    def release(self, session: str) -> None:
        """The conversation side is over; its slot goes to another."""
        known = self._sessions.pop(session, None)
        if known is not None:
            self._released.append(known)  # a step may be under way in the engine's thread: the next round frees the slot

    async def close(self) -> None:
        """Stop working; outstanding requests are cancelled. The caches are freed."""
        await _rounds().leave(self)
        for run in [*self._waiting, *self._running]:
            run.answer.cancel()
        self._waiting.clear()
        self._reading.clear()
        self._drawing.clear()
        self._sessions.clear()
        self._released.clear()
        self.thread.shutdown()
        self._helpers.shutdown()
        self._slots = None

    # ---- what the rounds call ------------------------------------------------------------------------------------------

    @property
    def _running(self) -> list[_Run]:
        return [*self._drawing, *self._reading]

    @property
    def has_work(self) -> bool:
        """Whether requests wait or are under way."""
        return bool(self._waiting or self._reading or self._drawing)

    def admit(self) -> None:
        """Between rounds: drop what was cancelled and let waiting requests join, in the order they came."""
        for runs in (self._reading, self._drawing):
            for run in [r for r in runs if r.answer.cancelled()]:
                runs.remove(run)
                self._part(run)
        for run in [r for r in self._waiting if r.answer.cancelled()]:
            self._waiting.remove(run)
            self._part(run)
        for session in self._released:
            if session.run is None:
                self._give_back(session)
        self._released.clear()
        if not self._waiting:
            return
        if self._slots is None:
            try:
                self._slots = self._allocate()
            except BackendError as error:
                self.fail_all(error)
                return
        still: deque[_Run] = deque()
        for run in self._waiting:
            # Sides that have a slot go on even while new ones wait for theirs.
            if run.session.slot is not None or self._find_slot(run.session):
                self._resume(run)
                self._reading.append(run)
            else:
                still.append(run)
        self._waiting = still

    @property
    def is_running(self) -> bool:
        """Whether there is a step to make."""
        return bool(self._reading or self._drawing)

    def planned_cost(self) -> int:
        """Of the next step, in tokens."""
        self._plan = self._next_plan()
        return _cost(self._plan) + _STEP_COST

    def steps(self, budget: int, threads: int) -> None:
        """In the engine's thread: the planned step, and more while they fit into `budget` tokens. Never raises."""
        self._threads = threads
        left = budget
        while left >= 0:
            try:
                self._step()
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if _is_out_of_memory(error):
                    self._halve(error)
                else:
                    self._fail_running(BackendError(f"{self.name}: {type(error).__name__}: {error}"))
            except Exception as error:  # whatever is raised must reach the conversations, not kill the engine
                self._fail_running(BackendError(f"{self.name}: {type(error).__name__}: {error}"))
            self._collect()
            if not self.is_running:
                return
            left -= self.planned_cost()

    def deliver(self) -> bool:
        """Between rounds: hand over what is finished. Returns whether anything was."""
        finished, self._finished = self._finished, []
        for run in finished:
            self._part(run)
            if run.answer.done():
                continue
            if isinstance(run.result, Exception):
                run.answer.set_exception(run.result)
            elif run.result is not None:
                run.answer.set_result(run.result)
        return bool(finished)

    # ---- slots ---------------------------------------------------------------------------------------------------------

    def _allocate(self) -> Slots:
        """Slots for `max_batch` conversation sides, or as many as the memory allows.

        Raises:
            BackendError: not even one conversation fits.
        """
        gib = self._memory_gib if self._memory_gib is not None else _free_gib(self.model.device) / 2 / _rounds().num_engines
        self._budget = int(gib * 2**30)
        capacity = min(FIRST_CAPACITY, self.max_context)
        num_slots = min(self._max_batch, self._budget // (capacity * self.token_bytes))
        if num_slots < 1:
            raise BackendError(
                f"{self.name}: one conversation of {capacity} tokens needs {capacity * self.token_bytes / 2**30:.3f} GiB of "
                f"cache and {gib:.3f} GiB are to be had; raise the memory or take a smaller model"
            )
        self._free = list(range(num_slots))[::-1]
        self._rows = _Rows(num_slots)
        if self.model.device.type == "cpu" and self.model.dtype == torch.float32:
            return CompiledSlots(self._served.shapes, num_slots, capacity, self._cache_dtype)
        return TorchSlots(self._served.shapes, num_slots, capacity, self.model.device, self._cache_dtype)

    def _find_slot(self, session: _Session) -> bool:
        """Give the session a slot: a free one, or, when nothing else could go on, that of the side idle for longest."""
        if not self._free and not self.is_running:
            idle = [s for s in self._sessions.values() if s.slot is not None and s.run is None]
            if idle:
                self._give_back(min(idle, key=lambda s: s.last_used))
        if not self._free:
            return False
        session.slot = self._free.pop()
        session.ids = []
        return True

    def _give_back(self, session: _Session) -> None:
        if session.slot is not None and session.slot < self.num_slots:
            self._free.append(session.slot)
        session.slot = None
        session.ids = []

    def _part(self, run: _Run) -> None:
        """A run is over: its session is idle, or gone if it was released meanwhile."""
        if run.result is None:  # cancelled
            self._write_down(run)
        run.session.run = None
        run.session.last_used = self.num_steps
        if self._sessions.get(run.request.session) is not run.session:
            self._give_back(run.session)

    def _write_down(self, run: _Run) -> None:
        """Put what the rows know of a run that was drawing into the run and its session."""
        slot = run.session.slot
        if run.pending or slot is None:
            return
        rows, session = self._rows, run.session
        count = int(rows.count[slot])
        run.draws.ids = rows.drawn[slot, :count].tolist()
        run.logprobs = rows.logprobs[slot, :count].tolist()
        missing = int(rows.held[slot]) - len(session.ids)
        session.ids += run.draws.ids[count - 1 - missing : count - 1]

    def _resume(self, run: _Run) -> None:
        """Work out which tokens of the prompt (and of what was drawn already) the slot does not hold yet."""
        session = run.session
        assert session.slot is not None
        wanted = [*_token_ids(run.request, self.name), *run.draws.ids]
        held = session.ids
        same = len(held) if wanted[: len(held)] == held else _common_prefix(held, wanted)
        # The last token must go through the model again to get its logits.
        same = min(same, len(wanted) - 1)
        del held[same:]
        self._rows.held[session.slot] = same
        self._rows.expect(run)
        run.pending = wanted[same:]

    def _make_room(self, needed: int) -> None:
        """Let every slot hold `needed` tokens, which is more than it holds now: at the cost of slots where memory is short.

        Raises:
            BackendError: a single conversation of that length exceeds the memory.
        """
        slots = self._slots
        assert slots is not None
        capacity = min(max(2 * slots.capacity, needed), self.max_context)
        affordable = self._budget // (capacity * self.token_bytes)
        if affordable < 1:
            capacity, affordable = needed, self._budget // (needed * self.token_bytes)
        if affordable < 1:
            raise BackendError(
                f"{self.name}: a conversation of {needed} tokens needs {needed * self.token_bytes / 2**30:.3f} GiB of cache; "
                f"{self._budget / 2**30:.3f} GiB are to be had"
            )
        if affordable < slots.num_slots:
            warnings.warn(
                f"{self.name}: conversations of {capacity} tokens: {affordable} slots instead of {slots.num_slots}",
                stacklevel=2,
            )
        self._resize(min(slots.num_slots, affordable), capacity)

    def _resize(self, num_slots: int, capacity: int) -> None:
        slots = self._slots
        assert slots is not None
        for session in list(self._all_sessions()):
            if session.slot is None or session.slot < num_slots:
                continue
            run = session.run
            for runs in (self._reading, self._drawing):
                if run in runs:
                    self._write_down(run)
                    runs.remove(run)
                    self._waiting.appendleft(run)
            session.slot = None
            session.ids = []
        self._free = [s for s in self._free if s < num_slots]
        slots.resize(num_slots, capacity)
        self._rows.resize(num_slots)

    def _all_sessions(self) -> list[_Session]:
        released = [r.session for r in self._running if self._sessions.get(r.request.session) is not r.session]
        return [*self._sessions.values(), *released]

    def _halve(self, error: BaseException) -> None:
        """Out of memory: go on with half of the slots, or fail when there is one left."""
        slots = self._slots
        assert slots is not None
        self._collect()  # what another thread's share of the step finished must not be queued again
        if slots.num_slots == 1:
            self._fail_running(BackendError(f"{self.name}: out of memory with a single conversation ({error})"))
            return
        warnings.warn(
            f"{self.name}: out of memory with {slots.num_slots} slots; going on with {slots.num_slots // 2}", stacklevel=2
        )
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._resize(slots.num_slots // 2, slots.capacity)
        # What a broken step wrote is not to be trusted to be complete.
        for run in self._running:
            self._write_down(run)
            self._resume(run)
        self._reading, self._drawing = self._running, []

    # ---- steps ---------------------------------------------------------------------------------------------------------

    def _next_plan(self) -> _Share:
        """The next step."""
        left = self._max_step_tokens
        reading = []
        for run in self._reading:
            count = min(len(run.pending), left)
            if count:
                reading.append((run, count))
            left -= count
        return _Share(self._drawing, reading)

    def _step(self) -> None:
        slots, rows = self._slots, self._rows
        assert slots is not None
        runs, lengths = _lines(self._plan)
        after = rows.held[_slots_of(runs)] + lengths
        if (needed := int(after.max())) > slots.capacity:
            try:
                self._make_room(needed)
            except BackendError as error:
                self._fail(runs[int(after.argmax())], error)
            return  # slots may have gone: the next step is planned anew
        rows.widen(int(rows.count.max()))
        self.num_steps += 1
        self.num_model_tokens += _cost(self._plan)
        shares = self._shares()
        if len(shares) == 1:
            self._advance(shares[0])
            return
        others = [self._helpers.submit(self._advance, share) for share in shares[1:]]
        try:
            self._advance(shares[0])
        finally:
            wait(others)
        for other in others:
            other.result()

    def _shares(self) -> list[_Share]:
        """The plan in parts of about as many tokens, one per thread; a large model's is not divided."""
        drawing, reading = self._plan
        num = min(self._threads, len(drawing) + len(reading)) if self._is_small else 1
        if num < 2:
            return [self._plan]
        parts: list[list[tuple[_Run, int]]] = [[] for _ in range(num)]
        sizes = [0] * num
        for run, count in sorted(reading, key=itemgetter(1), reverse=True):
            least = sizes.index(min(sizes))
            parts[least].append((run, count))
            sizes[least] += count
        shares, begin = [], 0
        for index, part in enumerate(parts):
            # As many more as bring this part to its fair share of what it and the parts behind it have to do.
            fair = (len(drawing) - begin + sum(sizes[index:])) / (num - index)
            end = min(len(drawing), begin + max(0, round(fair - sizes[index])))
            shares.append(_Share(drawing[begin:end], part))
            begin = end
        shares[-1].drawing.extend(drawing[begin:])
        return [share for share in shares if share.drawing or share.reading]

    @torch.inference_mode()
    def _advance(self, share: _Share) -> None:
        """One forward pass over some runs' tokens, and their next tokens drawn."""
        slots, rows = self._slots, self._rows
        assert slots is not None
        if self.model.device.type == "cpu":
            _set_threads(1 if self._is_small else self._threads)
        num = len(share.drawing)
        runs, lengths = _lines(share)
        of_slots = _slots_of(runs)
        ids = [rows.latest[of_slots[:num]], *(np.array(run.pending[:count], np.int64) for run, count in share.reading)]
        pieces = Pieces(of_slots, rows.held[of_slots], lengths)
        # Those whose pending tokens all go through get their first token now.
        done = [i for i, (run, count) in enumerate(share.reading, num) if count == len(run.pending)]
        chosen = np.concatenate([np.arange(num), np.array(done, np.int64)])
        over = slots.begin(pieces, 1 if self._is_small else self._threads)
        wanted = torch.from_numpy(lengths.cumsum()[chosen] - 1)
        logits = self._served.forward(over, torch.from_numpy(np.concatenate(ids)), wanted)
        rows.held[of_slots] += lengths
        for index, (run, count) in enumerate(share.reading, num):
            run.session.ids += run.pending[:count]
            run.pending = run.pending[count:]
            if not run.pending:
                rows.begin(int(of_slots[index]), run)
        if len(chosen):
            self._draw(logits, [runs[i] for i in chosen], of_slots[chosen])

    def _draw(self, logits: torch.Tensor, runs: list[_Run], slots: "npt.NDArray[np.int64]") -> None:
        """The next token of each run, and the end of those that it ends."""
        tokens, logprobs, is_finite = draw(logits, [run.draws for run in runs])
        ended = self._rows.take(slots, tokens, logprobs) | ~is_finite
        for run, token, is_over in zip(runs, tokens.tolist(), ended.tolist(), strict=True):
            if is_over:
                continue
            if run.draws.constraint is not None:
                run.draws.constraint.advance(token)
            if run.draws.has_penalties:
                run.draws.ids.append(token)
        for index in np.flatnonzero(ended):
            self._finish(runs[index], bool(is_finite[index]))

    def _finish(self, run: _Run, is_finite: bool) -> None:
        self._write_down(run)
        ids = run.draws.ids
        if not is_finite:
            what = f"{self.name}: the model's logits are NaN or infinite after {len(ids) - 1} tokens"
            run.result = BackendError(what)
            return
        stopped = ids[-1] in run.request.stop_ids
        if not stopped and run.room < run.request.sampling.max_new_tokens:
            run.result = ContextOverflow(f"{self.name}: the conversation and its next turn exceed the model's context")
        else:
            run.result = Completion("", tuple(ids), tuple(run.logprobs), "stop" if stopped else "length")

    def _collect(self) -> None:
        """Set aside what is finished, and let those draw that have read everything."""
        finished = [r for r in self._running if r.result is not None]
        read = [r for r in self._reading if not r.pending and r.result is None]
        if finished:
            self._finished += finished
            self._drawing = [r for r in self._drawing if r.result is None]
        if finished or read:
            self._drawing = [*self._drawing, *read]
            self._reading = [r for r in self._reading if r.pending and r.result is None]

    def _fail(self, run: _Run, error: Exception) -> None:
        self._write_down(run)
        run.result = error

    def _fail_running(self, error: Exception) -> None:
        for run in self._running:
            if run.result is None:  # another thread's share of the step may have finished it
                self._fail(run, error)

    def fail_all(self, error: Exception) -> None:
        """Answer everything that waits or is under way with an error."""
        for run in [*self._waiting, *self._running]:
            run.result = error
            self._finished.append(run)
        self._waiting.clear()
        self._reading.clear()
        self._drawing.clear()


class _Rounds:
    """Lets the engines of one event loop step side by side, round by round."""

    def __init__(self) -> None:
        self._engines: list[LocalBackend] = []
        self._task: asyncio.Task[None] | None = None
        self._between = asyncio.Event()
        self._between.set()
        self._threads = torch.get_num_threads()

    @property
    def num_engines(self) -> int:
        return len(self._engines)

    def join(self, engine: LocalBackend) -> None:
        """The engine has work."""
        if engine not in self._engines:
            self._engines.append(engine)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def leave(self, engine: LocalBackend) -> None:
        """The engine closes; returns when no step of it is under way."""
        if engine in self._engines:
            self._engines.remove(engine)
        await self._between.wait()
        if not self._engines:
            torch.set_num_threads(self._threads)  # the engines' threads change torch's default for threads to come

    async def _run(self) -> None:
        try:
            await self._hold()
        except Exception as error:
            for engine in self._engines:
                engine.fail_all(BackendError(f"{engine.name}: {type(error).__name__}: {error}"))
                engine.deliver()
            raise

    async def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        is_settled = False
        while any(engine.has_work for engine in self._engines):
            if not is_settled:
                for _ in range(_SETTLE):
                    await asyncio.sleep(0)
            for engine in self._engines:
                engine.admit()
            busy = [engine for engine in self._engines if engine.is_running]
            if busy:
                # The engine with the shorter step makes more of them; tokens, unlike seconds, are the same in every run.
                costs = [engine.planned_cost() for engine in busy]
                threads = max(1, self._threads // len(busy))
                self._between.clear()
                try:
                    await asyncio.gather(
                        *(
                            loop.run_in_executor(engine.thread, engine.steps, max(costs) - cost, threads)
                            for engine, cost in zip(busy, costs, strict=True)
                        )
                    )
                finally:
                    self._between.set()
            # Without a delivery no coroutine has anything new to say.
            delivered = [engine.deliver() for engine in self._engines]
            is_settled = not any(delivered)


_ROUNDS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Rounds] = WeakKeyDictionary()


def _rounds() -> _Rounds:
    loop = asyncio.get_running_loop()
    if loop not in _ROUNDS:
        _ROUNDS[loop] = _Rounds()
    return _ROUNDS[loop]


def _serve(model: "PreTrainedModel", name: str) -> ServedModel | CompiledModel:
    return CompiledModel(model) if is_served_compiled(model) else ServedModel(model, name)


def _cost(share: _Share) -> int:
    """Tokens that go through the model."""
    return len(share.drawing) + sum([count for _, count in share.reading])


def _lines(share: _Share) -> "tuple[list[_Run], npt.NDArray[np.int64]]":
    """The runs of a share, those that draw first, and how many tokens of each go through the model."""
    drawing, reading = share
    lengths = np.ones(len(drawing) + len(reading), np.int64)
    lengths[len(drawing) :] = [count for _, count in reading]
    return [*drawing, *(run for run, _ in reading)], lengths


def _slots_of(runs: list[_Run]) -> "npt.NDArray[np.int64]":
    """(num_runs,) the slots of runs under way."""
    return np.array([run.session.slot for run in runs], np.int64)


def _set_threads(num: int) -> None:
    """Threads that torch uses for work of the calling thread."""
    if torch.get_num_threads() != num:
        torch.set_num_threads(num)


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading elements agree."""
    return next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))


def _free_gib(device: torch.device) -> float:
    """Memory that is free on a device, in GiB."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**30
    import psutil

    return float(psutil.virtual_memory().available) / 2**30


def _is_out_of_memory(error: BaseException) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _token_ids(request: Request, name: str) -> tuple[int, ...]:
    if not request.prompt or not all(isinstance(i, int) for i in request.prompt):
        raise BackendError(f"{name} answers token-id prompts only; chat messages need an http backend")
    return request.prompt  # type: ignore[return-value]  # checked above; mypy can't narrow a union of tuples
