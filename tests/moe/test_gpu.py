"""New experts on a GPU: values and gradients of grouped_mm, and no wait of the host for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from moextend import attach, new_parameters
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from tests.moe.test_families import everywhere, use
from tests.moe.test_matrix import EXTENSIONS, caught, in_float64, last_of_each_router, near, plain_sum
from tests.moe.toy_families import build
from tests.toys import shake

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
MODES = ["exact", "slot", "paper"]
ROOM = {torch.float32: 1e-3, torch.bfloat16: 4e-2}
"""dtype of the base -> how far a number may be off, as a share of the largest one."""


def extended(name: str, mode: Mode, dtype: torch.dtype) -> Any:
    """A family on the GPU, with three extensions that all learn."""
    lm = build(name).to(dtype)
    for extension, parents in EXTENSIONS.items():
        attach(lm, extension, everywhere(lm, *parents), mode=mode)
        shake(lm, extension)
    for extension in EXTENSIONS:
        for parameter in new_parameters(lm, extension).values():
            parameter.requires_grad_(True)
    use(lm, "grouped_mm")
    return lm.to(DEVICE)


@pytest.mark.parametrize("dtype", list(ROOM), ids=["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_values_and_gradients_are_those_of_a_plain_sum_on_the_cpu(
    name: str, mode: Mode, dtype: torch.dtype
) -> None:
    lm = extended(name, mode, dtype)
    sites = last_of_each_router(lm)
    given = caught(lm, sites)
    for site in sites:
        experts: Any = site.experts
        h, index, weights = (tensor.detach() for tensor in given[site.layer])
        assert (index >= experts.ext_first).any(), "no token reached a new expert: the test shows nothing"
        learning = [n for n, p in experts.named_parameters() if p.requires_grad]
        twin = in_float64(experts).cpu()
        mine, theirs = (
            [tensor.clone().requires_grad_(True) for tensor in pair]
            for pair in ((h, weights), (h.cpu().double(), weights.cpu().double()))
        )
        use(lm, "eager")
        expected = plain_sum(experts, twin, theirs[0], index.cpu(), theirs[1])
        use(lm, "grouped_mm")
        pull = torch.randn(h.shape, generator=torch.Generator().manual_seed(4)).to(dtype)
        wanted = [*theirs, *map(twin.get_parameter, learning)]
        slopes = torch.autograd.grad(expected, wanted, pull.double(), materialize_grads=True)
        out = experts(mine[0], index, mine[1])
        near(out, expected, "output", ROOM[dtype])
        with torch.no_grad():
            near(experts(h, index, weights), expected, "output at inference", ROOM[dtype])
        wanted = [*mine, *map(experts.get_parameter, learning)]
        found = torch.autograd.grad(out, wanted, pull.to(out), materialize_grads=True)
        for one, slope, what in zip(found, slopes, ["h", "weights", *learning], strict=True):
            near(one, slope, what, ROOM[dtype])


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Within it, what makes the host wait for the device raises RuntimeError."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("learning", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("mode", MODES)
def test_a_forward_pass_never_waits_for_the_device(mode: Mode, learning: bool) -> None:
    lm = extended("mixtral", mode, torch.bfloat16)
    x = torch.randn(2, 9, 32, device=DEVICE, dtype=torch.bfloat16)
    with torch.set_grad_enabled(learning):
        for site in find_sites(lm):
            site.block(x)  # kernels are chosen and loaded in the first call
            with waiting_is_an_error():
                site.block(x)
    with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchronizing"):
        x.any().item()
