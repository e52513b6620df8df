"""vLLM with the plug-in answers as moextend does: many requests of the base and of extensions in one batch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import AsyncOpenAI

from moextend.export.served import read_served
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.recipe import Mode

from . import small

pytest.importorskip("vllm", reason="vLLM is not here: run by make test-vllm")

TEXTS = ("anna lives in", "bert lives in", "what color is the", "two plus three is", "the red square is")
TOKENS = 12
Row = tuple[list[int], list[int], list[float]]


@torch.no_grad()
def reference(model: MultimodalLM, text: str) -> Row:
    """Ids of a prompt, and of the greedy answer with their log-probabilities."""
    ids: list[int] = model.tokenizer(text)["input_ids"]
    found, values = list[int](), list[float]()
    for _ in range(TOKENS):
        logits = model.lm(torch.tensor([[*ids, *found]])).logits[0, -1].log_softmax(-1)
        found.append(int(logits.argmax()))
        values.append(float(logits.max()))
    return ids, found, values


def references(model: MultimodalLM, folder: Path) -> dict[str, list[Row]]:
    """Model of a folder -> its answers."""
    found = {}
    for name, active in {"base": {}, **read_served(folder).models}.items():
        attach.activate(model.lm, active)
        found[name] = [reference(model, text) for text in TEXTS]
    assert len({str([row[1] for row in rows]) for rows in found.values()}) == len(found), (
        "equal models prove nothing"
    )
    return found


async def differences(url: str, wanted: dict[str, list[Row]], times: int) -> list[tuple[str, float]]:
    """Model and largest difference of log-probabilities of each request (infinite for another answer), all at once."""
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)

    async def one(name: str, row: Row) -> tuple[str, float]:
        ids, answer, values = row
        more: dict[str, Any] = {"ignore_eos": True, "return_token_ids": True}
        reply: Any = await client.completions.create(
            model=name, prompt=ids, max_tokens=TOKENS, temperature=0, logprobs=1, extra_body=more
        )
        choice = reply.choices[0]
        if choice.token_ids != answer:
            return name, float("inf")
        return name, max(abs(a - b) for a, b in zip(choice.logprobs.token_logprobs, values, strict=True))

    asked = [(name, rows[i]) for i in range(len(TEXTS)) for name, rows in wanted.items()] * times
    return await asyncio.gather(*[one(name, row) for name, row in asked])


EAGER = ("--enforce-eager",)
TRACED = ("--compilation-config", '{"mode": 2, "backend": "eager"}')
TWO = ("--enforce-eager", "--tensor-parallel-size", "2")


@pytest.mark.parametrize(
    ("family", "mode", "options"),
    [
        ("mixtral", "exact", EAGER), ("mixtral", "slot", EAGER), ("mixtral", "paper", EAGER), ("mixtral", "exact", TWO),
        ("mixtral", "paper", TRACED), ("olmoe", "exact", EAGER), ("olmoe", "paper", EAGER), ("olmoe", "slot", TWO),
        ("qwen2_moe", "exact", TRACED), ("qwen2_moe", "slot", EAGER), ("qwen2_moe", "paper", EAGER),
        ("qwen3_moe", "exact", EAGER), ("qwen3_moe", "slot", TRACED), ("qwen3_moe", "paper", TWO),
    ],
)  # fmt: skip
def test_two_hundred_mixed_requests_are_answered_as_by_moextend(
    family: str, mode: Mode, options: tuple[str, ...], tmp_path: Path
) -> None:
    more = ["one+two", "two:0.5+three"] if mode == "exact" else ["one+two"]
    model = small.exported(tmp_path, family, mode, models=more)
    wanted = references(model, tmp_path / "served")
    with small.serving(tmp_path / "served", "--max-num-seqs", "32", *options) as url:
        found = asyncio.run(differences(url, wanted, times=8))
    assert len(found) >= 200
    assert {name for name, _ in found} == {"base", *small.NAMES, *more}
    assert max(value for _, value in found) < 1e-5, sorted(set(found), key=lambda pair: -pair[1])[:5]
