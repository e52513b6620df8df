"""A toy model that runs in a few milliseconds: a random Mixtral with a small vocabulary and a random projector."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from moextend import ImageRef, MultimodalLM, new_parameters
from moextend.model.vision import VisionEncoder

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(60))]
TOKENS, WIDTH = 4, 8


def toy_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def toy_lm(family: str = "mixtral", seed: int = 0, **more: object) -> PreTrainedModel:
    shape = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": len(WORDS), "intermediate_size": 24, "max_position_embeddings": 128,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    experts = {
        "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
        "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8},
        "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
                          "shared_expert_intermediate_size": 16},
        "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    }[family]  # fmt: skip
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **shape, **experts, **more)
    lm: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    lm.set_experts_implementation("eager")
    return lm


class ToyEncoder(VisionEncoder):
    """Stands for an open_clip tower: four patches of mean colours through a fixed random map."""

    tokens, width, facts = TOKENS, WIDTH, {"name": "toy"}
    map: Tensor

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.register_buffer("map", torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Sequence[ImageRef]) -> Tensor:
        pixels = torch.stack(
            [torch.tensor(list(image.open().resize((2, 2)).get_flattened_data())) for image in images]
        )
        return pixels.float() / 255 @ self.map

    def fingerprint(self) -> str:
        return "toy"


def picture(red: int, green: int = 0, blue: int = 0) -> ImageRef:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (red, green, blue)).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


def noise(drawn: random.Random) -> ImageRef:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (48, 48), drawn.randbytes(48 * 48 * 3)).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


@cache
def series() -> ModuleType:
    """The modality of examples/modalities/series.py, which registers itself."""
    path = Path(__file__).parents[1] / "examples" / "modalities" / "series.py"
    spec = spec_from_file_location("series", path)
    assert spec and spec.loader
    made = module_from_spec(spec)
    sys.modules["series"] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


def curve(*values: float) -> Any:
    """A time series."""
    return series().SeriesRef(data=b"x\n" + "\n".join(map(str, values)).encode())


def features_of(model: MultimodalLM, images: Sequence[Any]) -> Tensor:
    """Features [images, tokens, width], by the model's own encoder."""
    encoder: Any = model.modalities["image"].encoder
    found: Tensor = encoder(images)
    return found


def shown(model: MultimodalLM, images: Sequence[Any]) -> dict[str, Tensor]:
    """Features of images as an input of the model."""
    return {"image": features_of(model, images).flatten(0, 1)} if images else {}


def toy_model(family: str = "mixtral") -> MultimodalLM:
    torch.manual_seed(1)
    model = MultimodalLM(toy_lm(family), toy_tokenizer(), {"image": ToyEncoder()})
    model.modalities["image"].projector.aligned = True
    return model


def shake(lm: nn.Module, name: str, size: float = 0.3, seed: int = 5) -> None:
    """Adds noise to the parameters of an extension."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in new_parameters(lm, name).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    """[rows, tokens, vocabulary] of a language model, alone or in a MultimodalLM."""
    with torch.no_grad():
        found: Tensor = getattr(model, "lm", model)(ids).logits
    return found
