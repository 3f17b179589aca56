"""The local backend as an engine: caches kept between turns, slots shared, exact for every architecture."""

import asyncio
import random
import warnings
from itertools import product

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from interplay.backends import cpu_kernels, local, sampling
from interplay.backends.attention import CompiledSlots, LayerShape, Pieces, TorchSlots
from interplay.backends.backend import Request
from interplay.backends.compile_kernels import compile_kernels
from interplay.backends.cpu_kernels import multiply, store
from interplay.backends.local import LocalBackend
from interplay.config import Sampling
from interplay.errors import BackendError

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
GREEDY = Sampling(temperature=0, max_new_tokens=9)
WARM = Sampling(temperature=1.0, max_new_tokens=9)
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
ARCHITECTURES = {
    "Qwen3": {},
    "Llama": {},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1},
    "Mistral": {"sliding_window": 24},
    "Gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 16, "attn_implementation": "eager"},
    "Gemma3": {"sliding_window": 16, "query_pre_attn_scalar": 16, "layer_types": SLIDING},
}


def build(architecture: str, **changes):
    torch.manual_seed(0)
    name = "Gemma3TextConfig" if architecture == "Gemma3" else f"{architecture}Config"
    config = getattr(transformers, name)(**SHAPE | ARCHITECTURES.get(architecture, {}) | changes)
    model = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def qwen():
    return build("Qwen3")


def words(seed: int, low: int = 3, high: int = 70) -> list[int]:
    drawn = random.Random(seed)
    return [drawn.randrange(1, 300) for _ in range(drawn.randrange(low, high))]


TIES = st.sampled_from([0x7FFF, 0x8000, 0x8001])
"""The lower half of a float32 that lies next to, or on, the middle between two numbers of bfloat16."""


async def talk(backend: LocalBackend, index: int, sampling: Sampling, num_turns: int = 3) -> list[tuple[int, ...]]:
    """One side of a conversation: its prompt grows by its own words and by what it hears."""
    ids, said = words(index), []
    for turn in range(num_turns):
        answer = await backend.complete(Request(tuple(ids), sampling, seed=index * 10 + turn, session=f"s{index}"))
        said.append(answer.ids)
        ids += [*answer.ids, *words(100 + index + turn, 1, 9)]
    backend.release(f"s{index}")
    return said


def hold(model, indices, sampling=GREEDY, **options) -> dict[int, list[tuple[int, ...]]]:
    """Several conversations at once; what was said by each."""

    async def run():
        backend = LocalBackend(model, "tiny", **options)
        said = await asyncio.gather(*(talk(backend, i, sampling) for i in indices))
        await backend.close()
        return dict(zip(indices, said, strict=True))

    return asyncio.run(run())


def generated(model, index: int, num_turns: int = 3) -> list[tuple[int, ...]]:
    """The same conversation by transformers' generate on the whole prompt, turn by turn."""
    ids, said = words(index), []
    for turn in range(num_turns):
        out = model.generate(torch.tensor([ids]), max_new_tokens=9, do_sample=False)[0, len(ids) :].tolist()
        said.append(tuple(out))
        ids += [*out, *words(100 + index + turn, 1, 9)]
    return said


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "torch"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_conversations_equal_generate_on_the_full_prompt(architecture, dtype):
    # float64 is served by TorchSlots, the path of accelerators, float32 by the compiled kernels.
    model = build(architecture).to(dtype)
    expected = {i: generated(model, i) for i in range(6)}
    assert hold(model, [0, 1, 2, 3, 4, 5], max_batch=64) == expected
    assert hold(model, [5, 3, 1, 4, 2, 0], max_batch=2, max_step_tokens=16) == expected


def test_kernels_compiled_at_set_up_are_those_of_a_conversation(qwen):
    compile_kernels()
    at_set_up = {name: set(kernel.signatures) for name, kernel in vars(cpu_kernels).items() if hasattr(kernel, "signatures")}
    for kv_cache in ("model", "bfloat16"):
        hold(qwen, [0, 1], WARM, kv_cache=kv_cache)
    for name in ("place", "_attend", "gate", "add_and_normalise", "summarise", "pick"):
        assert at_set_up[name], name
        assert set(getattr(cpu_kernels, name).signatures) == at_set_up[name]


