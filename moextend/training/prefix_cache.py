"""Cache of the hidden states below the lowest trained layer: computed in the first epoch, saved on disk, used again.

All layers below are frozen, so an item has the same hidden states there in every epoch.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moextend.errors import InputError
from moextend.model.lm_head import NotAbove, caught, close, decoder_layers, handing_in
from moextend.model.multimodal import MultimodalLM
from moextend.training.prepare import lowest
from moextend.util import files

log = logging.getLogger(__name__)


class PrefixCache:
    """Hidden states at the input of the lowest trained layer, by item; valid while the same parameters are trained.

    They are stored in their dtype in temporary files: T x H x 4 bytes per item in float32, half of it in bfloat16.
    Without frozen layers below, nothing is stored.
    """

    def __init__(self, model: MultimodalLM, folder: Path) -> None:
        """Args: folder: on the disk for the files. Raises InputError for a model without a list of decoder layers."""
        with _fitting(model):
            layers = decoder_layers(model.lm)
        self.model = model
        self.skipped: list[nn.Module] = layers[: lowest(model, layers)]
        """Layers below the lowest trained one, which are skipped for cached items."""
        if not self.skipped:
            log.info("cache_prefix: no layers are frozen below the trained ones, so nothing is cached.")
        self._store = _Store(folder)

    def knows(self, items: Sequence[int]) -> bool:
        """Whether the states of all these items are cached."""
        return all(item in self._store for item in items)

    @contextmanager
    def around(self, items: Sequence[int], attention_mask: Tensor) -> Iterator[None]:
        """Context for one forward pass, which starts at the lowest trained layer if all items are cached.

        Args:
            items: ids of the rows of the batch.
            attention_mask: of the batch, [B, T]; padding is on the right.
        """
        if not self.skipped:
            yield
        elif self.knows(items):
            kept = [self._store[item] for item in items]
            states = kept[0].new_zeros(*attention_mask.shape, *kept[0].shape[1:])
            for row, own in zip(states, kept, strict=True):
                row[: len(own)] = own
            with handing_in(self.skipped, states.to(attention_mask.device)):
                yield
        else:
            with _fitting(self.model), caught(self.skipped[-1]) as found:
                yield
            lengths = attention_mask.sum(1).tolist()
            for item, row, length in zip(items, found[0], lengths, strict=True):
                if item not in self._store:
                    self._store[item] = row[:length]

    @torch.no_grad()
    def check(self, inputs: Mapping[str, Any]) -> None:
        """Computes one batch with and without the layers below. InputError if the layers above use more than these."""
        if not self.skipped:
            return
        with _fitting(self.model), caught(self.skipped[-1]) as first:
            full = self.model(**inputs)["logits"]
        with handing_in(self.skipped, first[0]):
            short = self.model(**inputs)["logits"]
        if not close(full, short):
            raise _unfit(self.model, "the trained layers read more than the output of the layer below them")


@contextmanager
def _fitting(model: MultimodalLM) -> Iterator[None]:
    """Context that raises InputError where a pass cannot start above the frozen layers."""
    try:
        yield
    except NotAbove as error:
        raise _unfit(model, str(error)) from None


def _unfit(model: MultimodalLM, why: str) -> InputError:
    return InputError(
        f"{type(model.lm).__name__} cannot start above its frozen layers: {why}.",
        where="training settings",
        hint="Use cache_prefix: false.",
    )


class _Store:
    """Tensors by number, in a temporary folder of the process."""

    def __init__(self, folder: Path) -> None:
        self._kept: set[int] = set()
        with files.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._home = tempfile.TemporaryDirectory(dir=folder)

    def __contains__(self, item: int) -> bool:
        return item in self._kept

    def _file(self, item: int) -> Path:
        return Path(self._home.name, f"{item}.safetensors")

    def __setitem__(self, item: int, tensor: Tensor) -> None:
        with files.disk_errors(self._file(item)):
            save_file({"states": tensor.cpu().contiguous()}, self._file(item))
        self._kept.add(item)

    def __getitem__(self, item: int) -> Tensor:
        return load_file(self._file(item))["states"]
