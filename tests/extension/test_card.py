"""The card of an extension: errors name wrong entries, and the base is hashed once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import moextend
from moextend.errors import InputError
from moextend.model import fingerprint, multimodal
from tests.toys import toy_model


@pytest.mark.parametrize(
    "change",
    [
        {"name": [1]}, {"name": 1}, {"plan": []}, {"plan": {"a": [1]}}, {"plan": {"00": [1]}}, {"plan": {"0": 1}},
        {"plan": {"0": [-1]}}, {"beside": [1]}, {"beside": None}, {"beside": [{"name": "a"}]}, {"width": "x"},
        {"calibrate": 7}, {"base_dtype": [1]}, {"mode": "other"},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_with_a_wrong_value_names_it(tmp_path: Path, change: dict[str, Any]) -> None:
    model = toy_model()
    moextend.attach(model.lm, "a", {0: [1]})
    moextend.save_extension(model, "a", folder=tmp_path)
    moextend.detach(model.lm, "a")
    path = tmp_path / "extension.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"extension\.json: {next(iter(change))}"):
        moextend.load_extension(model, tmp_path)
    assert not moextend.extensions(model)


def test_the_base_is_read_once_for_all_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, digest = toy_model(), Mock(wraps=fingerprint.rounded_digest)
    monkeypatch.setattr(multimodal, "rounded_digest", digest)
    for name in ("a", "b"):
        moextend.attach(model.lm, name, {0: [1]})
        moextend.save_extension(model, name, folder=tmp_path / name)
    cards = [json.loads((tmp_path / name / "extension.json").read_text()) for name in ("a", "b")]
    assert digest.call_count == 1 and cards[0]["base_rounded"] == cards[1]["base_rounded"] != ""
    model.rename_base()
    assert model.base_rounded() == cards[0]["base_rounded"] and digest.call_count == 2
