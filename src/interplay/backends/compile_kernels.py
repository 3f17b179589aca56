"""`python -m interplay.backends.compile_kernels` compiles the kernels of `cpu_kernels` for this machine, as set-up.

Otherwise the first conversation of a model on a CPU waits for it, and so does every process that starts before that is over.
They are kept where numba keeps them: beside the sources, or in NUMBA_CACHE_DIR.
"""

import asyncio
import time
from typing import get_args

from interplay.backends.backend import Request
from interplay.backends.local import LocalBackend
from interplay.config import KvCache, Sampling


def compile_kernels() -> None:
    """Let a model of a few numbers talk, greedily and not, with each type of cache, so that numba meets all types there are."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=32,
        max_position_embeddings=64,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = Qwen3ForCausalLM(shape)
    model.train(False)

    async def talk(kv_cache: KvCache) -> None:
        backend = LocalBackend(model, "a model of a few numbers", kv_cache=kv_cache)
        draws = [Sampling(temperature=temperature, max_new_tokens=4) for temperature in (0.0, 1.0)]
        try:
            await asyncio.gather(*(backend.complete(Request(tuple(range(1, 9)), s, 0, str(s))) for s in draws))
        finally:
            await backend.close()

    for kv_cache in get_args(KvCache):
        asyncio.run(talk(kv_cache))


if __name__ == "__main__":
    start = time.monotonic()
    compile_kernels()
    print(f"kernels compiled in {time.monotonic() - start:.0f} s")
