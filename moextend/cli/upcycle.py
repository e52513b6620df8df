"""`moextend upcycle`: converts a dense model into an equivalent Mixture of Experts in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options
from moextend.cli.bars import bar
from moextend.cli.before import check_out
from moextend.util.lookup import MOST_SEED

if TYPE_CHECKING:
    from torch import Tensor

    from moextend.model.multimodal import MultimodalLM

EXAMPLE = "moextend upcycle smollm2 --experts 4 --top-k 2 --out models/smollm2-moe"
_PROBE = (
    "The quick brown fox jumps over the lazy dog. In 1969, two people walked on the Moon for the first time."
)


def upcycle(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder, a .gguf file, a hub id, or smollm2 (a package's model)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for the model.")],
    experts: Annotated[int, typer.Option(min=2, help="Experts per layer.")] = 4,
    top_k: Annotated[int, typer.Option(min=1, help="Experts per token.")] = 2,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the router's rows.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="Number type: float32, bfloat16, float16, or auto (the source's).")
    ] = "float32",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    as_json: options.Json = False,
) -> None:
    """Convert a dense language model into an equivalent Mixture of Experts, as a base for extensions."""
    from moextend.model import sources
    from moextend.model.loading import load, save_base
    from moextend.model.upcycling import check_numbers, parameter_counts
    from moextend.model.upcycling import upcycle as upcycled
    from moextend.util import files, lookup
    from moextend.util.lookup import DTYPES
    from moextend.util.quiet import quiet_process

    lookup.choose("dtype", dtype, dict.fromkeys(DTYPES), where="--dtype")
    check_numbers(experts, top_k)
    files.check_new(out)
    check_out(out)
    sources.check_hub(sources.find(source, where="SOURCE"), where="SOURCE")
    quiet_process()
    dense = load(source, dtype=dtype, revision=revision)
    name, before = type(dense.lm).__name__, sum(p.numel() for p in dense.lm.parameters())
    expected = _logits(dense)
    with bar("layers", quiet=as_json) as on_layer:
        moe = upcycled(dense, experts=experts, top_k=top_k, seed=seed, keep_dense=False, on_layer=on_layer)
    save_base(moe, out)
    kind, fingerprint = type(moe.lm).__name__, moe.base_fingerprint()
    total, active = parameter_counts(moe.lm)
    del dense, moe  # memory may not be enough for two
    found = _logits(load(str(out), dtype=dtype))
    record = {
        "source": source, "dense": name, "moe": kind, "out": str(out),
        "experts": experts, "top_k": top_k, "seed": seed, "dtype": dtype,
        "parameters_dense": before, "parameters": total, "parameters_active": active,
        "fingerprint": fingerprint,
        "largest_logit": float(expected.abs().max()),
        "largest_difference": float((found - expected).abs().max()),
        "same_next_token": float((found.argmax(-1) == expected.argmax(-1)).float().mean()),
    }  # fmt: skip
    files.write_json(out / "upcycled.json", record)
    typer.echo(json.dumps(record, indent=2) if as_json else _describe(record))


def _logits(model: MultimodalLM) -> Tensor:
    """Logits [1, T, vocabulary] of a fixed sentence."""
    import torch

    with torch.no_grad():
        ids = model.tokenizer(_PROBE, return_tensors="pt")["input_ids"]
        return model.lm(ids).logits.float()  # type: ignore[no-any-return]


def _describe(record: dict[str, object]) -> str:
    return (
        f"{record['dense']}, {record['parameters_dense']:,} parameters -> {record['moe']}, "
        f"{record['experts']} experts, top-{record['top_k']}: {record['parameters']:,} parameters, "
        f"{record['parameters_active']:,} used by a token.\n"
        f"Read back and compared on one sentence: logits differ by at most {record['largest_difference']:.1e} "
        f"(largest {record['largest_logit']:.1f}), next tokens agree at {100 * record['same_next_token']:.0f}%.\n"  # type: ignore[operator]
        f"wrote {record['out']}; base: model: {record['out']}"
    )
