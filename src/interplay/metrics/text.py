"""How turns read as text: diversity, length, closeness to a reference. Loads no model but the encoder it is pointed to."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from interplay.errors import CheckpointError, MissingExtra
from interplay.metrics.bootstrap import Estimate, jackknife_interval

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """Lower-cased words: runs of letters, digits and underscores, with inner apostrophes; punctuation is dropped.

    >>> words("I don't know -- Heat (1995)?")
    ['i', "don't", 'know', 'heat', '1995']
    """
    return _WORD.findall(text.lower())


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of words of one text, repeated ones included; none when it has fewer than n words."""
    tokens = words(text)
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


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
    counts = Counter(gram for text in texts for gram in ngrams(text, n))
    total = counts.total()
    return len(counts) / total if total else None


def estimate_dist_n(clusters: Sequence[Sequence[str]], n: int, num_skipped: int = 0) -> Estimate:
    """`dist_n` of all texts with its jackknife interval over clusters (why not a bootstrap: see `jackknife_interval`).

    Args:
        clusters: the texts of each scenario.
        n: length of the n-grams.
        num_skipped: passed on.

    Returns:
        The estimate; its `n` counts n-grams, the denominator.

    >>> estimate_dist_n([["a b a b"], ["a b"]], 2).value
    0.5
    """
    per_cluster = [Counter(gram for text in texts for gram in ngrams(text, n)) for texts in clusters]
    counts: Counter[tuple[str, ...]] = Counter()
    for counter in per_cluster:
        counts.update(counter)
    total = counts.total()
    if not total:
        return Estimate(None, None, None, 0, num_skipped)
    value = len(counts) / total
    left_out = [
        (len(counts) - sum(counts[gram] == num for gram, num in counter.items())) / (total - counter.total())
        for counter in per_cluster
        if 0 < counter.total() < total
    ]
    low, high = jackknife_interval(value, left_out) or (None, None)
    if low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(value, low, high, total, num_skipped)


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
