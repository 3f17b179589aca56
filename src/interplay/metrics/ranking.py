"""Where the gold item stands in a ranked list."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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


def discounted_gain(rank: int | None, k: int) -> float:
    """NDCG@k of a list with one gold item: 1 / log2(rank + 1) when rank <= k, else 0 (Jarvelin and Kekalainen 2002).

    With one gold item the ideal list has it first, where the gain is 1; so nothing is left to divide by.

    Args:
        rank: of the gold item, from 1; None when the list does not hold it.
        k: length of the list's head that counts, >= 1.

    >>> discounted_gain(1, 10), discounted_gain(3, 10), discounted_gain(11, 10), discounted_gain(None, 10)
    (1.0, 0.5, 0.0, 0.0)
    """
    return 1 / math.log2(rank + 1) if rank is not None and rank <= k else 0.0


def ndcg_at_k(ranks: Sequence[int | None], k: int) -> float | None:
    """Mean of `discounted_gain` over lists; None when there are none.

    >>> ndcg_at_k([1, 3, None, 11], k=10)
    0.375
    """
    return sum(discounted_gain(rank, k) for rank in ranks) / len(ranks) if ranks else None


def mean_reciprocal_rank(ranks: Sequence[int | None]) -> float | None:
    """Mean of 1 / rank over lists, 0 for a list without the gold item; None when there are no lists.

    >>> mean_reciprocal_rank([1, 2, 4, None])
    0.4375
    """
    return sum(0.0 if rank is None else 1 / rank for rank in ranks) / len(ranks) if ranks else None


def area_under_curve(good: NDArray[np.floating], bad: NDArray[np.floating]) -> NDArray[np.float64]:
    """For each good item, the share of bad items with a lower score; ties count half (Rendle et al. 2009, section 3).

    The mean of the result is the area under the ROC curve.

    Args:
        good: scores of what should come first, shape (num_good,).
        bad: scores of what should come after, shape (num_bad,), at least one.

    Returns:
        Shape (num_good,), in [0, 1].

    >>> area_under_curve(np.array([3.0, 1.0]), np.array([2.0, 1.0])).tolist()
    [1.0, 0.25]
    """
    ordered = np.sort(bad)
    return (np.searchsorted(ordered, good, "left") + np.searchsorted(ordered, good, "right")) / (2 * len(bad))
