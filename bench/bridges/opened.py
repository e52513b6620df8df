"""The model behind the arguments that a bridge is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import moextend
from moextend.errors import InputError
from moextend.model import sources

if TYPE_CHECKING:
    from moextend import MultimodalLM


def opened(
    *,
    run: str | None = None,
    stage: str | int | None = None,
    task: str = "",
    pretrained: str | None = None,
    extensions: str = "",
    vision: str | None = None,
    audio: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
) -> MultimodalLM:
    """Either a run's model after a stage, or a base with extensions.

    Args:
        run: folder of a run; `stage` None takes its last one, `task` names the task for methods that are given it.
        pretrained: a base as `moextend.load` takes it, with `vision` and `audio` its encoders.
        extensions: folders of extensions, joined by "+", in the order they were made; all are reachable.
    """
    check(run, pretrained)
    if run is not None:
        from moextend.bench.run.models import restored
        from moextend.bench.run.rundir import RunDir

        return restored(RunDir(Path(run)), stage=None if stage is None else int(stage), task=task)
    assert pretrained is not None
    model = moextend.load(pretrained, vision=vision, audio=audio, dtype=dtype, device=device or "cpu")
    for folder in filter(None, extensions.split("+")):
        moextend.load_extension(model, Path(folder))
        moextend.activate(model, "all")
    return model


def check(run: str | None, pretrained: str | None) -> None:
    """InputError where not one of both is given, or it names no run or model; nothing is loaded."""
    if (run is None) == (pretrained is None):
        raise InputError(
            "give exactly one of run and pretrained.",
            where="model_args",
            hint="Write run=runs/SEQUENCE/RUN, or pretrained=MODEL,extensions=FOLDER+FOLDER.",
        )
    if pretrained is not None:
        sources.find(pretrained, where="model_args: pretrained")
    elif not (Path(str(run)) / "config.json").is_file():
        raise InputError(
            f"'{run}' is not a run folder: no config.json.",
            where="model_args: run",
            hint="Write run=runs/SEQUENCE/RUN.",
        )
