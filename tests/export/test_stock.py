"""Stock checkpoints: what is refused, what is written, plans without weights."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import moextend
from moextend import MultimodalLM
from moextend.errors import InputError, RunFailed
from moextend.export import shards, writing
from moextend.export.writing import RECORD, planned_stock, save_stock
from moextend.moe.recipe import Mode
from tests.toys import logits, shake, toy_lm, toy_tokenizer

EVERYWHERE = {0: [0], 1: [1], 2: [2]}
OLMOE = {
    "model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
    "vocab_size": 50304, "max_position_embeddings": 4096, "norm_topk_prob": False, "tie_word_embeddings": False,
    "dtype": "bfloat16",
}  # fmt: skip
"""Config of OLMoE-1B-7B: 6.9 billion parameters."""


def plain(family: str = "mixtral", **more: Any) -> MultimodalLM:
    return MultimodalLM(toy_lm(family, **more), toy_tokenizer())


def changed(model: MultimodalLM, name: str = "a", mode: Mode = "paper", *, calibrate: bool = False) -> None:
    moextend.attach(model.lm, name, EVERYWHERE, mode=mode, calibrate=calibrate)
    shake(model.lm, name, 0.2)


@pytest.mark.parametrize("family", ["mixtral", "olmoe"])
def test_auto_classes_load_the_checkpoint_in_several_files(
    family: str, tmp_path: Path, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", 20_000)
    model = plain(family)
    changed(model)
    expected = logits(model.lm, ids)
    written = save_stock(model, tmp_path / "out")
    assert written.files > 2 and written.experts == 3 and written.difference < 1e-4
    index = json.loads((tmp_path / "out" / shards.INDEX).read_text())
    assert index["metadata"]["total_size"] == written.bytes == 4 * written.parameters
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(again) is type(model.lm)
    assert getattr(again.config, "num_experts", None) or again.config.num_local_experts == 5
    assert torch.allclose(logits(again, ids), expected, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("w1 w2")["input_ids"] == model.tokenizer("w1 w2")["input_ids"]
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert [each["name"] for each in record["extensions"]] == ["a"]


def test_a_fresh_process_without_this_package_loads_it(tmp_path: Path, ids: Tensor) -> None:
    model = plain()
    changed(model)
    save_stock(model, tmp_path / "out")
    code = (
        "import sys, torch; sys.modules['moextend'] = None\n"
        "from transformers import AutoModelForCausalLM\n"
        f"lm = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'out')!r})\n"
        f"print(lm(torch.tensor({ids.tolist()})).logits.double().sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert float(done.stdout) == pytest.approx(float(logits(model.lm, ids).double().sum()), abs=1e-3)


REFUSED = [
    ("exact", False, "routing=exact"),
    ("slot", False, "routing=slot"),
    ("paper", True, "calibration=true"),
]


@pytest.mark.parametrize(("mode", "calibrate", "setting"), REFUSED)
def test_what_no_stock_class_computes_is_refused(
    mode: Mode, calibrate: bool, setting: str, tmp_path: Path
) -> None:
    model = plain()
    changed(model, mode=mode, calibrate=calibrate)
    with pytest.raises(InputError, match=setting) as refused:
        save_stock(model, tmp_path / "out")
    assert refused.value.hint and "routing=paper, calibration=false, layers=all" in refused.value.hint
    assert not any(tmp_path.iterdir())


def test_a_wrong_checkpoint_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain()
    changed(model)
    seen = [torch.tensor([0.0]), torch.tensor([1.0])]
    monkeypatch.setattr(writing, "sample_logits", lambda lm: seen.pop())
    with pytest.raises(RunFailed, match="other logits"):
        save_stock(model, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain()
    changed(model)

    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(Exception, match=r"(?i)space|disk"):
        save_stock(model, tmp_path / "out")
    assert not any(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="already exists"):
        save_stock(model, tmp_path / "full")


def test_the_plan_of_a_7b_model_needs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "olmoe").mkdir()
    (tmp_path / "olmoe" / "config.json").write_text(json.dumps(OLMOE))
    config = AutoConfig.from_pretrained(tmp_path / "olmoe")
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    before = sum(p.numel() for p in lm.parameters())
    assert 6.9e9 < before < 7e9
    tiny = {0: [0]} | {layer: [1] for layer in range(1, 16)}
    card = {
        "format": 1, "sha256": "", "name": "skill", "mode": "paper", "plan": {str(k): v for k, v in tiny.items()},
        "calibrate": False, "beside": [], "base": "0" * 16, "base_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "skill").mkdir()
    (tmp_path / "skill" / "extension.json").write_text(json.dumps(card))
    (tmp_path / "skill" / "extension.safetensors").touch()
    tracemalloc.start()
    plan = planned_stock(str(tmp_path / "olmoe"), [tmp_path / "skill"])
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()
    assert all(tensor.is_meta for tensor in plan.tensors.values())
    new = 16 * (3 * 2048 * 1024 + 2048)
    assert plan.parameters == before + new and plan.bytes == 2 * plan.parameters
    sizes = {file: sum(plan.tensors[name].nbytes for name in names) for file, names in plan.split.items()}
    assert sorted(sizes) == ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                             "model-00003-of-00003.safetensors"]  # fmt: skip
    assert max(sizes.values()) <= 5e9 and sum(sizes.values()) == plan.bytes
    rows = {row.name: row for row in plan.rows()}
    assert rows["model.layers.7.mlp.experts.64.down_proj.weight"].shape == (2048, 1024)
    assert rows["model.layers.7.mlp.gate.weight"].shape == (65, 2048)
    assert rows["model.layers.7.mlp.gate.weight"].dtype == "bfloat16"


def test_a_dense_model_is_written_as_it_is(tmp_path: Path, ids: Tensor) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("llama", vocab_size=64, **shape)
    model = MultimodalLM(AutoModelForCausalLM.from_config(config).eval(), toy_tokenizer())
    assert save_stock(model, tmp_path / "out").experts == 0
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(again, ids), logits(model.lm, ids))


def test_a_strength_below_one_has_no_stock_class(tmp_path: Path, ids: Tensor) -> None:
    model = plain()
    changed(model)
    moextend.activate(model, {"a": 0.6})
    with pytest.raises(InputError, match=r"'a' has the strength 0\.6, .* Activate it with full strength"):
        save_stock(model, tmp_path / "out")
    moextend.activate(model, {"a": 1.0})
    save_stock(model, tmp_path / "out")
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (logits(lm, ids) - logits(model.lm, ids)).abs().max() < 1e-5
