"""How turns read as text: diversity, length, closeness to a reference. Loads no model but the encoder it is pointed to."""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from interplay.errors import CheckpointError, MissingExtra
from interplay.metrics.bootstrap import Estimate, jackknife_interval

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """Lower-cased words: runs of letters, digits and underscores, with inner apostrophes; punctuation is dropped.

    >>> words("I don't know -- Heat (1995)?")
    ['i', "don't", 'know', 'heat', '1995']
    """
    return _WORD.findall(text.lower())


class Texts:
    """Texts as numbers of words, so that n-grams of a million texts are counted in arrays.

    Args:
        clusters: the texts, in groups that were drawn independently (the turns of one scenario).
    """

    def __init__(self, clusters: Iterable[Sequence[str]]) -> None:
        number: defaultdict[str, int] = defaultdict()
        number.default_factory = number.__len__  # a new word gets the next number
        coded, lengths, owners = array("i"), array("i"), array("i")
        cluster = -1
        for cluster, texts in enumerate(clusters):
            for text in texts:
                found = words(text)
                coded.extend(map(number.__getitem__, found))
                lengths.append(len(found))
                owners.append(cluster)
        self.num_clusters = cluster + 1
        self.lengths = np.array(lengths, np.int64)
        """Words of each text, shape (num_texts,)."""
        self.cluster_of = np.array(owners, np.int64)
        """Which cluster each text is of, shape (num_texts,)."""
        ids = np.array(coded, np.int32)
        self._texts = np.repeat(np.arange(len(self.lengths)), self.lengths)
        self._left = (np.cumsum(self.lengths)[self._texts] - np.arange(len(ids))).astype(np.int32)
        """Words of the text from each word on, that word included."""
        self._num_words = max(len(number), 1)
        self._orders = [ids]
        """Of each n from 1 on, once asked for, the numbers of the n-grams, in the order of the texts."""

    def ngrams(self, n: int) -> tuple[Ints, Ints]:
        """Every n-gram of the texts, repeated ones included; none runs across two texts.

        Args:
            n: words of an n-gram, >= 1.

        Returns:
            A number per n-gram (equal n-grams have equal numbers, from 0 without gaps) and the text it stands in, both of
            shape (num_ngrams,), in the order of the texts.
        """
        while (size := len(self._orders)) < n:
            # An n-gram is an (n - 1)-gram and the word after it: two numbers, exactly one in 64 bits, numbered anew.
            shorter = self._orders[-1][self._left[self._left >= size] > size]
            after = self._orders[0][np.flatnonzero(self._left > size) + size]
            keys = shorter.astype(np.int64) * self._num_words + after
            self._orders.append(_numbered(keys).astype(np.int32))
        return self._orders[n - 1].astype(np.int64), self._texts[self._left >= n]


def _numbered(keys: Ints) -> Ints:
    """The place of each key among the distinct ones, from 0; keys are not below 0."""
    bits = len(keys).bit_length()
    if not len(keys) or int(keys.max()) >> (63 - bits):
        return np.asarray(np.unique(keys, return_inverse=True)[1], np.int64)
    # With its place behind it in one number, a key is sorted in a fifth of the time.
    pairs = np.sort(keys << bits | np.arange(len(keys)))
    ordered, out = pairs >> bits, np.zeros(len(keys), np.int64)
    out[pairs[1:] & ((1 << bits) - 1)] = np.cumsum(ordered[1:] != ordered[:-1])
    return out


def dist_n(texts: Iterable[str], n: int) -> float | None:
    """Dist-n: distinct n-grams / all n-grams, over the WHOLE set of texts at once (Li et al. 2016; Interplay, section 4).

    Tokens are those of `words`; no n-gram runs across two texts; texts of fewer than n words add nothing. The value
    falls as the set grows, so only sets of like size can be compared.

    Args:
        texts: the turns.
        n: length of the n-grams, >= 1 (usually 1 to 4).

    Returns:
        A number in (0, 1]; None when no text has n words.

    >>> dist_n(["a b a b", "a b"], 2)  # ab ba ab | ab: 2 distinct of 4
    0.5
    """
    return estimate_dist_n([list(texts)], n).value


