"""Every task of the hub on five rows with the real columns and types: right answers score 100, empty ones 0."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from moextend.bench.data import Item, check_task, hub_revision, open_items, prompt_text
from moextend.bench.scorers import Answered, find_scorer, score_set
from moextend.bench.task import Data, TaskSpec, read_task
from moextend.data.modalities import marks_in
from moextend.errors import InputError
from moextend.util import content
from tests.bench.data.hub_rows import FOLDER, Hub, fixtures, of_task

PACKAGED = {name: read_task(path) for name, path in content.names("tasks", Path("nowhere")).items()}
TASKS = {
    name: task
    for name, task in PACKAGED.items()
    if task.data is not None and not task.data.path.startswith(("world:", "data:"))
}
SCORED = [name for name, task in TASKS.items() if task.needs is None]
AVERAGED = {"coco-captions", "flickr30k", "flickr30k-karpathy"}
"""CIDEr-D averages over references that differ, so that no caption reaches the top."""


def percent(task: TaskSpec, items: Sequence[Item], answers: Iterable[str]) -> float:
    answered = [Answered.by(answer, item) for answer, item in zip(answers, items, strict=True)]
    return 100 * score_set(task.scorer, answered).value / find_scorer(task.scorer).top


@pytest.mark.parametrize("name", SCORED)
def test_perfect_answers_score_100_and_none_scores_0(name: str, hub: Hub, workspace: Path) -> None:
    task, fixture = TASKS[name], of_task(TASKS[name])
    items = list(open_items(task, "test", workspace))
    assert prompt_text(task, items[0]) == fixture["prompt"][name]
    for item in items:
        marks = marks_in(prompt_text(task, item))
        assert len(marks) >= len(item.media) > 0 and set(marks) == set(task.modalities)
    best = percent(task, items, fixture["said"][name])
    assert best == 100 if name not in AVERAGED else 20 < best < 100
    assert percent(task, items, fixture["wrong"][name]) == 0
    assert percent(task, items, [""] * len(items)) == 0


@pytest.mark.parametrize("name", [name for name in TASKS if name not in SCORED])
def test_a_task_that_needs_a_judge_is_refused(name: str, hub: Hub, workspace: Path) -> None:
    task = TASKS[name]
    items = open_items(task, "test", workspace)
    assert len(items) == 5 and items[0].media and prompt_text(task, items[0]), "its data can be read"
    with pytest.raises(InputError, match=rf"{name}.yaml: needs: a judge "):
        check_task(task, workspace)


def test_every_fixture_has_five_rows_of_its_columns_and_says_from_where() -> None:
    used = {(data.path, config) for data in map(_data, TASKS.values()) for config in _configs(data)}
    assert used == set(fixtures())
    for fixture in fixtures().values():
        assert len(fixture["rows"]) == 5 and len(fixture["source"]) > 20
        assert all(set(row) == set(fixture["features"]) for row in fixture["rows"])
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


def _data(task: TaskSpec) -> Data:
    assert task.data
    return task.data


def _configs(data: Data) -> list[str | None]:
    return [data.config, *([data.join.config] if data.join else [])]


def test_the_opened_commit_is_known_and_the_pinned_one_is_requested(
    hub: Hub, workspace: Path, small_world: None
) -> None:
    pinned, latest = TASKS["ai2d"], TASKS["coco-captions"]
    assert hub_revision(pinned, workspace) == _data(pinned).revision == hub.asked[-1][3]
    assert _data(latest).revision is None
    assert len(hub_revision(latest, workspace) or "") == 40 and hub.asked[-1][3] is None
    assert hub_revision(PACKAGED["tiny-counting"], workspace) is None
