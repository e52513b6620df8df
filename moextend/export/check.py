"""Comparison of a written checkpoint with the model that it was made of, by plain transformers."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moextend.errors import RunFailed
from moextend.model import lm_head

TOKENS = 64
STEP = 7919
"""Distance of consecutive ids in the vocabulary; a prime, so that few are met twice."""
ALLOWED = 1e-4
"""Largest difference of logits in float32, as a share of the largest logit; a wrong checkpoint differs by far more."""


@torch.no_grad()
def sample_logits(lm: Any) -> Tensor:
    """Logits [1, T, vocabulary] (float32, on the CPU) of fixed ids, which spread over the vocabulary."""
    return lm(input_ids=_ids(lm).to(lm.device)).logits.float().cpu()  # type: ignore[no-any-return]


def _ids(lm: Any) -> Tensor:
    """Ids [1, T] without those that the config names, such as the place of an image."""
    size = lm.get_input_embeddings().weight.shape[0]
    config = lm_head.text_config(lm.config)
    named = {**config.to_dict(), **lm.config.to_dict()}
    special = {
        value
        for key, value in named.items()
        if key.endswith(("token_id", "token_index"))
        if isinstance(value, int)
    }
    spread = (number * STEP % size for number in range(size))
    count = min(TOKENS, getattr(config, "max_position_embeddings", None) or TOKENS)
    return torch.tensor([list(islice((each for each in spread if each not in special), count))])


def compare(folder: Path, expected: Tensor, like: Any, *, rounded: bool) -> float:
    """Largest difference of logits between the checkpoint in `folder`, loaded by plain transformers, and `expected`.

    Args:
        like: the class that loads it (the one of the base).
        rounded: new weights were rounded to the base's number type, so that any difference is accepted.

    Raises:
        RunFailed: tensors are missing, or the logits differ by more than rounding.
    """
    lm, found = like.from_pretrained(folder, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        raise RunFailed(f"the written checkpoint lacks {missing[0]}.", where=str(folder))
    lm.set_experts_implementation("eager")  # as moextend.load does on a CPU
    difference = float((sample_logits(lm.eval()) - expected).abs().max())
    if not rounded and not difference <= ALLOWED * max(1.0, float(expected.abs().max())):
        raise RunFailed(
            f"the written checkpoint computes other logits than the model (difference {difference:.1e}).",
            where=str(folder),
            hint="Nothing was kept. Export with --as moextend, and report this base.",
        )
    return difference
