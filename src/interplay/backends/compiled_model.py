"""A faster way through decoders of the Llama kind on a CPU: the same weights, everything but the matrices in few kernels.

On a CPU a small model spends more time between the matrix products (normalisation, rotation, activation, each several passes
over memory and a dozen calls) than in them. For the architectures named here, which share one structure, this module does
the same arithmetic in one kernel each. It reads the model's own parameters at every step, so training may go on beside it.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import linear

from interplay.backends.attention import NO_WINDOW, CompiledPass, LayerShape, Pass
from interplay.backends.cpu_kernels import gate, normalise, rotate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ARCHITECTURES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
"""Exact classes of transformers whose forward pass this is."""


def is_served_compiled(model: "PreTrainedModel") -> bool:
    """Whether `CompiledModel` can stand in for the model's own forward pass."""
    config = model.config
    return (
        type(model).__name__ in ARCHITECTURES
        and type(model).__module__.startswith("transformers.")
        and model.device.type == "cpu"
        and all(p.dtype == torch.float32 for p in model.parameters())
        # Adapters and quantised layers replace the plain ones.
        and all(type(m) is torch.nn.Linear for n, m in model.named_modules() if n.endswith(("_proj", "lm_head")))
        and config.hidden_act == "silu"
        and getattr(config, "pretraining_tp", 1) == 1
    )


class CompiledModel:
    """Stands in for `attention.ServedModel` where `is_served_compiled`."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model
        config = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.shapes = [LayerShape(config.num_key_value_heads, size, size)] * config.num_hidden_layers
        self.max_context: int | None = config.max_position_embeddings
        self._size = size

    def forward(self, over: Pass, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """See ServedModel; the pass must be over CompiledSlots."""
        assert isinstance(over, CompiledPass)
        decoder: Any = self.model.model
        hidden = decoder.embed_tokens(ids)
        cos, sin = (x[0].contiguous().numpy() for x in decoder.rotary_emb(hidden, over.positions[None]))
        normed = torch.empty_like(hidden)
        for index, layer in enumerate(decoder.layers):
            attention, mlp = layer.self_attn, layer.mlp
            _normalise(layer.input_layernorm, hidden, normed)
            query, key, value = (
                linear(normed, p.weight, p.bias).view(len(ids), -1, self._size)
                for p in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            for heads, norm in ((query, "q_norm"), (key, "k_norm")):
                if hasattr(attention, norm):
                    flat = heads.view(-1, self._size)
                    _normalise(getattr(attention, norm), flat, flat)
                rotate(heads.numpy(), cos, sin)
            window = getattr(attention, "sliding_window", None)
            if type(self.model).__name__ == "MistralForCausalLM":
                window = self.model.config.sliding_window  # which keeps it in the config alone
            heard = over.attend_tokens(index, query, key, value, attention.scaling, window or NO_WINDOW, 0.0)
            hidden = hidden + linear(heard.view(len(ids), -1), attention.o_proj.weight, attention.o_proj.bias)
            _normalise(layer.post_attention_layernorm, hidden, normed)
            inner = linear(normed, mlp.gate_proj.weight, mlp.gate_proj.bias)
            gate(inner.numpy(), linear(normed, mlp.up_proj.weight, mlp.up_proj.bias).numpy())
            hidden = hidden + linear(inner, mlp.down_proj.weight, mlp.down_proj.bias)
        last = hidden[wanted]
        _normalise(decoder.norm, last, last)
        head: Any = self.model.lm_head
        return linear(last, head.weight, head.bias)


def _normalise(norm: Any, x: torch.Tensor, out: torch.Tensor) -> None:
    normalise(x.numpy(), norm.weight.detach().numpy(), norm.variance_epsilon, out.numpy())
