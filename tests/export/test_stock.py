"""Stock checkpoints: what is refused, what is written, plans without weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import moextend
from moextend import MultimodalLM
from moextend.errors import InputError, RunFailed
from moextend.export import stock, writing
from moextend.export.writing import RECORD, save_stock
from moextend.moe.recipe import Mode
from tests.toys import logits, shake, toy_lm, toy_tokenizer

EVERYWHERE = {0: [0], 1: [1], 2: [2]}


def plain(family: str = "mixtral", **more: Any) -> MultimodalLM:
    return MultimodalLM(toy_lm(family, **more), toy_tokenizer())


def changed(model: MultimodalLM, name: str = "a", mode: Mode = "paper", *, calibrate: bool = False) -> None:
    moextend.attach(model.lm, name, EVERYWHERE, mode=mode, calibrate=calibrate)
    shake(model.lm, name, 0.2)


@pytest.mark.parametrize("family", ["mixtral", "olmoe"])
def test_auto_classes_load_the_checkpoint_in_several_files(
    family: str, tmp_path: Path, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock, "SHARD", 20_000)
    model = plain(family)
    changed(model)
    expected = logits(model.lm, ids)
    written = save_stock(model, tmp_path / "out")
    assert written.files > 2 and written.experts == 3 and written.difference < 1e-4
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * written.parameters < written.bytes
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1, (
        "read by whom the umask lets"
    )
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(again) is type(model.lm)
    assert getattr(again.config, "num_experts", None) or again.config.num_local_experts == 5
    assert torch.allclose(logits(again, ids), expected, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("w1 w2")["input_ids"] == model.tokenizer("w1 w2")["input_ids"]
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert [each["name"] for each in record["extensions"]] == ["a"]


@pytest.mark.long  # 8 s; test_stock_families.py loads what transformers alone computes, in this process
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

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(Exception, match=r"(?i)space|disk"):
        save_stock(model, tmp_path / "out")
    assert not any(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="already exists"):
        save_stock(model, tmp_path / "full")


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
