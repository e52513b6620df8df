"""The tokenizer of an exported model makes the prompts of moextend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from moextend import MultimodalLM, Prompt
from moextend.export.prompts import save_tokenizer, set_ends
from moextend.model.chat import chat_of
from moextend.model.generation import prompt_ids
from tests.model.test_chat import byte_level, family, sentence_piece
from tests.toys import toy_lm, toy_tokenizer

TALK = Prompt("And now?", before=(("How many letters?", "two"),), system="Be short.")
MAKERS: dict[str, Callable[[], Any]] = {
    "words": toy_tokenizer,
    "bytes": byte_level,
    "pieces": sentence_piece,
    **{name: partial(family, name) for name in ("qwen2.5", "mixtral", "gpt-oss")},
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("chat", [None, False])
def test_it_makes_the_ids_of_moextend(tmp_path: Path, name: str, chat: bool | None) -> None:
    tokenizer = MAKERS[name]()
    if name in ("bytes", "pieces"):
        tokenizer.chat_template = None
    model = MultimodalLM(toy_lm(), tokenizer)
    model.chat = chat_of(tokenizer, chat)
    own = tokenizer.chat_template
    save_tokenizer(model, tmp_path)
    assert tokenizer.chat_template == own
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for prompt in (Prompt("How many?"), TALK):
        rows = [{"role": one.role, "content": one.text} for one in prompt.messages()]
        made = saved.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
        assert made == prompt_ids(model, prompt)
    assert (chat_of(saved, None) is None) == (model.chat is None)


def test_it_ends_answers_as_moextend_does(tmp_path: Path) -> None:
    tokenizer = family("gpt-oss")
    model = MultimodalLM(toy_lm(), tokenizer)
    model.chat = chat_of(tokenizer, None)
    config = GenerationConfig(eos_token_id=2)
    set_ends(model, config)
    assert set(tokenizer.convert_ids_to_tokens(config.eos_token_id)) >= {"<|return|>"}
