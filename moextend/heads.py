"""The logits that a causal LM makes of its last hidden states, at positions of one's own choice.

An LM's own forward pass applies the head at the end of every row; here it is applied where a token is predicted. What
some families do around the head is repeated, and a test compares both for every family.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def logits(lm: Any, hidden: Tensor) -> Tensor:
    """Logits [..., vocabulary] for last hidden states [..., H] of `lm.model`."""
    config = lm.config
    width = getattr(config, "logits_mup_width_multiplier", None)  # Inkling
    out: Tensor = lm.lm_head(hidden if width is None else hidden / width)
    if (scale := getattr(config, "logits_scaling", None)) is not None:  # Granite
        out = out / scale
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        out = out * scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        out = torch.tanh(out.float() / cap) * cap
    kept = getattr(config, "unpadded_vocab_size", None)
    return out if kept is None else out[..., :kept]
