"""Key-value caches in slots, one per conversation side, and attention over them.

transformers lets a model's attention be replaced by name. Ours takes the tokens of many conversations as one row without
padding, writes their keys and values into their slots, and lets each token attend to its own slot alone; so everything
but attention costs what the tokens cost, whatever the lengths, and a conversation's cache stays where it is between turns.

Two stores do the work: `CompiledSlots` (float32 on a CPU, kernels of `cpu_kernels`) and `TorchSlots` (anything torch runs on).
Either can keep keys and values in bfloat16, rounded once as they are written; all arithmetic stays in the model's type.
"""

import math
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from interplay.errors import BackendError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from transformers import PreTrainedModel

NAME = "interplay"
"""The name under which transformers knows our attention."""

NO_WINDOW = 2**31 - 1


class Pieces(NamedTuple):
    """Consecutive tokens of several conversation sides within a forward pass; each array (num_sides,) of int64."""

    slot: "npt.NDArray[np.int64]"
    first: "npt.NDArray[np.int64]"
    """Position of the first token of each, which is how many tokens the slot holds already."""
    length: "npt.NDArray[np.int64]"
    """Tokens of each."""


@dataclass(slots=True, frozen=True)
class LayerShape:
    """What one layer keeps per token."""

    heads: int
    size: int
    """Of a key head, in numbers; a value head's is `value_size`."""
    value_size: int

    @property
    def numbers(self) -> int:
        """Numbers kept per token."""
        return self.heads * (self.size + self.value_size)


class Pass(Protocol):
    """One forward pass over tokens of some slots. Passes over different slots may run at once."""

    positions: torch.Tensor
    """(num_tokens,) each token's position in its own conversation."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int, cap: float
    ) -> torch.Tensor:
        """Keep keys and values, and attend.

        Args:
            layer: index of the layer.
            query: (1, num_heads, num_tokens, size).
            key: (1, num_key_heads, num_tokens, size).
            value: (1, num_key_heads, num_tokens, value_size).
            scale: multiplies the scores.
            window: a token sees this many tokens, itself included.
            cap: scores s become cap * tanh(s / cap); 0 for none.

        Returns:
            (1, num_tokens, num_heads, value_size).
        """
        ...


class Slots(Protocol):
    """Caches of all layers for a number of conversations."""

    num_slots: int
    capacity: int
    """Tokens that a slot can hold."""

    def begin(self, pieces: Pieces, threads: int) -> Pass:
        """A forward pass over the tokens of `pieces`, in their order, attending with this many threads."""
        ...

    def resize(self, num_slots: int, capacity: int) -> None:
        """Keep the first `num_slots` slots, with room for `capacity` tokens each."""
        ...


_CURRENT: ContextVar[Pass] = ContextVar("pass")


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # transformers passes None: it makes no mask for our name
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,  # dropout and position ids, which decoding does not need
) -> tuple[torch.Tensor, None]:
    if s_aux is not None:
        raise BackendError("the local backend does not know attention sinks (s_aux), which this model uses; serve it over http")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    window = NO_WINDOW if sliding_window is None else int(sliding_window)
    layer: int = module.layer_idx  # type: ignore[assignment]  # torch types every attribute as Tensor | Module
    return _CURRENT.get().attend(layer, query, key, value, scale, window, float(softcap or 0.0)), None


class _Probe:
    """Stands in for a Pass once, to learn what a model's layers keep."""

    def __init__(self) -> None:
        self.positions = torch.zeros(1, dtype=torch.long)
        self.shapes: dict[int, LayerShape] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: float) -> torch.Tensor:
        self.shapes[layer] = LayerShape(key.shape[1], key.shape[-1], value.shape[-1])
        groups = query.shape[1] // key.shape[1]
        return value.repeat_interleave(groups, dim=1).transpose(1, 2)


