"""Certificates: honest extensions pass, and every way to change the base or its answers is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import moextend
from moextend.certificate import certify as certifying
from moextend.certificate.certify import Data, certify
from moextend.extension import store, task_inference
from moextend.moe.recipe import Mode
from moextend.util import files
from tests.certificate.conftest import asked, claim, infers, made, seen, statuses

OWN = ("files", "base", "attach", "base tensors", "text, task given", "comparison", "unload")
NEAR = "near inputs, task inferred"


@pytest.mark.parametrize(
    ("family", "mode"), [("mixtral", "exact"), ("olmoe", "paper"), ("qwen3_moe", "slot")]
)
def test_an_honest_extension_in_each_routing(family: str, mode: Mode, tmp_path: Path) -> None:
    model = made(tmp_path, family, mode)
    found = certify(model, tmp_path, items=4)
    assert found.scope == "own" and found.sound and moextend.extensions(model) == []
    assert statuses(found) == {
        **dict.fromkeys(OWN, "proved"),
        "server": "not checked",
        "forgetting": "not checked",
    }
    (sentences, _) = claim(found, "text, task given").sets
    assert sentences.items == 2 and sentences.inputs_reached == 0
    always = certify(model, tmp_path, items=4, scope="all")
    text = claim(always, "text, always active")
    assert text.status == "failed" and "reached a new expert" in text.reason and not always.sound
    assert sum(one.logits_changed for one in text.sets) > 0
    assert max(one.largest_change for one in text.sets) > 0


def test_an_extension_for_images_is_proved_near_its_task(tmp_path: Path) -> None:
    model = made(tmp_path)
    infers(model, tmp_path, seen())
    found = certify(model, tmp_path, items=6, data=Data(own=seen()[60:]))
    assert found.scope == "auto"
    assert set(statuses(found).values()) == {"proved", "not checked"} and found.sound, statuses(found)
    near = claim(found, NEAR)
    assert near.status == "proved"
    assert {one.name for one in near.sets} == {"questions as text", "same words"}
    assert near.evidence["own: inputs that reach it"] == "6 of 6"


def test_statistics_that_let_all_text_in_are_found(tmp_path: Path) -> None:
    """The attack: an extension for images whose task statistics are exchanged, so that it acts on text."""
    model = made(tmp_path)
    infers(model, tmp_path, seen())
    assert certify(model, tmp_path, items=4).sound
    infers(model, tmp_path, asked(8))  # too few for a threshold: takes everything
    found = certify(model, tmp_path, items=4)
    text = claim(found, "text, task inferred")
    assert text.status == "failed" and not found.sound
    assert sum(one.inputs_reached for one in text.sets) == 4
    assert claim(found, NEAR).status == "not checked" and "--data" in claim(found, NEAR).reason
    assert claim(found, "text, task given").status == "proved", "where the task is given, it does not act"


def test_another_base_and_a_changed_weight_are_found(tmp_path: Path) -> None:
    model = made(tmp_path)
    with torch.no_grad():
        next(p for n, p in model.lm.named_parameters() if n.endswith("q_proj.weight"))[3, 5] += 1e-6
    found = certify(model, tmp_path, items=2)
    assert claim(found, "base").status == "failed" and "fingerprint" in claim(found, "base").reason
    others = {name: status for name, status in statuses(found).items() if name not in ("files", "base")}
    assert set(others.values()) == {"not checked"} and not found.sound


def test_a_base_tensor_that_changes_while_attached_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, load = made(tmp_path), moextend.load_extension
    weight = next(p for n, p in model.lm.named_parameters() if n.endswith("q_proj.weight"))

    def loads(*arguments: Any, **how: Any) -> Any:
        with torch.no_grad():
            weight[0, 0] += 1.0
        return load(*arguments, **how)

    monkeypatch.setattr(store, "load_extension", loads)
    found = certify(model, tmp_path, items=2)
    tensors = claim(found, "base tensors")
    assert tensors.status == "failed" and "q_proj.weight" in tensors.reason
    assert tensors.evidence["changed while attached"] == 1
    assert claim(found, "unload").status == "failed" and claim(found, "text, task given").status == "failed"


def test_an_extension_that_stays_after_unloading_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(tmp_path)
    monkeypatch.setattr(certifying, "unload", lambda model, name: None)
    found = certify(model, tmp_path, items=2)
    gone = claim(found, "unload")
    assert gone.status == "failed" and "another class" in gone.reason


def _not_finite(folder: Path) -> None:
    path = folder / "extension.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, path)
    card = json.loads((folder / "extension.json").read_text())
    (folder / "extension.json").write_text(json.dumps({**card, "sha256": files.sha256(path)}))


def _library(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "fast.so").write_bytes(b"\x7fELF")


def _statistics(folder: Path) -> None:
    path = folder / task_inference.FILE
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\0\1")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_not_finite, "not finite"),
        (lambda folder: (folder / "extension.safetensors").write_bytes(b"other"), "SHA-256"),
        (lambda folder: (folder / "modeling.py").write_text("import os"), "modeling.py can hold code"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"PK"), "optimizer.pt can hold code"),
        (_library, "lib/fast.so can hold code"),
        (_statistics, "damaged"),
    ],
)
def test_a_tampered_extension_is_found(damage: Any, says: str, tmp_path: Path) -> None:
    model = made(tmp_path)
    infers(model, tmp_path, seen(10))
    damage(tmp_path)
    found = certify(model, tmp_path, items=2)
    assert claim(found, "files").status == "failed" and says in claim(found, "files").reason
    assert claim(found, "unload").status == "not checked"


def test_an_extension_without_effect_proves_nothing_of_others(tmp_path: Path) -> None:
    model = made(tmp_path, noise=0.0)
    found = certify(model, tmp_path, items=2, scope="all")
    assert claim(found, "text, always active").status == "not checked"
    assert claim(found, "comparison").status == "not checked"


def test_beside_other_extensions(tmp_path: Path) -> None:
    made(tmp_path / "first", name="first")
    model = made(tmp_path / "second", name="second")
    for name, data in (("first", asked()), ("second", seen())):
        infers(model, tmp_path / name, data)
    near = Data(own=seen()[70:], near=asked()[80:])
    found = certify(model, tmp_path / "second", items=4, data=near, others=[tmp_path / "first"])
    assert found.others == ["first"] and found.sound, statuses(found)
    assert "near data" in {one.name for one in claim(found, NEAR).sets}
    assert claim(found, "unload").status == "proved" and moextend.extensions(model) == []
