"""Every bad input gives one clear line before a worker starts, a model is loaded or a folder is created."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run import launch
from moextend.model import loading
from tests.cli.conftest import Cli, Result

from . import bad_inputs

QUICK = list(bad_inputs.cases())
SLOW = [
    bad_inputs.Case(typed, tuple(typed.split()), (word,))
    for typed, word in {
        "bench add-task text --data nothing": "nothing",
        "lm-eval --tasks nothing --model_args pretrained=tiny": "nothing",
        "lm-eval --tasks arc_esay --model_args pretrained=tiny": "arc_easy",
    }.items()
]
"""lm-eval makes an index of its 14,683 tasks."""
HINT = re.compile(r"hint: \S|[.?)\]] [A-Z]")
"""What to do stands in a sentence of its own, after what is wrong."""

Refused = Callable[[bad_inputs.Case], Result]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Path -> bytes of everything in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Types a case; a worker that starts, or a model that is loaded, fails the test."""

    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a worker was started, or a model loaded")

    monkeypatch.setattr(launch, "launch", started)
    monkeypatch.setattr(loading, "_reader", started)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: None)
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", list)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / ".cache").unlink()

    def call(case: bad_inputs.Case) -> Result:
        bad_inputs.fill(tmp_path, case.files)
        before = contents(tmp_path)
        found = cli(*case.arguments)
        assert contents(tmp_path) == before, "the workspace changed"
        return found

    return call


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.id)
def test_a_bad_input_is_answered_by_one_line(refused: Refused, case: bad_inputs.Case) -> None:
    found = refused(case)
    answer = found.err.strip()
    assert found.code == 2, answer
    assert found.out == ""
    assert "Traceback" not in found.err
    assert len(answer.splitlines()) == 1
    for name in case.names:
        assert name in answer
    assert HINT.search(answer), answer
    own = answer.replace(str(Path.cwd()), "")  # the folder of the test has a long name
    assert len(own) <= 400 or (case.long and len(own) < 4000), answer


@pytest.mark.long
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.id)
def test_what_needs_the_index_of_lm_eval_is_answered_too(refused: Refused, case: bad_inputs.Case) -> None:
    test_a_bad_input_is_answered_by_one_line(refused, case)


def test_the_workspace_of_the_cases_is_right(cli: Cli, tmp_path: Path) -> None:
    learned = bad_inputs.SEQUENCE.replace("tiny-counting", "own").replace("sequence: mine", "sequence: own")
    bad_inputs.fill(tmp_path, {"registry/own.yaml": learned})
    for name in ("mine", "own"):
        assert cli("bench", "run", name, "--dry-run").code == 0
        found = cli("bench", "run", name)
        assert found.code == 0, found.err