def test_sampled_conversations_agree_whatever_the_slots_and_the_order(qwen):
    runs = [
        hold(qwen, list(order), WARM, max_batch=slots)
        for slots, order in ((64, range(40)), (3, range(40)), (17, reversed(range(40))))
    ]
    same = sum(runs[0][i] == run[i] for run, i in product(runs[1:], range(40)))
    # Batches of other sizes round differently, and a draw that falls on the boundary of two tokens may then differ.
    assert same >= 0.975 * 80


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [("Qwen3", torch.float32), ("Gemma2", torch.float32), ("Qwen3", torch.float64)],
    ids=["compiled", "compiled attention", "torch"],
)
def test_a_cache_in_bfloat16_says_mostly_what_the_model_says(architecture, dtype):
    model = build(architecture).to(dtype)
    said = hold(model, range(12), kv_cache="bfloat16")
    exact = hold(model, range(12))
    # Histories differ after the first other token, so first turns are compared.
    assert sum(said[i][0] == exact[i][0] for i in range(12)) >= 8


def test_each_token_goes_through_the_model_once(qwen):
    async def run():
        backend = LocalBackend(qwen, "tiny")
        said = await asyncio.gather(*(talk(backend, i, GREEDY) for i in range(8)))
        await backend.close()
        return backend.num_model_tokens, said

    passed, said = asyncio.run(run())
    needed = 0
    for index, turns in enumerate(said):
        heard = [len(words(100 + index + turn, 1, 9)) for turn in range(len(turns) - 1)]
        needed += len(words(index)) + sum(map(len, turns)) + sum(heard) - 1  # the last token drawn is never read
    assert passed == needed


def test_a_changed_prompt_is_read_again_from_where_it_differs(qwen):
    first, second = words(1, 40, 41), [*words(1, 40, 41)[:20], *words(2, 20, 21)]

    async def run():
        backend = LocalBackend(qwen, "tiny")
        await backend.complete(Request(tuple(first), GREEDY, 0, "s"))
        before = backend.num_model_tokens
        changed = await backend.complete(Request(tuple(second), GREEDY, 0, "s"))
        fresh = await backend.complete(Request(tuple(second), GREEDY, 0, "other"))
        passed = backend.num_model_tokens - before
        await backend.close()
        return changed.ids, fresh.ids, passed

    changed, fresh, passed = asyncio.run(run())
    assert changed == fresh
    assert passed == (20 + 8) + (40 + 8)


def test_a_model_serves_and_is_still_its_own(qwen):
    ids = torch.tensor([words(3)])
    before = qwen(ids).logits
    hold(qwen, range(3))
    assert torch.equal(qwen(ids).logits, before)


def test_two_engines_of_one_loop_hold_a_conversation_between_them(qwen):
    other = build("Llama")

    async def run(slots):
        backends = [LocalBackend(qwen, "one", max_batch=slots), LocalBackend(other, "two", max_batch=slots)]

        async def converse(index):
            ids = words(index)
            for turn in range(4):
                answer = await backends[turn % 2].complete(Request(tuple(ids), WARM, index * 7 + turn, f"s{index}"))
                ids += answer.ids
            for backend in backends:
                backend.release(f"s{index}")
            return ids

        said = await asyncio.gather(*(converse(i) for i in range(10)))
        for backend in backends:
            await backend.close()
        return said

    assert asyncio.run(run(32)) == asyncio.run(run(32))
    assert len(asyncio.run(run(1))) == 10


def test_one_engine_for_both_sides_does_not_block_itself_when_slots_are_short(qwen):
    async def run():
        backend = LocalBackend(qwen, "tiny", max_batch=2)

        async def converse(index):
            ids = words(index)
            for turn in range(4):
                answer = await backend.complete(Request(tuple(ids), GREEDY, turn, f"{index}/{turn % 2}"))
                ids += answer.ids
            return len(ids)

        sizes = await asyncio.wait_for(asyncio.gather(*(converse(i) for i in range(6))), 60)
        await backend.close()
        return sizes

    assert asyncio.run(run()) == [len(words(i)) + 4 * 9 for i in range(6)]


def test_a_cancelled_request_leaves_its_slot_to_others(qwen):
    async def run():
        backend = LocalBackend(qwen, "tiny", max_batch=1)
        slow = asyncio.create_task(backend.complete(Request((1, 2, 3), Sampling(temperature=0, max_new_tokens=400), 0, "slow")))
        await asyncio.sleep(0.1)
        slow.cancel()
        backend.release("slow")
        answer = await asyncio.wait_for(backend.complete(Request((1, 2, 3), GREEDY, 0, "next")), 30)
        await backend.close()
        return answer

    assert len(asyncio.run(run()).ids) == 9


