"""Paired tests, Holm's correction, noise floor, rank agreement: against hand-computed values, scipy, and their own laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from interplay.metrics.agreement import kendall_tau_b, percentile_interval, ranks, resampled_ratios, spearman_rho
from interplay.metrics.paired import PairedTest, holm, mcnemar, noise_floor, paired_test, permutation_p

probabilities = st.floats(1e-6, 1.0)
shares = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=12)
ratios = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(0, 9), st.integers(1, 4)), min_size=2, max_size=8)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def shares_test(a: list[int], b: list[int]) -> PairedTest:
    return paired_test(a, [1] * len(a), b, [1] * len(b), rng())


def test_a_share_is_tested_by_mcnemar_with_its_effect_and_what_could_be_detected() -> None:
    found = shares_test([0, 0, 0, 0, 0, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 0, 1, 0, 1, 0])
    # A .3, B .7; B alone 5 times, A alone once: P(at most 1 of 6) twice = 2 * (1 + 6) / 64.
    assert (found.value_a, found.value_b, found.n, found.test) == (0.3, 0.7, 10, "mcnemar")
    assert found.difference == pytest.approx(0.4)
    assert found.p == pytest.approx(14 / 64)
    assert found.effect == pytest.approx(5 / 6 - 0.5)
    # Differences: five 1, one -1, four 0: mean .4, variance (5 * .36 + 1.96 + 4 * .16) / 9 = 4.4 / 9.
    assert found.detectable == pytest.approx((1.959964 + 0.841621) * math.sqrt(4.4 / 9 / 10), rel=1e-5)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 0.4 <= found.high


def test_a_mean_over_turns_is_tested_by_permutation() -> None:
    # A: 6 words in 3 turns, B: 12 in 4. Two scenarios, so four swaps; the differences are 1, 1 swapped both ways, and those
    # with one scenario swapped: A 3+4 in 1+2, B 8+3 in 2+2 -> 2.75 - 7/3; and its mirror.
    data = np.array([[3, 3], [1, 2], [4, 8], [2, 2]], dtype=float)
    one = (3 + 8) / (1 + 2) - (4 + 3) / (2 + 2)
    both = 12 / 4 - 6 / 3
    expected = sum(abs(d) >= both - 1e-9 for d in (both, both, one, one)) / 4
    assert permutation_p(data, rng()) == expected
    found = paired_test([3, 3], [1, 2], [4, 8], [2, 2], rng())
    assert (found.value_a, found.value_b, found.test, found.p) == (2.0, 3.0, "permutation", expected)


def test_the_permutation_test_is_scipys() -> None:
    a, b = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0], [2.0, 6.0, 1.0, 9.0, 9.0, 9.0]
    data = np.array([a, [1] * 6, b, [1] * 6])
    theirs = stats.permutation_test(
        (np.array(b), np.array(a)),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert permutation_p(data, rng()) == pytest.approx(theirs.pvalue)


def test_many_scenarios_are_permuted_at_random_with_a_p_that_is_never_zero() -> None:
    n = 40
    data = np.array([[0.0] * n, [1] * n, [3.0] * n, [1] * n])
    assert permutation_p(data, rng()) == 1 / 10_000
    noise = rng().normal(size=(2, n))
    p = permutation_p(np.array([noise[0], [1] * n, noise[1], [1] * n]), rng())
    assert p == pytest.approx(stats.ttest_rel(noise[0], noise[1]).pvalue, abs=0.03)


def test_the_same_run_twice_differs_in_nothing_and_detects_nothing_in_particular() -> None:
    for units in ([1, 1, 1], [2, 1, 3]):
        found = paired_test([1, 0, 1], units, [1, 0, 1], units, rng())
        assert (found.difference, found.p, found.effect, found.detectable) == (0.0, 1.0, None, None)
        assert (found.low, found.high) == (0.0, 0.0)


def test_what_was_not_measured_in_one_run_has_no_difference() -> None:
    found = paired_test([1, 0], [1, 1], [0, 0], [0, 0], rng())
    assert found == PairedTest(None, None, None, None, None, None, None, None, None, 2)


def test_scenarios_without_a_unit_in_either_run_are_not_counted() -> None:
    assert paired_test([1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0], rng()).n == 2


@given(shares)
@settings(max_examples=25)
def test_swapping_the_runs_turns_the_difference_round_and_leaves_p(pairs: list[tuple[int, int]]) -> None:
    a, b = [list(column) for column in zip(*pairs, strict=True)]
    there, back = shares_test(a, b), shares_test(b, a)
    assert there.difference == pytest.approx(-back.difference)  # type: ignore[operator]
    assert there.p == pytest.approx(back.p)
    assert there.p is not None
    assert 0 < there.p <= 1
    assert (there.effect is None) == (back.effect is None) == (a == b)


@given(ratios)
@settings(max_examples=25)
def test_the_permutation_test_does_not_care_which_run_is_first(rows: list[tuple[int, int, int, int]]) -> None:
    data = np.array(rows, dtype=float).T
    p = permutation_p(data, rng())
    assert p == pytest.approx(permutation_p(data[[2, 3, 0, 1]], rng()))
    assert 0 < p <= 1


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(0, 0) == 1.0


def test_holms_correction_by_hand() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04 -> the last may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5]) == [None, 0.5]
    assert holm([]) == []


@given(st.lists(probabilities, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_holm_keeps_the_order_only_raises_and_does_not_depend_on_places(p_values: list[float], random: object) -> None:
    adjusted = holm(p_values)
    for (p, q), (other_p, other_q) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert q is not None
        assert other_q is not None
        if p < other_p:
            assert q <= other_q
    assert all(q is not None and p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = list(range(len(p_values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]


@given(st.lists(probabilities, min_size=1, max_size=12))
@settings(max_examples=40)
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for p, q in zip(p_values, holm(p_values), strict=True):
        assert q is not None
        assert q <= min(1.0, p * len(p_values)) + 1e-12


def test_the_noise_floor_of_three_seeds_by_hand() -> None:
    floor = noise_floor([0.4, 0.5, 0.6])
    assert floor is not None
    assert (floor.deviation, floor.repeats) == (pytest.approx(0.1), 3)
    assert floor.largest == pytest.approx(0.2)
    assert floor.floor == pytest.approx(4.302653 * math.sqrt(2) * 0.1, rel=1e-6)
    assert noise_floor([0.4]) is None


def test_two_runs_of_one_agent_differ_by_less_than_the_floor_in_19_of_20_cases() -> None:
    drawn = np.random.default_rng(1).normal(size=(400, 7))
    inside = [abs(row[5] - row[6]) <= noise_floor(row[:5].tolist()).floor for row in drawn]  # type: ignore[union-attr]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


scores = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=7)


@given(scores)
@settings(max_examples=30)
def test_rank_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=float).T
    tau, rho = float(kendall_tau_b(x, y)), float(spearman_rho(x, y))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(tau)
        assert math.isnan(rho)
        return
    assert tau == pytest.approx(stats.kendalltau(x, y).statistic)
    assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert kendall_tau_b(x, x) == pytest.approx(1)
    assert kendall_tau_b(x, -y) == pytest.approx(-tau)


def test_rank_correlations_work_on_many_lists_at_once() -> None:
    x = np.array([[1.0, 2, 3, 4], [4.0, 3, 2, 1]])
    y = np.array([[1.0, 3, 2, 4], [1.0, 2, 3, 4]])
    assert kendall_tau_b(x, y) == pytest.approx([4 / 6, -1])
    assert spearman_rho(x, y) == pytest.approx([0.8, -1])


def test_the_highest_value_has_place_one_and_ties_share() -> None:
    assert ranks(np.array([0.1, 0.5, 0.5, 0.9])).tolist() == [4, 2.5, 2.5, 1]


def test_resampled_ratios_share_their_clusters_and_stay_undefined_without_units() -> None:
    totals = np.array([[1.0, 0, 1, 0], [1.0, 0, 1, 0], [0.0, 0, 0, 0]])
    units = np.array([[1.0] * 4, [1.0] * 4, [0.0] * 4])
    drawn = resampled_ratios(totals, units, rng())
    assert drawn.shape == (1000, 3)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert np.isnan(drawn[:, 2]).all()
    assert drawn[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    assert percentile_interval(drawn[:, 2]) is None
    assert percentile_interval(drawn[:, 0]) == pytest.approx((0.0, 1.0))
