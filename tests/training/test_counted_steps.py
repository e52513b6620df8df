"""Operations of batches that are not counted."""

import json
from types import SimpleNamespace

import pytest

from moextend.training.counted_steps import CountedSteps

ONE_PROCESS = SimpleNamespace(device="cpu", reduce=lambda sums, how: sums)


def cost(rows: int, length: int) -> int:
    """Operations of a pass: parts that grow with the length, and with its square."""
    return rows * (100 * length + 3 * length**2)


def test_batches_of_other_lengths_lie_on_a_line() -> None:
    steps, batches, asked = CountedSteps(), [(4, 10), (4, 11), (2, 80), (8, 40), (1, 3), (3, 3)], []
    for rows, length in batches:
        if not steps.knows(False, length):
            asked.append(length)
        steps.add(False, rows, length, cost(rows, length) if length in asked[-1:] else None)
    assert asked == [10, 80, 3], "much longer or shorter than all before"
    assert steps.gather(ONE_PROCESS).total == pytest.approx(sum(cost(*batch) for batch in batches))


def test_one_length_counts_by_positions_and_a_kind_of_another_process_as_the_known_one() -> None:
    steps = CountedSteps()
    assert steps.gather(ONE_PROCESS).total is None
    steps.add(False, 4, 10, 4000)
    steps.add(True, 2, 10, None)
    assert steps.gather(ONE_PROCESS).total == 6000


def test_a_state_goes_on() -> None:
    steps = CountedSteps()
    steps.add(False, 4, 10, cost(4, 10))
    steps.add(False, 4, 80, cost(4, 80))
    state = json.loads(json.dumps(steps.gather(ONE_PROCESS).state_dict()))
    again = CountedSteps()
    again.load_state_dict(state)
    assert again.knows(False, 40) and not again.knows(True, 40)
    again.add(False, 1, 40, None)
    assert again.gather(ONE_PROCESS).total == pytest.approx(cost(4, 10) + cost(4, 80) + cost(1, 40))
