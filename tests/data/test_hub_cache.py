"""Offline, the recorded commit of a data set is opened from the cache, not the one that was opened last."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import datasets
import pytest
from datasets.packaged_modules.json.json import Json

from moextend.data import hub
from moextend.errors import InputError

FIRST, NEWEST, MISSING = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of `datasets` with two commits of org/rows, and no network."""
    folder = tmp_path / "cache"
    for place, commit in enumerate((FIRST, NEWEST)):
        rows = tmp_path / f"{place}.jsonl"
        rows.write_text(json.dumps({"value": place}) + "\n")
        made = Json(
            cache_dir=str(tmp_path / "made"), dataset_name="rows", hash=commit, data_files={"test": str(rows)}
        )
        made.download_and_prepare()
        kept = folder / "org___rows" / "default" / "0.0.0" / commit  # as the loader of the hub names it
        shutil.copytree(made.cache_dir, kept)
        info = json.loads((kept / "dataset_info.json").read_text())
        (kept / "dataset_info.json").write_text(json.dumps({**info, "config_name": "default"}))
        os.utime(kept, (place, place))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    hub._load.cache_clear()
    return folder


def opened(commit: str | None) -> tuple[int, str | None]:
    table = hub.open_hub("org/rows", "test", None, commit, where="data.path")
    return table.row(0, ["value"])["value"], hub.commit_of(table.files())


def test_a_commit_that_is_not_in_the_cache_is_refused_in_one_line(cache: Path) -> None:
    with pytest.raises(InputError) as refused:
        opened(MISSING)
    assert f"commit {MISSING} is not in the cache, which holds {NEWEST}" in str(refused.value)
    assert refused.value.where == "data.path" and "offline" in str(refused.value.hint)


def test_data_of_other_libraries_are_opened_at_the_recorded_commit(cache: Path, tmp_path: Path) -> None:
    local = hub.LocalData(tmp_path)
    with hub.pinned({}, local) as opened_now:
        assert datasets.load_dataset(path="org/rows")["test"][0] == {"value": 1}
    with hub.pinned({"org/rows": FIRST}, local) as opened_again:
        assert datasets.load_dataset(path="org/rows")["test"][0] == {"value": 0}
    assert (opened_now, opened_again) == ({"org/rows": NEWEST}, {"org/rows": FIRST})
