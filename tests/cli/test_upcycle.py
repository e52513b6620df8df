"""`moextend upcycle`, from the folder of a tiny dense model to a base for the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import moextend
from tests.cli.conftest import Cli


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """Folder of a random Llama over single characters."""
    words = ["<eos>", "<unk>", *map(chr, range(33, 127))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        vocab_size=len(words), bos_token_id=0, eos_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "dense")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


def test_a_dense_folder_becomes_a_base(cli: Cli, dense: Path, tmp_path: Path) -> None:
    found = cli("upcycle", dense, "--out", "models/moe")
    assert found.code == 0, found.err
    assert "LlamaForCausalLM, 5,968 parameters -> MixtralForCausalLM, 4 experts, top-2" in found.out
    assert "next tokens agree at 100%" in found.out
    assert "2/2" in found.err
    folder = tmp_path / "models" / "moe"
    record = json.loads((folder / "upcycled.json").read_text())
    assert record["largest_difference"] < 1e-5
    base = moextend.load(str(folder))
    assert base.base_fingerprint() == record["fingerprint"]
    assert [path.name for path in folder.parent.iterdir()] == ["moe"]


def test_a_moe_model_is_refused(cli: Cli, tmp_path: Path) -> None:
    found = cli("upcycle", "tiny", "--out", "moe")
    assert found.code == 2 and "a mixtral model cannot be upcycled: it has experts already." in found.err
    assert not (tmp_path / "moe").exists()


def test_a_run_upcycles_its_own_base(cli: Cli, forked_workers: str, dense: Path, tmp_path: Path) -> None:
    """With workers that compute."""
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "mine.yaml").write_text(
        f"sequence: mine\nversion: 1\nbase: {{model: {dense}, vision: tiny, upcycle: {{experts: 2, top_k: 1}}}}\n"
        "align: {task: tiny-captions, steps: 1, batch_size: 2, learning_rate: 1.0e-3}\n"
        "stages: [{task: tiny-counting}]\ntrain: {steps: 1, batch_size: 2, learning_rate: 1.0e-3}\n",
        encoding="utf-8",
    )
    found = cli("bench", "run", "mine", "--method", "moextend:scope=own", "--limit", "2")
    assert found.code == 0, found.err
    assert "zero-shot" in found.out and "moextend:scope=own" in found.out
    spec = tmp_path / "registry" / "mine.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace(str(dense), "tiny"), encoding="utf-8")
    for more in ([], ["--dry-run"]):
        found = cli("bench", "run", "mine", "--method", "lora", *more)
        assert found.code == 2 and "upcycle: a mixtral model cannot be upcycled: it has experts" in found.err
