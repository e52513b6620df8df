"""Rows of a batch with extensions of their own compute what each of them computes alone."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from moextend import activate, attach
from moextend.errors import InputError, UnknownName
from moextend.moe.attach import reaching_rows, scope_of
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.toy_families import VOCABULARY, build, outputs
from tests.toys import shake

KINDS = ["mixtral", "gpt_oss", "deepseek_v3", "gemma4_text", "phimoe", "llama4_text"]
"""One family for each way of routing and computing."""
MODES = get_args(Mode)
SETS: list[tuple[str, ...]] = [(), ("a",), ("b",), ("a", "b"), ("a", "c"), ("a",)]
TEXT = torch.randint(4, VOCABULARY, (len(SETS), 7), generator=torch.Generator().manual_seed(8))


def extended(kind: str, mode: Mode) -> Any:
    """A model with a and b of their own, and c made with a active; a and b overlap in one layer only."""
    lm = build(kind)
    sites = [site.layer for site in find_sites(lm)]
    attach(lm, "a", {sites[0]: [0, 1]}, mode=mode, seed=1)
    activate(lm, [])
    attach(lm, "b", {site: [2] for site in sites}, mode=mode, seed=2)
    activate(lm, ["a"])
    attach(lm, "c", {sites[-1]: [0]}, mode=mode, seed=3)
    for seed, name in enumerate("abc"):
        shake(lm, name, seed=seed)
    return lm


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("mixtral", mode) for mode in MODES),
        *((kind, "paper") for kind in KINDS[1:]),
        ("llama4_text", "exact"),
    ],
)
def test_each_row_is_computed_with_its_own_extensions(kind: str, mode: Mode) -> None:
    lm = extended(kind, mode)
    alone = []
    for row, names in zip(TEXT, SETS, strict=True):
        activate(lm, list(names))
        alone.append(outputs(lm, row[None]))
    wanted = torch.cat(alone)
    activate(lm, ["b"])
    with reaching_rows(lm, SETS):
        found = outputs(lm, TEXT)
    assert torch.allclose(found, wanted, atol=1e-5), (found - wanted).abs().amax((1, 2))
    activate(lm, [])
    base = outputs(lm, TEXT)
    changed = [not torch.allclose(one, other, atol=1e-4) for one, other in zip(wanted, base, strict=True)]
    assert not changed[0] and any(changed) and (mode == "slot" or all(changed[1:])), (
        "extensions change their rows"
    )
    with reaching_rows(lm, [(), ()]):
        assert torch.equal(outputs(lm, TEXT[:2]), outputs(lm, TEXT[:2]))


def test_the_former_extensions_are_active_afterwards_also_after_an_error() -> None:
    lm = extended("mixtral", "exact")
    activate(lm, ["b"])
    with pytest.raises(ZeroDivisionError), reaching_rows(lm, [("a",), ()]):
        assert scope_of(lm).rows is not None
        raise ZeroDivisionError
    assert scope_of(lm).active == ("b",) and scope_of(lm).rows is None
    for rows, error in (([("a",), ("d",)], UnknownName), ([(), ("c",)], InputError)):
        with pytest.raises(error), reaching_rows(lm, rows):
            pass
        assert scope_of(lm).active == ("b",) and scope_of(lm).rows is None


@pytest.mark.parametrize(("kind", "mode"), [*(("mixtral", mode) for mode in MODES), ("llama4_text", "paper")])
def test_rows_keep_the_strengths_of_their_extensions(kind: str, mode: Mode) -> None:
    lm, given = extended(kind, mode), {"a": 0.5, "b": 1.0, "c": 0.25}
    alone = []
    for row, names in zip(TEXT, SETS, strict=True):
        activate(lm, {name: given[name] for name in names})
        alone.append(outputs(lm, row[None]))
    activate(lm, given)
    with reaching_rows(lm, SETS):
        found = outputs(lm, TEXT)
    assert torch.allclose(found, torch.cat(alone), atol=1e-5)
    activate(lm, {"a": 0.0, "b": 1.0})
    with reaching_rows(lm, [("b",), ("a", "b")]):
        one, other = outputs(lm, TEXT[:1].expand(2, -1))
    assert torch.allclose(one, other, atol=1e-5), "strength 0 is not active"
