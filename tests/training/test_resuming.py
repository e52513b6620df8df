"""An interrupted call continues only with its original arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from moextend import Conversation, ImageRef, Settings, align, extend
from moextend.errors import InputError
from moextend.extension import learning
from moextend.extension.store import digest_of
from moextend.training.resuming import BEGUN, PROBE, name_data
from tests.toys import picture, toy_model

SHORT = Settings(steps=6, batch_size=4, learning_rate=1e-2, checkpoint_steps=2)
HOW: dict[str, Any] = {"settings": SHORT, "layers": "first"}


def data(first: int = 40) -> list[Conversation]:
    """New objects each time."""
    return [Conversation(((f"<image> w{i % 7}", f"w{i % 5 + first}"),), (picture(i * 9),)) for i in range(24)]


def stop(done: int, total: int) -> None:
    if done == 3:
        raise KeyboardInterrupt


def changed(rows: Sequence[Conversation], **change: Any) -> list[Conversation]:
    return [replace(row, **change) for row in rows]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "answers": ({"data": data(41)}, "data, held_out"),
    "images": ({"data": changed(data(), media=(picture(7),))}, "data, held_out"),
    "settings": (
        {"settings": SHORT.having(learning_rate=2e-2, betas=(0.9, 0.95))},
        "settings.betas, settings.learning_rate",
    ),
    "recipe": ({"experts": 2, "seed": 1}, "data, held_out, recipe.experts, seed"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a call that was interrupted."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(KeyboardInterrupt):
        extend(toy_model(), "mine", data(), folder=folder, on_step=stop, **HOW)
    assert (folder / BEGUN).is_file() and any(folder.glob("train-in-flight/checkpoint-*"))
    return folder


def test_something_else_is_refused_and_named(begun: Path) -> None:
    for change, differing in CHANGES.values():
        call = {"data": data(), **HOW, **change}
        with pytest.raises(
            InputError, match=f"started with other arguments or another model: {differing}[.]"
        ):
            extend(toy_model(), "mine", call.pop("data"), folder=begun, **call)


def test_the_same_data_in_other_objects_goes_on(begun: Path) -> None:
    steps: list[int] = []
    model, whole = toy_model(), toy_model()
    extend(model, "mine", tuple(data()), folder=begun, on_step=lambda done, _: steps.append(done), **HOW)
    assert steps == [3, 4, 5, 6] and not (begun / BEGUN).exists()
    assert sorted(p.name for p in begun.iterdir()) == [
        "extension.json", "extension.safetensors", "log.jsonl", "task_statistics.safetensors",
    ]  # fmt: skip
    extend(whole, "mine", data(), folder=begun / "again", **HOW)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_an_alignment_goes_on_with_the_same_data_only(tmp_path: Path) -> None:
    model = toy_model()
    with pytest.raises(KeyboardInterrupt):
        align(model, data(), SHORT, folder=tmp_path, on_step=stop)
    for rows, settings, message in (
        (data(41), SHORT, "data, scale"),
        (data(), SHORT.having(seed=1), "settings.seed"),
    ):
        with pytest.raises(InputError, match=f"another model: {message}[.]"):
            align(model, rows, settings, folder=tmp_path)
    steps: list[int] = []
    align(model, data(), SHORT, folder=tmp_path, on_step=lambda done, _: steps.append(done))
    whole = toy_model()
    align(whole, data(), SHORT, folder=tmp_path / "whole")
    assert steps == [3, 4, 5, 6] and model.base_fingerprint() == whole.base_fingerprint()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["projector.json", "projector.safetensors", "whole"]


def test_texts_and_images_are_distinguished_where_they_end(tmp_path: Path) -> None:
    one, other = tmp_path / "a.png", tmp_path / "b.png"
    one.write_bytes(b"some bytes")
    other.write_bytes(b"more bytes")
    rows = [
        [Conversation((("a", "bc"),))],
        [Conversation((("ab", "c"),))],
        [Conversation((("a", "b"), ("c", "")))],
        [Conversation((("a", "bc"),)), Conversation((("", ""),))],
        [Conversation((("a", "bc"),), (ImageRef(data=b"xy"), ImageRef(data=b"z")))],
        [Conversation((("a", "bc"),), (ImageRef(data=b"x"), ImageRef(data=b"yz")))],
        [Conversation((("a", "bc"),), (ImageRef(path=one),))],
        [Conversation((("a", "bc"),), (ImageRef(path=other),))],
        [Conversation((("a", "bc"),), (ImageRef(path=tmp_path / "none.png"),))],
    ]
    names = [name_data(each) for each in rows]
    assert len(set(names)) == len(rows) and names == [name_data(each) for each in rows]
    before = one.stat()
    other.replace(one)
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert name_data(rows[6]) == names[7], (
        "an image in a file counts by its content, not by its path and time"
    )


def test_a_finished_probe_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {**HOW, "layers": "probe", "probe_steps": 2}
    whole, again = toy_model(), toy_model()
    extend(whole, "mine", data(), folder=tmp_path / "whole", **how)
    calls: list[int] = []

    def stop_in_training(done: int, total: int) -> None:
        calls.append(total)
        if total == SHORT.steps:
            raise KeyboardInterrupt

    folder = tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt):
        extend(toy_model(), "mine", data(), folder=folder, on_step=stop_in_training, **how)
    assert calls == [2, 2, SHORT.steps] and (folder / PROBE).is_file()
    with pytest.raises(InputError, match=r"was started with other arguments.*: data, held_out"):
        extend(toy_model(), "mine", data(41), folder=folder, **how)
    with monkeypatch.context() as patch:
        patch.setattr(learning, "probe_layers", None)
        extend(again, "mine", data(), folder=folder, **how)
    assert digest_of(again, "mine") == digest_of(whole, "mine")
    assert not (folder / PROBE).exists()
