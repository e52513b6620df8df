"""The shipped text tasks and generic text; test_versions.py pins their bytes."""

import json
from pathlib import Path

import pytest
import yaml

from moextend.util import content

FOLDER = Path(__file__).parents[3] / "tasks" / "tiny" / "lm_eval"
TASKS = sorted(path.stem for path in (FOLDER / "data").glob("*.jsonl"))


def items(task: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (FOLDER / "data" / f"{task}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_lm_eval_file_names_its_data(task: str) -> None:
    config = yaml.safe_load((FOLDER / f"tiny_{task}.yaml").read_text())
    assert config["task"] == f"tiny_{task}" and len(items(task)) == 250
    assert config["dataset_kwargs"]["data_files"]["test"] == f"{{folder}}/data/{task}.jsonl"


def test_the_generic_text_holds_no_held_out_text() -> None:
    path = content.package_folder("registry") / "tiny-generic.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    asked = {str(item["context"]).split(" Q ")[0] for item in items("textqa")}
    assert len(lines) == 400 and not any(line.split(" Q ")[0] in asked for line in lines)
    sentences = {f"{item['context']} {item['choices'][item['gold']]}" for item in items("agreement")}  # type: ignore[index]
    assert not any(piece in sentences for line in lines for piece in line.split(" . "))
