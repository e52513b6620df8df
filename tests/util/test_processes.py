"""A single process is the first of one: the functions for several processes call their argument."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from moextend.errors import InputError, RunFailed
from moextend.util import processes


def test_a_single_process_is_the_first_of_one() -> None:
    assert (processes.count(), processes.rank(), processes.is_first()) == (1, 0, True)
    assert processes.first_says(lambda: 3) == processes.in_turn(lambda: 3) == 3
    assert processes.gathered(lambda: 3) == [3]
    with processes.first_writes() as first:
        assert first
    with pytest.raises(ValueError, match="mine"):
        processes.first_says(lambda: int("mine"))


def test_a_context_that_is_entered_is_left_also_by_an_error() -> None:
    seen: list[str] = []

    @contextmanager
    def context() -> Iterator[None]:
        seen.append("in")
        try:
            yield
        except KeyError:
            seen.append("error")
            raise
        seen.append("out")

    with processes.first_enters(context):
        seen.append("block")
    with pytest.raises(KeyError), processes.first_enters(context):
        raise KeyError("x")
    assert seen == ["in", "block", "out", "in", "error"]


def test_errors_travel_with_their_kind_place_and_hint() -> None:
    wrong = processes._Outcome.of(lambda: raised(InputError("is wrong.", where="a.yaml", hint="Fix it.")))
    found, error = wrong.sent()
    assert found is None and isinstance(error, InputError) and str(error) == "a.yaml: is wrong. Fix it."
    _, failed = processes._Outcome.of(lambda: raised(ValueError("a mistake"))).sent()
    assert isinstance(failed, RunFailed) and "ValueError: a mistake" in str(failed)
    assert processes._Outcome.of(lambda: 5).sent() == (5, None)


def raised(error: Exception) -> None:
    raise error
