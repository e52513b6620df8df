"""The same commit of a model is opened again, also after the default branch moved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moextend.errors import InputError
from moextend.model import sources
from moextend.model.vision import load_encoder
from moextend.util import content
from tests.hub.server import Hub, connected

TINY = content.package_folder("registry") / "models" / "tiny"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with connected(tmp_path / "cache", monkeypatch) as found:
        yield found


def test_the_commit_of_now_is_known_with_and_without_the_hub(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = served.push("org/base", TINY / "lm")
    assert sources.commit("org/base") == first
    second = served.push("org/base", TINY / "lm")
    assert sources.commit("org/base") == second and sources.commit("org/base", first) == first
    served.push("org/bare", tmp_path / "bare")
    assert sources.commit("org/bare") is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    served.push("org/base", TINY / "lm")
    assert sources.commit("org/base") == second
    with pytest.raises(InputError, match=r"'org/other' is not \(completely\) in the cache"):
        sources.commit("org/other")


def test_an_encoder_is_opened_at_its_recorded_commit(served: Hub) -> None:
    first = served.push("org/tower", TINY / "vision")
    with sources.pinned({}) as opened:
        load_encoder("hf-hub:org/tower")
    assert opened == {"org/tower": first}
    served.push("org/tower", TINY / "vision")
    with sources.pinned(opened) as again:
        load_encoder("hf-hub:org/tower")
    assert again == opened
    with sources.pinned({}) as newest:
        load_encoder("hf-hub:org/tower")
    assert newest != opened
    assert served.revisions() == {"main", first, newest["org/tower"]}
