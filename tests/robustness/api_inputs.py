"""Bad arguments of the library: (description, call). `w` has a model, data and a folder; see test_api.py."""

# The calls are wrong on purpose, and some do several things in one expression.
# mypy: disable-error-code="arg-type, call-arg, list-item, dict-item, func-returns-value"

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import moextend
from moextend.util.content import package_folder

Call = Callable[[Any], object]


def settings(**changes: Any) -> moextend.Settings:
    """Two steps, with changes."""
    return moextend.Settings(**{"steps": 2, "batch_size": 2, "learning_rate": 1e-3, **changes})


def extend(w: Any, name: Any = "two", data: Any = None, **more: Any) -> object:
    """`moextend.extend` with good arguments but those given."""
    given = {"folder": w.folder / "new", "settings": settings(), "layers": [0], **more}
    return moextend.extend(w.model, name, w.data if data is None else data, **given)


def train(w: Any, **changes: Any) -> object:
    """`moextend.train` with good arguments but those given."""
    return moextend.train(w.model, w.data, settings(**changes), folder=w.folder / "new")


def generate(w: Any, prompts: Any, **more: Any) -> object:
    """`moextend.generate` with good arguments but those given."""
    return moextend.generate(w.model, prompts, **{"max_new_tokens": 1, "batch_size": 2, **more})


def load_changed(w: Any, change: Callable[[dict[str, Any]], object]) -> object:
    """Loads an extension whose card was edited."""
    card = w.folder / "one" / "extension.json"
    content = json.loads(card.read_text())
    change(content)
    card.write_text(json.dumps(content))
    w.rebase()
    return moextend.load_extension(w.other, w.folder / "one")


def load_damaged(w: Any, change: Callable[[Path], object], file: str = "extension.safetensors") -> object:
    """Loads an extension of which a file was damaged."""
    change(w.folder / "one" / file)
    w.rebase()
    return moextend.load_extension(w.other, w.folder / "one")


def projector(w: Any, change: Callable[[Path], object]) -> None:
    """Loads a projector of which a file was damaged."""
    change(w.folder / "projector")
    w.rebase()
    moextend.load_projector(w.other, w.folder / "projector")


def flip(path: Path) -> None:
    """Turns one bit in the middle over."""
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Leaves the first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def into_folder(path: Path) -> None:
    """Puts a folder where the file was."""
    path.unlink()
    path.mkdir()


def load_base(w: Any, change: Callable[[Path], object]) -> object:
    """Loads a copy of the tiny base that was changed."""
    folder = w.folder / "base"
    shutil.copytree(package_folder("registry") / "models/tiny/lm", folder)
    change(folder)
    w.rebase()
    return moextend.load(str(folder))


def pickled(content: bytes | None) -> Callable[[Path], None]:
    """Puts a pickle in the place of the weights: of the weights, or with this content."""

    def change(folder: Path) -> None:
        weights = folder / "model.safetensors"
        if content is None:
            torch.save(load_file(weights), folder / "pytorch_model.bin")
        else:
            (folder / "pytorch_model.bin").write_bytes(content)
        weights.unlink()

    return change


def written(name: str, content: str) -> Callable[[Path], object]:
    """Writes a file of a base."""
    return lambda folder: (folder / name).write_text(content)


BASES: dict[str, Callable[[Path], object]] = {
    "with a pickle": pickled(None), "with a pickle of a call": pickled(b"cposix\nsystem\n(S'touch executed'\ntR."),
    "with a broken pickle": pickled(b"x" * 99), "with a tokenizer of null": written("tokenizer.json", "null"),
    "with an empty tokenizer": written("tokenizer.json", "{}"), "with a list as a config": written("tokenizer_config.json", "[1]"),
    "with half an index": lambda folder: (pickled(b"")(folder), (folder / "pytorch_model.bin").unlink(), written("model.safetensors.index.json", '{"weight_map": 7}')(folder)),
}  # fmt: skip
"""What is wrong with a folder of a base -> how it comes about."""

LOAD: list[tuple[str, Call]] = [
    ("load: no such name", lambda w: moextend.load("tinny")),
    ("load: None", lambda w: moextend.load(None)),
    ("load: a folder that is empty", lambda w: moextend.load(str(w.empty))),
    ("load: a folder of an extension", lambda w: moextend.load(str(w.folder / "one"))),
    *((f"load: a folder {what}", lambda w, change=change: load_base(w, change)) for what, change in BASES.items()),
    ("load: a lone surrogate in the name", lambda w: moextend.load("ti\ud800ny")),
    ("load: unknown dtype", lambda w: moextend.load("tiny", dtype="float31")),
    ("load: unknown device", lambda w: moextend.load("tiny", device="gpu")),
    ("load: a CUDA device that is not there", lambda w: moextend.load("tiny", device="cuda:99")),
    ("load: unknown encoder", lambda w: moextend.load("tiny", vision="tinny")),
    ("load: unknown resize", lambda w: moextend.load("tiny", vision="tiny", resize="longst")),
    ("load: unknown attention", lambda w: moextend.load("tiny", attn_implementation="sdpaa")),
    ("load: chat without a template", lambda w: moextend.load("tiny", chat=True)),
]  # fmt: skip