class ServedModel:
    """A causal model whose attention is ours while it serves; to everyone else it stays what it was.

    Args:
        model: a decoder-only causal model, in evaluation mode, on its device.
        name: for messages.

    Raises:
        BackendError: the model keeps state that is not keys and values of ordinary attention, or can't be given another
            attention.
    """

    def __init__(self, model: "PreTrainedModel", name: str) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, _attention)
        self.model = model
        config = model.config.get_text_config(decoder=True)
        strange = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if strange:
            raise BackendError(
                f"{name} has layers of type {', '.join(sorted(strange))}; the local backend knows attention only"
            )
        # Attention modules look their implementation up in the config they hold, at every call.
        configs: dict[int, Any] = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
        self._configs = [c for c in configs.values() if hasattr(c, "_attn_implementation_internal")]
        probe = _Probe()
        none = torch.zeros(1, dtype=torch.long)
        with torch.inference_mode():
            self.forward(probe, none, none)
        layers = config.num_hidden_layers
        if sorted(probe.shapes) != list(range(layers)):
            raise BackendError(
                f"{name}: {len(probe.shapes)} of {layers} layers have attention that can be replaced; serve the model over http"
            )
        self.shapes = [probe.shapes[i] for i in range(layers)]
        """What each layer keeps."""
        self.max_context: int | None = getattr(config, "max_position_embeddings", None)
        """Tokens of a conversation at most, where the model has such a limit."""

    def forward(self, over: Pass, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """One forward pass over tokens of many conversations.

        Args:
            over: what `Slots.begin` gave for them.
            ids: (num_tokens,).
            wanted: (num_wanted,) indices of the tokens whose logits are wanted.

        Returns:
            (num_wanted, vocabulary).
        """
        device = self.model.device
        before = [config._attn_implementation_internal for config in self._configs]
        token = _CURRENT.set(over)
        for config in self._configs:
            config._attn_implementation_internal = NAME
        try:
            logits: torch.Tensor = self.model(
                input_ids=ids.to(device)[None],
                position_ids=over.positions.to(device)[None],
                use_cache=False,
                logits_to_keep=wanted.to(device),
            ).logits[0]
            return logits
        finally:
            _CURRENT.reset(token)
            for config, implementation in zip(self._configs, before, strict=True):
                config._attn_implementation_internal = implementation


class CompiledPass:
    """A Pass over CompiledSlots."""

    def __init__(self, slots: "CompiledSlots", pieces: Pieces, threads: int) -> None:
        import numpy as np

        of_piece, begins, counts = pieces
        self._slots = slots
        self.threads = threads
        """Threads that work on this pass."""
        self.slot = np.repeat(of_piece, counts)
        """(num_tokens,) each token's slot."""
        self.position = np.arange(len(self.slot)) - np.repeat(counts.cumsum() - counts - begins, counts)
        self.positions = torch.from_numpy(self.position)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int, cap: float
    ) -> torch.Tensor:
        """See Pass."""
        query, key, value = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        from interplay.backends.cpu_kernels import store

        store(key.numpy(), value.numpy(), *self.cache(layer), self.slot, self.position)
        return self.look_back(layer, query, scale, window, cap)[None]

    def cache(self, layer: int) -> "tuple[npt.NDArray[Any], npt.NDArray[Any]]":
        """Keys and values of a layer, (num_slots, num_key_heads, capacity, size) each; float32, or bfloat16 as uint16."""
        return self._slots.keys[layer], self._slots.values[layer]

    def look_back(self, layer: int, query: torch.Tensor, scale: float, window: int, cap: float) -> torch.Tensor:
        """As `attend`, for queries (num_tokens, num_heads, size) whose keys and values lie in the slots already."""
        from interplay.backends.cpu_kernels import attend

        keys, values = self.cache(layer)
        out = torch.empty(*query.shape[:2], values.shape[-1])
        attend(query.numpy(), keys, values, self.slot, self.position, out.numpy(), scale, window, cap, self.threads)
        return out


class CompiledSlots:
    """Slots of a model in float32 on a CPU; kept in float32 or, as bits in uint16, in bfloat16."""

    def __init__(self, shapes: Sequence[LayerShape], num_slots: int, capacity: int, dtype: torch.dtype = torch.float32) -> None:
        import numpy as np

        self._shapes = list(shapes)
        self._kind = np.dtype(np.uint16 if dtype == torch.bfloat16 else np.float32)
        self.num_slots = 0
        self.capacity = 0
        self.keys: list[npt.NDArray[Any]] = []
        self.values: list[npt.NDArray[Any]] = []
        self.resize(num_slots, capacity)

    def begin(self, pieces: Pieces, threads: int) -> CompiledPass:
        """See Slots."""
        return CompiledPass(self, pieces, threads)

    def resize(self, num_slots: int, capacity: int) -> None:
        """See Slots. Memory is touched, and so taken, only where tokens are written."""
        kept, old = min(num_slots, self.num_slots), self.capacity
        for layer, shape in enumerate(self._shapes):
            for arrays, size in ((self.keys, shape.size), (self.values, shape.value_size)):
                fresh = _large_pages((num_slots, shape.heads, capacity, size), self._kind)
                if kept:
                    fresh[:kept, :, :old] = arrays[layer][:kept]
                    arrays[layer] = fresh
                else:
                    arrays.append(fresh)
        self.num_slots, self.capacity = num_slots, capacity


