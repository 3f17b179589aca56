"""How ordinary a phrase is in conversations about items when no title is meant.

`ordinary.tsv` holds counts per million words of what is left of ReDial (Li et al., NeurIPS 2018, CC BY 4.0) when its titles,
which stand as @ids, are taken out; `benchmarks/ordinary_words.py` makes it. Only words and phrases that are titles of films
as well are listed, besides single words, and none that was mostly written with capitals.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

_UNSEEN = 2.0
"""Added to every count per million, so that an unseen word has a surprise of 5.7."""
_SECOND, _FURTHER = 0.6, 0.4
"""Words of a phrase depend on each other; the second rarest and the further ones count less than the rarest."""


@lru_cache(maxsize=1)
def counts() -> dict[str, float]:
    """Uses per million words, by phrase (folded words with single blanks)."""
    lines = files("interplay.items").joinpath("ordinary.tsv").read_text(encoding="utf-8").splitlines()
    return {phrase: float(count) for phrase, count in (line.split("\t") for line in lines)}


def surprise(words: Sequence[str]) -> float:
    """How unlikely a phrase is as ordinary words, in powers of ten: from 1.4 ("you") over 5.7 (an unseen word) upwards.

    The sum over its words of log10(1e6 / (count + 2)), the rarest in full, the second with weight 0.6, others with 0.4; not
    more than the same of the whole phrase, where that is listed.

    >>> round(surprise(["it"]), 1), round(surprise(["knives", "out"]), 1)
    (1.6, 7.2)
    """
    known = counts()
    parts = sorted((_of(known.get(w, 0.0)) for w in words), reverse=True)
    total = sum(p * (1.0 if i == 0 else _SECOND if i == 1 else _FURTHER) for i, p in enumerate(parts))
    whole = known.get(" ".join(words)) if len(words) > 1 else None
    return total if whole is None else min(total, _of(whole))


def _of(count: float) -> float:
    return math.log10(1e6 / (count + _UNSEEN))
