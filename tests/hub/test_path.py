"""From the hub to a report: add-task, dry run, run, report; then the same without the hub."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.hub.commands import User
from tests.hub.contents import VQA
from tests.hub.server import Hub

def test_explore(user: User, hub: Hub) -> None:
    def do(*a, **k):
        t = time.time()
        r = user(*a, **k)
        print("$", " ".join(a), k, "->", r.code, f"{time.time()-t:.1f}s")
        print(r.text)
        return r
    do("bench", "add-task", "vqa", "--data", VQA, "--name", "signs", "--base", "org/olmoe", "--vision", "tiny", "-s", "shop")
    p = user.workspace / "registry/shop.yaml"
    p.write_text(p.read_text().replace("steps: 200, batch_size: 16", "steps: 3, batch_size: 4"))
    do("bench", "run", "shop", "--limit", "4", "-m", "lora", "-q")
    do("bench", "run", "shop", "--limit", "4", "-m", "lora", "--seed", "1", "-q", offline=True)
    s = p.read_text()
    def variant(name, **k):
        t = s.replace("sequence: shop", f"sequence: {name}")
        for a, b in k.items():
            t = t.replace({"model": "org/olmoe"}[a], b)
        (user.workspace / f"registry/{name}.yaml").write_text(t)
    variant("gated", model="org/gated"); variant("missing", model="org/nothing"); variant("revision", model="org/olmoe, revision: v9")
    for n in ("gated", "missing", "revision"):
        do("bench", "run", n, "--dry-run")
        do("bench", "run", n, "-m", "lora", "-q")
    do("bench", "run", "gated", "-m", "lora", "-q", HF_TOKEN="hf_secretToken")
    do("bench", "add-task", "vqa", "--data", "org/gated-vqa", "--name", "closed", "-s", "shop")
    do("bench", "add-task", "vqa", "--data", "org/no-vqa", "--name", "closed", "-s", "shop")
