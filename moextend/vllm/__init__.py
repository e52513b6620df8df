"""Plug-in of vLLM: serves a base with its extensions, from a folder of `moextend export --as vllm` (docs/serving.md).

vLLM finds it by the entry point `vllm.general_plugins`. It changes no file of vLLM.
"""

from __future__ import annotations

from moextend.export.architectures import ARCHITECTURES, PREFIX


def register() -> None:
    """Registers the extended architectures; vLLM calls it in each of its processes."""
    from vllm import ModelRegistry

    for name in ARCHITECTURES:
        ModelRegistry.register_model(f"{PREFIX}{name}", f"moextend.vllm.models:{PREFIX}{name}")
