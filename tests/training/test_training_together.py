"""Training with several processes gives the result of one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.together import FSDP, start
from tests.training.train_together import JOBS, run

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "train_together.py"


def together(server: str, folder: Path, jobs: list[str], **environment: str) -> list[dict[str, Any]]:
    """What two processes say of their jobs."""
    started = start(server, folder / "output", SCRIPT, str(folder), *jobs, environment=environment)
    assert started.codes() == [0, 0], (folder / "output").read_text()[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(
    ("jobs", "environment"),
    [
        (["accumulated", "cached", "quantised"], {}),
        (["accumulated", "narrow"], FSDP),
    ],
    ids=["ddp", "fsdp2"],
)
def test_two_processes_learn_what_one_does(
    tmp_path: Path, fork_server: str, jobs: list[str], environment: dict[str, str]
) -> None:
    ranks = together(fork_server, tmp_path, jobs, **environment)
    for name in jobs:
        job = JOBS[name]
        alone = run(name, {**job, "stop": None}, tmp_path / "alone", tmp_path / "flight")
        wanted = load_file(tmp_path / "alone" / f"{name}.safetensors")
        loose = job["settings"].get("bf16", False)
        for rank, facts in enumerate(ranks):
            assert facts[name]["losses"] == pytest.approx(alone["losses"], rel=2e-2 if loose else 1e-5)
            found = load_file(tmp_path / str(rank) / f"{name}.safetensors")
            for key, tensor in found.items():
                assert tensor.dtype == torch.float32
                assert float((tensor - wanted[key]).abs().max()) < (2e-2 if loose else 1e-4), (name, key)
            assert facts[name]["flops"] == pytest.approx(alone["flops"], rel=0.1), "of both processes"
            assert facts[name]["frozen"]
            kind = ["Unsharded", True, False] if environment else ["DistributedDataParallel", False, False]
            assert facts[name]["kinds"] == [kind], "frozen weights are sharded, what learns is unsharded"
        first, second = (load_file(tmp_path / str(rank) / f"{name}.safetensors") for rank in (0, 1))
        assert all(torch.equal(first[key], second[key]) for key in first), "both hold the same"
        assert not ranks[0][name]["left"]
    assert ranks[0]["accumulated"]["seen"] == [1, 2, 3, 4], (
        "stopped in the third step, resumed after the second"
    )
    assert set(ranks[0]["accumulated"]["files"]) - {"rng_state_1.pth"} == {
        "trained.safetensors", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json",
        "manifest.json", "flops.json", "loss.json",
    }  # fmt: skip
    assert ranks[1]["accumulated"]["seen"] == [], "the first process alone tells"
    assert (
        "cannot be divided among 2 processes. Make batch_size a multiple of 2"
        in ranks[0]["refused"]["output"]
    )
    if not environment:
        for facts in ranks:
            output = facts["refused"]["tensor parallel"]
            assert output.pop("kind") == "DTensor"
            assert set(output) == {"attach", "train"}
            assert all(
                "sharded over processes (DTensor: tensor parallelism" in each for each in output.values()
            )
