"""The tokenizer of an exported model: its chat template makes the prompts that the model was asked and trained with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from moextend.model.chat import plain_template
from moextend.model.generation import Prompt, prompt_ids, stop_ids
from moextend.model.multimodal import MultimodalLM

_PROBES = (
    Prompt("How many letters? Two, three:"),
    Prompt("a 1.", before=(("What is it?", "It is red."), ("b", "two")), system="Be short."),
)


def save_tokenizer(model: MultimodalLM, folder: Path) -> None:
    """Writes the tokenizer with a chat template that makes the same ids as moextend for messages of text.

    It is the base's own template, with a fixed date, and with folding of the roles that it lacks. For a model without a
    template it is one of prompts as they are, or none if the tokenizer cannot make these ids from one text.
    """
    tokenizer = copy.copy(model.tokenizer)
    tokenizer.chat_template = _plain(model) if model.chat is None else model.chat.template
    tokenizer.save_pretrained(folder)


def set_ends(model: MultimodalLM, config: Any) -> None:
    """Sets the ids that end an answer in a generation config."""
    found = sorted(stop_ids(model))
    config.eos_token_id = found[0] if len(found) == 1 else found


def _plain(model: MultimodalLM) -> str | None:
    """The template for prompts as they are. A tokenizer may need a space where a text begins after a special token."""
    start = "".join(model.tokenizer.convert_ids_to_tokens(model.tokenizer("")["input_ids"]))
    for before in ("", " "):
        template = plain_template(start, before)
        if all(_ids(model.tokenizer, probe, template) == prompt_ids(model, probe) for probe in _PROBES):
            return template
    return None


def _ids(tokenizer: Any, prompt: Prompt, template: str) -> list[int]:
    rows = [{"role": one.role, "content": one.text} for one in prompt.messages()]
    text = tokenizer.apply_chat_template(
        rows, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
