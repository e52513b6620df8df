"""Tokens a second of moextend.generate, moextend serve, vLLM, and vLLM behind moextend serve, on one machine.

    OMP_NUM_THREADS=2 python -m tests.vllm.speed

The base is a random OLMoE of 8 layers with three extensions. 16 requests of 128 new tokens come at once: all for one
extension, or for four models.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, OlmoeConfig

import moextend
from moextend.export.served import save_for_vllm
from moextend.model import sources
from moextend.util.listening import free_port

from . import small

REQUESTS, TOKENS = 16, 128
PLACES = ("the red house", "the blue tower", "a green garden", "one white room")
PROMPTS = [
    f"{name} lives in {place} and two plus three is"
    for name in ("anna", "bert", "carl", "dora")
    for place in PLACES
]
KINDS = {"one model": ["one"] * REQUESTS, "four models": ["base", *small.NAMES] * (REQUESTS // 4)}


def made(folder: Path) -> None:
    """Saves the base, its extensions, and their folder for vLLM."""
    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=185, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8,
        intermediate_size=256, num_experts=16, num_experts_per_tok=4, max_position_embeddings=1024, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    lm = AutoModelForCausalLM.from_config(config)
    for parameter in lm.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.05)
    lm.lm_head.weight.data[2] = 0  # no answer ends early
    lm.save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(sources.find("tiny")).save_pretrained(folder / "base")
    model = small.extended(folder / "base", "exact")
    for name in small.NAMES:
        moextend.save_extension(model, name, folder=folder / name)
    save_for_vllm(model, folder / "served", base=str(folder / "base"))


async def load(url: str, models: Sequence[str]) -> tuple[float, float]:
    """Tokens a second, and the median time to the first token in seconds."""
    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:

        async def first(model: str, prompt: str) -> float:
            start, found = time.monotonic(), 0.0
            body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True}
            async with client.stream("POST", f"{url}/completions", json=body) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        found = found or time.monotonic() - start
            return found

        start = time.monotonic()
        times = await asyncio.gather(*[first(*one) for one in zip(models, PROMPTS, strict=True)])
        return REQUESTS * TOKENS / (time.monotonic() - start), sorted(times)[REQUESTS // 2]


@contextmanager
def own(folder: Path, *words: str) -> Iterator[str]:
    """Address of `moextend serve`."""
    port = free_port()
    command = [sys.executable, "-m", "moextend", "serve", *words, "--port", str(port)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        small.wait_for(process, port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    made(folder)
    model = moextend.load(str(folder / "base"))
    moextend.load_extension(model, folder / "one")
    prompts = [moextend.Prompt(prompt) for prompt in PROMPTS]
    for _ in range(2):
        start = time.monotonic()
        moextend.generate(model, prompts, max_new_tokens=TOKENS, batch_size=REQUESTS)
        print(f"moextend.generate, one model: {REQUESTS * TOKENS / (time.monotonic() - start):.0f} tokens/s")
    del model
    extensions = [word for name in small.NAMES for word in ("-e", str(folder / name))]
    servers = {
        "moextend serve": own(folder, str(folder / "base"), *extensions),
        "vLLM": small.serving(folder / "served"),
        "moextend serve --vllm": own(folder, str(folder / "served"), "--vllm", "start"),
    }
    for name, server in servers.items():
        with server as url:
            for kind, models in KINDS.items():
                for _ in range(2):  # the first one warms up
                    speed, first = asyncio.run(load(url, models))
                    print(f"{name}, {kind}: {speed:.0f} tokens/s, first token after {first:.2f} s")


if __name__ == "__main__":
    main()
