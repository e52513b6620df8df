"""Generation against the full forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from moextend import MultimodalLM, Prompt, attach, generate, new_parameters
from moextend.errors import InputError
from moextend.model.generation import prompt_ids
from moextend.moe.recipe import Mode
from tests.toys import picture, shown, toy_model

PROMPTS = [
    Prompt("<image> w1 w2", (picture(250),)),
    Prompt("w3 w4 w5 w6 w7 w8 w9"),
    Prompt("<image> w1 <image> w2", (picture(0, 250), picture(0, 0, 250))),
    Prompt("w3"),
    Prompt("w4 <image>", (picture(9), picture(0, 0, 99)), before=(("<image> w1", "w2"), ("w3", "w5"))),
    Prompt("w5", (picture(250),), before=(("w1 <image>", "w2"),)),
]


def one_by_one(model: MultimodalLM, prompt: Prompt, steps: int) -> str:
    """Greedy answers without cache, batch or padding."""
    ids = prompt_ids(model, prompt)
    features = shown(model, prompt.media)
    answer_ids: list[int] = []
    for _ in range(steps):
        row = torch.tensor([ids + answer_ids])
        with torch.no_grad():
            logits = model(row, torch.ones_like(row), features=features)["logits"]
        answer_ids.append(int(logits[0, -1].argmax()))
        if answer_ids[-1] == model.tokenizer.eos_token_id:
            break
    text: str = model.tokenizer.decode(answer_ids, skip_special_tokens=True)
    return text.strip()


@pytest.mark.parametrize("mode", ["exact", "paper", "slot"])
def test_batched_cached_generation_equals_the_full_forward_pass(mode: Mode) -> None:
    model = toy_model()
    attach(model.lm, "a", {0: [1], 1: [0], 2: [2]}, mode=mode)
    with torch.no_grad():
        for parameter in new_parameters(model.lm, "a").values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    expected = [one_by_one(model, prompt, 4) for prompt in PROMPTS]
    assert len(set(expected)) > 1
    for batch in (2, 6):
        assert generate(model, PROMPTS, max_new_tokens=4, batch_size=batch) == expected


def test_a_setting_of_the_process_limits_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model()
    rows: list[int] = []
    answers = generate(model, PROMPTS, max_new_tokens=4, batch_size=6)

    def short(module: torch.nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        rows.append(len(out[0]))
        if rows[-1] > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    model.lm.get_decoder().register_forward_hook(short, with_kwargs=True)
    with pytest.raises(InputError, match=r"^generate: out of memory with 6 rows .*MOEXTEND_MICRO_BATCH=3"):
        generate(model, PROMPTS, max_new_tokens=4, batch_size=6)
    monkeypatch.setenv("MOEXTEND_MICRO_BATCH", "3")
    assert generate(model, PROMPTS, max_new_tokens=4, batch_size=6) == answers and max(rows[1:]) == 3


def test_the_checkpoints_own_way_of_decoding_is_left_aside() -> None:
    model = toy_model()
    expected = [one_by_one(model, prompt, 6) for prompt in PROMPTS]
    first = model.tokenizer.convert_tokens_to_ids(expected[0].split()[0])
    own = model.lm.generation_config
    own.update(
        num_beams=3, do_sample=True, temperature=3.0, repetition_penalty=5.0, no_repeat_ngram_size=1, min_new_tokens=6,
        length_penalty=-2.0, bad_words_ids=[[first]], suppress_tokens=[first], sequence_bias=[[[first], -50.0]],
        num_return_sequences=2, exponential_decay_length_penalty=(1, 9.0), return_dict_in_generate=True, max_length=3,
    )  # fmt: skip
    assert generate(model, PROMPTS, max_new_tokens=6, batch_size=3) == expected
    assert model.lm.generation_config is own and own.num_beams == 3


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("<image> w1", (picture(1), picture(2))), "prompt 1: 2 images, but 1 <image> mark "),
        (Prompt("w1", (picture(1),)), "prompt 1: 1 image, but 0 <image> marks"),
        (
            Prompt("<image> " * 32, (picture(1),) * 32),
            r"with 4 tokens .*133 tokens \(128 of 32 images\).*context length is 128",
        ),
    ],
)
def test_a_wrong_prompt_is_refused_with_its_place(model: MultimodalLM, prompt: Prompt, message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(model, [PROMPTS[0], prompt], max_new_tokens=4, batch_size=2)
