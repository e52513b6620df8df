"""An extension needs its co-active extensions, and its calibration uses only their columns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import activate, attach, detach, new_parameters
from moextend.errors import InputError
from moextend.moe import attach as expand
from moextend.moe.sites import find_sites
from tests.toys import toy_lm

COACTIVE: dict[str, tuple[str, ...]] = {"a": (), "b": (), "c": ("a",), "d": ("b",), "e": ("a", "b", "d")}
"""Extension -> its co-active extensions."""
COUNTS = {"a": 1, "b": 2, "c": 1, "d": 1, "e": 2}


def grown(lm: nn.Module) -> None:
    for seed, (name, coactive) in enumerate(COACTIVE.items()):
        activate(lm, coactive)
        attach(lm, name, {1: list(range(COUNTS[name]))}, mode="paper", seed=seed)
        shaken(lm, name, seed)
    activate(lm, list(COACTIVE))


def shaken(lm: nn.Module, name: str, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in new_parameters(lm, name).items():
            size = 0.5 if "calibration" in key else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def stated(router: Any, x: Tensor, active: list[str]) -> list[dict[int, float]]:
    """Expert -> weight of each token, one token, one expert and one calibration at a time."""
    rows = [(("", i), row) for i, row in enumerate(router.weight)]
    rows += [((name, i), row) for name in active for i, row in enumerate(router.ext_parts[name].rows)]
    found = []
    for token in x:
        p = dict(
            zip(
                [who for who, _ in rows],
                torch.stack([row @ token for _, row in rows]).softmax(0),
                strict=True,
            )
        )
        change = dict.fromkeys(p, torch.zeros(()))
        for name in active:
            known = [who for who in p if who[0] in ("", *COACTIVE[name], name)]
            moved = router.ext_parts[name].calibration(torch.stack([p[who] for who in known])[None])[0]
            for who, by in zip(known, moved, strict=True):
                change[who] = change[who] + by
        best = sorted(p, key=lambda who: -float(p[who]))[:2]
        total = sum(p[who] for who in best)
        weights = [((p[who] + change[who]) / total).clamp_min(1e-6) for who in best]
        ids = [next(i for i, (other, _) in enumerate(rows) if other == who) for who in best]
        found.append({i: float(w / sum(weights)) for i, w in zip(ids, weights, strict=True)})
    return found


@pytest.mark.parametrize(
    "active",
    [["a"], ["a", "c"], ["a", "b", "d", "e"], list(COACTIVE)],
)
@torch.no_grad()
def test_a_calibration_uses_the_columns_of_its_co_active_extensions(active: list[str]) -> None:
    lm = toy_lm()
    grown(lm)
    router: Any = find_sites(lm)[1].router
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(4))
    activate(lm, active)
    _, weights, index = router(x)[:3]
    for t, wanted in enumerate(stated(router, x, active)):
        found = {int(e): float(w) for e, w in zip(index[t], weights[t], strict=True)}
        assert found == pytest.approx(wanted, abs=1e-5)


def test_it_is_not_active_without_its_co_active_extensions() -> None:
    lm = toy_lm()
    for name in ("a", "b", "c"):
        attach(lm, name, {0: [1]})
    activate(lm, ["a"])
    for names, message in (
        (["b"], r"'b' was made with 'a' active and needs it\. Activate them together: a, b\."),
        (["c"], r"'c' was made with 'a', 'b' active and needs them\. Activate them together: a, b, c\."),
        (["a", "c"], r"'c' was made with 'b' active and needs it\."),
    ):
        with pytest.raises(InputError, match=message):
            activate(lm, names)
        with pytest.raises(InputError, match=message), expand.reaching(lm, names):
            pass
        assert expand.scope_of(lm).active == ("a",)
    with expand.reaching(lm, ["a", "b"]):
        assert expand.scope_of(lm).active == ("a", "b")
    assert expand.scope_of(lm).active == ("a",)
    activate(lm, ["c", "b", "a"])
    detach(lm, "b")
    assert expand.scope_of(lm).active == ("a",), "what needs it is not reachable any more"
    with pytest.raises(InputError, match="Load b before 'c', and activate them together: a, b, c"):
        activate(lm, ["a", "c"])
    attach(lm, "d", {0: [1]})
    activate(lm, ["a", "d"])
