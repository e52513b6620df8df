"""Kinds of inputs that resemble a task."""

from __future__ import annotations

import pytest

import moextend
from moextend.bench.world import near


def test_every_kind_of_input_changes_what_it_says_and_nothing_else() -> None:
    tests = {task: near.prompts(task, "test", 3) for task in near.TASKS[:2]}
    own, other = tests["attributes"], tests["counting"]
    kinds = near.inputs("attributes", tests)
    assert kinds["own, unseen"] == own and kinds["counting"] == other
    swapped = kinds["own questions, images of counting"]
    assert [(p.text, p.media) for p in swapped] == [
        (a.text, b.media) for a, b in zip(own, other, strict=True)
    ]
    for name in ("colours inverted", "images of noise", "blank images"):
        changed = kinds[f"own questions, {name}"]
        assert [p.text for p in changed] == [p.text for p in own]
        assert all(a.media[0].digest != b.media[0].digest for a, b in zip(changed, own, strict=True))
        assert [p.media[0].open().size for p in changed] == [p.media[0].open().size for p in own]
    shuffled = kinds["own images, words of the question shuffled"]
    assert [sorted(p.text.split()) for p in shuffled] == [sorted(p.text.split()) for p in own]
    assert [p.text for p in shuffled] != [p.text for p in own]
    assert not any(p.media or "<image>" in p.text for p in kinds["own questions, no image"])


def test_inputs_of_far_domains_are_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "INPUTS", 200)
    stages = ("night-looking", "pastel-looking")
    shares = near.separated(moextend.load("tiny", vision="tiny"), stages, 40)
    assert list(shares) == list(stages)
    for name, own in shares.items():
        assert list(own) == ["", *stages] and sum(own.values()) == pytest.approx(1)
        assert own[name] > 0.8
