"""A model of this project in lm-eval, by the name `moextend`.

lm-eval has no plug-ins: ``moextend lm-eval ARGUMENTS`` is its own command line with this model known, so that any of
its tasks runs on a trained extension: ``moextend lm-eval --model_args run=runs/tiny/lora-s0 --tasks ...``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.tasks import TaskManager

import moextend
from moextend.bench.run.models import restored
from moextend.bench.run.rundir import RunDir
from moextend.bench.score.text.choices import SharedContext
from moextend.errors import InputError, UnknownName
from moextend.export.auto import register_auto_classes

NAME = "moextend"


@register_model(NAME)
class MoextendLM(SharedContext):
    """lm-eval's model of transformers over a run's model after a stage, or over a base with extensions.

    Args:
        run: folder of a run; `stage` None takes its last one, `task` names the task for methods that are given it.
        pretrained: a base as `moextend.load` takes it.
        extensions: folders of extensions, joined by "+", in the order they were made; all are reachable.
    """

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
        if run is not None and pretrained is None:
            model = restored(RunDir(Path(run)), stage=None if stage is None else int(stage), task=task)
        elif pretrained is not None and run is None:
            model = moextend.load(pretrained, dtype=dtype, device=device or "cpu")
            for folder in filter(None, extensions.split("+")):
                moextend.load_extension(model, Path(folder))
                moextend.activate(model, "all")
        else:
            raise InputError(
                "give exactly one of run and pretrained.",
                where="model_args",
                hint="Write run=runs/SEQUENCE/RUN, or pretrained=MODEL,extensions=FOLDER+FOLDER.",
            )
        super().__init__(model, **options)


def main(arguments: Sequence[str]) -> None:
    """lm-eval's command line with these arguments; `--model moextend` and `--device` need not be given."""
    register_auto_classes()  # for --model hf
    before, sys.argv = sys.argv, ["lm-eval", *completed(arguments)]
    try:
        cli_evaluate()
    except ValueError as error:
        missing = str(error).partition("Tasks not found: ")[2]
        if missing:
            name = missing.split(",")[0].strip()
            raise UnknownName("lm-eval task", name, TaskManager().all_tasks, where="--tasks") from error
        if str(error).startswith("No tasks specified"):
            raise InputError(
                "no task is named.", where="--tasks", hint="Name one, e.g. --tasks arc_easy."
            ) from error
        raise
    finally:
        sys.argv = before


def completed(arguments: Sequence[str]) -> list[str]:
    """The arguments with this model and a device that is there: lm-eval's own defaults are `hf` and `cuda:0`."""
    words = list(arguments)
    given = {word.partition("=")[0] for word in words}
    if not words or words[0] in ("ls", "validate") or given & {"-h", "--help", "-C", "--config"}:
        return words
    if not given & {"-M", "--model"}:
        words += ["--model", NAME]
    if "--device" not in given:
        words += ["--device", "cuda" if torch.cuda.is_available() else "cpu"]
    return words
