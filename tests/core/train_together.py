"""What each process of the tests of many processes runs: trains the toy model and keeps what it learnt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))

from conftest import picture, toy_model  # type: ignore[import-not-found]

import moextend
from moextend import Conversation, MultimodalLM, Settings

DATA = [
    Conversation(
        ((f"<image> w{i} w{i + 1}", f"w{i % 3}" + " w9" * (i % 4)), (f"w{i + 2}", f"w{i % 4}")),
        (picture(i * 20, 9),),
    )
    for i in range(12)
]


def learner(mode: str = "exact", dtype: str = "float32") -> MultimodalLM:
    """A toy model with an earlier extension, frozen, and one of two experts in layer 2 that learns."""
    model = toy_model()
    model.lm.to(getattr(torch, dtype))
    moextend.attach(model.lm, "old", {0: [1]}, mode=mode)  # type: ignore[arg-type]
    moextend.attach(model.lm, "a", {1: [1, 0], 2: [0]}, mode=mode)  # type: ignore[arg-type]
    return model


def run(folder: Path, job: dict[str, Any], rank: int = 0) -> None:
    """Trains once and writes to `folder` the losses, the steps seen and the learnt tensors of process `rank`."""
    model, seen = learner(job.get("mode", "exact"), job.get("dtype", "float32")), []
    extra = None
    if job.get("memory"):
        old = moextend.memory.remember(model, DATA[:6], tokens=30, seed=0)
        extra = moextend.keep_closed(model, "a", old, margin=0.1, weight=1.0, sample=10, seed=0)

    def on_step(done: int, total: int) -> None:
        seen.append(done)
        if done == job.get("stop"):
            raise KeyboardInterrupt

    report = moextend.train(
        model,
        DATA,
        Settings(**job["settings"]),
        folder=folder / "in-flight",
        extra_loss=extra,
        on_step=on_step,
    )
    save_file(dict(moextend.new_parameters(model.lm, "a")), folder / f"learnt-{rank}.safetensors")
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    facts = {
        "losses": [report.loss_first, report.loss_last],
        "seen": seen,
        "base": moextend.active_fingerprint(model).split("-")[0],
        "frozen": moextend.vision.tensors_digest(frozen),
    }
    (folder / f"facts-{rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    import os

    where = Path(sys.argv[1])
    run(where, json.loads((where / "job.json").read_text()), int(os.environ["RANK"]))
