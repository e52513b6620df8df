"""docs/families.md equals the table of families, and the table covers all families of transformers."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest
import transformers
from torch import nn

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


@pytest.mark.parametrize("block", sorted(NOT_FUSED))
def test_models_without_stacked_experts_are_refused_with_the_reason(block: str) -> None:
    assert any(
        f"class {block}(" in path.read_text(encoding="utf-8") for path in MODELS.glob("*/modeling_*.py")
    )
    model = nn.Sequential(type(block, (nn.Module,), {})())
    with pytest.raises(InputError, match=re.escape(NOT_FUSED[block])):
        find_sites(model)
