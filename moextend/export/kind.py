"""Tells folders of extended models from others; imports neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path

from moextend.errors import InputError
from moextend.util import files

MODEL_TYPE = "moextend"


def is_extended(folder: str | Path) -> bool:
    """Whether `moextend export --as moextend` or `save_model` wrote a local folder."""
    try:
        record = files.read_json(Path(folder) / "config.json")
    except (OSError, ValueError, InputError):
        return False
    return isinstance(record, dict) and record.get("model_type") == MODEL_TYPE
