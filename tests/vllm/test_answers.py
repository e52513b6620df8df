"""vLLM with the plug-in answers as moextend does: many requests of the base and of extensions in one batch."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from openai import AsyncOpenAI, OpenAI

import moextend
from moextend.certificate.certify import certify
from moextend.export.served import open_inputs, read_served
from moextend.model.generation import prompt_ids
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, MultimodalLM, Path]]:
    """Address of a vLLM server, its model in this process, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    model = small.exported(folder)
    with small.serving(folder / "served", "--enforce-eager") as url:
        yield url, model, folder


def test_the_prompt_of_a_chat_has_the_ids_of_the_training(whole: tuple[str, MultimodalLM, Path]) -> None:
    url, model, _ = whole
    client = OpenAI(base_url=url, api_key="none")
    for prompt in (
        moextend.Prompt("anna lives in"),
        moextend.Prompt("what is it", before=(("a", "b"),), system="be"),
    ):
        rows: list[Any] = [{"role": one.role, "content": one.text} for one in prompt.messages()]
        reply: Any = client.chat.completions.create(
            model="one", messages=rows, max_tokens=1, extra_body={"return_token_ids": True}
        )
        assert reply.prompt_token_ids == prompt_ids(model, prompt)


def test_the_prefix_cache_keeps_models_and_embeddings_apart(whole: tuple[str, MultimodalLM, Path]) -> None:
    url, _, folder = whole
    ids = [3 + 7 * i % 180 for i in range(100)]
    inputs = open_inputs(folder / "served")
    found = []
    for _ in range(2):
        for name in ("base", "one"):
            asked: dict[str, Any] = {
                "model": name,
                "max_tokens": 4,
                "temperature": 0,
                "return_token_ids": True,
            }
            for rows in ([ids], [[*ids[:-1], 5]]):
                held = io.BytesIO()
                torch.save(inputs.embed(torch.tensor(rows))[0].contiguous(), held)
                for prompt in (
                    {"prompt": rows[0]},
                    {"prompt_embeds": base64.b64encode(held.getvalue()).decode()},
                ):
                    reply = httpx.post(
                        f"{url}/completions", json=asked | prompt, timeout=600, trust_env=False
                    )
                    found.append(reply.json()["choices"][0]["token_ids"])
    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    assert first == second
    assert first[0] == first[1] != first[2] == first[3], "another end of the prompt"
    assert first[:4] != first[4:], "another model"


def test_a_certificate_proves_the_server(whole: tuple[str, MultimodalLM, Path], tmp_path: Path) -> None:
    url, model, folder = whole
    moextend.save_extension(model, "one", folder=tmp_path / "one")
    found = certify(moextend.load(str(folder / "base")), tmp_path / "one", items=8, server=url)
    (claim,) = (one for one in found.claims if one.name == "server")
    assert claim.status == "proved" and claim.items == 16