def _large_pages(shape: tuple[int, ...], kind: "np.dtype[Any]") -> "npt.NDArray[Any]":
    """Zeros in large pages where the system has them: first touches of small ones took a tenth of a run."""
    import mmap

    import numpy as np

    memory = mmap.mmap(-1, kind.itemsize * math.prod(shape))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, kind).reshape(shape)


class TorchPass:
    """A Pass over TorchSlots."""

    def __init__(self, slots_of: "TorchSlots", pieces: Pieces) -> None:
        self._slots = slots_of
        device = slots_of.keys[0].device
        slots, begins, counts = map(torch.from_numpy, pieces)
        first = counts.cumsum(0) - counts
        within = torch.arange(int(counts.sum())) - first.repeat_interleave(counts)
        self._token_slot = slots.repeat_interleave(counts).to(device)
        self.positions = (begins.repeat_interleave(counts) + within).to(device)
        # Pieces of like length share a call: a decoding token must not be padded to the length of a first prompt.
        self._groups = []
        for chosen in (counts == 1, (counts > 1) & (counts <= 64), counts > 64):
            if not bool(chosen.any()):
                continue
            width = int(counts[chosen].max())
            offsets = torch.arange(width)
            # Rows shorter than the widest repeat their last token; the surplus is never read.
            index = first[chosen, None] + torch.minimum(offsets[None], counts[chosen, None] - 1)
            position = begins[chosen, None] + torch.minimum(offsets[None], counts[chosen, None] - 1)
            real = offsets[None] < counts[chosen, None]
            length = int(position.max()) + 1
            self._groups.append((slots[chosen].to(device), index.to(device), position.to(device), real.to(device), length))

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int, cap: float
    ) -> torch.Tensor:
        """See Pass."""
        keys, values = self._slots.keys[layer], self._slots.values[layer]
        keys[self._token_slot, :, self.positions] = key[0].transpose(0, 1).to(keys.dtype)
        values[self._token_slot, :, self.positions] = value[0].transpose(0, 1).to(values.dtype)
        out = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
        tokens = query[0].transpose(0, 1)
        for slots, index, position, real, length in self._groups:
            seen = torch.arange(length, device=keys.device)[None, None]
            mask = (seen <= position[..., None]) & (seen > position[..., None] - window)
            q = tokens[index].transpose(1, 2)
            k, v = (kept[slots, :, :length].to(query.dtype) for kept in (keys, values))
            if cap:
                groups = q.shape[1] // k.shape[1]
                scores = (q @ k.repeat_interleave(groups, 1).transpose(-1, -2)) * scale
                scores = (cap * torch.tanh(scores / cap)).masked_fill(~mask[:, None], float("-inf"))
                heard = scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v.repeat_interleave(groups, 1)
            else:
                heard = torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask[:, None], scale=scale, enable_gqa=q.shape[1] != k.shape[1]
                )
            out[index[real]] = heard.transpose(1, 2)[real]
        return out[None]


class TorchSlots:
    """Slots on any device and kept in any type, with torch's own attention: decoding tokens padded to the longest."""

    def __init__(
        self, shapes: Sequence[LayerShape], num_slots: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._shapes = list(shapes)
        self._device, self._dtype = device, dtype
        self.num_slots = 0
        self.capacity = 0
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.resize(num_slots, capacity)

    def begin(self, pieces: Pieces, threads: int) -> TorchPass:  # torch has its own threads
        """See Slots."""
        return TorchPass(self, pieces)

    def resize(self, num_slots: int, capacity: int) -> None:
        """See Slots."""
        kept, old = min(num_slots, self.num_slots), self.capacity
        for layer, shape in enumerate(self._shapes):
            for tensors, size in ((self.keys, shape.size), (self.values, shape.value_size)):
                fresh = torch.zeros(num_slots, shape.heads, capacity, size, device=self._device, dtype=self._dtype)
                if kept:
                    fresh[:kept, :, :old] = tensors[layer][:kept, :, :old]
                    tensors[layer] = fresh
                else:
                    tensors.append(fresh)
        self.num_slots, self.capacity = num_slots, capacity
