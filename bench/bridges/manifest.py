"""What lmms-eval's registry of models reads."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The entry of this project's model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="moextend", simple_class_path="moextend.bench.bridges.lmms_eval.MoextendLMM"
    )
