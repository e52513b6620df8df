"""Public data sets."""

from pathlib import Path

import pytest

from moextend.bench.data import check_task, guess_task, open_items, prompt_text
from moextend.bench.score.majority import majority_level
from moextend.bench.task import find_task
from moextend.data.conversations import joined

SETS = {
    "chartqa_split": ("exact@1", {"train": 1455, "test": 918}),
    "daquar": ("exact@1", {"train": 6795, "test": 5673}),
    "easy_vqa": ("exact@1", {"train": 38575, "test": 9673}),
    "mathvision": ("letter@1", {"test": 304}),
    "nlvr": ("exact@1", {"train": 5934, "test": 990}),
    "puzzlevqa": ("letter@1", {"train": 1400, "test": 600}),
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", SETS)
def test_guessed_checked_and_read(name: str, real_data: Path, workspace: Path) -> None:
    scorer, sizes = SETS[name]
    task = guess_task(str(real_data / "vqa" / name), name=name, workspace=workspace, columns={}, scorer=None)
    assert task.scorer == scorer
    checked = check_task(task, workspace)
    assert checked.items == sizes and checked.prompt.startswith("<image>\n")
    items = open_items(task, "test", workspace)
    for i in range(0, len(items), 50):
        assert prompt_text(task, items[i]) and min(items[i].media[0].open().size) > 10
    if task.columns.group:
        pieces = joined(items.groups())
        assert sum(map(len, pieces)) == len(items)
        assert all(len({items[place].group for place in piece}) == 1 for piece in pieces[:100])


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "sizes", "answers"), [("real-shapes", (5002, 1257), 3), ("real-colors", (5166, 1280), 8)]
)
def test_questions_of_easy_vqa_alone_do_not_answer_it(
    name: str, sizes: tuple[int, int], answers: int, real_data: Path, workspace: Path
) -> None:
    (workspace / "data").mkdir()
    (workspace / "data" / "real").symlink_to(real_data)
    task = find_task(name, workspace)
    assert check_task(task, workspace).items == dict(zip(("train", "test"), sizes, strict=True))
    items = open_items(task, "test", workspace, media=False)
    assert len({item.answers for item in items}) == answers
    level = majority_level(task, workspace)
    assert level is not None and level < 36
