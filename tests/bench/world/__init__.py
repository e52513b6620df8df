import json
from functools import cache
from pathlib import Path


@cache
def vocabulary() -> frozenset[str]:
    """The words that the tokenizer of the tiny base knows."""
    path = Path(__file__).parents[3] / "registry" / "models" / "tiny" / "lm" / "tokenizer.json"
    return frozenset(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"])