def estimate_dist_n(clusters: Sequence[Sequence[str]] | Texts, n: int, num_skipped: int = 0) -> Estimate:
    """`dist_n` of all texts with its jackknife interval over clusters (why not a bootstrap: see `jackknife_interval`).

    Args:
        clusters: the texts of each scenario; as `Texts` where several numbers are wanted of them.
        n: length of the n-grams.
        num_skipped: passed on.

    Returns:
        The estimate; its `n` counts n-grams, the denominator.

    >>> estimate_dist_n([["a b a b"], ["a b"]], 2).value
    0.5
    """
    coded = clusters if isinstance(clusters, Texts) else Texts(clusters)
    ids, texts = coded.ngrams(n)
    total = len(ids)
    if not total:
        return Estimate(None, None, None, 0, num_skipped)
    num = int(ids.max()) + 1
    value = num / total
    owners = coded.cluster_of[texts]
    first, last = np.empty(num, np.int64), np.empty(num, np.int64)
    first[ids[::-1]] = owners[::-1]  # texts lie in the order of their clusters, and the last assignment stays
    last[ids] = owners
    alone = np.bincount(first[first == last], minlength=coded.num_clusters)
    sizes = np.bincount(owners, minlength=coded.num_clusters)
    counted = (sizes > 0) & (sizes < total)
    left_out = (num - alone[counted]) / (total - sizes[counted])
    low, high = jackknife_interval(value, left_out.tolist()) or (None, None)
    if low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(value, low, high, total, num_skipped)


SELF_BLEU_ORDER = 4
"""Longest n-grams of self-BLEU."""


def self_bleu(texts: Sequence[str] | Texts) -> list[float | None]:
    """Self-BLEU: BLEU-4 of each text with all other texts as its references (Zhu et al. 2018, Texygen); high is repetitive.

    Tokens are those of `words`. Each value is what sacrebleu's `sentence_bleu` gives (clipped counts, the reference of the
    nearest length, orders up to the text's own length, exponential smoothing), in [0, 1]. Compared pair by pair that is
    quadratic; here, exactly: what an n-gram may count is its highest count in another text, which is the highest of all or,
    for the one text that has that, the second highest; so each n-gram is sorted once and nothing is sampled.

    Args:
        texts: at least two, else every score is None.

    Returns:
        One score per text, shape (num_texts,); None for a text without words and where there is no other text with words.

    >>> [round(score, 3) for score in self_bleu(["a b c d", "a b c d", "x y"])]
    [1.0, 1.0, 0.0]
    """
    coded = texts if isinstance(texts, Texts) else Texts([texts])
    lengths = coded.lengths
    worded = lengths > 0
    if int(worded.sum()) < 2:
        return [None] * len(lengths)
    logs = np.zeros(len(lengths))
    orders = np.zeros(len(lengths))
    zeros = np.zeros(len(lengths))
    matched = np.zeros(len(lengths), bool)
    for n in range(1, SELF_BLEU_ORDER + 1):
        correct = _clipped(coded, n)
        totals = np.maximum(lengths - n + 1, 0)
        has, hit = totals > 0, correct > 0
        zeros += has & ~hit
        matched |= hit
        orders += has
        with np.errstate(divide="ignore"):
            precision = np.where(hit, correct, 0.5**zeros) / np.maximum(totals, 1)
            logs += np.where(has, np.log(precision), 0.0)
    distinct, counts = np.unique(lengths[worded], return_counts=True)
    at = np.searchsorted(distinct, lengths)
    at = np.minimum(at, len(distinct) - 1)
    below = distinct[np.maximum(at - 1, 0)]
    above = distinct[np.minimum(at + 1, len(distinct) - 1)]
    down = np.where(at > 0, lengths - below, np.iinfo(np.int64).max)
    up = np.where(at < len(distinct) - 1, above - lengths, np.iinfo(np.int64).max)
    reference = np.where(counts[at] > 1, lengths, np.where(down <= up, below, above))
    penalty = np.exp(np.minimum(0.0, 1 - reference / np.maximum(lengths, 1)))
    scores = np.where(matched, penalty * np.exp(logs / np.maximum(orders, 1)), 0.0)
    return [float(score) if ok else None for score, ok in zip(scores, worded, strict=True)]


