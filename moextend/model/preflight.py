"""Checks of a device before a model is loaded."""

from __future__ import annotations

from moextend.errors import at


def check_device(device: str, dtype: str, attention: str | None, *, where: str) -> None:
    """Raises InputError if torch has no such device, or the device does not support this attention.

    `where`: the option or key of the attention.
    """
    if device in ("auto", "cpu") and attention != "flash_attention_2":
        return  # torch need not be imported
    from moextend.moe import supported

    if device != "auto":
        with at("--device"):
            supported.check_device(device)
    if attention == "flash_attention_2":
        if device == "auto":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        with at(where):
            supported.check_options(dtype, device, attention)
