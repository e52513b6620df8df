"""Supported set-ups for loading, extending and training; all others are refused by name."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

import moextend
from moextend import Conversation, Settings
from moextend.errors import InputError, MoextendError
from moextend.moe import supported
from moextend.training import prepare
from moextend.training.prepare import PrecisionWarning
from tests.toys import toy_lm, toy_model, toy_tokenizer

DATA = [Conversation(((f"w{i}", "w9 w3"),)) for i in range(4)]
SETTINGS = Settings(steps=1, batch_size=2, learning_rate=1e-3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    toy_lm("olmoe").bfloat16().save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat61"}, r"dtype: no dtype 'bfloat61'\. Did you mean 'bfloat16'\?"),
        ({"attn_implementation": "spda"}, r"no attention 'spda'\. Did you mean 'sdpa'\?"),
        (
            {"attn_implementation": "flash_attention_2", "dtype": "auto"},
            r"flash_attention_2 cannot be used: it runs on CUDA devices, not on 'cpu'\. Use attn_implementation='sdpa'",
        ),
        (
            {"attn_implementation": "flash_attention_2", "device": "cuda"},
            r"in bfloat16 or float16, not in float32\. Use dtype='bfloat16' or attn_implementation='sdpa'",
        ),
        ({"device": "gpu"}, r"device: no device 'gpu'\. Devices: cpu, cuda"),
    ],
)
def test_options_that_no_base_can_have_are_one_clear_error_before_any_work(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MoextendError, match=message):
        moextend.load("no/such-model", **options)


def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"no device 'cuda' that torch can use \(accelerators: none\)"):
        moextend.load("tiny", device="cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    supported.check_device("cuda:0")
    with pytest.raises(InputError, match=r"no device 'cuda:7' .*\(accelerators: 1 of type cuda\)"):
        supported.check_device("cuda:7")


def test_a_checkpoint_of_bitsandbytes_is_refused_before_it_is_read(saved: Path) -> None:
    quant = {"load_in_8bit": True, "load_in_4bit": False}
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "quantization_config": quant}))
    (saved / "model.safetensors").unlink()  # it is not reached
    with pytest.raises(InputError, match=r"quantised by bitsandbytes.*without quantisation.*quantize='nf4'"):
        moextend.load(str(saved))


class Params4bit(nn.Parameter):
    """Named and built like bitsandbytes' own, which needs a GPU."""


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def four_bit(lm: Any) -> None:
    lm.model.layers[0].self_attn.q_proj.weight = Params4bit(
        torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False
    )


def by_config(lm: Any) -> None:
    lm.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def sharded(lm: Any) -> None:
    layer = lm.model.layers[0].self_attn.q_proj
    layer.weight = nn.Parameter(distribute_tensor(layer.weight, init_device_mesh("cpu", (1,))))


def offloaded(lm: Any) -> None:
    lm.hf_device_map = {"model.embed_tokens": 0, "model.layers": "cpu"}
    lm.model.embed_tokens._hf_hook = AlignDevicesHook()


def kernelised(lm: Any) -> None:
    lm._use_kernels = True


REFUSED = {
    four_bit: r"quantised by bitsandbytes",
    by_config: r"quantised by bitsandbytes",
    sharded: r"sharded over processes \(DTensor.*without distributed_config, tp_plan or device_mesh",
    offloaded: r"spread over devices by a device_map \(0, cpu\)\. Load it on one device",
    kernelised: r"hub kernels \(use_kernels=True\).*use_kernels=False",
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_set_ups_that_an_extension_does_not_know_are_refused_by_name(
    change: Any, tmp_path: Path, one_process: None
) -> None:
    model = toy_model()
    moextend.attach(model.lm, "a", {1: [0]})
    kinds = [type(module) for module in model.modules()]
    change(model.lm)
    with pytest.raises(InputError, match=f"extension 'b': .*{REFUSED[change]}"):
        moextend.attach(model.lm, "b", {1: [0]})
    with pytest.raises(InputError, match=f"train: .*{REFUSED[change]}"):
        moextend.train(model, DATA, SETTINGS, folder=tmp_path / "t")
    assert kinds == [type(module) for module in model.modules()]
    assert not (tmp_path / "t").exists()


LAUNCHERS: list[tuple[dict[str, str], str]] = [
    (
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        "ACCELERATE_USE_DEEPSPEED=true is not supported.*fsdp_version: 2",
    ),
    ({"PARALLELISM_CONFIG_TP_SIZE": "2"}, "PARALLELISM_CONFIG_TP_SIZE=2 is not supported"),
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP_VERSION=1 is not supported"),
    (
        {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"},
        "FSDP_OFFLOAD_PARAMS=true is not supported",
    ),
]


def test_unsupported_options_of_a_launcher_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_model()
    moextend.attach(model.lm, "a", {1: [0]})
    for environment, message in LAUNCHERS:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(InputError, match=message):
                moextend.train(model, DATA, SETTINGS, folder=tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("dtype", "bf16", "message"),
    [
        ("bfloat16, slow", True, "no instructions for bfloat16.*or float32 for both"),
        ("float32", True, "bf16 is true, and the base is float32: weights are cast"),
        ("bfloat16", False, "bf16 is false, and the base is bfloat16: its products"),
        ("float32", False, None),
        ("bfloat16", True, None),
    ],
)
def test_base_and_settings_that_disagree_warn(
    dtype: str, bf16: bool, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, slow, _ = dtype.partition(", slow")
    monkeypatch.setattr(prepare, "lacks_bfloat16", lambda: bool(slow))
    model = toy_model()
    model.lm.to(getattr(torch, dtype))
    moextend.attach(model.lm, "a", {1: [0]})
    settings = Settings(steps=1, batch_size=2, learning_rate=1e-3, bf16=bf16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        moextend.train(model, DATA, settings, folder=tmp_path / "t")
    warned = [str(w.message) for w in caught if issubclass(w.category, PrecisionWarning)]
    assert len(warned) == (1 if message else 0)
    assert all(re.search(message or "", each) for each in warned)
