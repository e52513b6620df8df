"""An extended model cannot be saved as if it were a base."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from moextend import attach, detach, register_auto_classes
from moextend.errors import InputError
from moextend.moe.attach import scope_of
from tests.moe.toy_composites import build_composite
from tests.toys import toy_model


def test_a_part_of_an_extended_model_is_not_saved(tmp_path: Path) -> None:
    model = toy_model()
    attach(model.lm, "a", {0: [1]})
    attach(model.lm, "b", {1: [0]})
    for part in (model.lm.model, deepcopy(model.lm).model):
        with pytest.raises(InputError, match=r"model is extended.*save_extension.*unload"):
            part.save_pretrained(tmp_path / "saved")
    detach(model.lm, "a")
    with pytest.raises(InputError, match="model is extended"):
        model.lm.model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_an_extended_model_is_saved_with_its_extensions(tmp_path: Path) -> None:
    register_auto_classes()
    model = toy_model()
    attach(model.lm, "a", {0: [1]})
    attach(model.lm, "b", {1: [0]})
    copy = deepcopy(model.lm)
    detach(copy, "b")
    for lm, names in ((model.lm, ["a", "b"]), (copy, ["a"])):
        lm.save_pretrained(tmp_path / names[-1])
        again = AutoModelForCausalLM.from_pretrained(tmp_path / names[-1])
        assert list(again.model.layers[0].mlp.gate.ext_parts) == ["a"]
        assert scope_of(again).known == names


def test_all_parts_of_a_composite_are_guarded(tmp_path: Path) -> None:
    lm = build_composite("qwen3_vl_moe")
    attach(lm, "a", {0: [1]})
    for part in (lm.model, lm.model.language_model):
        with pytest.raises(InputError, match="model is extended"):
            part.save_pretrained(tmp_path)
    detach(lm, "a")
    assert not any("save_pretrained" in part.__dict__ for part in lm.modules())
