"""`moextend export` of extensions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import moextend
from moextend.moe.recipe import Mode
from tests.cli.conftest import Cli


def extension(
    folder: str, mode: Mode = "paper", plan: tuple[int, ...] = (0, 1, 2, 3), quantize: Any = None
) -> None:
    """An extension of the tiny base with random weights."""
    model = moextend.load("tiny", quantize=quantize)
    moextend.attach(model.lm, folder, {block: [0] for block in plan}, mode=mode, calibrate=False)
    with torch.no_grad():
        for parameter in moextend.new_parameters(model.lm, folder).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    moextend.save_extension(model, folder, folder=folder)


def test_both_forms_compute_the_same(cli: Cli, tmp_path: Path) -> None:
    extension("skill")
    made = cli("export", "skill", "--base", "tiny", "--as", "stock", "--out", "moe")
    assert made.code == 0, made.err
    assert "4 new experts in all layers" in made.out and "logits differ by at most" in made.out
    lm = AutoModelForCausalLM.from_pretrained("moe")
    assert f" GB, {sum(p.numel() for p in lm.parameters()):,} parameters" in made.out
    linked = cli("export", "skill", "--base", "tiny", "--as", "moextend", "--out", "linked")
    assert linked.code == 0 and "skill" in linked.out
    ids = torch.arange(20).view(2, 10)
    moextend.register_auto_classes()
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained("linked")(ids).logits
        assert torch.allclose(lm(ids).logits, logits, atol=1e-4)
        base = cli(
            "export", "skill", "--base", "tiny", "--as", "moextend", "--active", "none", "--out", "none"
        )
        assert base.code == 0, base.err
        plain = AutoModelForCausalLM.from_pretrained("none")(ids).logits
        assert torch.equal(plain, moextend.load("tiny").lm(ids).logits)
    assert json.loads(Path("linked/config.json").read_text())["base"] == "tiny"


WRONG = [
    ("skill --as stock", "--base: is missing"),
    ("skill --base tiny --as onnx", "'onnx' is not one of"),
    ("skill --base tiny --as peft", "peft has no adapter for new experts"),
    ("nowhere --base tiny --as stock", "no run 'nowhere'"),
    ("skill nowhere --base tiny --as stock", "'nowhere' holds no extension"),
    ("skill --base tiny --as stock --with-base", "applies only to --as moextend"),
    ("skill --base tiny --as moextend --active other", "no extension 'other'"),
    ("skill --base tiny --as stock --task t", "applies only to a run"),
    ("skill --base tinny --as stock", "no model 'tinny'"),
    ("some --base tiny --as stock", "another layer 1 (layers=...)"),
    ("gates --base tiny --as stock", "routing=exact"),
]


def test_what_cannot_be_exported_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    extension("skill")
    extension("gates", "exact")
    extension("some", "paper", (1,))
    for arguments, says in WRONG:
        found = cli("export", *arguments.split(), "--out", "out")
        assert found.code == 2, arguments
        assert says in found.err, arguments
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    assert "already exists" in cli("export", "skill", "--base", "tiny", "--as", "stock", "--out", "out").err


def test_an_encoder_that_no_folder_holds_is_named(cli: Cli, tmp_path: Path) -> None:
    model = moextend.load("tiny", vision="tiny")
    moextend.attach(model.lm, "seen", {0: [0]})
    moextend.save_extension(model, "seen", folder=tmp_path / "seen")
    found = cli("export", "seen", "--base", "tiny", "--as", "moextend", "--out", "out")
    assert found.code == 2 and "modality 'image', and this one does not have it. Add it first" in found.err


def test_an_extension_of_a_quantised_base_is_certified_and_exported_on_it(cli: Cli) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    extension("skill", "exact", quantize="nf4")
    proof = cli("certify", "skill", "--base", "tiny", "--items", "2", "--json")
    assert proof.code == 0, proof.err
    base = proof.json()["base"]
    assert base["fingerprint"].endswith("_nf4") and base["dtype"] == "float32+nf4"
    assert cli("export", "skill", "--base", "tiny", "--as", "moextend", "--out", "linked").code == 0
    linked = moextend.load_model("linked")
    assert linked.base_fingerprint() == base["fingerprint"]
    again = cli("certify", "skill", "--base", "linked", "--items", "2", "--json")
    assert again.code == 0 and again.json()["base"]["fingerprint"] == base["fingerprint"], again.err
    alone = cli("generate", "linked", "-p", "Hello")
    assert (
        alone.code == 2
        and "'linked' is an extended model, and this command takes the base alone" in alone.err
    )
    plain = cli("export", "skill", "--base", "tiny", "--as", "vllm", "--out", "served")
    assert plain.code == 0 and "made on a base in nf4, and this one is in full precision" in plain.err


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_rounding_is_asked_for(dtype: str, cli: Cli, tmp_path: Path) -> None:
    extension("skill")
    card = json.loads((tmp_path / "skill" / "extension.json").read_text())
    model = moextend.load("tiny", dtype="bfloat16")
    card |= {"base_dtype": "bfloat16", "base": model.base_fingerprint(), "base_rounded": model.base_rounded()}
    (tmp_path / "skill" / "extension.json").write_text(json.dumps(card))
    refused = cli("export", "skill", "--base", "tiny", "--as", "stock", "--out", "out")
    assert refused.code == 2 and "--dtype bfloat16" in refused.err
    if dtype == "float32" and card["base_rounded"] != moextend.load("tiny").base_rounded():
        pytest.skip("the tiny base is no bfloat16 checkpoint, and float32 is another base")
    made = cli("export", "skill", "--base", "tiny", "--as", "stock", "--out", "out", "--dtype", dtype)
    assert made.code == 0, made.err
    assert str(AutoModelForCausalLM.from_pretrained("out").dtype) == f"torch.{dtype}"
