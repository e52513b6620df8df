"""`moextend bench gate --base`: an extension in a folder, against its base on the same items."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml

import moextend
from tests.cli.conftest import Cli

EXAMPLES = Path(__file__).parents[2] / "examples"


def noisy(folder: str, size: float) -> None:
    """An extension of the tiny base with random weights, for every input."""
    model = moextend.load("tiny")
    moextend.attach(model.lm, folder, {0: [0], 3: [0]}, mode="paper", calibrate=False)
    with torch.no_grad():
        for parameter in moextend.new_parameters(model.lm, folder).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * size)
    moextend.save_extension(model, folder, folder=folder)


@pytest.mark.slow  # a task is scored twice
def test_verdicts_are_those_of_the_answers(cli: Cli, tmp_path: Path) -> None:
    noisy("bad", 3.0)
    asked = ("bench", "gate", "--base", "tiny", "-e", "bad", "--task", "tiny-facts", "--limit", "40")
    kept = set(Path(".cache").glob("predictions/*/tiny-facts-*.jsonl"))
    lost = cli(*asked, "--margin", "2", "-f", "json")
    assert lost.code == 1, lost.err
    (record,) = lost.json()
    (cell,) = record["cells"]
    right = []
    for path in set(Path(".cache").glob("predictions/*/tiny-facts-*.jsonl")) - kept:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        right.append([row["right"] for row in rows if "right" in row])
    assert [len(each) for each in right] == [40, 40]
    low, high = sorted(100 * sum(each) / 40 for each in right)
    assert cell["difference"] == pytest.approx(low - high) and cell["verdict"] == "lost"
    assert cell["before"] == pytest.approx(high) and cell["items"] == 40
    # The same answers, and another question.
    assert cli(*asked, "--margin", "100").code == 0
    for wrong in (
        ("--task", "nothing"),
        ("--margin", "0"),
        ("-e", "nowhere"),
        ("tiny",),
        ("--baseline", "zero-shot"),
    ):
        assert cli(*asked, *wrong).code == 2, wrong


@pytest.mark.slow  # two tasks are scored twice
def test_the_workflow_fails_for_a_skill_that_broke_something(cli: Cli, tmp_path: Path) -> None:
    workflow = yaml.safe_load((EXAMPLES / "workflows" / "gate.yml").read_text(encoding="utf-8"))
    (command,) = (
        step["run"] for step in workflow["jobs"]["gate"]["steps"] if "bench gate" in step.get("run", "")
    )
    words, _, file = command.partition(" > ")
    noisy("catalogue", 3.0)
    (tmp_path / "skills").mkdir()
    shutil.move("catalogue", "skills/catalogue")
    found = cli(*shlex.split(words)[1:], "--limit", "40")
    assert found.code == 1 and file == "gate.xml", found.err
    names = {
        case.attrib["name"]: [child.tag for child in case]
        for case in ElementTree.fromstring(found.out).iter("testcase")
    }
    assert len(names) == 2 and ["failure"] in names.values(), names
