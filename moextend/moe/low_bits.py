"""Weights of a frozen base in 4 or 8 bits (bitsandbytes), which products dequantise one matrix at a time.

The modules keep their classes and their code: where it reads a quantised weight, a stack of experts or the matrix of a
linear map, it gets a `Packed`, whose products with hidden states dequantise the matrices that they use, and again in
the backward pass. So neither pass keeps a matrix in full precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from moextend.util.lookup import Quantisation
from moextend.util.quiet import quiet_loggers

Method = Quantisation
METHODS: tuple[str, ...] = get_args(Method)
"""nf4: 16 levels of a normal distribution in blocks of 64, whose scales are quantised, too (QLoRA, arXiv 2305.14314).
int8: 255 even levels in blocks of 256."""
BLOCK: dict[str, int] = {"nf4": 64, "int8": 256}
"""Numbers with a scale in common."""
NESTED = 256
"""Scales of nf4 with a scale in common."""
_CLASSES: dict[type, Any] = {}
"""Class of a module -> that with quantised weights."""
_MATMUL = (torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm)


@dataclass(frozen=True)
class Stored:
    """What the codes of one weight stand for."""

    method: Method
    shape: torch.Size
    """[rows, columns], or [experts, rows, columns]."""
    dtype: torch.dtype
    """Number type that they are dequantised to."""
    rounded: str
    """Digest of the weights that were quantised, rounded to bfloat16 (`fingerprint.rounded_digest`)."""


def layout(method: Method, shape: Sequence[int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Part -> shape and number type of what is stored for weights [rows, columns] or [experts, rows, columns]."""
    count, wide = math.prod(shape[:-2]), BLOCK[method]
    blocks = -(-shape[-2] * shape[-1] // wide)
    if method == "int8":
        return {"codes": ((count, blocks * wide), torch.uint8), "absmax": ((count, blocks), torch.float32)}
    return {
        "codes": ((count, blocks * wide // 2), torch.uint8),
        "absmax": ((count, blocks), torch.uint8),
        "nested": ((count, -(-blocks // NESTED)), torch.float32),
        "offset": ((count,), torch.float32),
    }


def size_of(method: Method, shape: Sequence[int]) -> int:
    """Bytes that are stored for weights of this shape."""
    return sum(math.prod(each) * dtype.itemsize for each, dtype in layout(method, shape).values())


@cache
def _library() -> Any:
    """bitsandbytes' functions; when it is imported it logs that optional kernels are missing."""
    with quiet_loggers("bitsandbytes.backends.cpu.ops"):
        from bitsandbytes import functional

    return functional


def encode(method: Method, matrix: Tensor) -> dict[str, Tensor]:
    """Part -> its numbers, of one matrix [rows, columns]."""
    bnb = _library()
    wide = BLOCK[method]
    blocks = pad(matrix.flatten(), (0, -matrix.numel() % wide)).view(-1, wide)
    if method == "int8":
        codes, state = bnb.quantize_blockwise(blocks, code=_levels(method, matrix.device), blocksize=wide)
        return {"codes": codes.flatten(), "absmax": state.absmax}
    codes, state = bnb.quantize_4bit(blocks, blocksize=wide, compress_statistics=True, quant_type=method)
    return {
        "codes": codes.flatten(), "absmax": state.absmax, "nested": state.state2.absmax, "offset": state.offset
    }  # fmt: skip


def decode(method: Method, parts: Mapping[str, Tensor], shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Matrix [rows, columns] of the parts that `encode` returned."""
    bnb = _library()
    codes, wide = parts["codes"], BLOCK[method]
    # Blocks are rows here: the kernel of 4 bits for CPUs begins a new block with each row (bitsandbytes 0.50).
    blocks = torch.Size([len(parts["absmax"]), wide])
    levels = partial(_levels, device=codes.device)
    state = bnb.QuantState(parts["absmax"], shape=blocks, code=levels(method), blocksize=wide, dtype=dtype)
    if method == "int8":
        numbers = bnb.dequantize_blockwise(codes.view(blocks), state)
    else:
        state.nested, state.offset, state.quant_type = True, parts["offset"], method
        state.state2 = bnb.QuantState(
            parts["nested"], code=levels("scales"), blocksize=NESTED, dtype=torch.float32
        )
        numbers = bnb.dequantize_4bit(codes.unsqueeze(1), state)
    return cast(Tensor, numbers).flatten()[: shape.numel()].view(shape)


@cache
def _levels(what: str, device: torch.device) -> Tensor:
    """Values of the codes of a method, or of those of nested scales."""
    bnb = _library()
    with torch.inference_mode(False):
        if what == "nf4":
            return cast(Tensor, bnb.get_4bit_type("nf4", device=device))
        made = (
            bnb.create_linear_map(signed=True, total_bits=8) if what == "int8" else bnb.create_dynamic_map()
        )
        return cast(Tensor, made).to(device)


class Packed:
    """A quantised matrix [rows, columns] or a stack [experts, rows, columns], with the interface of a tensor.

    It is indexed and transposed without dequantising it, and so are its products with hidden states. Any other use
    gets all of it, dequantised.
    """

    _is_hf_initialized = True
    requires_grad = False
    is_meta = False

    def __init__(self, stored: Stored, parts: Mapping[str, Tensor], *, swapped: bool = False) -> None:
        self._stored, self._parts, self._swapped = stored, parts, swapped

    @property
    def shape(self) -> torch.Size:
        """Shape of the matrices."""
        *stack, rows, columns = self._stored.shape
        return torch.Size([*stack, columns, rows] if self._swapped else [*stack, rows, columns])

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the dequantised matrices."""
        return self._stored.dtype

    @property
    def device(self) -> torch.device:
        """Device of the codes."""
        return self._parts["codes"].device

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._stored.shape)

    def dim(self) -> int:
        """Number of dimensions."""
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        """Shape, or its entry `dim`."""
        return self.shape if dim is None else self.shape[dim]

    def is_floating_point(self) -> bool:
        """Whether the dequantised matrices are floating-point numbers."""
        return True

    def element_size(self) -> int:
        """Bytes of a dequantised number."""
        return self.dtype.itemsize

    def detach(self) -> Packed:
        """The same: nothing of it learns."""
        return self

    def dense(self) -> Tensor:
        """All of it, dequantised."""
        if self.ndim == 3:
            return torch.stack([self[place].dense() for place in range(self._stored.shape[0])])
        parts = {key: part[0] for key, part in self._parts.items()}
        found = decode(self._stored.method, parts, self._stored.shape, self._stored.dtype)
        return found.mT if self._swapped else found

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if (
            self.ndim < 3
            or not isinstance(index, int | Tensor)
            or (isinstance(index, Tensor) and index.dim())
        ):
            return self.dense()[index]
        place = range(len(self))[int(index)]
        one = Stored(self._stored.method, self._stored.shape[1:], self._stored.dtype, "")
        parts = {key: part[place : place + 1] for key, part in self._parts.items()}
        return Packed(one, parts, swapped=self._swapped)

    def transpose(self, first: int, second: int) -> Any:
        """The transposed matrices."""
        if {first % self.ndim, second % self.ndim} != {self.ndim - 2, self.ndim - 1}:
            return self.dense().transpose(first, second)
        return self.mT

    @property
    def mT(self) -> Packed:
        """The transposed matrices."""
        return Packed(self._stored, self._parts, swapped=not self._swapped)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dense(), name)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Products of tensors with it, matrix by matrix; other functions of all of it, dequantised."""
        more = kwargs or {}
        match args:
            case (Tensor() as x, Packed() as own, *rest) if func is linear:
                bias = rest[0] if rest else more.get("bias")
                out = _product(x, own.mT)
                return out if bias is None else out + bias.to(out.dtype)
            case (Tensor() as x, Packed(ndim=2) as own) if func in _MATMUL:
                return _product(x, own)
            case (Tensor(ndim=3) as x, Packed(ndim=3) as own) if func in _MATMUL and len(x) == len(own):
                return torch.stack([_product(one, own[place]) for place, one in enumerate(x)])
        return func(*map(_dense, args), **{key: _dense(value) for key, value in more.items()})


def _dense(value: Any) -> Any:
    return value.dense() if isinstance(value, Packed) else value


class _Product(torch.autograd.Function):
    """x @ W with a W that is dequantised in both passes and kept in neither."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Packed) -> Tensor:
        ctx.weight, ctx.dtype = weight, x.dtype
        return torch.matmul(x, weight.dense())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weight = ctx.weight.mT.dense().to(gradient.dtype)
        return torch.matmul(gradient, weight).to(ctx.dtype), None


def _product(x: Tensor, weight: Packed) -> Tensor:
    return cast(Tensor, _Product.apply(x, weight))  # type: ignore[no-untyped-call]


class Quantised(nn.Module):
    """Mixin for the class of a module with quantised weights: their names stay, and give a `Packed`."""

    stored: dict[str, Stored]
    """Name of a weight -> what its codes stand for."""

    def __getattr__(self, name: str) -> Any:
        stored = self.__dict__.get("stored", {}).get(name)
        if stored is None:
            return super().__getattr__(name)
        own = self.__dict__["_parameters"]
        return Packed(stored, {part: own[f"{name}_{part}"].data for part in layout(stored.method, (1, 1))})


def weights_of(module: nn.Module) -> dict[str, Any]:
    """Name -> parameter of a module itself; of quantised ones a `Packed` instead of what is stored for them."""
    stored: dict[str, Stored] = module.__dict__.get("stored", {})
    hidden = {f"{name}_{part}" for name, one in stored.items() for part in layout(one.method, (1, 1))}
    own = {name: value for name, value in module._parameters.items() if name not in hidden}
    return {**{name: getattr(module, name) for name in stored}, **own}


def originals(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, tuple[torch.Size, str]]]:
    """`tensors` of a model without what is stored for quantised weights, and name -> shape and digest of these."""
    plain, known = dict(tensors), dict[str, tuple[torch.Size, str]]()
    for name, module in quantised_modules(model).items():
        for key, one in module.stored.items():
            known[f"{name}.{key}"] = (one.shape, one.rounded)
            for part in layout(one.method, (1, 1)):
                plain.pop(f"{name}.{key}_{part}", None)
    return plain, known


def quantised_modules(model: nn.Module) -> dict[str, Quantised]:
    """Name -> module with quantised weights."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantised)}


def method_of(model: nn.Module) -> str:
    """Method that `model` is quantised with; "" if it is not."""
    found = (one.method for module in quantised_modules(model).values() for one in module.stored.values())
    return next(found, "")


@contextmanager
def shapes_shown(model: nn.Module) -> Iterator[None]:
    """Context in which quantised weights are parameters on device meta, for code that lists parameters by shape."""
    places = [(m, name, one) for m in quantised_modules(model).values() for name, one in m.stored.items()]
    for module, name, one in places:
        empty = torch.empty(one.shape, dtype=one.dtype, device="meta")
        module._parameters[name] = nn.Parameter(empty, requires_grad=False)
    try:
        yield
    finally:
        for module, name, _ in places:
            del module._parameters[name]


def put(module: nn.Module, name: str, stored: Stored, parts: Mapping[str, Tensor]) -> None:
    """Replaces the weight `name` of a module by what is stored for it."""
    del module._parameters[name]
    for part, tensor in parts.items():
        own = nn.Parameter(tensor, requires_grad=False)
        own._is_hf_initialized = True  # type: ignore[attr-defined]  # else transformers would initialise it
        module._parameters[f"{name}_{part}"] = own
    module.__dict__.setdefault("stored", {})[name] = stored
    if not isinstance(module, Quantised):
        kind = type(module)
        module.__class__ = _CLASSES.setdefault(kind, type(f"Quantised{kind.__name__}", (Quantised, kind), {}))


def plain_class(kind: type) -> type:
    """A class without the mixin of quantised weights."""
    return next(each for each in kind.__mro__ if not issubclass(each, Quantised))
