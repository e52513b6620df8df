"""Finds words that a base's tokenizer does not know; the model cannot read or answer them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.util import content

_FILE = "tokenizer.json"
_SHOWN = 5
"""Number of words in a warning."""


@dataclass(frozen=True)
class Unknown:
    """Unknown words of some texts."""

    texts: float = 0.0
    """Share of texts with an unknown word."""
    tokens: float = 0.0
    """Share of unknown tokens."""
    words: tuple[str, ...] = ()
    """The most frequent unknown words."""


def unknown_words(texts: Sequence[str], base: str) -> Unknown:
    """Words of the texts that the tokenizer of `base` does not know.

    None found if the tokenizer can encode every text, or if it is not on this machine: nothing is downloaded.
    """
    path = _tokenizer(base)
    if path is None or not texts:
        return Unknown()
    from tokenizers import Tokenizer

    unknown = _unknown_token(path)
    if unknown is None:
        return Unknown()
    tokenizer = Tokenizer.from_file(str(path))
    words: Counter[str] = Counter()
    lost = missing = tokens = 0
    for text, encoding in zip(texts, tokenizer.encode_batch(list(texts)), strict=True):
        places = zip(encoding.tokens, encoding.offsets, strict=True)
        found = {text[first:last].strip() for token, (first, last) in places if token == unknown}
        words.update(found - {""})
        lost += bool(found)
        missing += encoding.tokens.count(unknown)
        tokens += len(encoding.tokens)
    most = tuple(word for word, _ in words.most_common(_SHOWN))
    return Unknown(lost / len(texts), missing / max(1, tokens), most)


def _tokenizer(base: str) -> Path | None:
    """Tokenizer file of a packaged model, of a folder, or of a hub model in the cache."""
    packaged = content.package_folder("registry") / "models" / base
    for folder in (packaged / "lm", Path(base), Path(base) / "lm"):
        if (folder / _FILE).is_file():
            return folder / _FILE
    if base.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, _FILE)
    except HFValidationError:  # no name of a hub model, as /folder
        return None
    return Path(found) if isinstance(found, str) else None


def _unknown_token(path: Path) -> str | None:
    """Token for unknown words; None if the tokenizer falls back to bytes."""
    model = json.loads(path.read_text(encoding="utf-8")).get("model", {})
    if model.get("byte_fallback"):
        return None
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    token = model.get("unk_token")
    return None if token is None else str(token)
