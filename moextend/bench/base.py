"""The spec of a base: the pretrained model that a sequence extends, and its encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from moextend.bench.task import put_by_hand
from moextend.model.encoders import without_tokens
from moextend.training.settings import Seed
from moextend.util import files
from moextend.util.lookup import Attention, Dtype, Quantisation
from moextend.util.spec import Spec, unset


class Upcycle(Spec):
    """Settings for upcycling a dense model to a Mixture of Experts (docs/families.md)."""

    experts: int = Field(ge=2)
    """Experts per layer."""
    top_k: int = Field(default=2, ge=1)
    """Experts per token."""
    rows: Literal["random"] = "random"
    """Router rows, which the configs of published runs name."""
    seed: Seed = 0
    """Seed of the router's rows."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"top_k is {self.top_k}, more than the {self.experts} experts")
        return self


class Base(Spec):
    """The pretrained model that is extended."""

    model: str = Field(min_length=1)
    """A model of the package ("tiny"), a folder (of the workspace, else of the current one), `data:<folder>` in the
    workspace's data/, "smollm2", or a hub id."""
    upcycle: Upcycle | None = None
    """Settings to upcycle a dense model."""
    vision: str | None = Field(default=None, min_length=1)
    """An image encoder: "tiny", a local folder, `data:<folder>` in the workspace's data/, or one of open_clip or timm
    (docs/modalities.md)."""
    audio: str | None = unset(None)
    """An audio encoder: "tiny", a local folder, `data:<folder>` in the workspace's data/, or a hub id
    (docs/modalities.md)."""
    encoders: dict[str, str] = unset({})
    """Other modalities (of plug-ins) -> encoder."""
    resize: Literal["shortest", "longest", "squash"] | None = None
    """How images become square: cropped, padded or squeezed; null: as in the encoder's config."""
    revision: str | None = None
    """Pinned revision of a hub model."""
    dtype: Dtype = "float32"
    """Number type of its weights; auto: the checkpoint's own."""
    quantize: Quantisation | None = unset(None)
    """nf4 (4 bits) or int8: attention, MLPs and experts of the base are quantised (docs/gpu.md)."""
    attn_implementation: Attention | None = None
    """eager, sdpa or flash_attention_2; null: transformers' choice."""
    chat: bool | None = None
    """Whether prompts use the tokenizer's chat template; null: if it has one."""

    @model_validator(mode="after")
    def _quantised_type(self) -> Self:
        """Refuses a number type that is not quantised."""
        if self.quantize is not None and self.dtype == "float64":
            raise ValueError("base.quantize takes base.dtype float32, bfloat16, float16 or auto")
        return self

    @field_validator("encoders")
    @classmethod
    def _own_keys(cls, encoders: dict[str, str]) -> dict[str, str]:
        """Refuses modalities that have a key of their own."""
        own = {"image": "vision", "audio": "audio"}
        for name in encoders:
            if name in own:
                raise ValueError(f"write base.{own[name]} instead of base.encoders.{name}")
        return encoders

    def encoders_in(self, workspace: Path) -> dict[str, str]:
        """Modality -> its encoder for `moextend.load`; `data:` is resolved."""
        named = {"image": self.vision, "audio": self.audio, **self.encoders}
        return {
            modality: str(put_by_hand(name, workspace) or name)
            for modality, name in named.items()
            if name is not None
        }

    def by_hand(self, workspace: Path) -> set[str]:
        """Model (as in `found`) and encoders (as in `encoders_in`) that are not yet below data/ of the workspace."""
        named = filter(None, (self.model, self.vision, self.audio, *self.encoders.values()))
        places = filter(None, (put_by_hand(name, workspace) for name in named))
        return {str(place) for place in places if not files.exists(Path(without_tokens(str(place))))}

    @property
    def words(self) -> str:
        """The model and how it is quantised, in words."""
        return self.model + (f" in {self.quantize}" if self.quantize else "")

    @staticmethod
    def encoder_key(modality: str) -> str:
        """Key of a modality's encoder in a sequence."""
        return {"image": "base.vision", "audio": "base.audio"}.get(modality, f"base.encoders.{modality}")

    def found(self, workspace: Path) -> str:
        """The model for `moextend.load`: a folder of the workspace takes precedence."""
        if place := put_by_hand(self.model, workspace):
            return str(place)
        folder = workspace / self.model
        return str(folder) if files.exists(folder) and folder.is_dir() else self.model