@pytest.mark.parametrize("kv_cache", ["model", "bfloat16"])
def test_slots_follow_from_the_memory_and_grow_at_the_cost_of_their_number(qwen, kv_cache):
    async def run():
        probe = LocalBackend(qwen, "tiny", kv_cache=kv_cache)
        gib = probe.token_bytes * 512 * 3.5 / 2**30
        model = build("Qwen3", max_position_embeddings=2048)
        backend = LocalBackend(model, "tiny", max_batch=64, memory_gib=gib, kv_cache=kv_cache)
        await backend.complete(Request(tuple(words(1)), GREEDY, 0, "a"))
        before = backend.num_slots
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            long = [1 + i % 299 for i in range(900)]
            answers = await asyncio.gather(*(backend.complete(Request(tuple(long), GREEDY, 0, f"l{i}")) for i in range(3)))
        after = backend.num_slots
        await backend.close()
        return before, after, [str(w.message) for w in caught], answers

    before, after, told, answers = asyncio.run(run())
    assert (before, after) == (3, 1)
    assert any("1 slots instead of 3" in t for t in told)
    assert len({a.ids for a in answers}) == 1


def test_a_cache_in_bfloat16_takes_half_of_the_memory(qwen):
    whole, half = (LocalBackend(qwen, "tiny", kv_cache=kind).token_bytes for kind in ("model", "bfloat16"))
    assert whole == 3 * 2 * (16 + 16) * 4 == 2 * half


def test_a_memory_too_small_for_one_conversation_is_one_clear_line(qwen):
    async def run():
        backend = LocalBackend(qwen, "tiny", memory_gib=1e-6)
        try:
            await backend.complete(Request((1, 2, 3), GREEDY, 0, "s"))
        finally:
            await backend.close()

    with pytest.raises(BackendError, match=r"tiny: one conversation of 512 tokens needs .* raise the memory"):
        asyncio.run(run())


@pytest.mark.filterwarnings("ignore:tiny. out of memory")
def test_out_of_memory_halves_the_slots_and_goes_on(qwen, monkeypatch):
    expected = hold(qwen, range(6))
    real = local.draw
    failures = iter([None, None, torch.OutOfMemoryError("injected"), None, torch.OutOfMemoryError("injected")])

    def fail_at_times(logits, rows):
        error = next(failures, None)
        if error is not None:
            raise error
        return real(logits, rows)

    monkeypatch.setattr(local, "draw", fail_at_times)
    assert hold(qwen, range(6), max_batch=8) == expected


def test_an_architecture_without_ordinary_attention_is_refused_by_name():
    config = transformers.BloomConfig(vocab_size=300, hidden_size=64, n_layer=2, n_head=4)
    with pytest.raises(BackendError, match="bloom: 0 of 2 layers have attention that can be replaced"):
        LocalBackend(transformers.BloomForCausalLM(config).eval(), "bloom")


SHAPES_TO_ATTEND = [LayerShape(2, 16, 24)]


def compiled_slots(dtype):
    return CompiledSlots(SHAPES_TO_ATTEND, 4, 40, dtype)


def plain_slots(dtype):
    return TorchSlots(SHAPES_TO_ATTEND, 4, 40, torch.device("cpu"), dtype)


def attended(slots, window, cap, keep=lambda x: x):
    """What some steps over four slots attend to, with keys and values that went through `keep`."""
    generator = torch.Generator().manual_seed(0)
    out = []
    for rows in ([(2, 0, 30), (0, 0, 3)], [(2, 30, 1), (0, 3, 20), (3, 0, 1)], [(0, 23, 6), (3, 1, 1), (2, 31, 2)]):
        pieces = Pieces(*np.array(rows).T)
        tokens = int(pieces.length.sum())
        query = torch.randn(1, 6, tokens, 16, generator=generator)
        key = torch.randn(1, 2, tokens, 16, generator=generator)
        value = torch.randn(1, 2, tokens, 24, generator=generator)
        out.append(slots.begin(pieces, 1).attend(0, query, keep(key), keep(value), 0.3, window, cap))
    return torch.cat(out, 1)


@pytest.mark.parametrize(("window", "cap"), [(9, 5.0), (2**31 - 1, 0.0)])
def test_both_kinds_of_slots_compute_the_same_attention(window, cap):
    results = [attended(slots, window, cap) for slots in (compiled_slots(torch.float32), plain_slots(torch.float32))]
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("slots", [compiled_slots, plain_slots])
def test_attention_over_a_cache_in_bfloat16_is_attention_over_rounded_keys_and_values(slots):
    rounded = attended(slots(torch.float32), 2**31 - 1, 0.0, keep=lambda x: x.bfloat16().float())
    torch.testing.assert_close(attended(slots(torch.bfloat16), 2**31 - 1, 0.0), rounded, atol=1e-6, rtol=1e-6)


def test_slots_in_bfloat16_keep_what_they_hold_when_they_are_resized():
    slots = compiled_slots(torch.bfloat16)
    attended(slots, 9, 0.0)
    held = slots.keys[0][:3, :, :33].copy()
    slots.resize(3, 80)
    assert slots.keys[0].nbytes == 2 * 3 * 2 * 80 * 16
    assert (slots.keys[0][:, :, :33] == held).all()


