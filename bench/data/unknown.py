"""Words that a base's tokenizer does not know: what is asked or answered with them is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moextend.util import content

_FILE = "tokenizer.json"
_SHOWN = 5
"""Words that a warning names."""


@dataclass(frozen=True)
class Unknown:
    """What the tokenizer of a base does not know of some texts."""

    texts: float = 0.0
    """Share of the texts with a word that it does not know."""
    tokens: float = 0.0
    """Share of the tokens that stand for such words."""
    words: tuple[str, ...] = ()
    """The most frequent such words."""


def unknown_words(texts: Sequence[str], base: str) -> Unknown:
    """What the tokenizer of `base` does not know of the texts.

    Nothing for a tokenizer that knows every text, and for one that is not on this machine: nothing is downloaded.
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
    """The tokenizer's file of a packaged model, of a folder, or of a hub model in the cache."""
    packaged = content.package_folder("registry") / "models" / base
    for folder in (packaged / "lm", Path(base), Path(base) / "lm"):
        if (folder / _FILE).is_file():
            return folder / _FILE
    if base.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(base, _FILE)
    return Path(found) if isinstance(found, str) else None


def _unknown_token(path: Path) -> str | None:
    """The token that stands for what the tokenizer does not know; None where bytes stand for everything."""
    model = json.loads(path.read_text(encoding="utf-8")).get("model", {})
    if model.get("byte_fallback"):
        return None
    if model.get("unk_id") is not None:
        return str(model["vocab"][model["unk_id"]][0])
    token = model.get("unk_token")
    return None if token is None else str(token)
