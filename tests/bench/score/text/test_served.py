"""Answers of a server to text tasks are those that lm-eval decodes from its own model, space by space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from moextend.bench.score.served.answers import ServedModel
from moextend.bench.score.text.harness import load, run
from tests.bench.score.text.conftest import WORDS


class Continues:
    """Gives the text that follows a prompt, as servers do: with the space before its first word."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.given: list[str] = []

    def complete(
        self,
        rows: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Sequence[str],
        on_answer: Callable[[], None],
    ) -> list[str]:
        for row in rows:
            ids = torch.tensor([row])
            out = self.model.lm.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
            )
            prompt, text = (
                self.model.tokenizer.decode(each, skip_special_tokens=True) for each in (row, out[0])
            )
            self.given.append(text.removeprefix(prompt))
            on_answer()
        return self.given[-len(rows) :]


def keeps_spaces() -> Any:
    """A tokenizer with the space in its tokens, as GPT-2's: decoding a word alone keeps it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*(f"Ġ{word}" for word in [*WORDS[:-1], "a"])]
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("keeps", [False, True])
def test_the_first_space_is_dropped_where_the_tokenizer_drops_it(
    keeps: bool, model: Any, workspace: Path
) -> None:
    if keeps:
        model.tokenizer = keeps_spaces()
    loaded = load("says", workspace / "tasks" / "lm", None, workspace, where="here")
    server = Continues(model)
    own, served = (
        [
            sample["resps"][0][0]
            for sample in run(model, loaded, batch_size=1, limit=8, served=by)["samples"]["says"]
        ]
        for by in (None, cast(ServedModel, server))
    )
    assert served == own and any(own)
    assert all(text.startswith(" ") for text in server.given if text)
    assert {text.startswith(" ") for text in own if text} == {keeps}
