"""Metrics: hand-checked numbers, invariants, and None on empty input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interplay.errors import CheckpointError
from interplay.metrics.bootstrap import cluster_interval, estimate_mean, estimate_ratio, jackknife_interval
from interplay.metrics.matching import is_target
from interplay.metrics.ranking import recall_at_k
from interplay.metrics.replay import Outcome, classify, rates
from interplay.metrics.text import bert_score, dist_n, estimate_dist_n, words_per_turn
from interplay.types import Target

HEAT = Target(item_id="m1", title="Heat (1995)")
TEXTS = st.lists(st.text(alphabet="ab c'.", max_size=30), max_size=12)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("accepted", "outcome"),
    [
        ([("Heat (1995)", "m1")], Outcome.SUCCESS),
        ([("heat", None)], Outcome.SUCCESS),
        ([("Ronin", "m2"), ("Heat", None)], Outcome.SUCCESS),
        ([("Ronin (1998)", "m2")], Outcome.EARLY_TERMINATION),
        ([("Heat (1972)", "m3")], Outcome.EARLY_TERMINATION),
        ([], Outcome.EARLY_TERMINATION),
        (None, Outcome.FAILURE),
    ],
)
def test_what_was_accepted_decides_the_outcome(accepted: list[tuple[str, str | None]] | None, outcome: Outcome) -> None:
    assert classify(accepted, [HEAT]) is outcome


def test_accepting_any_of_several_targets_is_a_success() -> None:
    assert classify([("Ronin", None)], [HEAT, Target(item_id="m2", title="Ronin (1998)")]) is Outcome.SUCCESS


@given(st.lists(st.sampled_from([*Outcome, None])))
def test_the_three_rates_sum_to_one_and_the_skipped_are_counted(outcomes: list[Outcome | None]) -> None:
    result = rates(outcomes)
    assert result.n + result.num_skipped == len(outcomes)
    if result.n:
        assert result.success is not None
        assert result.early_termination is not None
        assert result.failure is not None
        assert math.isclose(result.success + result.early_termination + result.failure, 1.0)
        assert result.format_failure is not None
        assert result.format_failure <= result.failure
    else:
        assert result.success is result.early_termination is result.failure is result.format_failure is None


def test_an_unlinked_title_matches_within_two_years_only() -> None:
    assert is_target("Heat (1997)", None, HEAT)
    assert not is_target("Heat (1998)", None, HEAT)


def test_a_title_of_punctuation_matches_nothing_by_spelling() -> None:
    assert not is_target("...", None, Target(item_id="x", title="!!!"))


@given(TEXTS, st.integers(1, 4))
def test_dist_n_lies_above_zero_and_at_most_at_one(texts: list[str], n: int) -> None:
    value = dist_n(texts, n)
    assert value is None or 0 < value <= 1


@given(TEXTS, st.integers(1, 4))
def test_saying_everything_twice_halves_dist_n(texts: list[str], n: int) -> None:
    once, twice = dist_n(texts, n), dist_n(texts + texts, n)
    assert twice == (None if once is None else pytest.approx(once / 2))


@given(st.lists(TEXTS, max_size=6), st.integers(1, 3))
def test_the_dist_n_estimate_agrees_with_dist_n_and_its_interval_holds_it(clusters: list[list[str]], n: int) -> None:
    estimate = estimate_dist_n(clusters, n)
    assert estimate.value == dist_n([text for texts in clusters for text in texts], n)
    if estimate.low is not None and estimate.high is not None and estimate.value is not None:
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_the_jackknife_of_dist_n_leaves_out_one_cluster_at_a_time() -> None:
    clusters = [["a b c"], ["a b d"], ["e f"]]
    left_out = [dist_n([t for j, texts in enumerate(clusters) if j != i for t in texts], 2) for i in range(len(clusters))]
    estimate = estimate_dist_n(clusters, 2)
    assert estimate.value == pytest.approx(4 / 5)
    expected = jackknife_interval(4 / 5, [value for value in left_out if value is not None])
    assert expected is not None
    assert (estimate.low, estimate.high) == pytest.approx((max(0, expected[0]), min(1, expected[1])))


def test_punctuation_and_case_do_not_make_a_word_distinct() -> None:
    assert dist_n(["Heat! heat, HEAT."], 1) == pytest.approx(1 / 3)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40))
def test_the_bootstrap_interval_of_a_mean_holds_the_mean(values: list[float]) -> None:
    estimate = estimate_mean(values, rng())
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    slack = 1e-9 * max(map(abs, values), default=0) + 1e-12
    assert estimate.low - slack <= estimate.value <= estimate.high + slack
    assert min(values) - slack <= estimate.low <= estimate.high <= max(values) + slack


def test_the_bootstrap_interval_is_as_wide_as_the_normal_one_for_many_coins() -> None:
    estimate = estimate_mean([0.0, 1.0] * 200, rng())
    assert estimate.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.012)
    assert estimate.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.012)


def test_copies_within_a_cluster_do_not_narrow_the_interval() -> None:
    coins = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    single = estimate_ratio(coins, [1] * 6, rng())
    copied = estimate_ratio([10 * coin for coin in coins], [10] * 6, rng())
    assert (single.value, single.low, single.high) == (copied.value, copied.low, copied.high)
    assert (single.n, copied.n) == (6, 60)


def test_resamples_with_an_empty_denominator_are_left_out() -> None:
    estimate = estimate_ratio([1.0, 0.0, 0.0], [1, 0, 0], rng())
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_one_generator_gives_one_interval() -> None:
    values = [float(i % 7) for i in range(50)]
    assert estimate_mean(values, rng()) == estimate_mean(values, rng())


def test_a_single_cluster_has_a_value_but_no_interval() -> None:
    estimate = estimate_mean([3.0], rng())
    assert (estimate.value, estimate.low, estimate.high) == (3.0, None, None)


def test_every_metric_of_nothing_is_none() -> None:
    assert dist_n([], 4) is None
    assert words_per_turn([]) is None
    assert recall_at_k([], 1) is None
    assert rates([]).success is None
    assert estimate_mean([], rng()).value is None
    assert estimate_ratio([], [], rng()).value is None
    assert estimate_dist_n([], 4).value is None
    assert cluster_interval([[]], np.mean, rng()) is None
    assert jackknife_interval(1.0, []) is None
    assert bert_score([], [], "nowhere") == []


def test_recall_refuses_a_k_below_one() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        recall_at_k([1], 0)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of two layers with random weights and a vocabulary of letters."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    path = tmp_path_factory.mktemp("encoder")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "heat", "was", "great", "never", "saw", "it"]
    (path / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            max_position_embeddings=12,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
        )
        model = BertModel(config)
    model.save_pretrained(path)
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return str(path)


def test_bert_score_from_a_local_directory_is_one_for_equal_texts_and_lower_for_others(encoder: str) -> None:
    same, other, empty = bert_score(
        ["heat was great", "heat was great", ""], ["heat was great", "never saw it", "it"], encoder, device="cpu"
    )
    assert same == pytest.approx(1.0, abs=1e-5)
    assert other is not None
    assert other < 0.99
    assert empty is None


def test_bert_score_cuts_texts_to_the_encoders_length(encoder: str) -> None:
    (value,) = bert_score(["heat " * 50], ["heat " * 50], encoder, device="cpu")
    assert value == pytest.approx(1.0, abs=1e-5)


def test_bert_score_of_a_missing_encoder_is_one_line(tmp_path: object) -> None:
    with pytest.raises(CheckpointError, match="not a text encoder") as caught:
        bert_score(["a"], ["a"], f"{tmp_path}/missing", device="cpu")
    assert "\n" not in str(caught.value)


def test_many_clusters_have_the_interval_that_drawing_them_one_by_one_gives() -> None:
    numbers = np.random.default_rng(1)
    tops, bottoms = numbers.integers(0, 4, 12_000).astype(float), numbers.integers(1, 3, 12_000)
    quick = estimate_ratio(tops.tolist(), bottoms.tolist(), rng())

    def ratio(top: np.ndarray, bottom: np.ndarray, axis: int = -1) -> np.ndarray:
        return top.sum(axis=axis) / bottom.sum(axis=axis)

    slow = cluster_interval([tops.tolist(), bottoms.tolist()], ratio, rng())
    assert slow is not None
    assert (quick.low, quick.high) == (pytest.approx(slow[0], abs=2e-3), pytest.approx(slow[1], abs=2e-3))
    assert estimate_mean(tops.tolist(), rng()).value == pytest.approx(tops.mean())


def test_many_clusters_without_a_denominator_somewhere_still_have_an_interval() -> None:
    estimate = estimate_ratio([1.0, 0.0] * 6000, [1, 0] * 6000, rng())
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (1.0, 1.0, 1.0, 6000)
