"""The tasks of recorded speech, on the recordings."""

from pathlib import Path

import pytest

from moextend.bench.data import check_task, guess_task, open_items, prompt_text
from moextend.bench.score.majority import majority_level
from moextend.bench.task import TaskSpec, find_task
from moextend.data.sounds import AudioRef

SIZES = {
    "real-language": (704, 1543),
    "real-digits": (95, 49),
    "real-letters": (180, 80),
    "real-transcript": (328, 121),
}
ANSWERS = {"real-language": 5, "real-digits": 28, "real-letters": 26}


@pytest.fixture
def speech(real_data: Path, workspace: Path) -> Path:
    """A workspace with the recordings; the test is skipped without them."""
    if not (real_data / "speech").is_dir():
        pytest.skip(f"no speech in {real_data} (set MOEXTEND_REAL_DATA)")
    (workspace / "data").mkdir()
    (workspace / "data" / "real").symlink_to(real_data)
    return workspace


@pytest.mark.realdata
@pytest.mark.parametrize("name", SIZES)
def test_the_tasks_read_the_recordings(name: str, speech: Path) -> None:
    task = find_task(name, speech)
    checked = check_task(task, speech)
    assert checked.items == dict(zip(("train", "test"), SIZES[name], strict=True))
    assert checked.prompt.startswith("<audio>\n") and checked.warnings == ()
    items = open_items(task, "test", speech)
    for i in range(0, len(items), 20):
        (sound,) = items[i].media
        assert isinstance(sound, AudioRef) and sound.open().rate == 8000 and sound.seconds < 4
        assert prompt_text(task, items[i]) == task.prompt


@pytest.mark.realdata
@pytest.mark.parametrize("name", ANSWERS)
def test_closed_tasks_train_every_answer_that_they_test(name: str, speech: Path) -> None:
    task = find_task(name, speech)
    answers = {split: answers_of(task, split, speech) for split in ("train", "test")}
    assert len(answers["train"]) == ANSWERS[name] and answers["test"] <= answers["train"]
    level = majority_level(task, speech)
    assert level is not None and level < 30


def answers_of(task: TaskSpec, split: str, workspace: Path) -> set[str]:
    items = open_items(task, "train" if split == "train" else "test", workspace, media=False)
    return {item.answers[0] for item in items}


@pytest.mark.realdata
def test_the_folder_of_recordings_is_guessed(speech: Path, real_data: Path) -> None:
    task = guess_task(
        str(real_data / "speech"), name="mine", workspace=speech, columns={"answer": "language"}, scorer=None
    )
    assert (task.columns.audio, task.kind, task.scorer) == ("audio", "vqa", "exact@1")
    assert check_task(task, speech).prompt == "<audio>\nWhat is it? Answer using a single word or phrase."
