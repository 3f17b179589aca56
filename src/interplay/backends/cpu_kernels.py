"""What a decoder does besides multiplying matrices, compiled for the CPU at first use and then kept on disk.

Decoding many conversations of different lengths is bound by reading their caches. torch's attention wants them padded to
the longest and, where the active ones are not neighbours, copied first; these kernels read each slot where it lies and only
as far as it is filled.
"""

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np
from numba import float32, int32, njit, prange, types
from numba.extending import overload

_FAST = {"contract", "reassoc", "nsz", "arcp"}
"""Liberties of the compiler: sums in any order. Not that there are no infinities: they are what constraints are made of."""

_MOST_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set by name when numba is imported


def _keep(x: Any, kept: Any) -> None:  # which of two ways numba compiles at a call hangs on the type of `kept`
    """Write a row of float32 into a row of a cache: as it is, or rounded to bfloat16, ties to even.

    Args:
        x: (size,) float32.
        kept: (size,) float32, or uint16 with the bits of bfloat16; written.
    """


@overload(_keep)
def _keep_compiled(x, kept):  # type: ignore[no-untyped-def]  # of numba: types of its own in, a function out
    def copy(x, kept):  # type: ignore[no-untyped-def]  # as above
        for d in range(len(x)):
            kept[d] = x[d]

    def round_(x, kept):  # type: ignore[no-untyped-def]  # as above
        for d in range(len(x)):
            bits = np.float32(x[d]).view(np.int32)  # numba wants the type named before a view
            tie = int32(bits >> int32(16)) & int32(1)
            rounded = int32(int32(bits + int32(0x7FFF)) + tie) >> int32(16)
            # Adding to the bits of a NaN could make a number of it.
            kept[d] = np.uint16(rounded if x[d] == x[d] else int32(0x7FC0))

    return copy if kept.dtype == types.float32 else round_


def _kept(number: Any) -> Any:  # as above
    """A number of a cache, which is float32 or the bits of bfloat16 as uint16, in float32."""


