"""The tasks of real data on small copies with the same columns."""

import json
from pathlib import Path

from moextend.bench.data import check_task, digits, open_items
from moextend.bench.task import find_task
from tests.data.small import wav


def test_tasks_of_speech_leave_out_what_is_empty_or_recorded_twice(workspace: Path) -> None:
    folder = workspace / "data" / "real" / "speech"
    lines = []
    for language in ("en", "ru"):
        for i in range(40):
            key = {0: "is", 1: "auth-thankyou", 2: "privacy-thankyou"}.get(i, f"prompt-{i}")
            path = folder / language / f"{key}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"" if (language, key) == ("ru", "is") else wav(i))
            row = {
                "audio": f"{language}/{key}.flac",
                "language": language,
                "key": key,
                "text": f"Prompt {i}.",
            }
            lines.append(json.dumps(row))
    (folder / "clips.jsonl").write_text("\n".join(lines))

    def paths(name: str) -> set[str]:
        task = find_task(name, workspace)
        items = [item for split in ("train", "test") for item in open_items(task, split, workspace)]
        return {f"{item.media[0].path}" for item in items}

    assert len(paths("real-language")) == 79 and "ru/is.flac" not in paths("real-language")
    first = open_items(find_task("real-language", workspace), "test", workspace, limit=20)
    assert {item.answers[0] for item in first} == {"en", "ru"}, "the recordings are sorted by language"
    assert len(paths("real-transcript")) == 39 and "en/privacy-thankyou.flac" not in paths("real-transcript")


def test_the_digits_of_scikit_learn_become_a_table(workspace: Path) -> None:
    digits.write(workspace / "data" / "real" / "digits")
    task = find_task("real-written", workspace)
    assert check_task(task, workspace).items == {"train": 678, "test": 1119}
    items = open_items(task, "test", workspace)
    assert {item.answers[0] for item in items} == set("0123456789")
    assert items[0].media[0].open().size == (8, 8)
