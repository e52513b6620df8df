"""Files that chosen settings are written to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench.run.plan import Request, resolve
from moextend.bench.sequence import find_sequence
from moextend.bench.tuned import Tuned
from moextend.bench.tuning.results import draft_of, with_settings
from moextend.util import content

RATE = {"learning_rate": 0.02}


def entry(**changes: Any) -> Tuned:
    known = {
        "score": 70.0,
        "trials": 4,
        "seeds": [0, 1],
        "tasks": ["a"],
        "validation": 10,
        "date": "2026-01-31",
    }
    return Tuned(**{"settings": RATE, **known, **changes})


def write(workspace: Path, name: str, **changes: Any) -> Path:
    found = yaml.safe_load((content.package_folder("registry") / "tiny.yaml").read_text())
    path = workspace / "registry" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**found, "sequence": name, "tuned": {}, **changes}))
    return path


def test_searches_of_a_sequence_of_the_package_keep_the_results_of_each_other(tmp_path: Path) -> None:
    """Both began before the other one wrote its copy to the workspace."""
    sequence = find_sequence("tiny", tmp_path)
    for method in ("lora:rank=3", "o-lora:rank=5"):
        with_settings(draft_of(sequence, tmp_path), {method: entry()}).write()
    assert {"lora:rank=3", "o-lora:rank=5"} <= find_sequence("tiny", tmp_path).tuned.keys()


def source(workspace: Path, name: str, method: str = "lora") -> str | None:
    return resolve(Request(workspace, name, (method,)))[0].tuned_on


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"alpha": 3.0}, "validation items"),
        ({"alpha": 3}, "validation items"),
        ({"alpha": 3.0, "learning_rate": 0.5}, "validation items"),  # overridden by what was chosen
        ({"alpha": 4.0}, None),
        ({"alpha": 3.0, "rank": 2}, None),
        ({}, None),
    ],
)
def test_tuned_settings_are_marked_only_with_the_settings_they_were_tuned_with(
    settings: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    tuned = {"lora": entry(fixed={"alpha": 3.0}).model_dump(mode="json")}
    write(tmp_path, "mine", settings={"lora": settings}, tuned=tuned)
    assert source(tmp_path, "mine") == expected
    write(tmp_path, "mine", settings={"lora": settings}, tuned=tuned, tuned_on="test items")
    assert source(tmp_path, "mine") == (expected or "test items")
    write(tmp_path, "other", settings={"lora": settings}, tuned_from="mine")
    assert source(tmp_path, "other") == (expected and f"{expected} of mine")


def test_settings_that_were_tuned_with_other_steps_say_so(tmp_path: Path) -> None:
    for steps, expected in ((200, "validation items"), (7, "validation items with 7 steps")):
        write(tmp_path, "mine", tuned={"lora": entry(steps=steps).model_dump(mode="json")})
        assert source(tmp_path, "mine") == expected


def test_entries_without_a_record_are_compared_with_the_sequence_that_has_them(tmp_path: Path) -> None:
    tuned = {"lora": entry().model_dump(mode="json")}
    write(tmp_path, "mine", settings={"lora": {"alpha": 3}}, tuned=tuned)
    assert source(tmp_path, "mine") == "validation items"
    for alpha, expected in ((3, "validation items of mine"), (4, None)):
        write(tmp_path, "other", settings={"lora": {"alpha": alpha}}, tuned_from="mine")
        assert source(tmp_path, "other") == expected