@overload(_kept)
def _kept_compiled(number):  # type: ignore[no-untyped-def]  # as above
    if number == types.float32:
        return lambda number: number
    return lambda number: np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def store(k, v, keys, values, slot, position):  # type: ignore[no-untyped-def]  # numba compiles it by its arguments
    """Write keys and values (num_tokens, heads, size) of tokens into their slots, which are as for `attend`."""
    tokens, heads, _ = k.shape
    for t in range(tokens):
        s, p = slot[t], position[t]
        for h in range(heads):
            _keep(k[t, h], keys[s, h, p])
            _keep(v[t, h], values[s, h, p])


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _exponentials(x, highest, bits, powers):  # type: ignore[no-untyped-def]  # as above
    """exp(x - highest) into x (size,), for x at most `highest`. `bits` and `powers` are one scratch memory, seen as two types.

    2 ** whole * 2 ** rest: the whole part by its bits, the rest by the polynomial of Cephes' exp2f (relative error below 3e-7).
    math.exp is a call per number; this is a few vector operations for eight of them.
    """
    for j in range(len(x)):
        y = max(x[j] - highest, float32(-87)) * float32(1.44269504)
        whole = int32(y - float32(0.5))
        bits[j] = (whole + int32(127)) << int32(23)
        y -= float32(whole)
        e = float32(1.535336188319500e-4)
        e = e * y + float32(1.339887440266574e-3)
        e = e * y + float32(9.618437357674640e-3)
        e = e * y + float32(5.550332471162809e-2)
        e = e * y + float32(2.402264791363012e-1)
        e = e * y + float32(6.931472028550421e-1)
        x[j] = e * y + float32(1)
    for j in range(len(x)):
        x[j] *= powers[j]


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def add_and_normalise(hidden, delta, weight, epsilon, out):  # type: ignore[no-untyped-def]  # as above
    """Hidden += delta, and the root-mean-square normalisation of its rows times weight into `out`.

    Args:
        hidden: (num_rows, size), changed in place.
        delta: (num_rows, size), or (0, size) to add nothing.
        weight: (size,).
        epsilon: added to the mean of squares.
        out: (num_rows, size), written.
    """
    rows, size = hidden.shape
    if len(delta):
        for r in range(rows):
            for d in range(size):
                hidden[r, d] += delta[r, d]
    for r in range(rows):
        _normalise_row(hidden[r], weight, epsilon, out[r])


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _normalise_row(x, weight, epsilon, out):  # type: ignore[no-untyped-def]  # as above
    size = len(x)
    total = float32(0)
    for d in range(size):
        total += x[d] * x[d]
    factor = float32(1) / math.sqrt(total / float32(size) + epsilon)
    for d in range(size):
        out[d] = weight[d] * (x[d] * factor)


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _rotate_row(x, cos, sin, out):  # type: ignore[no-untyped-def]  # as above
    half = len(x) // 2
    for d in range(half):
        left, right = x[d], x[d + half]
        out[d] = left * cos[d] - right * sin[d]
        out[d + half] = right * cos[d + half] + left * sin[d + half]


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def place(q, k, v, norm_q, norm_k, epsilon, cos, sin, keys, values, slot, position):  # type: ignore[no-untyped-def]  # as above
    """Normalise and rotate queries and keys, and write keys and values into their slots.

    Args:
        q: (num_tokens, num_heads, size), changed in place.
        k: (num_tokens, num_key_heads, size), changed in place.
        v: (num_tokens, num_key_heads, size).
        norm_q: (size,) weights of the queries' normalisation, or (0,) where the model has none.
        norm_k: the same for keys.
        epsilon: of both.
        cos: (num_tokens, size) of the rotary position embedding.
        sin: (num_tokens, size).
        keys: (num_slots, num_key_heads, capacity, size) float32, or uint16 with the bits of bfloat16; written.
        values: the same.
        slot: (num_tokens,) int64.
        position: (num_tokens,) int64.
    """
    tokens, heads, size = q.shape
    # Rows go to and fro: a loop that writes what it reads is not vectorised. A loop copies them too, since of `row[:] =` numba
    # compiles the message that the shapes differ, which takes longer than all the rest.
    row = np.empty(size, np.float32)
    for t in range(tokens):
        s, p = slot[t], position[t]
        for h in range(heads):
            if len(norm_q):
                _normalise_row(q[t, h], norm_q, epsilon, row)
            else:
                _keep(q[t, h], row)
            _rotate_row(row, cos[t], sin[t], q[t, h])
        for h in range(k.shape[1]):
            if len(norm_k):
                _normalise_row(k[t, h], norm_k, epsilon, row)
            else:
                _keep(k[t, h], row)
            _rotate_row(row, cos[t], sin[t], k[t, h])
            _keep(k[t, h], keys[s, h, p])
            _keep(v[t, h], values[s, h, p])


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def gate(x, y):  # type: ignore[no-untyped-def]  # as above
    """silu(x) * y into x; both (num_tokens, size)."""
    tokens, size = x.shape
    weights = np.empty(size, np.float32)
    bits = np.empty(size, np.int32)
    powers = bits.view(np.float32)
    for t in range(tokens):
        for d in range(size):
            weights[d] = min(-x[t, d], float32(87))
        _exponentials(weights, float32(0), bits, powers)
        for d in range(size):
            x[t, d] = x[t, d] / (float32(1) + weights[d]) * y[t, d]


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def summarise(logits, likeliest, normaliser):  # type: ignore[no-untyped-def]  # as above
    """The likeliest token and the log-sum-exp of each row; NaN for a row with NaN or infinity, or with minus infinity alone.

    Args:
        logits: (num_rows, vocabulary) float32.
        likeliest: (num_rows,) int64, written; the first of several.
        normaliser: (num_rows,) float32, written.
    """
    rows, size = logits.shape
    weights = np.empty(size, np.float32)
    bits = np.empty(size, np.int32)
    powers = bits.view(np.float32)
    for r in range(rows):
        row = logits[r]
        highest = float32(-3.4e38)
        num_strange = 0
        for j in range(size):
            highest = max(highest, row[j])
            num_strange += not row[j] <= float32(3.4e38)
        likeliest[r] = 0
        if num_strange or highest <= float32(-3.4e38):
            normaliser[r] = np.nan
            continue
        for j in range(size):
            if row[j] == highest:
                likeliest[r] = j
                break
        for j in range(size):
            weights[j] = row[j]
        _exponentials(weights, highest, bits, powers)
        total = float32(0)
        for j in range(size):
            total += weights[j]
        normaliser[r] = highest + math.log(total)


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def pick(logits, highest, uniform, tokens):  # type: ignore[no-untyped-def]  # as above
    """Draw from softmax(logits): the token at which the cumulative probability passes a uniform number.

    Args:
        logits: (num_rows, vocabulary) float32; minus infinity for what must not be drawn.
        highest: (num_rows,) float32, the highest of each row.
        uniform: (num_rows,) float64 in [0, 1).
        tokens: (num_rows,) int64, written.
    """
    rows, size = logits.shape
    weights = np.empty(size, np.float32)
    bits = np.empty(size, np.int32)
    powers = bits.view(np.float32)
    for r in range(rows):
        for j in range(size):
            weights[j] = logits[r, j]
        _exponentials(weights, highest[r], bits, powers)
        total = 0.0
        for j in range(size):
            if logits[r, j] < highest[r] - float32(80):  # minus infinity included: no weight at all
                weights[j] = float32(0)
            total += weights[j]
        left = uniform[r] * total
        drawn = 0
        for j in range(size):
            if weights[j] > 0:
                drawn = j  # rounding may leave a little at the end: the last token that can be drawn then is
                left -= weights[j]
                if left < 0:
                    break
        tokens[r] = drawn


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _attend_run(first, stop, q, keys, values, slot, position, out, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    """Tokens `first` to `stop`, all of one slot, head by head, whose keys and values then stay in the nearest cache."""
    heads, size = q.shape[1], q.shape[2]
    group = heads // keys.shape[1]
    value_size = values.shape[3]
    s = slot[first]
    scratch = np.empty(position[stop - 1] + 1, np.float32)
    bits = np.empty(len(scratch), np.int32)
    total = np.empty(value_size, np.float32)
    for head in range(heads):
        for t in range(first, stop):
            end = position[t] + 1
            start = max(0, end - window)
            seen = end - start
            query = q[t, head]
            key = keys[s, head // group, start:end]
            value = values[s, head // group, start:end]
            scores = scratch[:seen]
            j = 0
            while j + 4 <= seen:
                s0, s1, s2, s3 = float32(0), float32(0), float32(0), float32(0)
                for d in range(size):
                    s0 += query[d] * _kept(key[j, d])
                    s1 += query[d] * _kept(key[j + 1, d])
                    s2 += query[d] * _kept(key[j + 2, d])
                    s3 += query[d] * _kept(key[j + 3, d])
                scores[j], scores[j + 1], scores[j + 2], scores[j + 3] = s0 * scale, s1 * scale, s2 * scale, s3 * scale
                j += 4
            while j < seen:
                score = float32(0)
                for d in range(size):
                    score += query[d] * _kept(key[j, d])
                scores[j] = score * scale
                j += 1
            if cap > 0:
                for j in range(seen):
                    scores[j] = cap * math.tanh(scores[j] / cap)
            highest = float32(-3.0e38)
            for j in range(seen):
                highest = max(highest, scores[j])
            _exponentials(scores, highest, bits[:seen], bits[:seen].view(np.float32))
            weight = float32(0)
            for j in range(seen):
                weight += scores[j]
            for d in range(value_size):
                total[d] = float32(0)
            j = 0
            while j + 4 <= seen:  # four tokens at a time: a quarter of the loads and stores of `total`
                w0, w1, w2, w3 = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
                for d in range(value_size):
                    total[d] += w0 * _kept(value[j, d]) + w1 * _kept(value[j + 1, d])
                    total[d] += w2 * _kept(value[j + 2, d]) + w3 * _kept(value[j + 3, d])
                j += 4
            while j < seen:
                w = scores[j]
                for d in range(value_size):
                    total[d] += w * _kept(value[j, d])
                j += 1
            for d in range(value_size):
                out[t, head, d] = total[d] / weight


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _attend_four(first, head, q, key, value, begin, position, out, scores, bits, total, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    """Tokens `first` to `first` + 4 of one slot, one head: what is loaded of keys and values serves all four.

    `key` and `value` (num_seen, size) are what any of them sees, from position `begin` on. Scratch: `scores` (4, num_seen or
    more), `bits` (num_seen or more), `total` (4, value_size).
    """
    size, value_size, seen = q.shape[2], value.shape[1], len(key)
    q0, q1, q2, q3 = q[first, head], q[first + 1, head], q[first + 2, head], q[first + 3, head]
    w0, w1, w2, w3 = scores[0], scores[1], scores[2], scores[3]
    for j in range(seen):
        s0, s1, s2, s3 = float32(0), float32(0), float32(0), float32(0)
        for d in range(size):
            number = _kept(key[j, d])
            s0 += q0[d] * number
            s1 += q1[d] * number
            s2 += q2[d] * number
            s3 += q3[d] * number
        w0[j], w1[j], w2[j], w3[j] = s0 * scale, s1 * scale, s2 * scale, s3 * scale
    for i in range(4):
        end = position[first + i] + 1
        start = max(begin, end - window) - begin
        end -= begin
        row = scores[i, start:end]
        if cap > 0:
            for j in range(len(row)):
                row[j] = cap * math.tanh(row[j] / cap)
        highest = float32(-3.0e38)
        for j in range(len(row)):
            highest = max(highest, row[j])
        _exponentials(row, highest, bits[: len(row)], bits[: len(row)].view(np.float32))
        weight = float32(0)
        for j in range(len(row)):
            weight += row[j]
        for j in range(len(row)):
            row[j] /= weight
        for j in range(start):
            scores[i, j] = float32(0)
        for j in range(end, seen):
            scores[i, j] = float32(0)
    total[:] = float32(0)
    t0, t1, t2, t3 = total[0], total[1], total[2], total[3]
    j = 0
    while j + 2 <= seen:
        a0, a1, a2, a3 = w0[j], w1[j], w2[j], w3[j]
        b0, b1, b2, b3 = w0[j + 1], w1[j + 1], w2[j + 1], w3[j + 1]
        for d in range(value_size):
            a, b = _kept(value[j, d]), _kept(value[j + 1, d])
            t0[d] += a0 * a + b0 * b
            t1[d] += a1 * a + b1 * b
            t2[d] += a2 * a + b2 * b
            t3[d] += a3 * a + b3 * b
        j += 2
    if j < seen:
        for d in range(value_size):
            a = _kept(value[j, d])
            t0[d] += w0[j] * a
            t1[d] += w1[j] * a
            t2[d] += w2[j] * a
            t3[d] += w3[j] * a
    for i in range(4):
        for d in range(value_size):
            out[first + i, head, d] = total[i, d]


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _attend_fours(first, stop, q, keys, values, slot, position, out, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    """As many of the tokens `first` to `stop`, all of one slot, as make whole fours. Returns the first that is left."""
    heads, s = q.shape[1], slot[first]
    group = heads // keys.shape[1]
    last = first + (stop - first) // 4 * 4
    if last == first:
        return first
    longest = position[last - 1] + 1
    scores = np.empty((4, longest), np.float32)
    bits = np.empty(longest, np.int32)
    total = np.empty((4, values.shape[3]), np.float32)
    for head in range(heads):
        for t in range(first, last, 4):
            begin, end = max(0, position[t] + 1 - window), position[t + 3] + 1
            key, value = keys[s, head // group, begin:end], values[s, head // group, begin:end]
            _attend_four(t, head, q, key, value, begin, position, out, scores, bits, total, scale, window, cap)
    return last


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _attend(q, keys, values, slot, position, out, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    tokens = q.shape[0]
    first = np.int64(0)  # a plain 0 is a type of its own, for which numba would compile what is called once more
    while first < tokens:
        stop = first + 1
        while stop < tokens and slot[stop] == slot[first]:
            stop += 1
        left = _attend_fours(first, stop, q, keys, values, slot, position, out, scale, window, cap)
        if left < stop:
            _attend_run(left, stop, q, keys, values, slot, position, out, scale, window, cap)
        first = stop


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy", parallel=True)
def _attend_parallel(q, keys, values, slot, position, out, scale, window, cap):  # type: ignore[no-untyped-def]  # as above
    for t in prange(q.shape[0]):
        _attend_run(t, t + 1, q, keys, values, slot, position, out, scale, window, cap)


def attend(  # type: ignore[no-untyped-def]  # numpy arrays of the shapes below
    q, keys, values, slot, position, out, scale: float, window: int, cap: float, threads: int
) -> None:
    """Attention of tokens over their own slots.

    Args:
        q: (num_tokens, num_heads, size) float32.
        keys: (num_slots, num_key_heads, capacity, size) float32, or uint16 with the bits of bfloat16.
        values: (num_slots, num_key_heads, capacity, value_size), of the same type.
        slot: (num_tokens,) int64.
        position: (num_tokens,) int64; a token sees what lies at or before it.
        out: (num_tokens, num_heads, value_size) float32, written.
        scale: multiplies the scores.
        window: a token sees this many tokens, itself included.
        cap: scores s become cap * tanh(s / cap); 0 for none.
        threads: used where numba has a thread layer that may be entered from several threads at once.
    """
    arguments = (q, keys, values, slot, position, out, np.float32(scale), window, np.float32(cap))
    if threads > 1 and _has_safe_threads():
        numba.set_num_threads(min(threads, _MOST_THREADS))
        _attend_parallel(*arguments)
    else:
        _attend(*arguments)


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _multiply_columns(x, weight, first, stop, out):  # type: ignore[no-untyped-def]  # as above
    """Columns `first` to `stop` of x @ weight.T: two rows of weights with four of x, so that what is loaded is used often."""
    rows, size = x.shape
    n = first
    while n < stop:
        v, w = weight[n], weight[min(n + 1, stop - 1)]
        is_pair = n + 1 < stop
        m = 0
        while m + 4 <= rows:
            a, b, c, d = x[m], x[m + 1], x[m + 2], x[m + 3]
            av, bv, cv, dv = float32(0), float32(0), float32(0), float32(0)
            aw, bw, cw, dw = float32(0), float32(0), float32(0), float32(0)
            for k in range(size):
                av += a[k] * v[k]
                bv += b[k] * v[k]
                cv += c[k] * v[k]
                dv += d[k] * v[k]
                aw += a[k] * w[k]
                bw += b[k] * w[k]
                cw += c[k] * w[k]
                dw += d[k] * w[k]
            out[m, n], out[m + 1, n], out[m + 2, n], out[m + 3, n] = av, bv, cv, dv
            if is_pair:
                out[m, n + 1], out[m + 1, n + 1], out[m + 2, n + 1], out[m + 3, n + 1] = aw, bw, cw, dw
            m += 4
        while m < rows:
            a = x[m]
            av, aw = float32(0), float32(0)
            for k in range(size):
                av += a[k] * v[k]
                aw += a[k] * w[k]
            out[m, n] = av
            if is_pair:
                out[m, n + 1] = aw
            m += 1
        n += 2


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy", parallel=True)
def _multiply_parallel(x, weight, out, parts):  # type: ignore[no-untyped-def]  # as above
    columns = len(weight)
    for part in prange(parts):
        _multiply_columns(x, weight, columns * part // parts, columns * (part + 1) // parts, out)


def multiply(x, weight, out, threads: int) -> None:  # type: ignore[no-untyped-def]  # numpy arrays of the shapes below
    """X @ weight.T for a few rows, where all that counts is that the weights are read once and at full speed.

    General products repack the weights at every call, which takes as long as reading them several times.

    Args:
        x: (num_rows, size) float32.
        weight: (num_columns, size) float32.
        out: (num_rows, num_columns) float32, written.
        threads: as for `attend`.
    """
    if threads > 1 and _has_safe_threads():
        numba.set_num_threads(min(threads, _MOST_THREADS))
        _multiply_parallel(x, weight, out, min(threads, _MOST_THREADS))
    else:
        _multiply_columns(x, weight, 0, len(weight), out)


@cache
def _has_safe_threads() -> bool:
    # numba's own "workqueue" layer aborts the process when two engines enter it at once; OpenMP's does not.
    if find_spec("numba.np.ufunc.omppool") is None:
        return False
    numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]  # set by name when numba is imported
    return True