@given(st.lists(st.integers(0, 2**32 - 1) | st.builds(lambda high, low: high << 16 | low, st.integers(0, 2**16 - 1), TIES)))
def test_keys_and_values_are_rounded_as_torch_rounds_to_bfloat16(bits):
    x = np.array(bits, np.uint32).view(np.float32)[None, None]
    kept = np.empty((2, 1, 1, 1, len(bits)), np.uint16)
    store(x, x, *kept, np.zeros(1, np.int64), np.zeros(1, np.int64))
    expected = torch.from_numpy(x).bfloat16()
    for found in kept:
        # Bit by bit but for NaN, of which there are many.
        torch.testing.assert_close(
            torch.from_numpy(found[0, 0]).view(torch.bfloat16), expected[0], atol=0, rtol=0, equal_nan=True
        )


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_step_shared_by_threads_says_the_same(qwen, two_threads):
    expected = hold(qwen, range(1)) | hold(qwen, range(1, 2))
    shared = hold(qwen, range(9), max_batch=9)
    assert {i: shared[i] for i in (0, 1)} == expected


def failing_at(backend, token, error):
    """Let the backend's forward pass over `token` fail once."""
    forward, left = backend._served.forward, [error]

    def fail(over, ids, wanted):
        if token in ids.tolist() and left:
            raise left.pop()
        return forward(over, ids, wanted)

    backend._served.forward = fail


async def two_at_once(backend):
    """Two requests that share their step between two threads; the first is done after it."""
    one = Sampling(temperature=0, max_new_tokens=1)
    return await asyncio.gather(
        backend.complete(Request((5, 6, 7), one, 0, "a")),
        backend.complete(Request((8, 9, 250), GREEDY, 0, "b")),
        return_exceptions=True,
    )


def test_a_share_that_fails_leaves_what_the_other_finished(qwen, two_threads):
    async def run():
        backend = LocalBackend(qwen, "tiny")
        failing_at(backend, 250, ValueError("injected"))
        answers = await two_at_once(backend)
        await backend.close()
        return answers

    first, second = asyncio.run(run())
    assert len(first.ids) == 1
    assert isinstance(second, BackendError)
    assert "tiny: ValueError: injected" in str(second)


@pytest.mark.filterwarnings("ignore:tiny. out of memory")
def test_a_share_that_is_out_of_memory_is_repeated_and_the_other_is_not(qwen, two_threads):
    async def run(error):
        backend = LocalBackend(qwen, "tiny", max_batch=4)
        if error is not None:
            failing_at(backend, 250, error)
        answers = await two_at_once(backend)
        await backend.close()
        return answers, backend.num_slots

    expected, _ = asyncio.run(run(None))
    answers, _ = asyncio.run(run(torch.OutOfMemoryError("injected")))
    assert answers == expected


def test_a_request_with_several_stop_ids_ends_with_whichever_comes_first(qwen):
    async def run(stops):
        backend = LocalBackend(qwen, "tiny")
        answers = await asyncio.gather(
            *(backend.complete(Request(tuple(words(i)), WARM, 3, f"s{i}", stop_ids=stops if i % 2 else ())) for i in range(6))
        )
        await backend.close()
        return [a.ids for a in answers]

    free = asyncio.run(run(()))
    stops = tuple({ids[2] for ids in free})
    held = asyncio.run(run(stops))
    for i, (whole, cut) in enumerate(zip(free, held, strict=True)):
        end = next(n for n, token in enumerate(whole, 1) if token in stops) if i % 2 else len(whole)
        assert cut == whole[:end]


def test_the_summary_of_logits_is_argmax_and_logsumexp():
    logits = torch.randn(7, 301, generator=torch.Generator().manual_seed(0)) * 20
    logits[1, 4] = float("-inf")
    logits[2, 300] = float("nan")
    logits[3, 0] = float("inf")
    logits[4] = float("-inf")
    tokens, normaliser = sampling._summary(logits)
    strange = [2, 3, 4]
    fine = [0, 1, 5, 6]
    assert not normaliser[strange].isfinite().any()
    assert tokens[fine].tolist() == logits[fine].argmax(-1).tolist()
    torch.testing.assert_close(normaliser[fine], logits[fine].logsumexp(-1))


@pytest.mark.parametrize(("rows", "columns", "size", "threads"), [(1, 1, 5, 1), (3, 8, 16, 1), (4, 7, 33, 2), (9, 31, 64, 2)])
def test_a_few_rows_are_multiplied_as_torch_does(rows, columns, size, threads):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(rows, size, generator=generator), torch.randn(columns, size, generator=generator)
    out = torch.full((rows, columns), float("nan"))
    multiply(x.numpy(), weight.numpy(), out.numpy(), threads)
    torch.testing.assert_close(out, x @ weight.T)
