"""Batches that do not fit into memory are computed in parts, with the same results."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from moextend import MultimodalLM, Prompt, generate
from moextend.model import generation
from moextend.model.generation import BatchLimit, is_out_of_memory
from tests.toys import picture, toy_model
from tests.training.short_memory import holding

PROMPTS = [Prompt(f"<image> w{i}" + " w3" * (i % 3), (picture(i * 20, 9),)) for i in range(7)]


def decoder(model: MultimodalLM) -> torch.nn.Module:
    found: torch.nn.Module = model.lm.get_decoder()
    return found


def test_answers_of_smaller_batches_are_the_same(caplog: pytest.LogCaptureFixture) -> None:
    model = toy_model()
    expected = generate(model, PROMPTS, max_new_tokens=4, batch_size=6)
    with (
        holding(decoder(model), 2) as memory,
        generation.noted() as limit,
        caplog.at_level(logging.WARNING),
    ):
        assert generate(model, PROMPTS, max_new_tokens=4, batch_size=6) == expected
        assert limit.rows == 2
        assert [rows for rows in memory.seen if rows > 2] == [6, 3]
        assert generate(model, PROMPTS, max_new_tokens=4, batch_size=6) == expected
        assert [rows for rows in memory.seen if rows > 2] == [6, 3], "the limit holds for the whole task"
    assert [record.getMessage() for record in caplog.records] == [
        "generate: no memory for 6 rows at a time; continuing with 3.",
        "generate: no memory for 3 rows at a time; continuing with 2.",
    ]


def test_every_row_is_computed_once_and_other_errors_pass() -> None:
    done: list[int] = []

    def work(rows: Sequence[int]) -> list[int]:
        if len(rows) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        done.extend(rows)
        return [2 * row for row in rows]

    assert BatchLimit().split(work, list(range(11)), "it") == [2 * row for row in range(11)]
    assert done == list(range(11))
    assert BatchLimit().split(work, [], "it") == []
    with pytest.raises(RuntimeError, match="shapes differ"):
        BatchLimit().split(broken, [1, 2], "it")


def broken(rows: Sequence[int]) -> list[int]:
    raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("any text"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("shapes differ"), False),
        (ValueError(" out of memory."), False),
    ],
)
def test_errors_of_memory_are_known(error: Exception, short: bool) -> None:
    assert is_out_of_memory(error) == short
