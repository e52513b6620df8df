"""Latents: retention by whole inputs of earlier data, kept as hidden states (latent replay, arXiv 1912.01100).

A pass from them computes what new experts of lower layers change for those of higher ones, which kept router inputs
(moextend/extension/router_memory.py) cannot show. The loss on them is `latent_loss` (moextend/extension/retention.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from moextend.data.conversations import Conversation
from moextend.errors import InputError
from moextend.extension.folder import LATENTS
from moextend.extension.probe import tokens_of
from moextend.extension.tensor_files import AGAIN, read_tensors, write_tensors
from moextend.model.batches import Collator, on_device
from moextend.model.lm_head import (
    NotAbove,
    caught,
    close,
    decoder,
    decoder_layers,
    handing_in,
    layers_need_ids,
)
from moextend.model.multimodal import MultimodalLM
from moextend.moe.sites import find_sites

FILE = LATENTS


@dataclass(frozen=True)
class Latents:
    """Inputs of earlier data as hidden states."""

    layer: int
    """Decoder layer, lowest 0, whose inputs they are."""
    states: Sequence[Tensor]
    """[T, H] of each input, without padding."""

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self.states)


def layer_of(model: MultimodalLM, block: int) -> int:
    """Decoder layer with this MoE block.

    Raises:
        InputError: the LM has no list of decoder layers.
    """
    site = next(site for site in find_sites(model.lm) if site.layer == block)
    layers = _layers(model)
    return next(i for i, layer in enumerate(layers) if any(part is site.block for part in layer.modules()))


def collect(
    model: MultimodalLM,
    data: Sequence[Conversation],
    tokens: int,
    seed: int,
    *,
    layer: int,
    batch_size: int = 64,
) -> Latents:
    """Latents of inputs that are drawn at random from `data`: as many as have `tokens` tokens in all, at least one.

    Args:
        layer: decoder layer whose inputs are kept.
        batch_size: conversations in a forward pass.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    collate, drawn, count = Collator.of(model), list[Conversation](), 0
    for place in order:
        count += int(tokens_of(collate.ids([data[place]]), "all").sum())
        if drawn and count > tokens:
            break
        drawn.append(data[place])
    states: list[Tensor] = []
    for start in range(0, len(drawn), batch_size):
        batch = _batch(model, drawn[start : start + batch_size])
        found, real = _inputs(model, batch, layer), batch["attention_mask"] > 0
        states += [row[own].cpu() for row, own in zip(found, real, strict=True)]
    return Latents(layer, states)


def _batch(model: MultimodalLM, data: Sequence[Conversation]) -> dict[str, Any]:
    """Inputs of `model.hidden`."""
    batch = Collator.of(model)(list(data))
    batch.pop("labels")
    return on_device(batch, model.device)


@torch.no_grad()
def _inputs(model: MultimodalLM, batch: Mapping[str, Any], layer: int) -> Tensor:
    """Inputs [B, T, H] of a decoder layer; those of the lowest are the embeddings."""
    if not layer:
        return model.embed(batch["input_ids"], batch.get("features"))
    with caught(_layers(model)[layer - 1]) as found:
        model.hidden(**batch)
    return found[0]


def through(model: MultimodalLM, states: Tensor, mask: Tensor, layer: int) -> Tensor:
    """Last hidden states [B, T, H] of a pass from inputs [B, T, H] of a decoder layer; the layers below do nothing."""
    skipped = _layers(model)[:layer]
    states = states.to(model.device, model.lm.dtype)
    with handing_in(skipped, states):
        out = decoder(model.lm)(inputs_embeds=states, attention_mask=mask.to(model.device), use_cache=False)
    found: Tensor = out.last_hidden_state
    return found


def padded(states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """States [B, T, H] with padding on the right, and their attention mask [B, T]."""
    mask = pad_sequence([torch.ones(len(each), dtype=torch.long) for each in states], batch_first=True)
    return pad_sequence(list(states), batch_first=True), mask


def check_model(model: MultimodalLM, data: Sequence[Conversation], layer: int) -> None:
    """Computes two inputs from their latents.

    Raises:
        InputError: the results differ from those of the inputs: the LM cannot compute from hidden states alone.
    """
    if layers_need_ids(model.lm):
        raise _unfit(model, "its layers read token ids")
    above = f"above its layer {layer - 1}" if layer else ""
    try:
        batch = _batch(model, data[:2])
        mask = batch["attention_mask"]
        with torch.no_grad():
            full = model.hidden(**batch)
            again = through(model, _inputs(model, batch, layer), mask, layer)
    except NotAbove as error:
        raise _unfit(model, str(error), above) from None
    if not close(full[mask > 0], again[mask > 0]):
        raise _unfit(model, "its layers read more than the hidden states", above)


def write(kept: Latents, folder: Path) -> None:
    """Writes latents to the folder of an extension."""
    lengths = torch.tensor([len(each) for each in kept.states])
    tensors = {"states": torch.cat(list(kept.states)), "lengths": lengths, "layer": torch.tensor(kept.layer)}
    write_tensors(folder / FILE, tensors)


def read(folder: Path) -> Latents:
    """Latents from the folder of an extension; InputError if the file is missing or damaged."""
    found = read_tensors(folder / FILE)
    states, lengths, layer = (found.get(name) for name in ("states", "lengths", "layer"))
    if (
        states is None or lengths is None or layer is None or states.dim() != 2 or lengths.dim() != 1
        or layer.numel() != 1 or not len(lengths) or not bool((lengths > 0).all())
        or int(lengths.sum()) != len(states) or not states.is_floating_point()
    ):  # fmt: skip
        raise InputError(
            "has no latents of this version.",
            where=str(folder / FILE),
            hint=AGAIN,
        )
    return Latents(int(layer), states.split(lengths.tolist()))


def check(folders: Sequence[Path], layer: int, width: int) -> None:
    """Raises InputError if the latents in one of the folders are not inputs [T, width] of this decoder layer."""
    for folder in folders:
        found = read(folder)
        if found.layer != layer:
            raise InputError(
                f"has inputs of decoder layer {found.layer}, and this extension needs those of layer {layer}.",
                where=str(folder / FILE),
                hint="Give both the same lowest layer: choose that layer here, or train that extension again.",
            )
        if found.states[0].shape[1] != width:
            raise InputError(
                f"has states of width {found.states[0].shape[1]}, and the model has {width}.",
                where=str(folder / FILE), hint=AGAIN,
            )  # fmt: skip


def join(every: Sequence[Latents]) -> Latents:
    """All of them, of one decoder layer."""
    return Latents(every[0].layer if every else 0, [each for own in every for each in own.states])


def _layers(model: MultimodalLM) -> list[nn.Module]:
    try:
        return decoder_layers(model.lm)
    except NotAbove as error:
        raise _unfit(model, str(error)) from None


def _unfit(model: MultimodalLM, why: str, above: str = "") -> InputError:
    return InputError(
        f"{type(model.lm).__name__} cannot compute from stored hidden states{above and f' {above}'}: {why}.",
        where="retention 'latent'",
        hint="Extend its lowest MoE layer, too, or use retention 'output'."
        if above
        else "Use retention 'output'.",
    )
