"""Folders of extensions: a command that is killed leaves no half of a result, and a damaged folder is refused."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import preloaded

from . import workspace
from .clear import tree
from .test_damages import Cli, answered, caller

EXPORT = ("export", "skill", "--base", "tiny", "--out", "out", "--as")
KILLED = {
    "export as moextend": (*EXPORT, "moextend", "--with-base"),
    "export as stock": (*EXPORT, "stock"),
    "certify": ("certify", "skill", "--base", "tiny", "--items", "2", "--scope", "own", "--out", "out"),
}
QUICK = "export as moextend"
MOMENTS = (1, 2, 4, 7, 11)
"""File operations at which a command is killed; at those that it does not reach it ends."""
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


DAMAGES: dict[str, Damage] = {
    "a bit of the weights": flipped,
    "no weights": lambda at: weights(at).unlink(),
    "no card": lambda at: (at / "extension.json").unlink(),
    "a card of another base": lambda at: card(at, base="0" * 16),
    "a card with another plan": lambda at: card(at, plan={"0": [0], "9": [1]}),
    "a card of a later format": lambda at: card(at, format=99),
}
USES = {
    "export": (*EXPORT, "moextend"),
    "certify": ("certify", "skill", "--base", "tiny", "--items", "2", "--out", "out"),
    "push": ("push", "skill", "me/skill", "--dry-run"),
}


@pytest.fixture(scope="module")
def skill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skill") / "skill"
    workspace.make_extension(folder)
    return folder


def run(server: str, folder: Path, *arguments: str, kill_at: int = 0, kill_when: str = "") -> int:
    """Exit status of a command in a forked process."""
    order = preloaded.order("armed", *arguments, KILL_AT=str(kill_at), KILL_WHEN=kill_when)
    with (folder / "output").open("wb") as output:
        streams = (0, output.fileno(), output.fileno())
        client = preloaded.connect(server, {**order, "folder": str(folder)}, streams)
    client.settimeout(250)
    preloaded.pid_of(client)
    return preloaded.status_of(client)


def content(folder: Path) -> dict[str, Any]:
    """Files of a result; of a certificate its claims, because it has a date."""
    if (folder / "certificate-own.json").exists():
        assert (folder / "certificate-own.md").exists()
        return {"claims": json.loads((folder / "certificate-own.json").read_text())["claims"]}
    return dict(tree(folder))


@pytest.mark.slow  # some six commands in forked processes, each of which loads a model
@pytest.mark.parametrize(
    "what", [what if what == QUICK else pytest.param(what, marks=pytest.mark.long) for what in KILLED]
)
def test_a_killed_command_leaves_nothing_or_all(
    what: str, fork_server: str, skill: Path, tmp_path: Path
) -> None:
    shutil.copytree(skill, tmp_path / "skill")
    own, killed = tree(skill), 0
    assert run(fork_server, tmp_path, *KILLED[what]) == 0, (tmp_path / "output").read_text()
    wanted = content(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    for moment in MOMENTS:
        code = run(fork_server, tmp_path, *KILLED[what], kill_at=moment)
        killed += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), (tmp_path / "output").read_text()
        if what == "certify":  # the page may be missing, and is written again
            found = tmp_path / "out" / "certificate-own.json"
            assert not found.exists() or json.loads(found.read_text())["claims"] == wanted["claims"]
        elif (tmp_path / "out").exists():
            assert content(tmp_path / "out") == wanted
            shutil.rmtree(tmp_path / "out")
        assert tree(tmp_path / "skill") == own
    assert killed, "no moment was within the command"
    assert run(fork_server, tmp_path, *KILLED[what]) == 0, (tmp_path / "output").read_text()
    assert content(tmp_path / "out") == wanted


@pytest.mark.slow  # each is a command in two forked processes, which load a model
@pytest.mark.parametrize(
    ("command", "steps"),
    [
        ("extend tiny --data facts.jsonl --name facts --layers 0 --config often.yaml", 6),
        pytest.param(
            "align tiny --vision tiny --data data/captions/train.jsonl --images images --batch-size 1", 102,
            marks=pytest.mark.long,
        ),
    ],
    ids=["extend", "align"],
)  # fmt: skip
def test_a_killed_training_says_where_it_continues(
    command: str, steps: int, fork_server: str, tmp_path: Path
) -> None:
    place = workspace.make(tmp_path / "w")
    rows = [json.dumps({"question": f"who is {i}", "answer": "anna"}) + "\n" for i in range(12)]
    (place / "facts.jsonl").write_text("".join(rows))
    (place / "often.yaml").write_text("settings: {checkpoint_steps: 2}")
    words = (*command.split(), "--out", "out", "--steps", str(steps))
    killed = run(fork_server, place, *words, kill_when="out/*-in-flight/checkpoint-*/manifest.json")
    assert killed == -signal.SIGKILL, (place / "output").read_text()
    (checkpoint,) = (place / "out").glob("*/checkpoint-*")
    assert run(fork_server, place, *words) == 0, (place / "output").read_text()
    step = checkpoint.name.removeprefix("checkpoint-")
    assert (
        f"out: an interrupted call continues from step {step} of {steps}." in (place / "output").read_text()
    )
    assert not list((place / "out").glob("*in-flight"))


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
        assert use != "export" or found.code == 2, f"{use}: exit {found.code}"
        assert use != "certify" or found.code, "a certificate without a failed claim"
        assert tree(tmp_path / "skill") == damaged, f"{use} changed the folder"
        if use == "export":
            assert not (tmp_path / "out").exists()
