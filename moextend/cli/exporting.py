"""`moextend export`: extended models for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

import moextend
from moextend.bench.exporting import adapters, stage
from moextend.cli import options
from moextend.cli.command import grouped
from moextend.cli.inputs import Out, check_out
from moextend.cli.opening import BaseAsked, load_active
from moextend.errors import InputError, UnknownName, at, counted
from moextend.model import sources
from moextend.model.base_name import type_parts
from moextend.util import files
from moextend.util.lookup import Dtype
from moextend.util.quiet import quiet_process

if TYPE_CHECKING:
    from torch import Tensor

    from moextend.bench.exporting.stage import StageModel
    from moextend.model.multimodal import MultimodalLM

Form = Literal["stock", "moextend", "vllm", "peft"]
FOLDER: Form = "moextend"
VLLM: Form = "vllm"


@dataclass(frozen=True, kw_only=True)
class How:
    """Options for what is written."""

    form: Annotated[
        Form,
        Option(
            "--as",
            metavar="FORM",
            help="stock (plain transformers), moextend, vllm or peft (docs/export.md).",
        ),
    ]
    out: Out
    base: Annotated[
        str | None,
        Option(help="Base of the extensions: a folder, a .gguf file, a hub id or tiny. A run has its own."),
    ] = None
    dtype: Annotated[
        Dtype | None, Option(help="Number type of the weights, also rounded. Default: that of the training.")
    ] = None
    with_base: Annotated[
        bool, Option("--with-base", help="--as moextend or vllm: copy the base instead of naming it.")
    ] = False
    active: Annotated[
        list[str] | None,
        Option(
            metavar="NAME", help="--as moextend: extension that is active after loading; repeatable, or none."
        ),
    ] = None
    model: Annotated[
        list[str] | None,
        Option(metavar="A+B", help="--as vllm: a further model name, as a+b or a:0.6; repeatable."),
    ] = None


@grouped
def export(
    sources: Annotated[
        list[str],
        Argument(
            metavar="EXTENSION", help="Folders of extensions, oldest first; or one RUN:STAGE of a benchmark."
        ),
    ],
    how: How,
    task: Annotated[
        str | None,
        Option(
            help="Of a run with separate parameters per task: which are exported. Default: those of the stage."
        ),
    ] = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Export an extended model for another program: plain transformers, transformers with moextend, vLLM, or peft.

    An export is refused if the other program would compute other results; the error names the setting that causes it.
    """
    if how.form not in (FOLDER, VLLM):
        options.refuse_except_with("--as moextend or vllm", {"--with-base": how.with_base})
    if how.form != FOLDER:
        options.refuse_except_with("--as moextend", {"--active": how.active})
    if how.form != VLLM:
        options.refuse_except_with("--as vllm", {"--model": how.model})
    check_out(how.out)
    with at("--out"):
        files.check_new(how.out)
    folders = _extensions(sources, how.base)
    if folders is None:
        options.echo(of_run(sources[0], how, task, workspace / "runs"))
        return
    if how.form == "peft":
        hint = "Use --as stock; peft is for the LoRA methods of a run: moextend export RUN:STAGE --as peft."
        raise InputError("peft has no adapter for new experts.", where="--as peft", hint=hint)
    options.refuse_except_with("a run", {"--task": task})
    assert how.base is not None
    asked = BaseAsked(base=how.base, dtype=how.dtype, device="cpu")
    asked.check()
    model = _loaded(asked, folders, how)
    if how.form == "stock":
        options.echo(_stock_form(model, how))
    else:
        options.echo(_folder_form(model, how, how.base, {}))


def _extensions(sources: Sequence[str], base: str | None) -> list[Path] | None:
    """Folders of the extensions; None: the source is a stage of a run.

    The folder of a stage is an extension if a base is named.
    """
    paths = [Path(source) for source in sources]
    missing = [path for path in paths if not (path / "extension.json").is_file()]
    if len(paths) == 1 and (missing or (base is None and paths[0].parent.name == "stages")):
        return None
    if missing:
        hint = "Name folders of extensions with their --base, or one stage of a run: RUN:STAGE."
        raise InputError(f"'{missing[0]}' holds no extension.", where="EXTENSION", hint=hint)
    if base is None:
        raise InputError("is missing.", where="--base", hint="Name the base that they were trained on.")
    from moextend.extension.card import read_extension

    for path in paths:
        read_extension(path)
    return paths


def _loaded(asked: BaseAsked, folders: Sequence[Path], how: How) -> MultimodalLM:
    """The base with the extensions, all active, on the CPU."""
    from moextend.export.writing import check_rounding, dtype_of
    from moextend.extension.card import read_extension

    found: Any = type_parts(dtype_of([read_extension(folder) for folder in folders]))
    own, quantize = found
    if how.form == "stock":
        check_rounding(own, how.dtype)
    quantize = quantize if how.form == FOLDER else None  # other programs load the full base
    model = replace(asked, dtype=how.dtype or own, quantize=quantize).open()
    load_active(model, folders, allow_dtype=how.dtype not in (None, own))
    return model


