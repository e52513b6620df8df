"""Every bad argument gives one clear error and changes neither the model nor a file."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import xxhash
from PIL import Image

import moextend
from moextend.errors import InputError, MoextendError

from . import api_inputs
from .clear import shown, tree

PYTHONS_OWN = (TypeError, ValueError)


def conversations(folder: Path) -> list[moextend.Conversation]:
    draw, made = random.Random(0), []
    for i in range(6):
        color = draw.choice(["red", "green", "blue"])
        path = folder / f"{i}.png"
        Image.new("RGB", (8, 8), color).save(path)
        turn = ("<image> Q what color is it A:", color)
        made.append(moextend.Conversation((turn,), (moextend.ImageRef(path=path),)))
    return made


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model with an extension and a bare one, and what they are saved as."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "images").mkdir()
    data = conversations(folder / "images")
    model, other, text_model = (moextend.load("tiny", vision=vision) for vision in ("tiny", "tiny", None))
    moextend.align(model, data, api_inputs.settings(), folder=folder / "projector")
    moextend.load_projector(other, folder / "projector")
    moextend.attach(model.lm, "one", {0: [0]})
    for parameter in moextend.new_parameters(model.lm, "one").values():
        parameter.requires_grad_(False)
    moextend.save_extension(model, "one", folder=folder / "one")
    (folder / "note.txt").write_text("a note")
    (folder / "garbage.gguf").write_bytes(b"GGUF" + bytes(100))
    (folder / "empty").mkdir()
    states = [state(model), state(other), state(text_model)]
    return SimpleNamespace(
        model=model, other=other, text_model=text_model, states=states, data=data, folder=folder
    )


def state(model: Any) -> dict[str, Any]:
    """All that a call could change: weights, what is trained, modules, extensions, modes."""
    found: dict[str, Any] = {"extensions": [str(extension) for extension in moextend.extensions(model)]}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        content = xxhash.xxh3_64_intdigest(tensor.detach().flatten().view(torch.uint8).numpy().data)
        found[name] = content, tensor.dtype, tensor.requires_grad
    for name, module in model.named_modules():
        found[f"module {name}"] = type(module).__name__, module.training, len(module._forward_hooks)
    return found


@pytest.mark.parametrize("what, call", api_inputs.INPUTS, ids=[what for what, _ in api_inputs.INPUTS])
def test_a_bad_argument(
    what: str, call: api_inputs.Call, given: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "given"
    shutil.copytree(given.folder, folder)
    monkeypatch.chdir(tmp_path)
    w = SimpleNamespace(
        **{**vars(given), "folder": folder, "empty": folder / "empty", "before": tree(tmp_path)}
    )
    w.rebase = lambda: setattr(w, "before", tree(tmp_path))
    models = (given.model, given.other, given.text_model)
    before = given.states
    with pytest.raises((MoextendError, *PYTHONS_OWN)) as caught:
        call(w)
    assert not shown(caught.value), shown(caught.value)
    if isinstance(caught.value, MoextendError):
        assert isinstance(caught.value, InputError), f"exit code {caught.value.exit_code}: {caught.value}"
    now = [state(model) for model in models]
    given.states = now
    changed = [
        key
        for a, b in zip(before, now, strict=True)
        for key in a.keys() | b.keys()
        if a.get(key) != b.get(key)
    ]
    assert not changed, f"the model was changed: {changed[:5]}"
    assert tree(tmp_path) == w.before, "files were changed"
