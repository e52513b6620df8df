"""docs/families.md equals the table of families, and the table covers all families of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoModel,
    DbrxConfig,
    DogeConfig,
    JetMoeConfig,
    NllbMoeConfig,
    PreTrainedConfig,
    SwitchTransformersConfig,
)

from moextend.errors import InputError
from moextend.moe.families import FAMILIES, NOT_FUSED
from moextend.moe.sites import find_sites
from tests.moe.families_table import DOC, HEAD, table
from tests.moe.toy_families import CONFIGS, family

MODELS = Path(transformers.__file__).parent / "models"


def lines_from(start: str) -> list[str]:
    """The lines of the doc's table that starts with the header `start`."""
    lines = DOC.read_text(encoding="utf-8").splitlines()
    return list(takewhile(lambda line: line.startswith("|"), lines[lines.index(start) :]))


@pytest.mark.long
def test_the_doc_shows_what_the_command_finds() -> None:
    """Remake the page with: python -m tests.moe.families_table --write."""
    assert lines_from(HEAD) == table()


def test_the_doc_shows_what_cannot_be_extended() -> None:
    expected = [f"| {block} | {why} |" for block, why in NOT_FUSED.items()]
    assert lines_from("| block | why |")[2:] == expected


def test_every_row_is_of_a_model_that_is_tested() -> None:
    assert {row.model for row in FAMILIES.values()} == set(CONFIGS)


def test_every_router_is_what_its_model_has() -> None:
    for row in FAMILIES.values():
        assert row.router in {type(site.router).__name__ for site in find_sites(family(row.model))}


def test_all_models_of_transformers_with_fused_experts_are_in_the_table() -> None:
    """Every module that fuses experts has a router in the table, but for encoders of images."""
    fused = {
        path.parent.name
        for path in MODELS.glob("*/modeling_*.py")
        if re.search(r"^@use_experts_implementation", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    known = {
        type(site.router).__module__.split(".")[-2] for name in CONFIGS for site in find_sites(family(name))
    }
    assert fused <= known


SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 9,
    "intermediate_size": 16,
}  # fmt: skip
REFUSED: dict[str, Callable[[], PreTrainedConfig]] = {
    "DbrxFFN": lambda: DbrxConfig(d_model=16, n_heads=2, n_layers=1, vocab_size=9, attn_config={"rope_theta": 1e4}),
    "JetMoeMoE": lambda: JetMoeConfig(**SMALL, kv_channels=8),
    "NllbMoeSparseMLP": lambda: NllbMoeConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=9,
        encoder_attention_heads=2, decoder_attention_heads=2, num_experts=2, encoder_sparse_step=1,
        decoder_sparse_step=1,
    ),
    "SwitchTransformersSparseMLP": lambda: SwitchTransformersConfig(
        d_model=16, d_kv=8, d_ff=16, num_layers=1, num_sparse_encoder_layers=1, num_decoder_layers=1,
        num_sparse_decoder_layers=1, num_heads=2, num_experts=2, vocab_size=9,
    ),
    "DogeCDMoE": lambda: DogeConfig(**SMALL, is_moe=True, num_experts=16, num_experts_per_tok=2),
}  # fmt: skip


@pytest.mark.parametrize("block", sorted(REFUSED))
def test_models_without_stacked_experts_are_refused_with_the_reason(block: str) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(REFUSED[block]())
    with pytest.raises(InputError, match=re.escape(NOT_FUSED[block])):
        find_sites(model)


def test_every_refusal_is_tested() -> None:
    assert set(REFUSED) == set(NOT_FUSED)
