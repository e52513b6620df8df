"""Small bases of the families that are tested in vLLM, with random extensions, and a vLLM server for their folders.

The attention of vLLM on a CPU knows heads of 32, 64, ... numbers; those of the tiny base have 24.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MixtralConfig,
    OlmoeConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

import moextend
from moextend.export.served import save_for_vllm
from moextend.model import sources
from moextend.model.multimodal import MultimodalLM
from moextend.moe.recipe import Mode
from moextend.moe.sites import find_sites
from moextend.util.listening import free_port

NAMES = ("one", "two", "three")
_ALL: dict[str, Any] = {
    "vocab_size": 185, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": False, "num_experts_per_tok": 2,
}  # fmt: skip
_QWEN: dict[str, Any] = {"moe_intermediate_size": 64, "num_experts": 8, "decoder_sparse_step": 1}
CONFIGS: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: MixtralConfig(**_ALL, intermediate_size=64, head_dim=32, num_local_experts=4),
    "olmoe": lambda: OlmoeConfig(**_ALL, intermediate_size=64, num_experts=8),
    "qwen2_moe": lambda: Qwen2MoeConfig(**_ALL, **_QWEN, shared_expert_intermediate_size=64),
    "qwen3_moe": lambda: Qwen3MoeConfig(**_ALL, **_QWEN, norm_topk_prob=True, mlp_only_layers=[1]),
}


def made_base(family: str, folder: Path) -> None:
    """Saves a base with random weights, large enough that tokens have clear winners."""
    torch.manual_seed(0)
    lm: Any = AutoModelForCausalLM.from_config(CONFIGS[family]())
    lm.float()
    for parameter in lm.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.08)
    lm.save_pretrained(folder)
    AutoTokenizer.from_pretrained(sources.find("tiny")).save_pretrained(folder)


def extended(base: Path, mode: Mode) -> MultimodalLM:
    """The base with three extensions of random weights, which leave out one block each."""
    model = moextend.load(str(base))
    blocks = len(find_sites(model.lm))
    for number, name in enumerate(NAMES):
        moextend.activate(model, "none")
        plan = {block: [number, number + 1] for block in range(blocks) if block != number}
        moextend.attach(model.lm, name, plan, mode=mode)
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for key, parameter in moextend.new_parameters(model.lm, name).items():
                spread = 0.3 if key.endswith("rows") else 0.04 if mode == "exact" else 0.08
                parameter.add_(torch.randn(parameter.shape, generator=draw) * spread)
    return model


def exported(folder: Path, family: str = "mixtral", mode: Mode = "exact", **more: Any) -> MultimodalLM:
    """A folder for vLLM, `folder/served`, and its model."""
    made_base(family, folder / "base")
    model = extended(folder / "base", mode)
    save_for_vllm(model, folder / "served", base=str(folder / "base"), **more)
    return model


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path | None = None) -> None:
    """Waits until a server answers."""
    ends = time.monotonic() + 600
    while time.monotonic() < ends:
        assert process.poll() is None, log and log.read_text()[-4000:]
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    raise AssertionError("no answer within 600 seconds")


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Address of a vLLM server of an exported folder."""
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", ".", "--config", "vllm.yaml",
        "--port", str(port), "--max-model-len", "256", *options,
    ]  # fmt: skip
    own = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }  # fmt: skip
    log = (folder.parent / "vllm.log").open("wb")
    process = subprocess.Popen(command, cwd=folder, env=os.environ | own, stdout=log, stderr=log)
    try:
        wait_for(process, port, folder.parent / "vllm.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)