ATTACH: list[tuple[str, Call]] = [
    ("attach: a name that is taken", lambda w: moextend.attach(w.model.lm, "one", {0: [0]})),
    ("attach: an empty name", lambda w: moextend.attach(w.model.lm, "", {0: [0]})),
    ("attach: an empty plan", lambda w: moextend.attach(w.model.lm, "two", {})),
    ("attach: a layer that is not there", lambda w: moextend.attach(w.model.lm, "two", {99: [0]})),
    ("attach: an expert that is not there", lambda w: moextend.attach(w.model.lm, "two", {0: [99]})),
    ("attach: a plan that is a list", lambda w: moextend.attach(w.model.lm, "two", [0])),
    ("attach: width 0", lambda w: moextend.attach(w.model.lm, "two", {0: [0]}, width=0.0)),
    ("attach: unknown mode", lambda w: moextend.attach(w.model.lm, "two", {0: [0]}, mode="exakt")),
    ("attach: a model without experts", lambda w: moextend.attach(torch.nn.Linear(2, 2), "two", {0: [0]})),
    ("detach: no such name", lambda w: moextend.detach(w.model.lm, "two")),
]  # fmt: skip

EXTEND: list[tuple[str, Call]] = [
    ("extend: a name that is taken", lambda w: extend(w, "one")),
    ("extend: a name with a slash", lambda w: extend(w, "a/b")),
    ("extend: no data", lambda w: extend(w, data=[])),
    ("extend: data that are texts", lambda w: extend(w, data=["what color is it", "red"])),
    ("extend: a conversation without turns", lambda w: extend(w, data=[moextend.Conversation(())])),
    ("extend: fewer images than marks", lambda w: extend(w, data=[moextend.Conversation((("<image> <image> Q", "red"),), w.data[0].media)])),
    ("extend: a damaged image", lambda w: extend(w, data=[moextend.Conversation((("<image> Q", "red"),), (moextend.ImageRef(data=b"\x89PNG no"),))])),
    ("extend: share 0", lambda w: extend(w, layers="probe", share=0.0)),
    ("extend: unknown layers", lambda w: extend(w, layers="probes")),
    ("extend: layers out of range", lambda w: extend(w, layers=[0, 40])),
    ("extend: unknown routing", lambda w: extend(w, routing="papr")),
    ("extend: an unknown option", lambda w: extend(w, laers=[0])),
    ("extend: a folder that is a file", lambda w: extend(w, folder=w.folder / "note.txt")),
    ("extend: a folder of another extension", lambda w: extend(w, folder=w.folder / "one")),
    ("extend: settings that are a dict", lambda w: extend(w, settings={"steps": 2})),
    ("extend: held-out data that are empty", lambda w: extend(w, layers="probe", held_out=[])),
]  # fmt: skip

TRAIN: list[tuple[str, Call]] = [
    ("train: nothing to train", lambda w: train(w)),
    ("settings: steps 0", lambda w: settings(steps=0)),
    ("settings: steps that are a text", lambda w: settings(steps="two")),
    ("settings: learning rate NaN", lambda w: settings(learning_rate=float("nan"))),
    ("settings: unknown schedule", lambda w: settings(schedule="cosin")),
    ("extend: unknown tracker", lambda w: extend(w, settings=settings(report_to="wandbb"))),
    ("settings: an unknown key", lambda w: settings(stesp=3)),
    ("recipe: unknown routing", lambda w: moextend.Recipe(routing="papr")),
    ("recipe: margin NaN", lambda w: moextend.Recipe(margin=float("nan"))),
    ("recipe: an unknown key", lambda w: moextend.Recipe(shares=0.5)),
    ("align: no data", lambda w: moextend.align(w.model, [], settings(), folder=w.folder / "new")),
    ("align: text without images", lambda w: moextend.align(w.model, [moextend.Conversation((("Q", "red"),))], settings(), folder=w.folder / "new")),
    ("align: a model without encoder", lambda w: moextend.align(w.text_model, w.data, settings(), folder=w.folder / "new")),
]  # fmt: skip

ACTIVATE: list[tuple[str, Call]] = [
    ("activate: no such name", lambda w: moextend.activate(w.model, ["two"])),
    ("activate: an unknown word", lambda w: moextend.activate(w.model, "alll")),
    ("activate: a name as a text", lambda w: moextend.activate(w.model, "two")),
    ("activate: auto without recognition", lambda w: moextend.activate(w.model, "auto")),
    ("activate: a model that was never extended", lambda w: moextend.activate(w.other, ["one"])),
    ("unload: no such name", lambda w: moextend.unload(w.model, "two")),
    ("unload: a model that was never extended", lambda w: moextend.unload(w.other, "one")),
]  # fmt: skip

