"""A model of this project in lm-eval, by the name `moextend`.

lm-eval has no plug-ins: ``moextend lm-eval ARGUMENTS`` is its own command line with this model known, so that any of
its tasks runs on a trained extension: ``moextend lm-eval --model_args run=runs/tiny/lora-s0 --tasks ...``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.registry import register_model

from moextend.bench.bridges.opened import check, opened
from moextend.bench.score.text.choices import SharedContext
from moextend.errors import InputError, UnknownName
from moextend.export.auto import register_auto_classes

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
        model = opened(
            run=run, stage=stage, task=task, pretrained=pretrained, extensions=extensions, dtype=dtype, device=device
        )  # fmt: skip
        super().__init__(model, **options)


def main(arguments: Sequence[str]) -> None:
    """lm-eval's command line with these arguments; `--model moextend` and `--device` need not be given."""
    from lm_eval.__main__ import cli_evaluate

    words = completed(arguments)
    given = _given(words)
    if given.model == [NAME]:  # before lm-eval's index, which takes seconds
        pairs = [word.partition("=") for word in re.split(r"[,\s]+", " ".join(given.model_args))]
        own = {key: value for key, equals, value in pairs if equals}
        check(own.get("run"), own.get("pretrained"))
        if given.tasks is None and given.config is None:
            raise _unknown("")
    register_auto_classes()  # for --model hf
    before, sys.argv = sys.argv, ["lm-eval", *words]
    try:
        cli_evaluate()
    except ValueError as error:
        missing = str(error).partition("Tasks not found: ")[2]
        if missing or str(error).startswith("No tasks specified"):
            raise _unknown(missing.split(",")[0].strip()) from error
        raise
    finally:
        sys.argv = before


def _unknown(task: str) -> InputError:
    """The error of a task that lm-eval does not have, with the nearest names that it has."""
    if not task:
        return InputError("no task is named.", where="--tasks", hint="Name one, e.g. --tasks arc_easy.")
    from lm_eval.tasks import TaskManager

    return UnknownName("lm-eval task", task, TaskManager().all_tasks, where="--tasks")


def completed(arguments: Sequence[str]) -> list[str]:
    """The arguments with this model and a device that is there, where a run names none.

    lm-eval's own defaults are `hf` and `cuda:0`.
    """
    words = list(arguments)
    given = _given(words)
    if not words or words[0] in ("ls", "validate") or {"-h", "--help"} & {*words} or given.config is not None:
        return words
    if given.model is None:
        words += ["--model", NAME]
    if given.device is None:
        words += ["--device", "cuda" if torch.cuda.is_available() else "cpu"]
    return words


def _given(words: Sequence[str]) -> argparse.Namespace:
    """The options that matter here: lists of values; None where one is not given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options = (
        ("-M", "--model"),
        ("-a", "--model_args"),
        ("-t", "--tasks"),
        ("-C", "--config"),
        ("--device",),
    )
    for names in options:
        parser.add_argument(*names, nargs="*", default=[] if "-a" in names else None)
    return parser.parse_known_args(words)[0]
