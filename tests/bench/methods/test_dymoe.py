"""The token assignment of LLaVA-DyMoE in examples/open_problem, by the equations of its paper."""

from __future__ import annotations

from collections import Counter
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch

from moextend.bench import methods
from moextend.extension.retention import sites_of
from moextend.model.batches import Collator
from tests.bench.methods.short import ShortLoop
from tests.bench.methods.test_open_problem import FOLDER, shown, stages
from tests.toys import toy_model

TAU, TEMPERATURE = 0.2, 0.1


def group(old: list[float], new: list[float]) -> str:
    """Experts that a token with these scores reaches in training."""
    c_old, c_new = max(old), max(new)
    d_rel = abs(c_new - c_old) / max(abs(c_new), abs(c_old))
    return "new" if d_rel > TAU and c_new > c_old else "old"


def losses(old: list[float], new: list[float]) -> float:
    """L_exc + L_spe of a token."""
    w = [exp(score / TEMPERATURE) for score in (*old, *new)]
    w = [each / sum(w) for each in w]
    g_old, g_new, y = sum(w[: len(old)]), sum(w[len(old) :]), 1 - max(w[: len(old)])
    return g_old * g_new - y * log(g_new) - (1 - y) * log(1 - g_new)


def test_tokens_are_assigned_and_groups_are_separated_as_in_the_paper(tmp_path: Path) -> None:
    method, model = methods.parse("dymoe:experts=2", workspace=FOLDER).make(), toy_model()
    one, two = stages(tmp_path)
    loop = ShortLoop(model, one)
    method.learn(model, one, loop)
    method.save(model, one)
    tokens = Counter[str]()

    def check(*, phase: str = "train", extra_loss: Any = None, **given: Any) -> Any:
        sites: list[Any] = sites_of(model, "b")
        seen = list[Any]()
        torch.manual_seed(0)
        for site in sites:
            for part in site.router.ext_parts.values():
                torch.nn.init.normal_(part.rows, std=0.2)
        hooks = [site.router.register_forward_hook(lambda *call: seen.append(call)) for site in sites]
        batch = Collator.of(model)(shown(40))
        real = batch["attention_mask"].bool().flatten().tolist()
        found, wanted = float(extra_loss(batch, model(**batch)).detach()), 0.0
        with torch.no_grad():
            model(**batch)
        for place, (router, (x, *_), out) in enumerate(seen):
            old, new = (router.ext_parts[name](x.flatten(0, -2)).tolist() for name in "ab")
            for t, gates in enumerate(out[1][:, -4:].tolist()):
                reached = group(old[t], new[t]) if place < len(sites) else "as without training"
                tokens[reached] += 1
                scores = [score if reached != "new" else 0.0 for score in old[t]]
                scores += [score if reached != "old" else 0.0 for score in new[t]]
                assert gates == pytest.approx([min(1.0, max(0.0, score)) for score in scores], abs=1e-6)
                wanted += losses(old[t], new[t]) * real[t] / sum(real) / len(sites) * (place < len(sites))
        assert found == pytest.approx(1e-3 * wanted, rel=1e-4)
        for hook in hooks:
            hook.remove()
        return ShortLoop(model, two)(extra_loss=extra_loss, **given)

    method.learn(model, two, check)
    assert len(tokens) == 3 and min(tokens.values()) > 20
    assert not loop.seen["extra_loss"]({"attention_mask": torch.ones(1, 1)}, {}), (
        "a first stage has no old experts"
    )