DISK: list[tuple[str, Call]] = [
    ("load_extension: no such folder", lambda w: moextend.load_extension(w.other, w.folder / "none")),
    ("load_extension: an empty folder", lambda w: moextend.load_extension(w.other, w.empty)),
    ("load_extension: loaded already", lambda w: moextend.load_extension(w.model, w.folder / "one")),
    ("load_extension: a projector's folder", lambda w: moextend.load_extension(w.other, w.folder / "projector")),
    ("load_extension: weights gone", lambda w: load_damaged(w, Path.unlink)),
    ("load_extension: weights cut off", lambda w: load_damaged(w, cut)),
    ("load_extension: a bit of the weights", lambda w: load_damaged(w, flip)),
    ("load_extension: weights are a folder", lambda w: load_damaged(w, into_folder)),
    ("load_extension: weights are a FIFO", lambda w: load_damaged(w, lambda path: (path.unlink(), os.mkfifo(path)))),
    ("load_extension: card gone", lambda w: load_damaged(w, Path.unlink, "extension.json")),
    ("load_extension: card is a list", lambda w: load_damaged(w, lambda path: path.write_text("[1]"), "extension.json")),
    ("load_extension: card is no UTF-8", lambda w: load_damaged(w, lambda path: path.write_bytes(b"\xff\xfe{"), "extension.json")),
    ("load_extension: format 99", lambda w: load_changed(w, lambda card: card.update(format=99))),
    ("load_extension: name gone", lambda w: load_changed(w, lambda card: card.pop("name"))),
    ("load_extension: another base", lambda w: load_changed(w, lambda card: card.update(base="0" * 64))),
    ("load_extension: plan of other layers", lambda w: load_changed(w, lambda card: card.update(plan={"77": [0]}))),
    ("load_projector: no such folder", lambda w: moextend.load_projector(w.other, w.folder / "none")),
    ("load_projector: an extension's folder", lambda w: moextend.load_projector(w.other, w.folder / "one")),
    ("load_projector: a model without encoder", lambda w: moextend.load_projector(w.text_model, w.folder / "projector")),
    ("load_projector: files cut off", lambda w: projector(w, lambda folder: [cut(file) for file in folder.iterdir() if file.is_file()])),
    ("load_projector: a bit of the weights", lambda w: projector(w, lambda folder: [flip(file) for file in folder.glob("*.safetensors")])),
    ("save_extension: no such name", lambda w: moextend.save_extension(w.model, "two", folder=w.folder / "new")),
    ("save_extension: a folder that is a file", lambda w: moextend.save_extension(w.model, "one", folder=w.folder / "note.txt")),
    ("save_base: the model is extended", lambda w: moextend.save_base(w.model, w.folder / "new")),
]  # fmt: skip

OTHERS: list[tuple[str, Call]] = [
    ("generate: prompts that are texts", lambda w: generate(w, ["what color is it"])),
    ("generate: an image too few", lambda w: generate(w, [moextend.Prompt("<image> <image> Q", w.data[0].media)])),
    ("generate: a damaged image", lambda w: generate(w, [moextend.Prompt("<image> Q", (moextend.ImageRef(data=b"GIF89a"),))])),
    ("generate: an image of nothing", lambda w: generate(w, [moextend.Prompt("<image> Q", (moextend.ImageRef(),))])),
    ("generate: an image of no encoder", lambda w: moextend.generate(w.text_model, [moextend.Prompt("<image> Q", w.data[0].media)], max_new_tokens=1, batch_size=1)),
    ("generate: batch size 0", lambda w: generate(w, [moextend.Prompt("Q")], batch_size=0)),
    ("generate: a prompt that does not fit", lambda w: generate(w, [moextend.Prompt("Q " * 5000)])),
    ("upcycle: it has experts already", lambda w: moextend.upcycle(w.other, experts=4)),
    ("choose_layers: share 0", lambda w: moextend.choose_layers("probe", 0.0, moextend.Probe([[1.0]], [0.1]))),
    ("choose_layers: an empty probe", lambda w: moextend.choose_layers("probe", 0.5, moextend.Probe([], []))),
    ("parents: a layer that is not there", lambda w: moextend.parents(moextend.Probe([[1.0]], [0.1]), [4])),
    ("selection_shares: no data", lambda w: moextend.selection_shares(w.model, [])),
    ("ImageRef: a folder", lambda w: moextend.ImageRef(path=w.folder).open()),
    ("ImageRef: /dev/zero", lambda w: moextend.ImageRef(path=Path("/dev/zero")).open()),
    ("AudioRef: /dev/zero", lambda w: moextend.AudioRef(path=Path("/dev/zero")).seconds),
    ("AudioRef: no samples", lambda w: moextend.AudioRef.of([], 8_000)),
    ("AudioRef: samples that are NaN", lambda w: moextend.AudioRef.of([float("nan")], 8_000)),
    ("load: an audio encoder that is not there", lambda w: moextend.load("tiny", audio="no/such/folder/here")),
]  # fmt: skip

INPUTS = [*LOAD, *ATTACH, *EXTEND, *TRAIN, *ACTIVATE, *DISK, *OTHERS]
