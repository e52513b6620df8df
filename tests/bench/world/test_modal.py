"""The tasks and the sequence of images and sounds that ship with the package."""

from pathlib import Path

import pytest

from moextend.bench.data.source import WORLD
from moextend.bench.sequence import read_sequence
from moextend.bench.task import find_task
from moextend.bench.world.data import DATASETS
from moextend.bench.world.hearing import HEARINGS
from moextend.util import content

NOWHERE = Path("nowhere")
SAME = ("tiny-written", "tiny-drawn", "tiny-heard")


def test_every_task_of_the_sequence_is_of_the_world() -> None:
    sequence = read_sequence(content.names("registry", NOWHERE)["tiny-modal"])
    stages = [find_task(stage.task, NOWHERE) for stage in sequence.stages]
    assert [task.modalities for task in stages] == [
        *(("image",), ("audio",), ("image",), ("audio",), ("image", "audio")),
    ]
    aligned = [find_task(align.task, NOWHERE) for align in sequence.align]
    assert [task.modalities for task in aligned] == [("image",), ("audio",)]
    for task in (*stages, *aligned, *(find_task(name, NOWHERE) for name in sequence.transfer)):
        assert task.data is not None and task.data.path.removeprefix(WORLD) in DATASETS


@pytest.mark.parametrize("name", [f"tiny-{name}" for name in HEARINGS if name != "scenes"])
def test_every_data_set_of_sounds_has_a_task(name: str) -> None:
    task = find_task(name, NOWHERE)
    assert task.data is not None and task.data.path == f"{WORLD}{name.removeprefix('tiny-')}"
    assert task.columns.by_modality["audio"] == "audio"


def test_the_same_scenes_are_written_drawn_and_heard() -> None:
    tasks = [find_task(name, NOWHERE) for name in SAME]
    assert len({(task.data.path, task.scorer, task.max_new_tokens) for task in tasks if task.data}) == 1
    assert [task.modalities for task in tasks] == [(), ("image",), ("audio",)]
    assert [task.prompt for task in tasks] == [
        f"{given} Q {{question}} A:" for given in ("{text}", "<image>", "<audio>")
    ]
