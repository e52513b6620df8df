"""Files that chosen settings are written to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench.run.plan import Request, resolve
from moextend.bench.sequence import find_sequence
from moextend.bench.tuned import Tuned
from moextend.bench.tuning.results import draft_of, with_settings
from moextend.errors import InputError
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


@pytest.mark.parametrize(
    "change",
    [
        {"stages": [{"task": "tiny-reading"}]},
        {"base": {"model": "tiny"}},
        {"train": {"steps": 5, "batch_size": 2, "learning_rate": 1e-3}},
    ],
)
def test_another_sequence_is_not_written_to(change: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, "mine")
    path = write(tmp_path, "other", align=None, **change)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"other\.yaml: is no copy of 'mine': \w+ differs"):
        draft_of(find_sequence("mine", tmp_path), tmp_path, "other")
    assert path.read_bytes() == before


def test_a_copy_is_written_to_again(tmp_path: Path) -> None:
    write(tmp_path, "mine")
    sequence = find_sequence("mine", tmp_path)
    for method in ("lora", "ewc"):
        with_settings(draft_of(sequence, tmp_path, "copy"), {method: entry()}).write()
    assert {"lora", "ewc"} <= find_sequence("copy", tmp_path).tuned.keys()
    assert not find_sequence("mine", tmp_path).tuned


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
