"""Random histories of several hosts that want one lease: nobody writes after a later holder."""

from __future__ import annotations

import pytest

from moextend.util import lease
from moextend.util.holder import Holder

from .lease_model import World, play


def played(seeds: range, monkeypatch: pytest.MonkeyPatch) -> list[World]:
    return [play(seed, lambda name, value: monkeypatch.setattr(Holder, name, value)) for seed in seeds]


@pytest.mark.parametrize(
    "seeds",
    [
        range(50),
        *(
            pytest.param(range(first, first + 1000), marks=[pytest.mark.long, pytest.mark.timeout(900)])
            for first in range(1000, 11_000, 1000)
        ),
    ],
)
def test_one_process_writes_at_a_time(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = played(seeds, monkeypatch)
    assert sum(world.writes for world in worlds) > 20 * len(seeds)
    assert sum(world.lost for world in worlds) > len(seeds) / 50, "some must lose their lease"


def test_the_model_finds_a_holder_that_gives_up_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HOLD", 5.0)
    with pytest.raises(AssertionError, match="wrote under"):
        played(range(2_000), monkeypatch)


def test_the_model_finds_a_takeover_that_is_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.Claim, "_confirmed", lambda self, number, content: True)
    with pytest.raises(AssertionError, match=r"wrote under|two holders"):
        played(range(2_000), monkeypatch)
