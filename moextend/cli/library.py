"""The core library from the shell: align, generate, upcycle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

import moextend
from moextend.cli import options
from moextend.cli.command import grouped
from moextend.cli.inputs import Data, Out, Reading, Training, check_out, check_settings, settings_of, shown
from moextend.cli.opening import EncodedBase, check_extensions, load_active, weighed
from moextend.cli.output import bar
from moextend.errors import InputError, counted
from moextend.model import sources
from moextend.util import files
from moextend.util.lookup import MOST_TOKENS, Dtype
from moextend.util.quiet import quiet_process

if TYPE_CHECKING:
    from torch import Tensor

    from moextend.model.multimodal import MultimodalLM

_PROBE = (
    "The quick brown fox jumps over the lazy dog. In 1969, two people walked on the Moon for the first time."
)


@grouped
def align(
    base: EncodedBase,
    data: Data,
    out: Out,
    reading: Reading,
    training: Training,
) -> None:
    """Before the first extension, train the projector of an encoder on captions of images or transcripts of sounds."""
    values = vars(training)
    check_settings(values)
    if len(base.encoders) != 1:
        named = counted(len(base.encoders), "encoder")
        hint = "Name the one whose projector is trained."
        raise InputError(f"{named} named.", where="--vision, --audio", hint=hint)
    base.check()
    check_out(out, holds="a projector", stem="projector")
    rows = reading.rows(data, base.encoders)
    model = base.open()
    settings = settings_of(model.lm.dtype, len(rows), values)
    from moextend.extension.align import align as aligned
    from moextend.training.resuming import is_begun

    with bar("steps", folder=out if is_begun(out) else None) as on_step:
        report = aligned(
            model, rows, settings, folder=out, on_step=on_step, modality=next(iter(base.encoders))
        )
    loss = f"loss {report.loss_first:.3f} -> {report.loss_last:.3f}"
    typer.echo(f"{len(rows)} conversations, {loss}; wrote {out}")


@grouped
def generate(
    base: EncodedBase,
    prompt: Annotated[
        str, Option("--prompt", "-p", help="The text; <image> and <audio> mark the places of media.")
    ],
    image: Annotated[
        list[Path] | None,
        Option("--image", "-i", dir_okay=False, metavar="FILE", help="Image file; repeatable, in order."),
    ] = None,
    sound: Annotated[
        list[Path] | None, Option(dir_okay=False, metavar="FILE", help="Sound file; repeatable, in order.")
    ] = None,
    extension: Annotated[
        list[str] | None,
        Option(
            "--extension", "-e", metavar="FOLDER[:STRENGTH]",
            help="Folder or hub id (also with @revision) of an extension, with a strength from 0 (the base) "
            "to 1 (default); repeatable, oldest first.",
        ),
    ] = None,
    auto: Annotated[
        bool, Option("--auto", help="Infer the extension from the input. Default: all extensions are active.")
    ] = False,
    max_new_tokens: Annotated[
        int, Option(min=1, max=MOST_TOKENS, help="Maximum number of tokens per answer.")
    ] = 32,
) -> None:  # fmt: skip
    """Print the answer of a base to a prompt, with or without extensions."""
    encoders = base.check()
    folders, strengths = weighed(extension)
    files = {"image": image or [], "audio": sound or []}
    text, media = shown(prompt, files, encoders | check_extensions(folders))
    if auto and not extension:
        raise InputError("chooses among extensions.", where="--auto", hint="Name one: --extension FOLDER.")
    model = base.open()
    names = load_active(model, folders, base.projector)

    given = dict(zip(names, strengths, strict=True))
    moextend.activate(model, "auto" if auto else "all", strengths=given)
    prompts = [moextend.Prompt(text, media)]
    options.echo(moextend.generate(model, prompts, max_new_tokens=max_new_tokens, batch_size=1)[0])


def upcycle(
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE", help="A folder, a .gguf file, a hub id (also with @revision), or smollm2."
        ),
    ],
    out: Annotated[Path, Option("--out", "-o", help="A new folder for the model.")],
    experts: Annotated[int, Option(min=2, help="Experts per layer.")] = 4,
    top_k: Annotated[int, Option(min=1, help="Experts per token.")] = 2,
    dtype: Annotated[Dtype, Option(help="Number type; auto: the source's.")] = "float32",
) -> None:
    """Convert a dense language model into an equivalent Mixture of Experts, as a base for extensions.

    Its folder has the numbers of the comparison in upcycled.json.
    """
    from moextend.model.loading import load, save_base
    from moextend.model.upcycling import check_numbers, parameter_counts
    from moextend.model.upcycling import upcycle as upcycled

    check_numbers(experts, top_k)
    files.check_new(out)
    check_out(out)
    named, _, revision = (source, "", "") if files.exists(source) else source.partition("@")
    sources.check_hub(sources.find(named, where="SOURCE"), where="SOURCE")
    quiet_process()
    dense = load(named, dtype=dtype, revision=revision or None)
    name, before = type(dense.lm).__name__, sum(p.numel() for p in dense.lm.parameters())
    expected = _logits(dense)
    with bar("layers") as on_layer:
        moe = upcycled(dense, experts=experts, top_k=top_k, keep_dense=False, on_layer=on_layer)
    save_base(moe, out)
    kind, fingerprint = type(moe.lm).__name__, moe.base_fingerprint()
    total, active = parameter_counts(moe.lm)
    del dense, moe  # memory may not be enough for two
    found = _logits(load(str(out), dtype=dtype))
    largest, difference = float(expected.abs().max()), float((found - expected).abs().max())
    same = float((found.argmax(-1) == expected.argmax(-1)).float().mean())
    record = {
        "source": source, "dense": name, "moe": kind, "out": str(out),
        "experts": experts, "top_k": top_k, "dtype": dtype,
        "parameters_dense": before, "parameters": total, "parameters_active": active, "fingerprint": fingerprint,
        "largest_logit": largest, "largest_difference": difference, "same_next_token": same,
    }  # fmt: skip
    files.write_json(out / "upcycled.json", record)
    typer.echo(
        f"{name}, {before:,} parameters -> {kind}, {experts} experts, top-{top_k}: {total:,} parameters, "
        f"{active:,} used by a token.\n"
        f"Read back and compared on one sentence: logits differ by at most {difference:.1e} "
        f"(largest {largest:.1f}), next tokens agree at {100 * same:.0f}%.\n"
        f"wrote {out}; base: model: {out}"
    )


def _logits(model: MultimodalLM) -> Tensor:
    """Logits [1, T, vocabulary] of a fixed sentence."""
    import torch

    with torch.no_grad():
        ids = model.tokenizer(_PROBE, return_tensors="pt")["input_ids"]
        return model.lm(ids).logits.float()  # type: ignore[no-any-return]
