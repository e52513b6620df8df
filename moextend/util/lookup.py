"""Tables of names, whose objects are loaded on use; known names, limits and defaults of options."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args

from moextend.errors import UnknownName

T = TypeVar("T")
Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]
"""Number type of a base's weights; auto: the checkpoint's own."""
DTYPES: tuple[str, ...] = get_args(Dtype)
Attention = Literal["eager", "sdpa", "flash_attention_2"]
"""Attention implementation of a base."""
ATTENTION: tuple[str, ...] = get_args(Attention)
Quantisation = Literal["nf4", "int8"]
"""How the weights of a base are stored (moe/low_bits.py)."""
MOST_SEED = 2**32 - 1
"""Largest seed of numpy."""
MOST_STEPS = 1_000_000
MOST_BATCH = 100_000
MOST_TOKENS = 100_000
"""Largest number of tokens of one answer."""
MOST_SEEN = 10**8
"""Largest number of conversations of one training, with repetitions: their order is drawn before the first step."""
BATCH = 16
"""Batch size of a training if none is named: a start, not tuned to any model."""
RATE = 1e-3
"""Learning rate of a training if none is named: likewise."""


def choose(kind: str, name: str, table: Mapping[str, T], *, where: str | None = None) -> T:
    """Entry of `name`; UnknownName with the nearest known name if there is none."""
    if not isinstance(name, str) or name not in table:
        raise UnknownName(kind, name, table, where=where)
    return table[name]


def load(target: str) -> Any:
    """Object of "package.module:attribute"; without a colon, the module."""
    module, _, attribute = target.partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found
