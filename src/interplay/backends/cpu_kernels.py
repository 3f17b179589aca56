"""Attention over slots, compiled for the CPU at first use and then kept on disk.

Decoding many conversations of different lengths is bound by reading their caches. torch's attention wants them padded to
the longest and, where the active ones are not neighbours, copied first; these kernels read each slot where it lies and only
as far as it is filled.
"""

import math
from functools import cache
from importlib.util import find_spec

import numba
import numpy as np
from numba import float32, njit, prange

BLOCK = 16
"""Tokens whose keys lie interleaved: (slots, heads, capacity / 16, size, 16). Two AVX2 registers or one AVX-512."""

_MOST_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set by name when numba is imported


@njit(nogil=True, cache=True, error_model="numpy")
def store(k, v, keys, values, slot, position):  # type: ignore[no-untyped-def]  # numba compiles it by its arguments
    """Write keys and values (num_tokens, heads, size) of tokens into their slots."""
    tokens, heads, size = k.shape
    value_size = v.shape[2]
    for t in range(tokens):
        s, p = slot[t], position[t]
        block, lane = p // BLOCK, p % BLOCK
        for h in range(heads):
            for d in range(size):
                keys[s, h, block, d, lane] = k[t, h, d]
            for d in range(value_size):
                values[s, h, p, d] = v[t, h, d]


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _attend_token(t, q, keys, values, slot, position, out, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    """All heads of token `t`: softmax(scale * q k) v over its own slot."""
    heads, size = q.shape[1], q.shape[2]
    key_heads = keys.shape[1]
    value_size = values.shape[3]
    group = heads // key_heads
    s = slot[t]
    stop = position[t] + 1
    start = max(0, stop - window)
    first_block, last_block = start // BLOCK, (stop + BLOCK - 1) // BLOCK
    shift = first_block * BLOCK
    begin, end = start - shift, stop - shift
    scores = np.empty((last_block - first_block) * BLOCK, np.float32)
    total = np.empty(value_size, np.float32)
    for h in range(key_heads):
        for g in range(group):
            head = h * group + g
            query = q[t, head]
            for b in range(first_block, last_block):
                block = keys[s, h, b]
                # Sixteen names instead of an array: the compiler then keeps the sums in two registers.
                a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = float32(0)
                a8 = a9 = a10 = a11 = a12 = a13 = a14 = a15 = float32(0)
                for d in range(size):
                    x = query[d]
                    a0 += x * block[d, 0]
                    a1 += x * block[d, 1]
                    a2 += x * block[d, 2]
                    a3 += x * block[d, 3]
                    a4 += x * block[d, 4]
                    a5 += x * block[d, 5]
                    a6 += x * block[d, 6]
                    a7 += x * block[d, 7]
                    a8 += x * block[d, 8]
                    a9 += x * block[d, 9]
                    a10 += x * block[d, 10]
                    a11 += x * block[d, 11]
                    a12 += x * block[d, 12]
                    a13 += x * block[d, 13]
                    a14 += x * block[d, 14]
                    a15 += x * block[d, 15]
                at = b * BLOCK - shift
                for lane, a in enumerate((a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15)):
                    scores[at + lane] = a
            highest = float32(-3.0e38)
            for j in range(begin, end):
                score = scores[j] * scale
                if cap > 0:
                    score = cap * math.tanh(score / cap)
                scores[j] = score
                highest = max(highest, score)
            weight = float32(0)
            for j in range(begin, end):
                e = math.exp(scores[j] - highest)
                scores[j] = e
                weight += e
            for d in range(value_size):
                total[d] = float32(0)
            j = begin
            while j + 4 <= end:  # four tokens at a time: a quarter of the loads and stores of `total`
                w0, w1, w2, w3 = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
                p = shift + j
                for d in range(value_size):
                    total[d] += (
                        w0 * values[s, h, p, d]
                        + w1 * values[s, h, p + 1, d]
                        + w2 * values[s, h, p + 2, d]
                        + w3 * values[s, h, p + 3, d]
                    )
                j += 4
            while j < end:
                w = scores[j]
                for d in range(value_size):
                    total[d] += w * values[s, h, shift + j, d]
                j += 1
            for d in range(value_size):
                out[t, head, d] = total[d] / weight


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _attend(q, keys, values, slot, position, out, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    for t in range(q.shape[0]):
        _attend_token(t, q, keys, values, slot, position, out, scale, window, cap)


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy", parallel=True)
def _attend_parallel(q, keys, values, slot, position, out, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    for t in prange(q.shape[0]):
        _attend_token(t, q, keys, values, slot, position, out, scale, window, cap)


def attend(q, keys, values, slot, position, out, scale: float, window: int, cap: float) -> None:  # type: ignore[no-untyped-def]  # arrays
    """Attention of tokens over their own slots, in one thread.

    Args:
        q: (num_tokens, num_heads, size) float32.
        keys: (num_slots, num_key_heads, capacity / BLOCK, size, BLOCK) float32.
        values: (num_slots, num_key_heads, capacity, value_size) float32.
        slot: (num_tokens,) int64.
        position: (num_tokens,) int64; a token sees what lies at or before it.
        out: (num_tokens, num_heads, value_size) float32, written.
        scale: multiplies the scores.
        window: a token sees this many tokens, itself included.
        cap: scores s become cap * tanh(s / cap); 0 for none.
    """
    _attend(q, keys, values, slot, position, out, np.float32(scale), window, np.float32(cap))


def attend_parallel(q, keys, values, slot, position, out, scale: float, window: int, cap: float, threads: int) -> None:  # type: ignore[no-untyped-def]  # arrays
    """As `attend`, in several threads where numba has a thread layer that may be entered from several threads at once."""
    if _has_safe_threads():
        numba.set_num_threads(min(threads, _MOST_THREADS))
        _attend_parallel(q, keys, values, slot, position, out, np.float32(scale), window, np.float32(cap))
    else:
        attend(q, keys, values, slot, position, out, scale, window, cap)


@cache
def _has_safe_threads() -> bool:
    # numba's own "workqueue" layer aborts the process when two engines enter it at once; OpenMP's does not.
    if find_spec("numba.np.ufunc.omppool") is None:
        return False
    numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]  # set by name when numba is imported
    return True
