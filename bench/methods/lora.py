"""LoRA (arXiv 2106.09685) through peft: one adapter on attention and experts, trained on, stage after stage."""

from __future__ import annotations

from moextend.bench.methods.weights import OneAdapter


class Lora(OneAdapter):
    """One adapter on attention and experts, trained on."""
