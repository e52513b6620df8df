"""Folders of extended models in the Auto classes of transformers."""

from __future__ import annotations

from typing import Any, NoReturn

from moextend.errors import InputError
from moextend.export.auto_config import MoextendConfig as MoextendConfig
from moextend.export.kind import MODEL_TYPE as MODEL_TYPE


class MoextendForCausalLM:
    """Loads an extended language model; the result is an instance of the base's own class, extended in place."""

    config_class = MoextendConfig
    _auto_class = None

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

    @classmethod
    def _from_config(cls, config: MoextendConfig, **options: Any) -> NoReturn:
        raise InputError(
            "an extended model has no random weights.",
            where="from_config",
            hint="Use from_pretrained(FOLDER).",
        )

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModelForCausalLM") -> None:
        """Called by transformers for code that a folder brings along."""


def register_auto_classes() -> None:
    """Makes `AutoConfig` and `AutoModelForCausalLM` of transformers load folders of extended models."""
    from transformers import AutoConfig, AutoModelForCausalLM

    AutoConfig.register(MODEL_TYPE, MoextendConfig, exist_ok=True)
    AutoModelForCausalLM.register(MoextendConfig, MoextendForCausalLM, exist_ok=True)
