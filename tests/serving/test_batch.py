"""Batches of prompts of different lengths, and the text of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import moextend
from moextend import MultimodalLM
from moextend.model.generation import Prompt, prompt_ids

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.serving.batch import Answer, Batch, Job
from moextend.serving.protocol import Completion
from tests.toys import picture, toy_lm, toy_model, toy_tokenizer

PROMPTS = ["w5", "w1 w2 w3 w4 w5 w6 w7 w8 w9", "w9 w8 w7", "w3 w3 w3 w3 w3", "w11 w12", "w20 w21 w22 w23"]
TOKENS = 12


def job_of(model: MultimodalLM, prompt: Prompt, tokens: int) -> Job:
    asked = Completion(model="base", prompt="", stream=True, logprobs=0)
    return Job(prompt_ids(model, prompt), prompt, asked, tokens, logprobs=0, lead=())


def answers(model: MultimodalLM, prompts: Sequence[Prompt], tokens: Sequence[int]) -> list[list[int]]:
    """Ids of the answers, of these numbers of tokens, from one batch."""
    jobs = [job_of(model, *each) for each in zip(prompts, tokens, strict=True)]
    found: list[list[int]] = [[] for _ in jobs]
    for job, own in zip(jobs, found, strict=True):
        job.deliver = lambda piece, own=own: own.extend(token.id for token in piece.tokens)  # type: ignore[misc]
    batch = Batch(model, jobs)
    batch._ends = set()
    batch.start(model.modalities.sources())
    while not all(job.over for job in jobs):
        batch.step()
    return found


@pytest.mark.parametrize("family, more", [("mixtral", {"sliding_window": 6}), ("qwen3_moe", {})])
def test_an_answer_is_that_of_generate_whatever_its_neighbours(family: str, more: dict[str, Any]) -> None:
    lm: Any = toy_lm(family, **more)
    model, lengths = MultimodalLM(lm, toy_tokenizer()), [TOKENS - 2 * place for place in range(len(PROMPTS))]
    found = answers(model, [Prompt(text) for text in PROMPTS], lengths)
    for text, length, own in zip(PROMPTS, lengths, found, strict=True):
        ids = torch.tensor([prompt_ids(model, Prompt(text))])
        wanted = lm.generate(ids, max_new_tokens=length, do_sample=False, eos_token_id=None)
        assert own == wanted[0, ids.shape[1] :].tolist(), text


def test_a_cache_with_more_than_keys_and_values() -> None:
    from tests.moe.toy_families import build

    model, prompts = MultimodalLM(build("qwen3_next"), toy_tokenizer()), [Prompt(text) for text in PROMPTS]
    together = answers(model, prompts, [TOKENS] * len(prompts))
    for prompt, own in zip(prompts, together, strict=True):
        assert [own] == answers(model, [prompt], [TOKENS]) and len(own) == TOKENS


def test_prompts_with_media_are_computed_with_their_features() -> None:
    model, images = toy_model(), (picture(40), picture(0, 200), picture(9, 9, 9))
    asked = [
        Prompt("<image> w1", images[:1]),
        Prompt("w2 w3"),
        Prompt("<image> w4 <image> w5", images[1:]),
    ]
    wanted = moextend.generate(model, asked, max_new_tokens=5, batch_size=1)
    for ids, text in zip(answers(model, asked, [5] * 3), wanted, strict=True):
        assert model.tokenizer.decode(ids, skip_special_tokens=True).startswith(text)


class Letters:
    """A tokenizer of single characters; two ids make one character."""

    table = ("a", "b", "c", " ", "E", "N", "D")
    all_special_ids: tuple[int, ...] = ()

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        text = "".join(self.table[i] if i < 7 else {7: "�", 8: ""}[i] for i in ids)
        return text.replace("�", "é") if ids.count(7) == ids.count(8) else text


def pieces(ids: list[int], *, stripped: bool, stream: bool) -> list[str]:
    """Pieces of an answer that ends at END or after all ids."""
    asked, found = Completion(model="base", prompt="", stop=["END"], stream=stream), list[str]()
    job = Job([], Prompt(""), asked, len(ids), lead=() if stripped else None)
    job.deliver = lambda piece: found.append(piece.text)  # type: ignore[union-attr]
    answer = Answer(job, Letters())
    for one in ids:
        if not job.over:
            answer.add(one, ends=False)
    return found


@pytest.mark.parametrize(
    "ids, stripped, wanted",
    [
        ([0, 1, 2], False, ["a", "b", "c"]),
        ([3, 0, 3, 1, 3], False, [" ", "a", " ", "b", " "]),
        ([3, 0, 3, 1, 3], True, ["a", " b", ""]),
        ([0, 4, 5, 1], False, ["a", "ENb"]),
        ([0, 4, 5, 6, 1], False, ["a", ""]),
        ([0, 4, 4, 5, 6], False, ["a", "E", ""]),
        ([0, 4, 5], False, ["a", "EN"]),
        ([0, 7, 8, 1], False, ["a", "é", "b"]),
    ],
)
def test_pieces_do_not_change_later(ids: list[int], stripped: bool, wanted: list[str]) -> None:
    assert pieces(ids, stripped=stripped, stream=True) == wanted
    assert pieces(ids, stripped=stripped, stream=False) == ["".join(wanted)]
