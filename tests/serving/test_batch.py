"""A batch that rows join and leave between two tokens, and the text of its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import moextend
from moextend import MultimodalLM
from moextend.model.generation import Prompt, prompt_ids

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.serving.batch import Batch, Row
from moextend.serving.jobs import Answer, Job, Settings
from tests.toys import ToyEncoder, picture, toy_lm, toy_model, toy_tokenizer

PROMPTS = ["w5", "w1 w2 w3 w4 w5 w6 w7 w8 w9", "w9 w8 w7", "w3 w3 w3 w3 w3", "w11 w12", "w20 w21 w22 w23"]
TOKENS = 12


def row_of(model: MultimodalLM, text: str) -> Row:
    job = Job(prompt_ids(model, Prompt(text)), "base", Settings(TOKENS), Prompt(text))
    return Row(job, Answer(model.tokenizer), None)


def answers(model: MultimodalLM, arrivals: list[list[str]]) -> dict[str, list[int]]:
    """Prompt -> ids, where `arrivals[step]` join before each step, and rows leave after their number of tokens."""
    batch, found = Batch(model), dict[str, list[int]]()
    left, texts = {text: TOKENS - 2 * place for place, text in enumerate(PROMPTS)}, dict[int, str]()
    step = 0
    while batch.rows or step < len(arrivals):
        new = arrivals[step] if step < len(arrivals) else []
        if new and (batch.flexible or not batch.rows):
            started = Batch(model)
            rows = [row_of(model, text) for text in new]
            texts |= {id(row): text for row, text in zip(rows, new, strict=True)}
            for row, token in zip(rows, started.start(rows), strict=True):
                found[texts[id(row)]] = [token]
            batch.join(started)
        elif new:
            arrivals = [*arrivals[: step + 1], new, *arrivals[step + 1 :]]
        if batch.rows:
            for row, token in zip(batch.rows, batch.step(), strict=True):
                own = found[texts[id(row)]]
                if not row.finished:
                    own.append(token)
                row.finished = len(own) >= left[texts[id(row)]]
            batch.drop_finished()
        step += 1
    return found


@pytest.mark.parametrize("family, more", [("mixtral", {"sliding_window": 6}), ("qwen3_moe", {})])
def test_rows_that_join_and_leave_get_what_generate_gives(family: str, more: dict[str, Any]) -> None:
    lm: Any = toy_lm(family, **more)
    model = MultimodalLM(lm, toy_tokenizer())
    assert Batch(model).flexible
    found = answers(model, [PROMPTS[:2], [], PROMPTS[2:3], PROMPTS[3:4], [], [], [], PROMPTS[4:]])
    for place, text in enumerate(PROMPTS):
        ids = torch.tensor([prompt_ids(model, Prompt(text))])
        wanted = lm.generate(ids, max_new_tokens=TOKENS - 2 * place, do_sample=False, eos_token_id=None)
        assert found[text] == wanted[0, ids.shape[1] :].tolist(), text


def test_of_a_cache_with_more_than_keys_and_values_rows_stay_together() -> None:
    from tests.moe.toy_families import build

    lm = build("qwen3_next")
    model = MultimodalLM(lm, toy_tokenizer())
    assert not Batch(model).flexible
    found = answers(model, [PROMPTS[:3], PROMPTS[3:]])
    assert found.keys() == set(PROMPTS)
    for place, text in enumerate(PROMPTS):
        alone = answers(model, [[text]])[text]
        assert len(alone) == TOKENS - 2 * place
        assert found[text] == alone, text


def test_prompts_with_media_are_computed_with_their_features() -> None:
    model = toy_model()
    images = (picture(40), picture(0, 200), picture(9, 9, 9))
    asked = [
        Prompt("<image> w1", images[:1]),
        Prompt("w2 w3"),
        Prompt("<image> w4 <image> w5", images[1:]),
    ]
    assert isinstance(model.vision, ToyEncoder)
    wanted = moextend.generate(model, asked, max_new_tokens=5, batch_size=1)
    batch, rows = Batch(model), []
    for prompt in asked:
        job = Job(prompt_ids(model, prompt), "base", Settings(5), prompt)
        features = {"image": model.vision(prompt.media).flatten(0, 1)} if prompt.media else {}
        rows.append(Row(job, Answer(model.tokenizer), None, features))
    out = [batch.start(rows), *(batch.step() for _ in range(4))]
    for ids, text in zip(zip(*out, strict=True), wanted, strict=True):
        assert model.tokenizer.decode(list(ids), skip_special_tokens=True).startswith(text)


class Letters:
    """A tokenizer of single characters; two ids make one character."""

    table = ("a", "b", "c", " ", "E", "N", "D")

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        text = "".join(self.table[i] if i < 7 else {7: "�", 8: ""}[i] for i in ids)
        return text.replace("�", "é") if ids.count(7) == ids.count(8) else text


def pieces(answer: Answer, ids: list[int]) -> Iterator[str]:
    for one in ids:
        yield answer.add(one)
        if answer.stopped:
            break
    yield answer.end()


@pytest.mark.parametrize(
    "ids, stripped, wanted",
    [
        ([0, 1, 2], False, ["a", "b", "c", ""]),
        ([3, 0, 3, 1, 3], False, [" ", "a", " ", "b", " ", ""]),
        ([3, 0, 3, 1, 3], True, ["", "a", "", " b", "", ""]),
        ([0, 4, 5, 1], False, ["a", "", "", "ENb", ""]),
        ([0, 4, 5, 6, 1], False, ["a", "", "", "", ""]),
        ([0, 4, 4, 5, 6], False, ["a", "", "E", "", "", ""]),
        ([0, 4, 5], False, ["a", "", "", "EN"]),
        ([0, 7, 8, 1], False, ["a", "", "é", "b", ""]),
    ],
)
def test_pieces_do_not_change_later(ids: list[int], stripped: bool, wanted: list[str]) -> None:
    found = list(pieces(Answer(Letters(), ["END"], stripped=stripped, stream=True), ids))
    assert found == wanted
    complete = list(pieces(Answer(Letters(), ["END"], stripped=stripped), ids))
    assert complete[-1] == "".join(wanted) and not any(complete[:-1])
