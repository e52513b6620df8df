"""A damaged folder of an extension is refused in one line by every command that reads it, and stays as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from . import workspace
from .clear import tree
from .test_damages import Cli, answered, caller

Damage = Callable[[Path], object]


def weights(folder: Path) -> Path:
    return folder / "extension.safetensors"


def card(folder: Path, **changes: Any) -> None:
    path = folder / "extension.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flipped(folder: Path) -> None:
    raw = bytearray(weights(folder).read_bytes())
    raw[-1] ^= 0xFF
    weights(folder).write_bytes(raw)


def folder_for_weights(folder: Path) -> None:
    weights(folder).unlink()
    weights(folder).mkdir()


DAMAGES: dict[str, Damage] = {
    "weights cut": lambda at: weights(at).write_bytes(weights(at).read_bytes()[:-100]),
    "a bit of the weights": flipped,
    "no weights": lambda at: weights(at).unlink(),
    "a folder for weights": folder_for_weights,
    "no card": lambda at: (at / "extension.json").unlink(),
    "a card that is no JSON": lambda at: (at / "extension.json").write_text("{"),
    "a card of another base": lambda at: card(at, base="0" * 16),
    "a card with another plan": lambda at: card(at, plan={"0": [0], "9": [1]}),
    "a card with an unknown key": lambda at: card(at, more=1),
    "a card of a later format": lambda at: card(at, format=99),
    "a card with a huge plan": lambda at: card(at, plan={"0": [0] * 100_000}),
}
USES = {
    "serve": ("serve", "tiny", "-e", "skill", "--port", "0"),
    "export": ("export", "skill", "--base", "tiny", "--as", "moextend", "--out", "out"),
    "certify": ("certify", "skill", "--base", "tiny", "--items", "2", "--out", "out"),
    "push": ("push", "skill", "me/skill", "--dry-run"),
}


@pytest.fixture(scope="module")
def skill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skill") / "skill"
    workspace.make_extension(folder)
    return folder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return caller(capfd, monkeypatch)


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_extension_is_refused(what: str, skill: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(skill, tmp_path / "skill")
    DAMAGES[what](tmp_path / "skill")
    damaged = tree(tmp_path / "skill")
    for use, arguments in USES.items():
        found: SimpleNamespace = cli(*arguments)
        if (use, found.code) == ("certify", 1):
            assert "\nfailed " in f"\n{found.out}" and not found.err, "a certificate that names the damage"
        else:
            answered(found, use)
        refuses = use in ("serve", "export")
        assert not refuses or found.code == 2, f"{use}: exit {found.code}"
        assert use != "certify" or found.code, "a certificate without a failed claim"
        assert tree(tmp_path / "skill") == damaged, f"{use} changed the folder"
        if use == "export":
            assert not (tmp_path / "out").exists()
