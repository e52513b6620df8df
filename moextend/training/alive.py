"""Counts the bytes of tensors that are alive at one time, without data (see `tracing`)."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Counts = dict[str, float]
"""Section of a pass -> most bytes that are alive in it; other keys: see `tracing`."""


class EveryType(TorchDispatchMode):
    """Context in which grouped products have shapes in every number type, as their kernels do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every operator."""
        if func.overloadpacket is not torch.ops.aten._grouped_mm or args[0].dtype == torch.bfloat16:
            return func(*args, **(kwargs or {}))
        out = func(args[0].bfloat16(), args[1].bfloat16(), *args[2:], **(kwargs or {}))
        return torch.empty_like(out, dtype=args[0].dtype)


class Alive(TorchDispatchMode):
    """Context that counts the bytes of all tensors that exist at one time, weights apart."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most: Counts = defaultdict(float)
        self.sections = ["before"]
        self._now = 0.0
        held = [*lm.parameters(), *lm.buffers()]
        self._known: dict[int, Any] = {tensor.untyped_storage()._cdata: tensor for tensor in held}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every operator."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = weakref.ref(storage, partial(self._gone, key, size))
        self._now += size
        self._mark()

    def _gone(self, key: int, size: int, reference: object) -> None:
        self._known.pop(key, None)
        self._now -= size

    def enter(self, *sections: str) -> None:
        """What follows belongs to other sections: to several where a layer is the first and the last of its kind."""
        self.sections = list(sections) or ["forward"]
        self._mark()

    @property
    def phase(self) -> str:
        """First word of the current section."""
        return self.sections[0].partition(" ")[0]

    def _mark(self) -> None:
        for section in self.sections:
            self.most[section] = max(self.most[section], self._now)
