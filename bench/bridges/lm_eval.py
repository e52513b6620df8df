"""A model of this project in lm-eval, by the name `moextend`.

lm-eval has no plug-ins: ``moextend lm-eval ARGUMENTS`` is its own command line with this model known, so that any of
its tasks runs on a trained extension: ``moextend lm-eval --model_args run=runs/tiny/lora-s0 --tasks ...``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.registry import register_model

from moextend.bench.bridges.opened import opened
from moextend.bench.text.choices import SharedContext

NAME = "moextend"


@register_model(NAME)
class MoextendLM(SharedContext):
    """lm-eval's model of transformers over a model of this project; `model_args` are those of `opened`."""

    def __init__(
        self,
        run: str | None = None,
        stage: str | int | None = None,
        task: str = "",
        pretrained: str | None = None,
        extensions: str = "",
        dtype: str = "float32",
        device: str | None = None,
        **options: Any,
    ) -> None:
        self.whole = opened(
            run=run, stage=stage, task=task, pretrained=pretrained, extensions=extensions, dtype=dtype, device=device
        )  # fmt: skip
        super().__init__(
            pretrained=self.whole.lm,
            tokenizer=self.whole.tokenizer,
            backend="causal",
            device=str(self.whole.device),
            **options,
        )


def main(arguments: Sequence[str]) -> None:
    """lm-eval's command line with these arguments; `--model moextend` and `--device` need not be given."""
    from lm_eval.__main__ import cli_evaluate

    before, sys.argv = sys.argv, ["lm-eval", *completed(arguments)]
    try:
        cli_evaluate()
    finally:
        sys.argv = before


def completed(arguments: Sequence[str]) -> list[str]:
    """The arguments with this model and a device that is there, where a run names none.

    lm-eval's own defaults are `hf` and `cuda:0`.
    """
    words = list(arguments)
    if not words or words[0] in ("ls", "validate") or _named(words, "-h", "--help"):
        return words
    if not _named(words, "-M", "--model", "-C", "--config"):
        words += ["--model", NAME]
    if not _named(words, "--device", "-C", "--config"):
        words += ["--device", "cuda" if torch.cuda.is_available() else "cpu"]
    return words


def _named(words: Sequence[str], *options: str) -> bool:
    return any(word.partition("=")[0] in options for word in words)
