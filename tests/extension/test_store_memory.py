"""Loading an extension needs only the memory of its own bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from moextend import attach, load_extension, new_parameters, save_extension
from moextend.model.multimodal import MultimodalLM
from tests.toys import WORDS, toy_tokenizer

PEAK = Path("/proc/self/clear_refs")


def resident(key: str) -> int:
    """Bytes that this process holds in memory (VmRSS), or its peak since the last reset (VmHWM)."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@pytest.mark.skipif(not PEAK.exists(), reason="needs Linux's account of the peak memory")
def test_loading_takes_the_extension_own_bytes_and_no_more(tmp_path: Path) -> None:
    def large() -> MultimodalLM:
        config = AutoConfig.for_model(
            "mixtral", hidden_size=256, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=len(WORDS), num_local_experts=2,
        )  # fmt: skip
        torch.manual_seed(0)
        return MultimodalLM(AutoModelForCausalLM.from_config(config).eval(), toy_tokenizer())

    model, other = large(), large()
    attach(model.lm, "a", {0: [0, 1], 1: [1]})
    save_extension(model, "a", folder=tmp_path)
    wanted = new_parameters(model.lm, "a")
    before = resident("VmRSS")
    PEAK.write_text("5")
    loaded = load_extension(other, tmp_path)
    peak = resident("VmHWM") - before
    assert loaded.bytes > 35e6 and all(
        torch.equal(p, wanted[name]) for name, p in new_parameters(other.lm, "a").items()
    )
    assert peak <= 1.05 * loaded.bytes
