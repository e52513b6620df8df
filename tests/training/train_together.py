"""Script of each process of a distributed training in the tests: `python train_together.py FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

sys.path.insert(0, str(Path(__file__).parents[2]))

import moextend
from moextend import Conversation, MultimodalLM, Settings
from moextend.errors import InputError
from moextend.extension import router_memory
from moextend.extension.retention import SampledLoss, output_loss
from moextend.model.fingerprint import tensors_digest
from moextend.model.quantising import quantise
from moextend.training import loop
from moextend.training.trainer import TokenTrainer
from tests.toys import picture, toy_model

DATA = [
    Conversation(((f"<image> w{i}", f"w{i % 3}" + " w9" * (i % 4)),), (picture(i * 20, 9),))
    for i in range(12)
]
BASE: dict[str, Any] = {"steps": 4, "batch_size": 4, "learning_rate": 1e-2, "seed": 3, "checkpoint_steps": 2}
JOBS: dict[str, dict[str, Any]] = {
    "accumulated": {"settings": BASE | {"gradient_accumulation": 3}, "stop": 7},
    "cached": {
        "settings": BASE | {"steps": 7, "cache_prefix": True},
        "memory": "output",
    },  # two epochs and a third
    "narrow": {
        "settings": BASE | {"bf16": True, "max_grad_norm": 0.1, "gradient_checkpointing": True},
        "dtype": "bfloat16",
        "memory": "output",
    },
    "quantised": {"settings": BASE, "quantize": "nf4", "memory": "output"},
}
"""What is trained; `stop`: interrupted at that forward pass, then resumed."""


def learner(job: dict[str, Any]) -> MultimodalLM:
    """A toy model with an earlier, frozen extension and one that learns in layers 1 and 2."""
    model = toy_model()
    model.lm.to(getattr(torch, job.get("dtype", "float32")))
    if "quantize" in job:
        quantise(model, job["quantize"])
    moextend.attach(model.lm, "old", {0: [1]})
    moextend.attach(model.lm, "a", {1: [1, 0], 2: [0]})
    return model


def retention(model: MultimodalLM, kind: str | None) -> SampledLoss | None:
    """A retention loss on outputs for some data, or none."""
    if kind is None:
        return None
    memory = router_memory.collect(model, DATA[:6], tokens=30, seed=0)
    return output_loss(model, "a", memory, weight=1.0, sample=10, seed=0)


def run(name: str, job: dict[str, Any], folder: Path, flight: Path) -> dict[str, Any]:
    """Trains once; the losses, the steps that were seen, and what the model is made of in and after training."""
    model = learner(job)
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    before, seen, passes, kinds = tensors_digest(frozen), [], [], set()
    loss = retention(model, job.get("memory"))

    class Spy(TokenTrainer):
        """Notes how the model was wrapped, and what is sharded."""

        def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            sharded = {n for n, p in model.named_parameters() if isinstance(p, DTensor)}
            kinds.add((type(model).__name__, bool(sharded), any(".ext_groups.a." in n for n in sharded)))
            return super().training_step(model, *args, **kwargs)

    def extra(batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
        passes.append(1)
        if len(passes) == job.get("stop"):
            raise KeyboardInterrupt
        return loss(batch, out) if loss else torch.zeros(())

    def attempt(model: MultimodalLM) -> Any:
        return moextend.train(
            model, DATA, Settings(**job["settings"]), folder=flight / name, extra_loss=extra,
            on_step=lambda done, total: seen.append(done),
        )  # fmt: skip

    files: set[str] = set()
    swapped = pytest.MonkeyPatch()
    swapped.setattr(loop, "TokenTrainer", Spy)
    try:
        report = attempt(model)
    except KeyboardInterrupt:
        files = {path.name for path in (flight / name).glob("checkpoint-*/*")}
        model = learner(job)
        frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
        report = attempt(model)
    finally:
        swapped.undo()
    learned = {n: p.detach() for n, p in moextend.new_parameters(model.lm, "a").items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(learned, folder / f"{name}.safetensors")
    return {
        "losses": [report.loss_first, report.loss_last],
        "flops": report.flops,
        "seen": seen,
        "kinds": sorted(kinds),
        "frozen": before == tensors_digest(frozen),
        "files": sorted(files),
        "left": (flight / name).exists(),
    }


def refused() -> str:
    """Error message for a batch that the processes cannot share."""
    try:
        moextend.train(learner({}), DATA, Settings(**BASE | {"batch_size": 3}), folder=Path("never"))
    except InputError as error:
        return str(error)
    return ""


def tensor_parallel(folder: Path, model: MultimodalLM) -> dict[str, str]:
    """Error messages when a model with weights sharded by transformers is extended or trained."""
    if torch.distributed.get_rank() == 0:
        model.lm.save_pretrained(folder / "base")
    torch.distributed.barrier()
    lm = AutoModelForCausalLM.from_pretrained(
        folder / "base", distributed_config=DistributedConfig(tp_size=2, tp_plan="auto")
    )
    split = MultimodalLM.__new__(MultimodalLM)  # the fingerprint of a new one reads whole weights
    torch.nn.Module.__init__(split)
    split.lm = lm
    output = {"kind": type(lm.model.layers[0].self_attn.q_proj.weight.data).__name__}
    calls: dict[str, Callable[[], object]] = {
        "attach": lambda: moextend.attach(lm, "a", {0: [0]}),
        "train": lambda: moextend.train(split, DATA, Settings(**BASE), folder=folder / "never"),
    }
    for name, call in calls.items():
        try:
            call()
        except InputError as error:
            output[name] = str(error)
    return output


if __name__ == "__main__":
    where = Path(sys.argv[1])
    facts = {name: run(name, JOBS[name], where / os.environ["RANK"], where) for name in sys.argv[2:]}
    facts["refused"] = {"output": refused()}
    if "cached" in sys.argv[2:]:
        facts["refused"]["tensor parallel"] = tensor_parallel(where, toy_model())
    (where / f"{os.environ['RANK']}.json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()
