"""Where the gold item stands in a ranked list."""

from collections.abc import Sequence


def recall_at_k(ranks: Sequence[int | None], k: int) -> float | None:
    """Share of lists that hold their one gold item among the first k: #{rank <= k} / number of lists.

    With one gold item per list, recall@k and hit rate@k are the same number. A list without the gold item (None) is a
    miss and stays in the denominator; nothing is skipped.

    Args:
        ranks: rank of the gold item in each list, from 1; None when the list does not hold it.
        k: length of the list's head that counts, >= 1.

    Returns:
        A number in [0, 1]; None when there are no lists.

    >>> recall_at_k([1, 3, None, 1], k=1), recall_at_k([1, 3, None, 1], k=3), recall_at_k([], k=1)
    (0.5, 0.75, None)
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    if not ranks:
        return None
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)
