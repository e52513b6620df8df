"""Products in bfloat16: on a CPU without instructions for them they are computed in float32 and rounded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import moextend
from moextend import Conversation, Settings
from moextend.training.prepare import PrecisionWarning
from moextend.util import cpu
from tests.toys import toy_model

OFFSETS = torch.tensor([32, 48, 128], dtype=torch.int32)
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mm": lambda x, w: x @ w[0],
    "linear": lambda x, w: F.linear(x.view(8, 16, 64), w[0].T),
    "addmm": lambda x, w: torch.addmm(x[0, 0], x, w[0], beta=0.5, alpha=2),
    "bmm": lambda x, w: torch.bmm(x.view(2, 64, 64), w[:2]),
    "baddbmm": lambda x, w: torch.baddbmm(x[:2, :1, None], x.view(2, 64, 64), w[:2], alpha=0.25),
    "einsum": lambda x, w: torch.einsum("ti,eio->eto", x, w),
    "grouped": lambda x, w: torch._grouped_mm(x, w, offs=OFFSETS),
    "one token": lambda x, w: x[:1] @ w[0],
    "few terms": lambda x, w: x[:8] @ w[0],
}
LEFT_ALONE = ("one token", "few terms")


def without_instructions(folder: Path, monkeypatch: pytest.MonkeyPatch, flags: str = "fma avx2") -> None:
    """As on a CPU with these flags alone."""
    (folder / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(cpu, "CPUINFO", folder / "cpuinfo")


@pytest.fixture
def in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.dtype]]:
    """Products are replaced until the end of the test; the dtypes that they were computed in."""
    given: list[torch.dtype] = []
    original = cpu._in_float32

    def listening(name: str) -> Callable[..., Tensor]:
        product = original(name)

        def heard(keys: object, *args: Tensor, **options: object) -> Tensor:
            wide.clear()
            found: Tensor = product(keys, *args, **options)
            given.append(torch.float32 if wide else args[0].dtype)
            return found

        return heard

    def float32(self: Tensor) -> Tensor:
        wide.append(self)
        return to_float32(self)

    to_float32, wide = Tensor.float, list[Tensor]()
    monkeypatch.setattr(Tensor, "float", float32)
    without_instructions(tmp_path, monkeypatch)
    monkeypatch.setattr(cpu, "_in_float32", listening)
    replaced: list[torch.library.Library] = []
    monkeypatch.setattr(cpu, "_replaced", replaced)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cpu.multiply_in_float32()
        cpu.multiply_in_float32()
    assert len(replaced) == 1, "the second call does nothing"
    yield given
    for library in replaced:
        library._destroy()


class Refusing(TorchFunctionMode):
    """A mode that nothing in traced code may reach."""

    def __torch_function__(self, function: Callable[..., object], *_: object) -> object:
        raise AssertionError(function)


def computed(product: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Result, and gradients of both matrices, of numbers that bfloat16 has."""
    torch.manual_seed(0)
    x = torch.randn(128, 64).bfloat16().to(dtype).requires_grad_()
    w = torch.randn(3, 64, 32).bfloat16().to(dtype).requires_grad_()
    out = product(x, w)
    out.backward(torch.randn(out.shape).bfloat16().to(dtype))
    assert out.dtype == x.grad.dtype == w.grad.dtype == dtype  # type: ignore[union-attr]
    return [out.detach(), x.grad, w.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_and_gradients_are_those_of_float32_rounded_once(
    name: str, in_float32: list[torch.dtype]
) -> None:
    exact = computed(PRODUCTS[name], torch.float32)
    in_float32.clear()
    for found, wanted in zip(computed(PRODUCTS[name], torch.bfloat16), exact, strict=True):
        assert torch.allclose(found.float(), wanted, rtol=2**-8, atol=2**-7)
    assert set(in_float32) == {torch.bfloat16 if name in LEFT_ALONE else torch.float32}


@pytest.mark.parametrize("transposed", [False, True])
def test_a_large_matrix_is_cast_in_pieces(transposed: bool, in_float32: list[torch.dtype]) -> None:
    x, w = torch.randn(8, 1000).bfloat16(), torch.randn(1000, 1100).bfloat16()
    right = w.T.contiguous().T if transposed else w
    assert right.numel() > cpu.PIECE
    found = x @ right
    assert torch.allclose(found.float(), x.float() @ w.float(), rtol=2**-8, atol=2**-7)
    assert found.is_contiguous() and in_float32 == [torch.float32, torch.float32], (
        "bfloat16, and the one to compare with"
    )
    with pytest.raises(RuntimeError, match="8x999 and 1000x1100"):
        torch.mm(x[:, 1:], right)


def test_defaults_and_modes_do_not_reach_the_kernel(in_float32: list[torch.dtype]) -> None:
    a = torch.ones(64, 64).bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(lambda x: x @ x, (a,))
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(a @ a, 64 * a)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"), Refusing():
        found = traced(a)
    assert torch.equal(found, 64 * a)
    assert set(in_float32) == {torch.float32}


def test_the_compiler_leaves_the_kernel_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_instructions(tmp_path, monkeypatch)
    replaced: list[torch.library.Library] = []
    monkeypatch.setattr(cpu, "_replaced", replaced)
    cpu.multiply_in_float32()

    def never_compiled(x: Tensor) -> Tensor:
        for _ in range(2):
            torch._dynamo.graph_break()  # within a loop: all of the function runs as it is
            x = (x @ x).clamp(-2, 2)
        return x

    graphs = CompileCounter()
    try:
        found = torch.compile(never_compiled, backend=graphs)(torch.eye(64).bfloat16())
        assert torch.equal(found, torch.eye(64).bfloat16())
        assert graphs.frame_count == 0
    finally:
        for library in replaced:
            library._destroy()
        torch._dynamo.reset()


def test_all_else_is_left_to_torch(in_float32: list[torch.dtype]) -> None:
    x, wide = torch.randn(64, 64, dtype=torch.float64), torch.randn(64, 64)
    assert torch.equal(x @ x, torch.mm(x, x)) and set(in_float32) == {torch.float64}
    narrow, scalar = wide.bfloat16(), torch.ones(()).bfloat16()
    for first, second in ((narrow, wide), (wide, narrow), (narrow, wide.half()), (narrow, wide.int())):
        with pytest.raises(RuntimeError, match="dtype"):
            torch.mm(first, second)
    with pytest.raises(RuntimeError, match="dtype"):
        torch.addmm(wide, narrow, narrow)
    with pytest.raises(RuntimeError, match="matrix"):
        torch.mm(scalar, scalar)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.mm(narrow, narrow[:5])


def test_a_grouped_product_has_the_strides_and_limits_of_bfloat16(in_float32: list[torch.dtype]) -> None:
    x, w = torch.randn(128, 64).bfloat16(), torch.randn(3, 28, 64).bfloat16().transpose(1, 2)
    assert torch._grouped_mm(x, w, offs=OFFSETS).stride() == (32, 1), "16 bytes"
    with pytest.raises(RuntimeError, match="multiple of 16 bytes"):
        torch._grouped_mm(x, w.contiguous(), offs=OFFSETS)
    with pytest.raises(RuntimeError, match="Invalid strides"):
        torch._grouped_mm(x, w[:, :1].expand(3, 64, 28), offs=OFFSETS)
    w = torch.randn(3, 64, 32).bfloat16()
    assert torch._grouped_mm(x, w, offs=OFFSETS, out_dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("flags", ["fma avx2 avx512_bf16", "amx_bf16", "asimd bf16"])
def test_nothing_is_replaced_where_the_cpu_has_instructions(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_instructions(tmp_path, monkeypatch, flags)
    monkeypatch.setattr(cpu, "_replaced", [])
    cpu.multiply_in_float32()
    assert cpu._replaced == []
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "no such file")
    cpu.multiply_in_float32()
    assert cpu._replaced == []


def test_a_base_in_bfloat16_and_a_training_with_bf16_begin_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(cpu, "multiply_in_float32", lambda: asked.append(True))
    model = toy_model()
    moextend.attach(model.lm, "a", {1: [0]})
    data = [Conversation(((f"w{i}", "w9 w3"),)) for i in range(2)]
    for bf16 in (False, True):
        settings = Settings(steps=1, batch_size=2, learning_rate=1e-3, bf16=bf16)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrecisionWarning)
            moextend.train(model, data, settings, folder=tmp_path / str(bf16))
        assert len(asked) == bf16
    asked.clear()
    moextend.load("tiny", dtype="float32")
    assert not asked
    for device in ("cpu", "cpu:0", torch.device("cpu")):
        model = moextend.load("tiny", dtype="bfloat16", device=device)
        assert model.lm.config._experts_implementation == "eager"
    assert asked == [True, True, True]
