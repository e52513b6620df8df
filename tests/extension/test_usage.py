"""Experts that tokens reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from moextend import Conversation, MultimodalLM, activate, attach, detach
from moextend.extension.probe import BASE, Use, count_use, selection_shares, used_experts
from moextend.moe.attach import scope_of
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites, first_new_id
from tests.moe.test_families import KINDS_BOTH
from tests.moe.toy_families import VOCABULARY, family, outputs
from tests.toys import picture

DATA = [
    Conversation((("<image> w1 w2", "w3"),), (picture(200),)),
    Conversation((("w4 w5 w6 w7 w8 w9", "w1"),)),
    Conversation((("w4", "w1"), ("w9", "w2"))),
]


def used(model: MultimodalLM) -> Use:
    use = Use()
    count_use(model, find_sites(model.lm), DATA, use, batch_size=2)
    return use


def test_the_base_is_used_as_the_probe_counts_it(model: MultimodalLM) -> None:
    use = used(model)
    for counts, shares in zip(use.experts, selection_shares(model, DATA), strict=True):
        assert list(counts) == [BASE] and int(counts[BASE].sum()) == 2 * use.tokens, "top-2"
        assert (counts[BASE] / counts[BASE].sum()).tolist() == pytest.approx(shares)


def test_a_closed_gate_is_not_reached_and_an_open_one_is(model: MultimodalLM) -> None:
    attach(model.lm, "one", {0: [1], 2: [0, 3]})
    attach(model.lm, "two", {2: [0]})
    part: Any = find_sites(model.lm)[2].router.get_submodule("ext_parts.one")
    with torch.no_grad():
        part.bias[1] = -1.0
    use = used(model)
    assert [{name: counts.tolist() for name, counts in block.items() if name} for block in use.experts] == [
        {"one": [use.tokens]}, {}, {"one": [use.tokens, 0], "two": [use.tokens]},
    ]  # fmt: skip
    assert use.reached[2] == {BASE: use.tokens, "one": use.tokens, "two": use.tokens}
    activate(model.lm, ["one"])
    assert [set(block) for block in used(model).experts] == [{BASE, "one"}, {BASE}, {BASE, "one"}]


@pytest.mark.parametrize(("name", "mode"), KINDS_BOTH)
def test_every_family_is_understood(name: str, mode: Mode) -> None:
    lm = family(name)
    sites = find_sites(lm)
    attach(lm, "new", {sites[-1].layer: [0, 1]}, mode=mode)
    ids = torch.randint(3, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(1))
    caught: list[Any] = []
    hook = sites[-1].router.register_forward_hook(lambda module, args, out: caught.append((args[0], out)))
    try:
        with torch.no_grad():
            outputs(lm, ids)
        found = used_experts(sites[-1], *caught[0])
        activate(lm, [])
        caught.clear()
        with torch.no_grad():
            outputs(lm, ids)
        alone = used_experts(sites[-1], *caught[0])
    finally:
        hook.remove()
        detach(lm, "new")
    assert scope_of(lm).known == []
    assert found["new"].shape == (10, 2) and found[BASE].shape == (10, first_new_id(sites[-1]))
    assert set(alone) == {BASE} and (alone[BASE].sum(1) > 0).all()
    if mode == "slot":
        assert torch.equal(found[BASE], alone[BASE]) and not found["new"].any(), "a tie is the parent's"
    elif mode == "exact":
        assert torch.equal(found[BASE], alone[BASE]), "the base's own choice stands"
        assert found["new"].all() or name == "muse_spark_text", "gates start open, where no norm follows"
    else:
        assert not (found[BASE] & ~alone[BASE]).any() or found["new"].any()
