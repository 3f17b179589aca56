"""The models of the benchmark: shapes with random weights, and what a token costs in each, in FLOPs and bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """A Qwen3 decoder."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocab_size: int
    tied: bool = True
    context: int = 4096

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of all layers."""
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def head_weights(self) -> int:
        """Weights of the output matrix."""
        return self.width * self.vocab_size

    @property
    def parameters(self) -> int:
        """All weights but the norms'."""
        return self.layer_weights + self.head_weights * (1 if self.tied else 2)

    @property
    def kv_per_token(self) -> int:
        """Numbers that the cache holds per token."""
        return 2 * self.layers * self.kv_heads * self.head_size

    def flops(self, tokens: int, attended: int, logits: int) -> float:
        """Multiply-adds counted as two.

        Args:
            tokens: that pass through the layers.
            attended: keys that these tokens look at, summed over the tokens.
            logits: positions whose logits are wanted.
        """
        return (
            2.0 * self.layer_weights * tokens
            + 4.0 * self.layers * self.heads * self.head_size * attended
            + 2.0 * self.head_weights * logits
        )


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 128, 3, 4, 4, 32, 384, 2048),
        # SmolLM2-135M's sizes.
        Shape("135m", 576, 30, 9, 3, 64, 1536, 49152),
        # Those of Qwen3-0.6B and Qwen3-8B.
        Shape("0.6b", 1024, 28, 16, 8, 128, 3072, 151936),
        Shape("8b", 4096, 36, 32, 8, 128, 12288, 151936, tied=False),
    )
}


def build(shape: Shape, seed: int, *, dtype: str = "float32", device: str = "cpu") -> "PreTrainedModel":
    """The model with random weights, in evaluation mode."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.inner,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            model = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def write_checkpoint(shape: Shape, seed: int, path: Path) -> None:
    """The model and a small tokenizer as transformers writes them, for engines that read files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = build(shape, seed)
    model.generation_config.eos_token_id = None
    model.save_pretrained(path)
    vocab = {"<pad>": 0} | {symbol: i + 1 for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>").save_pretrained(path)
