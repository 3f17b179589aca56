"""The models to start from: the tiny backbone, made from nothing on the spot, or any causal model by path or hub id.

Either way the tokenizer gets the structural tags and the model an embedding for each of them.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from interplay.config import TinyConfig
from interplay.corpora.corpus import Corpus
from interplay.errors import CheckpointError
from interplay.formats.tokens import add_structural_tokens
from interplay.simulation.checkpoint import load_tokenizer
from interplay.types import Domain, Split

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


HEAD_SIZE = 32
"""Dimensions of an attention head of the tiny backbone: a narrow model needs several heads more than wide ones."""


def corpus_texts(corpora: Iterable[Corpus]) -> Iterator[str]:
    """Every text a model will read or write in training: turns, personas and titles of the training split."""
    for corpus in corpora:
        for scenario, dialogue in corpus.pairs(Split.TRAIN):
            # A blank in front, as the token rendering writes persona texts.
            yield from (f" {text}" for text in scenario.persona.texts())
            for turn in dialogue.turns:
                yield turn.text
        for item in corpus.catalog:
            yield item.label


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer: any text can be encoded and comes back unchanged.

    Args:
        texts: what to learn merges from.
        vocab_size: entries at most, structural tags not counted; small corpora give fewer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>"],
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # transformers leaves the constructor untyped.
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")  # type: ignore[no-untyped-call]


def build_tiny(
    corpora: list[Corpus],
    domain: Domain,
    tiny: TinyConfig,
    seed: int,
    *,
    notes: bool = False,
    candidates: bool = False,
    tasks: Collection[str] = (),
    cues: Sequence[str] = (),
    reasoning: bool = False,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerFast"]:
    """The tiny backbone: a Qwen3 decoder with random weights and a tokenizer trained on the corpora."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = train_tokenizer(corpus_texts(corpora), tiny.vocab_size)
    add_structural_tokens(tokenizer, domain, notes=notes, candidates=candidates, tasks=tasks, cues=cues, reasoning=reasoning)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=tiny.width,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.width // HEAD_SIZE,
        num_key_value_heads=tiny.width // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        intermediate_size=3 * tiny.width,
        max_position_embeddings=tiny.context,
        # As in the released Qwen3 models; the library's default of 1e4 turns most of a small head's dimensions so fast
        # that content can't be matched over a whole conversation.
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    return model, tokenizer


def load_base(
    model_name: str,
    domain: Domain,
    *,
    dtype: torch.dtype,
    quantize: bool = False,
    notes: bool = False,
    candidates: bool = False,
    tasks: Collection[str] = (),
    cues: Sequence[str] = (),
    reasoning: bool = False,
) -> tuple["PreTrainedModel", "PreTrainedTokenizerFast"]:
    """A causal model by path or hub id, with an embedding for every structural tag.

    New embeddings start at the mean of the old ones plus a little noise: some models have spare rows, which
    `resize_token_embeddings` leaves at whatever they hold.

    Args:
        model_name: a directory or a hub id.
        domain: whose tags are added.
        dtype: of the weights.
        quantize: load the weights in 4 bits (QLoRA).
        notes: whether the tag of notes is needed too.
        candidates: whether that of candidates is.
        tasks: whose tags are.
        cues: those of these kinds of cues.
        reasoning: whether those of reasoning are.

    Raises:
        CheckpointError: there is no such model.
        MissingExtra: 4 bits were asked for without bitsandbytes.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(model_name)
    num_new = add_structural_tokens(
        tokenizer, domain, notes=notes, candidates=candidates, tasks=tasks, cues=cues, reasoning=reasoning
    )
    options = {"quantization_config": _four_bits(dtype)} if quantize else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(model_name, dtype=dtype, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{model_name} is no model that can be loaded ({str(error).splitlines()[0]})") from None
    if num_new:
        rows = model.get_input_embeddings().get_parameter("weight").shape[0]
        if len(tokenizer) > rows:  # only ever upwards: vocabularies are often padded
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=False)
        _start_new_rows(model, first=len(tokenizer) - num_new, end=len(tokenizer))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


@torch.no_grad()
def _start_new_rows(model: "PreTrainedModel", first: int, end: int) -> None:
    generator = torch.Generator().manual_seed(0)
    head: torch.nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped in transformers
    weights = [e.get_parameter("weight") for e in (model.get_input_embeddings(), head) if e is not None]
    for weight in {id(w): w for w in weights}.values():  # one entry when the two are tied
        old = weight[:first].float()
        noise = torch.randn(end - first, weight.shape[1], generator=generator).to(weight.device)
        weight[first:end] = (old.mean(0) + 0.1 * old.std() * noise).to(weight.dtype)


def _four_bits(dtype: torch.dtype) -> object:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    from interplay.errors import MissingExtra

    if find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "qlora", "--tuning qlora")
    # transformers leaves the constructor untyped.
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
