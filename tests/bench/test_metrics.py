"""Metrics on matrices that were computed by hand."""

import pytest

from moextend.bench import metrics

# Three tasks. Rows: base, after task 1, 2, 3.
A = [
    [10.0, 20.0, 30.0],
    [80.0, 26.0, 31.0],
    [70.0, 60.0, 35.0],
    [50.0, 66.0, 90.0],
]
B = [[99.0, 0.0, 0.0], [40.0, 0.0, 0.0], [70.0, 50.0, 0.0], [60.0, 50.0, 50.0]]


def test_metrics_by_hand() -> None:
    assert metrics.acc(A) == pytest.approx((50 + 66 + 90) / 3)
    assert metrics.zero_shot(A) == 20
    assert metrics.mft(A) == pytest.approx((80 + 60 + 90) / 3)
    assert metrics.maa(A) == pytest.approx((80 + (70 + 60) / 2 + (50 + 66 + 90) / 3) / 3), (
        "learned tasks only"
    )
    assert metrics.bwt(A) == pytest.approx(((50 - 80) + (66 - 60)) / 2)
    assert metrics.bwt(A, divisor="T") == pytest.approx(((50 - 80) + (66 - 60)) / 3)
    assert metrics.fwt(A) == pytest.approx(((26 - 20) + (35 - 30)) / 2)
    assert metrics.fwt(A, chance=[0.0, 25.0, 25.0]) == pytest.approx(((26 - 25) + (35 - 25)) / 2)
    assert metrics.intransigence(A, [85.0, 65.0, 80.0]) == pytest.approx((5 + 5 - 10) / 3)
    assert metrics.worst_case_acc(A) == pytest.approx(90 / 3 + 2 / 3 * ((50 + 66) / 2))
    a = [[0.0, 0.0, 0.0], [80.0, 0.0, 0.0], [20.0, 60.0, 0.0], [50.0, 66.0, 90.0]]
    assert metrics.worst_case_acc(a) == pytest.approx(90 / 3 + 2 / 3 * ((20 + 66) / 2))


def test_forgetting_looks_for_the_best_row_since_the_task_was_learned() -> None:
    assert metrics.forgetting(A) == pytest.approx(((80 - 50) + (60 - 66)) / 2)
    assert metrics.forgetting(A, variant="max-all") == pytest.approx(((80 - 50) + 0) / 2)
    change = metrics.bwt(A)
    assert change is not None and metrics.forgetting(A, variant="first") == pytest.approx(-change)
    assert metrics.forgetting(B) == pytest.approx((70 - 60 + 0) / 2), "not 99, which the base had"
    assert metrics.forgetting(B, variant="first") == pytest.approx((40 - 60 + 0) / 2)


def test_text_change_and_retention() -> None:
    assert metrics.text_change([80.0, 50.0], [60.0, 55.0]) == pytest.approx((-20 + 5) / 2)
    assert metrics.text_retention([80.0, 50.0], [60.0, 55.0]) == pytest.approx((0.75 + 1.1) / 2)
    assert metrics.text_retention([0.0, 50.0], [60.0, 55.0]) is None
    assert metrics.text_change([], []) is None


def test_one_task_has_no_backward_transfer() -> None:
    one = [[10.0], [70.0]]
    assert metrics.acc(one) == metrics.mft(one) == metrics.maa(one) == metrics.worst_case_acc(one) == 70
    assert metrics.bwt(one) is metrics.forgetting(one) is metrics.fwt(one) is None
    assert metrics.bwt(one, divisor="T") is None


def test_an_unknown_cell_makes_only_the_metrics_unknown_that_need_it() -> None:
    a: list[list[float | None]] = [list(row) for row in A]
    a[2][2] = None  # a future task
    assert metrics.acc(a) == metrics.acc(A) and metrics.bwt(a) == metrics.bwt(A)
    assert metrics.fwt(a) is None
    a[3][0] = None
    assert metrics.acc(a) is metrics.bwt(a) is metrics.forgetting(a) is metrics.maa(a) is None
    assert metrics.mft(a) == metrics.mft(A)


def test_what_is_our_bug_raises() -> None:
    with pytest.raises(ValueError, match="not a"):
        metrics.acc([[1.0, 2.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="no metric 'maa'"):
        metrics.weights("maa", A)


def test_mean_and_sd_over_runs() -> None:
    assert metrics.mean_and_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert metrics.mean_and_sd([5.0]) == (5.0, None)
    assert metrics.mean_and_sd([5.0, None]) == metrics.mean_and_sd([]) == (None, None)


NAMES = {
    "la": metrics.mft,
    "acc": metrics.acc,
    "bwt": metrics.bwt,
    "fm": metrics.forgetting,
    "fwt": metrics.fwt,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_the_weighted_sum_of_its_cells_and_both_are_unknown_together(name: str) -> None:
    for a in (A, B):
        found = metrics.weights(name, a)
        assert found is not None
        assert sum(weight * a[t][i] for (t, i), weight in found.items()) == pytest.approx(NAMES[name](a))
    assert (metrics.weights(name, [[10.0], [70.0]]) is None) == (NAMES[name]([[10.0], [70.0]]) is None)
    for row in range(4):
        for column in range(3):
            unknown: list[list[float | None]] = [list(values) for values in A]
            unknown[row][column] = None
            assert (metrics.weights(name, unknown) is None) == (NAMES[name](unknown) is None), (row, column)
