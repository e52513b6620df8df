"""The plan of a 7B export against sizes that are computed by hand, without the memory for its weights."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from moextend.export.planned import planned_stock
from moextend.extension import tensor_files
from tests.cli.conftest import Cli

FOLDER = Path(__file__).parents[1] / "fixtures" / "scale" / "OLMoE-1B-7B-0924"
PUBLISHED = 6_919_161_856
"""Parameters of the published checkpoint."""
LAYERS, HIDDEN, INNER, EXPERTS, VOCABULARY = 16, 2048, 1024, 64, 50304
SHARD = 5_000_000_000
ALLOWED = 1 << 30
"""Bytes that planning may allocate; the weights have 14 GB."""


def shapes(experts: int) -> dict[str, tuple[int, ...]]:
    """Name on disk -> shape, as in the published checkpoint."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(LAYERS):
        head = f"model.layers.{layer}"
        found |= {f"{head}.self_attn.{each}_proj.weight": (HIDDEN, HIDDEN) for each in "qkvo"}
        norms = ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm")
        found |= {f"{head}.{norm}.weight": (HIDDEN,) for norm in norms}
        found[f"{head}.mlp.gate.weight"] = (experts, HIDDEN)
        for expert in range(experts):
            own = f"{head}.mlp.experts.{expert}"
            found |= {f"{own}.{each}_proj.weight": (INNER, HIDDEN) for each in ("gate", "up")}
            found[f"{own}.down_proj.weight"] = (HIDDEN, INNER)
    return found


def entries(experts: int) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes(experts).values())


@contextmanager
def little_memory(more: int) -> Iterator[None]:
    """Context in which this process cannot allocate `more` bytes; where the system has no such limit, without it."""
    if sys.platform != "linux":
        yield
        return
    status = Path("/proc/self/status").read_text(encoding="ascii")
    used = int(re.search(r"VmData:\s+([0-9]+) kB", status)[1]) << 10  # type: ignore[index]
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """An extension with two experts in every layer, of which only the card is read."""
    plan = {str(layer): [3, 60] for layer in range(LAYERS)}
    values = {
        "name": "skill", "mode": "paper", "plan": plan, "calibrate": False, "beside": [], "base": "0" * 16,
        "base_dtype": "bfloat16",
    }  # fmt: skip
    tensor_files.save_tensors(tmp_path / "skill", {"none": torch.zeros(1)}, values)
    return tmp_path / "skill"


def test_names_shapes_bytes_and_files_are_right_to_the_byte(cli: Cli, card: Path) -> None:
    assert entries(EXPERTS) == PUBLISHED
    wanted = shapes(EXPERTS + 2)
    with little_memory(ALLOWED):
        found = cli("export", "skill", "--base", FOLDER, "--as", "stock", "--out", "moe", "--dry-run")
        plan = planned_stock(FOLDER, [Path("skill")])
    assert found.code == 0 and f"{plan.parameters:,} parameters" in found.out, found.err
    rows = [vars(row) for row in plan.rows()]
    assert {row["name"]: tuple(row["shape"]) for row in rows} == wanted and len(rows) == len(wanted)
    assert {row["dtype"] for row in rows} == {"bfloat16"}
    assert plan.parameters == entries(EXPERTS + 2)
    assert plan.bytes == 2 * plan.parameters == sum(row["bytes"] for row in rows)
    sizes: dict[str, int] = {}
    for row in rows:
        assert row["bytes"] == 2 * torch.Size(row["shape"]).numel()
        before = list(sizes)
        sizes[row["file"]] = sizes.get(row["file"], 0) + row["bytes"]
        if before and row["file"] not in before:
            assert sizes[before[-1]] + row["bytes"] > SHARD, "the former file is full"
    count = len(plan.split)
    assert list(sizes) == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    assert count == 3 and max(sizes.values()) <= SHARD
    assert not Path("moe").exists()


def test_the_limit_of_memory_holds() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux limits the memory of data")
    with little_memory(ALLOWED), pytest.raises((RuntimeError, MemoryError)):
        torch.empty(14 << 30, dtype=torch.uint8)
