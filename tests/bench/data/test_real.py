"""Public data sets."""

from pathlib import Path

import pytest

from moextend.bench.data import check_task, guess_task, open_items, prompt_text
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
