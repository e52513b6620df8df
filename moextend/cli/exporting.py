"""`moextend export`: extended models for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from moextend.cli import options
from moextend.cli.inputs import Out, check_out
from moextend.cli.opening import Audio, BaseAsked, Projector, Vision, encoders_of, load_active
from moextend.errors import InputError, UnknownName, at, counted

if TYPE_CHECKING:
    from torch import Tensor

    from moextend.bench.exporting.stage import StageModel
    from moextend.model.multimodal import MultimodalLM


STOCK, FOLDER, PEFT = "stock", "moextend", "peft"
"""The forms."""


FORMS = {
    STOCK: "a checkpoint that plain transformers loads",
    FOLDER: "a folder that transformers loads after `moextend.register_auto_classes()`",
    PEFT: "an adapter that peft loads",
}


@dataclass(frozen=True)
class How:
    """What is asked for: the options of the same names."""

    form: str
    out: Path
    base: str | None
    dtype: str | None
    with_base: bool
    active: list[str] | None


def loaded(asked: BaseAsked, folders: Sequence[Path], how: How) -> MultimodalLM:
    """The base with the extensions, all active, on the CPU."""
    from moextend.export.writing import check_rounding, dtype_of
    from moextend.extension.card import read_extension

    own = dtype_of([read_extension(folder) for folder in folders])
    if how.form == STOCK:
        check_rounding(own, how.dtype)
    model = replace(asked, dtype=how.dtype or own).open()
    load_active(model, folders, asked.projectors, allow_dtype=how.dtype not in (None, own))
    return model


def stock_form(model: MultimodalLM, how: How, reference: Tensor | None = None) -> str:
    """Writes a checkpoint for plain transformers; returns in words what was written.

    reference: logits to compare with, see `save_stock`.
    """
    from moextend.export.writing import notes_of, save_stock

    for note in notes_of(model):
        options.echo(f"note: {note}", err=True)
    written = save_stock(model, how.out, release=True, reference=reference)
    lines = [f"wrote {how.out}: {_size_line(written.files, written.bytes, written.parameters)}"]
    if written.experts:
        lines.append(f"{counted(written.experts, 'new expert')} in all layers")
    lines.append(
        f"Read back by transformers: logits differ by at most {written.difference:.1e} from the model's."
    )
    return "\n".join(lines)


def folder_form(model: MultimodalLM, how: How, base: str, encoders: dict[str, str], **more: Any) -> str:
    """Writes a folder for transformers with moextend; returns in words what was written."""
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
        **more,
    )  # fmt: skip
    size = sum(path.stat().st_size for path in how.out.rglob("*.safetensors"))
    place = how.out / "base" if how.with_base else named
    return f"wrote {how.out}: {', '.join(known)}; {size / 1e6:.2f} MB, of the base {place}"


def of_run(source: str, how: How, task: str | None, runs: Path) -> str:
    """Exports a stage of a run; returns in words what was written."""
    from moextend.bench.exporting import stage
    from moextend.export.stock import state_of
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
    return folder_form(
        found.model, how, how.base or found.base, found.encoders, resize=found.resize, revision=found.revision
    )


def _stock(found: StageModel, how: How) -> str:
    from moextend.bench.exporting import adapters
    from moextend.export.stock import state_of
    from moextend.export.writing import check_rounding, sample_logits

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
    adapters.merge(found.model)
    with at(found.name):
        return stock_form(found.model, how, reference)


def _peft(found: StageModel, out: Path, base: str | None) -> str:
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
    return (
        f"wrote {out}: the adapter of {found.name} for task '{found.task}', rank {rank}, {size / 1e6:.2f} MB, "
        f"of the base {source}"
    )


def export(
    sources: Annotated[
        list[str],
        Argument(
            metavar="EXTENSION", help="Folders of extensions, oldest first; or one RUN:STAGE of a benchmark."
        ),
    ],
    out: Out,
    form: Annotated[str, Option("--as", metavar="FORM", help="stock, moextend or peft (docs/export.md).")],
    base: Annotated[
        str | None,
        Option(help="Base of the extensions: a folder, a .gguf file, a hub id or tiny. A run has its own."),
    ] = None,
    vision: Vision = None,
    audio: Audio = None,
    projector: Projector = None,
    task: Annotated[
        str | None,
        Option(
            help="Task to export, if the run has separate parameters per task. Default: the task of the stage."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        Option(
            help="Number type of the weights; bfloat16 rounds those of new experts. Default: that of the training."
        ),
    ] = None,
    with_base: Annotated[
        bool, Option("--with-base", help="--as moextend: copy the base instead of naming it.")
    ] = False,
    active: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="--as moextend: extension that is active after loading; repeatable, or none. Default: "
            "all, or those of the task.",
        ),
    ] = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Export an extended model for another program: plain transformers, transformers with moextend, or peft.

    An export is refused if the other program would compute other results; the error names the setting that causes it.
    """
    how = How(form, out, base, dtype, with_base, active)
    _check(how)
    folders = _extensions(sources, base)
    if folders is None:
        own = {"--vision": vision, "--audio": audio, "--projector": projector}
        options.refuse_except_with("extensions", own)
        text = of_run(sources[0], how, task, workspace / "runs")
    elif form == PEFT:
        raise InputError(
            "an extension adds experts, and peft has no adapter for that.", where="--as peft",
            hint="Use --as stock; peft is for the LoRA methods of a run: moextend export RUN:STAGE --as peft.",
        )  # fmt: skip
    else:
        options.refuse_except_with("a run", {"--task": task})
        assert base is not None
        asked = BaseAsked(base, encoders_of(vision, audio), projector, dtype)
        asked.check()
        model = loaded(asked, folders, how)
        encoders = dict(asked.encoders)
        text = stock_form(model, how) if form == STOCK else folder_form(model, how, base, encoders)
    options.echo(text)


def _check(how: How) -> None:
    """Raises InputError for a form that does not exist, or a folder that is not new."""
    from moextend.util import files, lookup

    lookup.choose("form", how.form, FORMS, where="--as")
    if how.form != FOLDER:
        options.refuse_except_with("--as moextend", {"--with-base": how.with_base, "--active": how.active})
    check_out(how.out)
    with at("--out"):
        files.check_new(how.out)


def _extensions(sources: Sequence[str], base: str | None) -> list[Path] | None:
    """Folders of the extensions; None: the source is a stage of a run.

    The folder of a stage is an extension if a base is named.
    """
    paths = [Path(source) for source in sources]
    found = [path for path in paths if (path / "extension.json").is_file()]
    if len(found) < len(paths) or (base is None and all(path.parent.name == "stages" for path in paths)):
        if len(paths) == 1:
            return None
        missing = next((path for path in paths if path not in found), paths[0])
        raise InputError(
            f"'{missing}' holds no extension.", where="EXTENSION",
            hint="Name folders of extensions with their --base, or one stage of a run: RUN:STAGE.",
        )  # fmt: skip
    if base is None:
        raise InputError(
            "is missing.", where="--base", hint="Name the base that the extension was trained on."
        )
    from moextend.extension.card import read_extension

    for path in paths:
        read_extension(path)
    return paths


def _size_line(count: int, size: int, parameters: int) -> str:
    return f"{counted(count, 'file')}, {size / 1e9:.3f} GB, {parameters:,} parameters"
