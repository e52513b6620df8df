"""Adapters of stages: merged into a stock checkpoint, and as one adapter that peft loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

import moextend
from moextend import MultimodalLM
from moextend.bench.exporting import adapters
from moextend.bench.exporting.stage import StageModel
from moextend.bench.methods import adapters as lora
from moextend.bench.methods.table import parse
from moextend.cli.exporting import How, of_run
from moextend.errors import InputError
from moextend.export.writing import save_stock
from tests.toys import toy_lm, toy_tokenizer

FAMILIES = ["mixtral", "qwen3_moe"]


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = MultimodalLM(toy_lm(request.param), toy_tokenizer())
    moextend.save_base(model, tmp_path / "base")
    return tmp_path / "base"


def logits(lm: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = lm(ids).logits
        return found


def shake(model: MultimodalLM) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if lora.LORA in name or ".moe_lora." in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def stage(base: Path, spec: str, tasks: list[str], task: str, dtype: str = "float32") -> StageModel:
    """The model of a method after stages with random results, prepared for a task."""
    model, method = moextend.load(str(base), dtype=dtype), parse(spec).make()
    method.start(model, 0)
    for name in tasks if isinstance(method, lora.AdapterPerTask) else ():
        lora.inject(model, method.config, 0, name)
    shake(model)
    method.select(model, task, tasks)
    return StageModel(model, method, task, tasks, str(base), "toy/run:2")


SPECS = [
    ("lora:rank=2", "b"),
    ("lora:rank=3,experts=false,alpha=5", "b"),
    ("lora-per-task:rank=2", "a"),
    ("o-lora:rank=2", "b"),
]


@pytest.mark.parametrize(("spec", "task"), SPECS)
def test_peft_and_transformers_compute_the_same(
    spec: str, task: str, base: Path, tmp_path: Path, ids: Tensor
) -> None:
    found = stage(base, spec, ["a", "b"], task)
    expected = logits(found.model.lm, ids)
    assert not torch.allclose(expected, logits(moextend.load(str(base)).lm, ids), atol=1e-2)
    (tmp_path / "peft").mkdir()
    rank = adapters.save_adapter(found, tmp_path / "peft", str(base))
    assert rank == found.method.config.rank * (2 if spec.startswith("o-lora") else 1)
    plain = AutoModelForCausalLM.from_pretrained(base)
    plain.set_experts_implementation("eager")
    adapted = PeftModel.from_pretrained(plain, tmp_path / "peft").eval()
    assert torch.allclose(logits(adapted, ids), expected, atol=1e-5)

    adapters.merge(found.model)
    assert not lora.layers(found.model)
    save_stock(found.model, tmp_path / "stock")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "stock")
    assert torch.allclose(logits(merged, ids), expected, atol=1e-5)


def test_an_unlearned_task_of_separate_adapters_is_the_base(base: Path, tmp_path: Path, ids: Tensor) -> None:
    found = stage(base, "lora-per-task:rank=2", ["a", "b"], "text")
    with pytest.raises(InputError, match="no adapter is active for task 'text'") as refused:
        adapters.save_adapter(found, tmp_path, "base")
    assert refused.value.hint and "a, b" in refused.value.hint
    assert adapters.merge(found.model) == []
    assert torch.equal(logits(found.model.lm, ids), logits(moextend.load(str(base)).lm, ids))


def test_what_peft_cannot_hold_is_refused(base: Path, tmp_path: Path) -> None:
    for spec in ("moe-lora:rank=2", "full-ft"):
        with pytest.raises(InputError, match="trains no LoRA adapters"):
            adapters.save_adapter(stage(base, spec, ["a"], "a"), tmp_path, "base")
    found = stage(base, "moe-lora:rank=2", ["a"], "a")
    adapters.merge(found.model)
    with pytest.raises(InputError, match=r"have other tensors \(.*moe_lora"):
        save_stock(found.model, tmp_path / "stock")


def written(found: StageModel, dtype: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stock checkpoint of a stage, by the command."""
    monkeypatch.setattr("moextend.bench.exporting.stage.find", lambda source, runs: None)
    monkeypatch.setattr("moextend.bench.exporting.stage.opened", lambda named, task: found)
    of_run("toy/run:2", How(form="stock", out=out, dtype=dtype), None, out)
    return AutoModelForCausalLM.from_pretrained(out)


def test_adapters_on_a_rounded_base_are_merged_in_float32(
    base: Path, tmp_path: Path, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stage(base, "lora:rank=2", ["a"], "a", "bfloat16")
    with pytest.raises(InputError, match="bfloat16 or float32"):
        written(found, "float16", tmp_path / "out", monkeypatch)
    again = written(found, "float32", tmp_path / "out", monkeypatch)
    assert again.dtype == torch.float32
    own = stage(base, "lora:rank=2", ["a"], "a", "bfloat16").model.lm.float()
    assert torch.allclose(logits(again, ids), logits(own, ids), atol=1e-5)


def test_rounded_experts_of_a_run_are_asked_for(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype in ("bfloat16", "float32"):
        found = stage(base, "full-ft", ["a"], "a", "bfloat16")
        moextend.attach(found.model.lm, "a", {0: [0], 1: [0], 2: [0]}, mode="paper", calibrate=False)
        with pytest.raises(InputError, match="rounded to bfloat16"):
            written(found, None, tmp_path / dtype, monkeypatch)
        assert str(written(found, dtype, tmp_path / dtype, monkeypatch).dtype) == f"torch.{dtype}"