def _clipped(texts: Texts, n: int) -> Floats:
    """Per text: how many of its n-grams also stand in another text, each at most as often as in the other."""
    ids, owners = texts.ngrams(n)
    num_texts = len(texts.lengths)
    if not len(ids):
        return np.zeros(num_texts)
    keys, counts = np.unique(ids * num_texts + owners, return_counts=True)
    grams, owners = np.divmod(keys, num_texts)
    starts = np.flatnonzero(np.r_[True, grams[1:] != grams[:-1]])
    most = np.maximum.reduceat(counts, starts)[grams]
    has_most = counts == most
    is_sole = has_most & (np.add.reduceat(has_most.astype(np.int64), starts)[grams] == 1)
    second = np.maximum.reduceat(np.where(has_most, 0, counts), starts)[grams]
    allowed = np.minimum(counts, np.where(is_sole, second, most)).astype(np.float64)
    return np.bincount(owners, weights=allowed, minlength=num_texts).astype(np.float64)


def words_per_turn(texts: Sequence[str]) -> float | None:
    """Mean number of words per turn: words, split at white space / turns.

    Empty turns count as turns of 0 words; nothing is skipped.

    >>> words_per_turn(["yes please", "I liked Heat a lot"]), words_per_turn([])
    (3.5, None)
    """
    return sum(len(text.split()) for text in texts) / len(texts) if texts else None


def bert_score(
    candidates: Sequence[str],
    references: Sequence[str],
    encoder: str | Path,
    *,
    num_layers: int | None = None,
    batch_size: int = 64,
    device: str | None = None,
) -> list[float | None]:
    """BERTScore F1 of each candidate with its reference (Zhang et al. 2020), by the bert-score library.

    For each token of the candidate the highest cosine to a token of the reference (precision), the reverse (recall),
    F1 = 2PR/(P+R); no idf weights, no baseline rescaling. Values depend on encoder and layer: name both with a number.
    A pair in which one text is empty has no score (None). An encoder that scores a text against itself gives 1:
    `bert_score(["hello"], ["hello"], encoder) == [1.0]`.

    Args:
        candidates: the generated texts, shape (n,).
        references: the human texts, shape (n,).
        encoder: a hub id or directory of a bidirectional encoder (BERT, RoBERTa, MiniLM, ...).
        num_layers: layer whose vectors are compared; None: the one the library tuned for a hub id it knows, else the last.
        batch_size: texts per forward pass.
        device: for example "cuda"; None chooses CUDA when there is one.

    Returns:
        Scores in [-1, 1], in practice [0, 1], shape (n,); None for pairs without one.

    Raises:
        MissingExtra: bert-score is not installed.
        CheckpointError: the encoder can't be loaded.
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates but {len(references)} references")
    scored = [i for i, (c, r) in enumerate(zip(candidates, references, strict=True)) if c.strip() and r.strip()]
    out: list[float | None] = [None] * len(candidates)
    if not scored:
        return out
    try:
        from bert_score import BERTScorer
        from bert_score.utils import model2layers
    except ImportError:
        raise MissingExtra("bert-score", "bertscore", "BERTScore") from None
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(encoder))
        layers = num_layers or model2layers.get(str(encoder)) or config.num_hidden_layers
        scorer = BERTScorer(model_type=str(encoder), num_layers=layers, batch_size=batch_size, device=device)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise CheckpointError(f"{encoder} is not a text encoder that transformers can load ({reason})") from None
    # A directory without tokenizer_config.json has model_max_length 1e30, which the fast tokenizer can't take.
    limit = getattr(config, "max_position_embeddings", 512)
    # RoBERTa's positions start at padding_idx + 1 = 2, so two of its positions hold no token.
    limit -= 2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, limit)
    f1 = scorer.score([candidates[i] for i in scored], [references[i] for i in scored])[2]
    for i, value in zip(scored, f1.tolist(), strict=True):
        out[i] = float(value)
    return out
