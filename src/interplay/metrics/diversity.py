"""Variety of words: MTLD, distinct openings. Dist-n and self-BLEU are in `metrics.text`."""

from collections.abc import Sequence

from interplay.metrics.text import words

THRESHOLD = 0.72
"""Type-token ratio at which a factor of MTLD is full (McCarthy and Jarvis 2010)."""


def mtld(tokens: Sequence[str], threshold: float = THRESHOLD) -> float | None:
    """Measure of textual lexical diversity (McCarthy and Jarvis 2010, Behavior Research Methods 42).

    The text is read until its type-token ratio falls to the threshold, which is a factor; then counting starts anew. The
    rest counts as (1 - TTR) / (1 - threshold) of a factor. Tokens / factors, mean of reading forwards and backwards.
    Unlike Dist-n it hardly depends on the length of the text; below 100 tokens it is not reliable.

    Returns:
        Tokens per factor, > 0; None for an empty text or one that never repeats a word.

    >>> mtld(["a", "a", "a", "a"])  # TTR 1/2 after two: two factors of two tokens
    2.0
    """
    if not tokens:
        return None
    found = [_factors(order, threshold) for order in (tokens, tokens[::-1])]
    if not all(found):
        return None
    return sum(len(tokens) / factors for factors in found) / 2


def _factors(tokens: Sequence[str], threshold: float) -> float:
    factors, start, types = 0.0, 0, set[str]()
    ratio = 1.0
    for place, token in enumerate(tokens):
        types.add(token)
        ratio = len(types) / (place - start + 1)
        if ratio <= threshold:
            factors += 1
            start, ratio = place + 1, 1.0
            types.clear()
    return factors + (1 - ratio) / (1 - threshold)


def distinct_share(texts: Sequence[str]) -> float | None:
    """Distinct texts / texts, compared by their words: of first turns, how differently conversations are opened.

    >>> distinct_share(["Hi!", "hi", "hello"])
    0.6666666666666666
    """
    return len({tuple(words(text)) for text in texts}) / len(texts) if texts else None
