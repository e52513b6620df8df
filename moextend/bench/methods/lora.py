"""LoRA (arXiv 2106.09685) with peft: one adapter on attention and experts, trained in every stage."""

from __future__ import annotations

from moextend.bench.methods.weights import OneAdapter


class Lora(OneAdapter):
    """One adapter on attention and experts, trained in every stage."""

    look = ("orange", "^")