def _stock_form(model: MultimodalLM, how: How, reference: Tensor | None = None) -> str:
    """Writes a checkpoint for plain transformers; returns in words what was written.

    reference: logits to compare with, see `save_stock`.
    """
    from moextend.export.writing import notes_of, save_stock

    for note in notes_of(model):
        options.echo(f"note: {note}", err=True)
    written = save_stock(model, how.out, release=True, reference=reference)
    size = f"{written.bytes / 1e9:.3f} GB, {written.parameters:,} parameters"
    lines = [f"wrote {how.out}: {counted(written.files, 'file')}, {size}"]
    if written.experts:
        lines.append(f"{counted(written.experts, 'new expert')} in all layers")
    lines.append(
        f"Read back by transformers: logits differ by at most {written.difference:.1e} from the model's."
    )
    return "\n".join(lines)


def _folder_form(model: MultimodalLM, how: How, base: str, encoders: dict[str, str], **more: Any) -> str:
    """Writes a folder for transformers with moextend, or for vLLM; returns in words what was written."""
    from moextend.export.saving import save_model
    from moextend.export.served import OPTIONS, save_for_vllm

    known = [each.name for each in moextend.extensions(model)]
    for name in how.active or ():
        if name not in (*known, "none"):
            raise UnknownName("extension", name, [*known, "none"], where="--active")
    active = None if how.active is None else [name for name in how.active if name != "none"]
    named = sources.lasting(base)
    if how.form == VLLM:
        served = save_for_vllm(
            model,
            how.out,
            base=named,
            with_base=how.with_base,
            models=how.model or (),
            encoders=encoders,
            **more,
        )
        start = f"cd {how.out} && vllm serve . --config {OPTIONS}"
        return f"wrote {how.out}: models base, {', '.join(served.models)}. Start it with: {start}"
    save_model(model, how.out, base=named, with_base=how.with_base, encoders=encoders, active=active, **more)
    size = sum(path.stat().st_size for path in how.out.rglob("*.safetensors"))
    place = how.out / "base" if how.with_base else named
    return f"wrote {how.out}: {', '.join(known)}; {size / 1e6:.2f} MB, of the base {place}"


def of_run(source: str, how: How, task: str | None, runs: Path) -> str:
    """Exports a stage of a run; returns in words what was written."""
    from moextend.export.stock import state_of

    quiet_process()
    if how.form != "stock":
        options.refuse_except_with("extensions and --as stock", {"--dtype": how.dtype})
    found = stage.opened(stage.find(source, runs), task)
    if how.form == "peft":
        return _peft(found, how)
    if how.form == "stock":
        return _stock(found, how)
    if not state_of(found.model.lm).known:
        hint = "Use --as stock, or --as peft for LoRA adapters."
        raise InputError("the stage has no extensions.", where=found.name, hint=hint)
    base = how.base or found.base
    return _folder_form(found.model, how, base, found.encoders, resize=found.resize, revision=found.revision)


def _stock(found: StageModel, how: How) -> str:
    from moextend.export.stock import state_of
    from moextend.export.writing import check_rounding, sample_logits
    from moextend.moe import quantised

    lm, own = found.model.lm, found.model.base_dtype
    quantised.refuse(lm, "A stock model", where=found.name)
    if how.dtype not in (None, own, "float32"):
        what = f"the weights of this run are written as {' or '.join(dict.fromkeys((own, 'float32')))}."
        raise InputError(what, where="--dtype", hint="Leave it out.")
    if state_of(lm).active:
        check_rounding(own, how.dtype)
    if how.dtype == "float32":
        lm.float()
    reference = sample_logits(lm)
    adapters.merge(found.model)
    with at(found.name):
        return _stock_form(found.model, how, reference)


def _peft(found: StageModel, how: How) -> str:
    named = how.base or found.base
    if not named:
        raise InputError(
            "the run made its own base (upcycle), so no other program can load it.", where=found.name,
            hint="Save it with moextend upcycle, and name the folder with --base.",
        )  # fmt: skip
    source = sources.find(named, where="--base")  # as plain transformers finds it
    sources.check_hub(source, where="--base")
    with files.new_folder(how.out) as made:
        rank = adapters.save_adapter(found, made, str(source))
    size = sum(path.stat().st_size for path in how.out.glob("*.safetensors"))
    adapter = f"the adapter of {found.name} for task '{found.task}', rank {rank}"
    return f"wrote {how.out}: {adapter}, {size / 1e6:.2f} MB, of the base {source}"
