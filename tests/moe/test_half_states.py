"""A failed call leaves no partial state, whatever stops it, and any name is possible for an extension."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import moextend
from moextend import activate, attach, detach, new_parameters
from moextend.errors import InputError
from moextend.moe.attach import scope_of
from moextend.moe.recipe import Mode
from tests.moe.unchanged import same, snapshot, unchanged
from tests.toys import logits, shake, toy_lm, toy_model

PLAN = {0: [1], 2: [0, 3]}
NASTY = ["training", "state_dict", "_modules", "__class__", "007", "-", "rows", "façade"]


class Stop(BaseException):
    """Stands for Ctrl-C, and for memory that runs out."""


def stopped_at(line: int, call: Callable[[], object]) -> bool:
    """Runs `call` and stops it at that line of the package's own; whether it came so far."""
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.endswith(("attach.py", "copies.py", "reach.py", "router_parts.py")):
            return None
        if event == "line":
            passed += 1
            if passed == line:
                raise Stop
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Stop:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize(("what", "mode"), [("attach", "exact"), ("detach", "exact"), ("attach", "paper")])
def test_stopped_at_any_line_it_is_done_or_nothing_is(what: str, mode: Mode, ids: Tensor) -> None:
    lm = toy_lm()
    lm.lm_head.requires_grad_(True)
    if mode == "exact":
        attach(lm, "old", {0: [2], 1: [1]}, mode=mode)
    logits(lm, ids)
    twin = copy.deepcopy(lm)
    attach(twin, "a", PLAN, mode=mode, seed=3)
    wanted = logits(twin, ids)
    calls: dict[str, Callable[[], None]] = {
        "attach": lambda: attach(lm, "a", PLAN, mode=mode, seed=3),
        "detach": lambda: detach(lm, "a"),
    }
    back = calls["detach" if what == "attach" else "attach"]
    if what == "detach":
        back()
    before, line, undone = snapshot(lm), 1, 0
    while stopped_at(line, calls[what]):
        if ("a" in scope_of(lm).known) == (what == "attach"):  # it was at its end
            back()
            before = snapshot(lm)
        else:
            assert same(snapshot(lm), before), line
            undone += 1
        line += 9
    assert undone > 10
    assert ("a" in scope_of(lm).known) == (what == "attach")
    if what == "detach":
        back()
    assert torch.equal(logits(lm, ids), wanted), "a retry adds what the first try would have added"


def test_what_is_refused_changes_nothing(ids: Tensor) -> None:
    lm = toy_lm()
    attach(lm, "a", PLAN)
    attach(lm, "b", PLAN)
    activate(lm, ["a"])
    logits(lm, ids)
    calls: list[Callable[[], object]] = [
        lambda: attach(lm, "a", PLAN),
        lambda: attach(lm, "c", {0: [1], 7: [1]}),
        lambda: attach(lm, "c", {0: [1], 1: [9]}),
        lambda: attach(lm, "c", PLAN, mode="paper"),
        lambda: attach(lm, "c", PLAN, width=2.0),
        lambda: attach(lm, "c", {}),
        lambda: detach(lm, "c"),
        lambda: activate(lm, ["a", "c"]),
        lambda: activate(lm, ["b"]),
    ]
    calls += [partial(attach, lm, name, PLAN) for name in ("", "a.b", "all", "none", "auto")]
    for call in calls:
        with unchanged(lm), pytest.raises(InputError):
            call()


def test_any_name_of_letters_digits_and_dashes(ids: Tensor, tmp_path: Path) -> None:
    model, other = toy_model(), toy_model()
    base, before = logits(model.lm, ids), snapshot(model.lm)["modules"]
    for place, name in enumerate(NASTY):
        attach(model.lm, name, PLAN)
        shake(model.lm, name)
        model.train().eval()
        changed = logits(model.lm, ids)
        assert not torch.equal(changed, base), name
        new = new_parameters(model.lm, name)
        assert set(new) == {key for key, p in model.lm.named_parameters() if p.requires_grad}, name
        assert any(f".ext_parts.{name}.rows" in key for key in new), name
        made = moextend.extensions(model)[0]
        assert (made.name, made.plan) == (name, PLAN)
        moextend.save_extension(model, name, folder=tmp_path / str(place))
        twin = copy.deepcopy(model.lm)
        twin.load_state_dict(model.lm.state_dict())
        moextend.load_extension(other, tmp_path / str(place))
        assert torch.equal(logits(twin, ids), changed) and torch.equal(logits(other.lm, ids), changed), name
        activate(other, name)
        moextend.unload(other, name)
        detach(model.lm, name)
        assert torch.equal(logits(model.lm, ids), base) and torch.equal(logits(other.lm, ids), base), name
        model.learn_only([])
    assert snapshot(model.lm)["modules"] == before
