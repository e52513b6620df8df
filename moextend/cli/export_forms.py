"""Writes the forms of `moextend export`: stock, moextend and peft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.cli import options
from moextend.cli.bars import bar
from moextend.cli.opening import load_active, opened
from moextend.errors import InputError, UnknownName, at

if TYPE_CHECKING:
    from torch import Tensor

    from moextend.bench.exporting.stage import StageModel
    from moextend.model.multimodal import MultimodalLM


STOCK, FOLDER, PEFT = "stock", "moextend", "peft"
"""The forms."""


@dataclass(frozen=True)
class How:
    """What is asked for: the options of the same names."""

    form: str
    out: Path
    base: str | None
    dtype: str | None
    with_base: bool
    active: list[str] | None
    size: str
    quiet: bool


def loaded(
    base: str, folders: Sequence[Path], how: How, encoders: dict[str, str], projectors: list[Path] | None
) -> MultimodalLM:
    """The base with the extensions, all active, on the CPU."""
    from moextend.export.planned import dtype_of
    from moextend.export.stock import check_rounding
    from moextend.extension.card import read_extension

    own = dtype_of([read_extension(folder) for folder in folders])
    if how.form == STOCK:
        check_rounding(own, how.dtype)
    model = opened(base, encoders, projectors, how.dtype or own, None, "cpu", None)
    load_active(model, folders, projectors, allow_dtype=how.dtype not in (None, own))
    return model


def stock_form(model: MultimodalLM, how: How, reference: Tensor | None = None) -> dict[str, Any]:
    """Writes a checkpoint for plain transformers; returns what was written.

    reference: logits to compare with, see `save_stock`.
    """
    from moextend.export.stock import notes_of
    from moextend.export.writing import save_stock

    for note in notes_of(model):
        options.echo(f"note: {note}", err=True)
    with bar("files", quiet=how.quiet) as on_shard:
        written = save_stock(
            model, how.out, max_shard_size=how.size, release=True, reference=reference, on_shard=on_shard
        )
    return {"form": STOCK, **vars(written), "folder": str(how.out)}


def folder_form(
    model: MultimodalLM, how: How, base: str, encoders: dict[str, str], **more: Any
) -> dict[str, Any]:
    """Writes a folder for transformers with moextend; returns what was written."""
    import moextend
    from moextend.export.saving import save_model

    known = [each.name for each in moextend.extensions(model)]
    for name in how.active or ():
        if name not in (*known, "none"):
            raise UnknownName("extension", name, [*known, "none"], where="--active")
    active = None if how.active is None else [name for name in how.active if name != "none"]
    named = str(Path(base).resolve()) if base and Path(base).exists() else base
    save_model(
        model, how.out, base=named, with_base=how.with_base, encoders=encoders, active=active,
        max_shard_size=how.size, **more,
    )  # fmt: skip
    size = sum(path.stat().st_size for path in how.out.rglob("*.safetensors"))
    return {
        "form": FOLDER, "folder": str(how.out), "extensions": known, "bytes": size,
        "base": str(how.out / "base") if how.with_base else named,
    }  # fmt: skip


def of_run(source: str, how: How, task: str | None, runs: Path) -> dict[str, Any]:
    """Exports a stage of a run; returns what was written."""
    from moextend.bench.exporting import stage
    from moextend.export.exact import state_of
    from moextend.util.quiet import quiet_process

    quiet_process()
    if how.dtype is not None and how.form != STOCK:
        raise InputError(
            "applies only to extensions and to --as stock.", where="--dtype", hint="Leave it out."
        )
    found = stage.opened(stage.find(source, runs), task)
    if how.form == PEFT:
        return _peft(found, how.out, how.base)
    if how.form == STOCK:
        return _stock(found, how)
    if not state_of(found.model.lm).known:
        raise InputError(
            "the stage has no extensions.",
            where=found.name,
            hint="Use --as stock, or --as peft for LoRA adapters.",
        )
    made = folder_form(
        found.model, how, how.base or found.base, found.encoders, resize=found.resize, revision=found.revision
    )
    return {**made, "source": found.name}


def _stock(found: StageModel, how: How) -> dict[str, Any]:
    from moextend.bench.exporting import adapters
    from moextend.export.check import sample_logits
    from moextend.export.exact import state_of
    from moextend.export.stock import check_rounding

    lm, own = found.model.lm, found.model.base_dtype
    if how.dtype not in (None, own, "float32"):
        raise InputError(
            f"the weights of this run are written as {own} or float32.",
            where="--dtype",
            hint="Name one of them.",
        )
    if state_of(lm).active:
        check_rounding(own, how.dtype)
    if how.dtype == "float32":
        lm.float()
    reference = sample_logits(lm)
    merged = adapters.merge(found.model)
    with at(found.name):
        return {**stock_form(found.model, how, reference), "source": found.name, "merged": merged}


def _peft(found: StageModel, out: Path, base: str | None) -> dict[str, Any]:
    from moextend.bench.exporting import adapters
    from moextend.model import sources
    from moextend.util import files

    named = base or found.base
    if not named:
        raise InputError(
            "the run made its own base (upcycle), so no other program can load it.",
            where=found.name,
            hint="Save it with moextend upcycle, and name the folder with --base.",
        )
    source = sources.find(named, where="--base")  # as plain transformers finds it
    sources.check_hub(source, where="--base")
    with files.new_folder(out) as made:
        rank = adapters.save_adapter(found, made, str(source))
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    return {
        "form": PEFT, "folder": str(out), "source": found.name, "task": found.task, "rank": rank, "bytes": size,
        "base": str(source),
    }  # fmt: skip
