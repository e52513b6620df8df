"""Folders of extended models in the Auto classes of transformers; imports transformers' configs only."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.configuration_utils import PreTrainedConfig

from moextend.extension.folder import MODEL_TYPE

FORMAT = 1
"""Version of the folder; another one is refused."""


class MoextendConfig(PreTrainedConfig):
    """An extended model: its base, by name or as a copy in the folder, and its extensions."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        format: int = FORMAT,
        base: str = "",
        base_copied: bool = False,
        revision: str | None = None,
        base_fingerprint: str = "",
        base_dtype: str = "float32",
        extensions: list[dict[str, str]] | None = None,
        active: list[str] | None = None,
        strengths: dict[str, float] | None = None,
        encoders: dict[str, str] | None = None,
        resize: str | None = None,
        chat: bool | None = None,
        moextend_version: str = "",
        **more: Any,
    ) -> None:
        """Args:
        format: version of the folder.
        base: name of the base as `moextend.load` takes it; of a copied one, as information.
        base_copied: the base is in the folder `base`.
        revision: of a base from the hub.
        base_fingerprint: of the language model of the base, its encoders and projectors.
        base_dtype: number type of its weights in the training.
        extensions: name, folder, routing mode and digest of the weights of each extension, oldest first.
        active: extensions that compute after loading.
        strengths: extension -> strength after loading, for those below 1.
        encoders: modality -> name of its encoder; its projector is in `projectors/<modality>`.
        resize: as in `moextend.load`.
        chat: as in `moextend.load`.
        moextend_version: version that wrote the folder.
        """
        self.format, self.base, self.base_copied, self.revision = format, base, base_copied, revision
        self.base_fingerprint, self.base_dtype = base_fingerprint, base_dtype
        self.extensions, self.encoders = extensions or [], encoders or {}
        self.active = [each["name"] for each in self.extensions] if active is None else active
        self.strengths = {name: float(strength) for name, strength in (strengths or {}).items()}
        self.resize, self.chat, self.moextend_version = resize, chat, moextend_version
        super().__init__(**more)

    def computing(self) -> dict[str, float]:
        """Extension -> strength, of those that compute after loading."""
        return {name: self.strengths.get(name, 1.0) for name in self.active}


class MoextendForCausalLM:
    """Loads an extended language model; the result is an instance of the base's own class, extended in place."""

    config_class = MoextendConfig

    @classmethod
    def from_pretrained(
        cls, folder: str, *args: Any, config: MoextendConfig | None = None, **options: Any
    ) -> Any:
        """The base's language model with the extensions of the folder, for text.

        Args:
            folder: a folder that `moextend export --as moextend` or `moextend.save_model` wrote, or a hub id of one.
            options: those of `from_pretrained` of the base (dtype, device_map, attn_implementation, ...).
                `active=[...]`: names of the extensions that compute, instead of those in the config.

        Raises:
            InputError: the folder is incomplete, the base is another one, or an extension cannot be attached.
        """
        from moextend.export.opening import open_lm

        return open_lm(folder, config, options)


def register_auto_classes() -> None:
    """Makes `AutoConfig` and `AutoModelForCausalLM` of transformers load folders of extended models."""
    AutoConfig.register(MODEL_TYPE, MoextendConfig, exist_ok=True)
    AutoModelForCausalLM.register(MoextendConfig, MoextendForCausalLM, exist_ok=True)
