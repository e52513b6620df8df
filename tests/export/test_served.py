"""A folder for vLLM: what is in it, and what is refused. tests/vllm starts vLLM with such folders."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import moextend
from moextend.cli.main import app
from moextend.errors import InputError, UnknownName
from moextend.export.opening import load_model
from moextend.export.served import MARK, SCALE, read_served, save_for_vllm
from moextend.model.multimodal import MultimodalLM
from moextend.serving.engine import Options
from moextend.serving.protocol import ApiError
from moextend.serving.vllm import VllmEngine
from tests.vllm import small


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its extensions, and their folder for vLLM by the command."""
    folder = tmp_path_factory.mktemp("served")
    small.made_base("mixtral", folder / "base")
    model = small.extended(folder / "base", "exact")
    for name in small.NAMES:
        moextend.save_extension(model, name, folder=folder / name)
    words = [
        "export",
        *(str(folder / name) for name in small.NAMES),
        "--base",
        str(folder / "base"),
        "--as",
        "vllm",
    ]
    more = ["--model", "two+one", "--model", "two:0.5+three", "--out", str(folder / "served")]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    assert "models base, one, two, three, two+one, two:0.5+three" in done.output
    assert "vllm serve . --config vllm.yaml" in done.output
    return folder


@pytest.fixture
def model(place: Path) -> MultimodalLM:
    return small.extended(place / "base", "exact")


def test_a_folder_has_a_model_for_each_choice(place: Path) -> None:
    folder = place / "served"
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MoextendMixtralForCausalLM"] and config["model_type"] == "mixtral"
    served = read_served(folder)
    assert served.models["two:0.5+three"] == {"two": 0.5, "three": 1.0}
    table = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0.5, 1]]
    assert served.table().tolist() == table
    options = yaml.safe_load((folder / "vllm.yaml").read_text())
    assert options["served-model-name"] == "base" and options["dtype"] == "float32"
    named = dict(one.split("=") for one in options["lora-modules"])
    assert list(named) == list(served.models)
    for number, adapter in enumerate(named.values(), 1):
        tensors = load_file(folder / adapter / "adapter_model.safetensors")
        assert len(tensors) == 6
        for key, tensor in tensors.items():
            held = {0.0} if "lora_B" in key else {0.0, number / SCALE, MARK}
            assert {*tensor.bfloat16().float().unique().tolist()} == held
    weights = folder / "model.safetensors"
    assert weights.is_symlink() and weights.samefile(place / "base" / "model.safetensors")
    assert not any(path.name == "log.jsonl" for path in folder.rglob("*"))


def test_the_same_folder_has_the_model_for_moextend(place: Path, model: MultimodalLM) -> None:
    again = load_model(place / "served" / "moextend", active=["two"])
    moextend.activate(model, ["two"])
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(again.lm(ids).logits, model.lm(ids).logits)


def test_a_copied_base_is_linked_within_the_folder(model: MultimodalLM, place: Path, tmp_path: Path) -> None:
    save_for_vllm(model, tmp_path / "made", base=str(place / "base"), with_base=True)
    (tmp_path / "made").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "model.safetensors").resolve().is_file()


@pytest.mark.parametrize(
    ("models", "error", "words"),
    [
        (["four"], UnknownName, "'four'"),
        (["one:2"], InputError, "is not a strength"),
        (["one:x"], InputError, "is not a strength"),
        (["one:0.60"], InputError, "Write one:0.6"),
        (["one+one"], InputError, "Write one"),
        (["one:0"], InputError, "strength 0"),
        ([f"one:{number / 1000}" for number in range(1, 260)], InputError, "at most 256"),
    ],
)
def test_models_that_vllm_cannot_serve(
    models: list[str], error: type[InputError], words: str, model: MultimodalLM, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        save_for_vllm(model, tmp_path / "made", base=str(place / "base"), models=models)
    assert not (tmp_path / "made").exists()


def test_what_is_not_computed_alike_is_refused(place: Path, tmp_path: Path) -> None:
    slot, bare = small.extended(place / "base", "slot"), moextend.load(str(place / "base"))
    with pytest.raises(InputError, match="strengths below 1 are served in routing 'exact' only"):
        save_for_vllm(slot, tmp_path / "made", base=str(place / "base"), models=["one:0.5"])
    with pytest.raises(InputError, match="has no extension"):
        save_for_vllm(bare, tmp_path / "made", base=str(place / "base"))
    moextend.attach(bare.lm, "base", {0: [0]})
    with pytest.raises(InputError, match="'base' is the model without extensions"):
        save_for_vllm(bare, tmp_path / "made", base=str(place / "base"))
    slot.lm.config.architectures = ["JambaForCausalLM"]
    with pytest.raises(InputError, match=r"JambaForCausalLM is not tested .* Use --as stock"):
        save_for_vllm(slot, tmp_path / "made", base=str(place / "base"))
    with pytest.raises(InputError, match="holds no model that was exported for vLLM"):
        read_served(place / "base")


def other_strengths(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["moextend"]["models"]["one"] = {"two": 1.0}
    (folder / "config.json").write_text(json.dumps(config))


def other_order(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["moextend"]["models"] = dict(reversed(config["moextend"]["models"].items()))
    (folder / "config.json").write_text(json.dumps(config))


def another_extension(folder: Path) -> None:
    one, two = sorted((folder / "moextend" / "extensions").iterdir())[:2]
    for path in two.iterdir():
        shutil.copyfile(path, one / path.name)


def exchanged_adapters(folder: Path) -> None:
    one, two = sorted((folder / "adapters").iterdir())[:2]
    for path in two.iterdir():
        shutil.copyfile(path, one / path.name)


def another_base(folder: Path) -> None:
    weights = folder / "model.safetensors"
    held = {name: tensor + 1 for name, tensor in load_file(weights).items()}
    weights.unlink()
    save_file(held, weights)


def no_base(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "gone")


@pytest.mark.parametrize(
    "change", [other_strengths, other_order, another_extension, exchanged_adapters, another_base, no_base]
)
def test_a_folder_that_was_changed_is_refused(
    change: Callable[[Path], None], place: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "served"
    shutil.copytree(place / "served", folder, symlinks=True)
    read_served(folder)
    change(folder)
    with pytest.raises(InputError, match=r"was changed|cannot be read"):
        read_served(folder)


def test_a_front_asks_only_a_vllm_that_serves_its_folder(place: Path) -> None:
    engine = VllmEngine("http://vllm/v1", place / "served", Options())
    named = {"base": ".", **read_served(place / "served").adapters()}

    def answers(listed: dict[str, str]) -> None:
        rows = [{"id": name, "root": root} for name, root in listed.items()]
        found = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": rows}))
        engine._client, engine._proved = httpx.AsyncClient(transport=found), -1.0
        asyncio.run(engine.prove())

    answers(named)
    with pytest.raises(ApiError, match="serves another folder, or other names: two"):
        answers({**named, "two": named["one"]})
    with pytest.raises(ApiError, match="other names: one"):
        answers({name: root.replace("adapters/", "adapters/0") for name, root in named.items()})
