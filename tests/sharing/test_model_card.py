"""Model cards: the metadata of the hub, and what they say of an extension."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.certificate.certify import certify
from moextend.sharing.hub import local_paths, pushed
from moextend.sharing.model_card import MARK, RunFacts, TaskResult, model_card
from tests.certificate.conftest import infers, made, seen

RUN = RunFacts(
    name="shop/moextend-s0", stage="1-signs", method="moextend", task_identity="given",
    row={"learning accuracy (LA)": 71.25, "forgetting (FM)": 0.5, "change of text": 0.0},
    tasks=[
        TaskResult("signs", "exact@1", "learned", 10.0, 71.25, 70.75, "CC-BY-4.0"),
        TaskResult("facts", "accuracy", "text", 40.0, None, 40.0),
    ],
    base="org/olmoe", scope="own", command="moextend bench run shop --method moextend --seed 0",
)  # fmt: skip


@pytest.fixture(scope="module")
def skill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards") / "skill"
    model = made(folder)
    infers(model, folder, seen(10))
    certify(model, folder, items=2, scope="own", base="org/olmoe").write_to(folder)
    return folder


@pytest.fixture
def folder(skill: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(skill, tmp_path / "skill"))


def metadata(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---")[1])
    return found


def test_a_card_with_a_run_and_a_certificate(folder: Path) -> None:
    card = model_card(pushed(folder), "me/skill", licence="apache-2.0", run=RUN)
    found = metadata(card)
    assert found["base_model"] == "org/olmoe" and found["base_model_relation"] == "adapter"
    assert found["library_name"] == "moextend" and found["license"] == "apache-2.0"
    assert {"moextend", "routing-exact", "scope-own"} <= set(found["tags"])
    (model,) = found["model-index"]
    values = {each["dataset"]["name"]: each["metrics"][0]["value"] for each in model["results"]}
    assert model["name"] == "skill" and values == {"signs": 70.75, "facts": 40.0}
    assert MARK in card and "moextend.load_extension(model, 'me/skill')" in card
    assert "| 71.25 | 0.50 | 0.00 |" in card and "CC-BY-4.0" in card
    assert "Scope own: 9 claims: 7 proved, 0 failed, 2 not checked, made" in card
    assert RUN.command in card and "Modalities of the base: image" in card


def test_a_card_of_the_folder_alone(folder: Path) -> None:
    card = json.loads((folder / "extension.json").read_text())
    card["made"] = {
        "base": "/home/me/base", "data": "/home/me/secret/rows.json", "data_digest": "ab", "conversations": 3,
        "recipe": {"scope": "auto"}, "settings": {"steps": 3}, "loss_first": 2.0, "loss_last": 1.0, "date": "2026",
        "version": "0.1.0", "licence": "My own licence, see below",
        "options": {"--images": ["/home/me/secret/photos"], "--template": ["<image> What's {question}?"]},
    }  # fmt: skip
    (folder / "extension.json").write_text(json.dumps(card))
    text = model_card(pushed(folder), "me/skill")
    found = metadata(text)
    assert "base_model" not in found and "datasets" not in found and "model-index" not in found
    assert found["license"] == "other" and found["license_name"] == "My own licence, see below"
    assert "Inputs without image never reach it" in text and "its forgetting is not measured" in text
    assert "secret" not in text and "rows.json, 3 conversations" in text
    assert "--config config.yaml --images photos --template '<image> What'\"'\"'s {question}?'\n" in text
    assert local_paths(folder, "extension")[-1] == "extension.json names /home/me/secret/photos"
    assert "Certificate\n\nNone." in text, "the certificate is about other files"


def test_a_base_and_data_of_the_hub_are_named(folder: Path) -> None:
    card = json.loads((folder / "extension.json").read_text())
    made_of = {
        "base": "org/olmoe", "data": "org/questions", "data_digest": "ab", "conversations": 3, "recipe": {},
        "settings": {}, "loss_first": 2.0, "loss_last": 1.0, "date": "2026", "version": "0.1.0",
    }  # fmt: skip
    (folder / "extension.json").write_text(json.dumps({**card, "made": made_of}))
    found = metadata(model_card(pushed(folder), "me/skill"))
    assert found["base_model"] == "org/olmoe" and found["datasets"] == ["org/questions"]
