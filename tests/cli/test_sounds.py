"""Sounds from the shell: align, probe, extend and generate with an audio encoder; a task of sounds in a sequence."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from PIL import Image

import moextend
from moextend.model.tiny_audio import TinyAudio, TinyAudioConfig
from tests.cli.conftest import Cli
from tests.data.small import wav

ASK = "Q what color is it A:"
PITCHES = {"red": 0, "blue": 16}


@pytest.fixture
def ears(tmp_path: Path) -> str:
    """A random audio encoder in the workspace."""
    TinyAudio(TinyAudioConfig(mels=16, width=32, layers=1, inner=32)).save(tmp_path / "ears")
    return "ears"


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, ...]:
    """Options for data with a sound of one of two pitches a question."""
    table = []
    for i, (color, pitch) in enumerate([*PITCHES.items()] * 4):
        (tmp_path / f"{i}.wav").write_bytes(wav(pitch + i // 2))
        table.append({"clip": f"{i}.wav", "question": ASK, "answer": color})
    (tmp_path / "notes.json").write_text(json.dumps(table))
    return (
        "--data", "notes.json", "--template", "<audio> {question}", "--steps", "30", "--learning-rate", "5e-3",
    )  # fmt: skip


def test_what_is_refused_before_a_model_is_loaded(
    cli: Cli, ears: str, own: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moextend, "load", None)
    (tmp_path / "broken.wav").write_bytes(b"RIFF....")
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    both = f"--vision tiny --audio {ears}"
    cases = {
        "extend tiny OWN --name x": "there is no audio encoder. Name one: --audio",
        "extend tiny OWN --name x --audio nothing": "--audio: no audio encoder 'nothing'.",
        "align tiny OWN": "--vision, --audio: 0 encoders named. Name the one",
        f"align tiny OWN {both}": "--vision, --audio: 2 encoders named. Name the one",
        "generate tiny -p x --sound 0.wav": "--sound: needs --audio.",
        f"generate tiny -p '<audio> <audio>' --sound 0.wav {both}": "it has <audio> 2 times, and --sound is given 1",
        f"generate tiny -p x --sound broken.wav {both}": "--sound: broken.wav: the sound is broken",
        f"generate tiny -p x --sound 0.png {both}": "--sound: 0.png: the sound is broken, or not WAV",
        "generate tiny -p x --projector .": "--projector: applies only to a base with --vision or --audio.",
    }
    for command, message in cases.items():
        found = cli(*shlex.split(command.replace("OWN", shlex.join([*own, "--out", "new"]))))
        assert found.code == 2 and message in " ".join(found.err.split()), (command, found.err)


def test_an_extension_brings_its_modality(
    cli: Cli, ears: str, own: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = moextend.load("tiny"), moextend.Settings(steps=1, batch_size=2, learning_rate=1e-3)
    moextend.extend(model, "text", [moextend.Conversation(((ASK, "red"),))] * 4, folder=tmp_path / "text",
                    settings=settings)  # fmt: skip
    moextend.add_modality(model, "audio", encoder=ears)
    model.modalities["audio"].projector.aligned = True
    sounds = [moextend.AudioRef(path=tmp_path / f"{i}.wav") for i in range(4)]
    rows = [moextend.Conversation(((f"<audio> {ASK}", "red"),), (sound,)) for sound in sounds]
    moextend.extend(model, "listen", rows, folder=tmp_path / "listen", settings=settings)
    moextend.activate(model, ["text", "listen"])
    prompt = moextend.Prompt(f"<audio> {ASK}", (sounds[0],))
    answer = moextend.generate(model, [prompt], max_new_tokens=3, batch_size=1)[0].strip()
    asked = [
        "-p",
        f"<audio> {ASK}",
        *["--sound", "0.wav", "--max-new-tokens", "3", "-e", "text", "-e", "listen"],
    ]
    for options in ((), ("--audio", ears)):
        found = cli("generate", "tiny", *options, *asked)
        assert found.code == 0 and found.out.strip() == answer, found.err
    more = (*own[:4], "--steps", "1", "--layers", "first", "--name", "more", "--out", "more")
    found = cli("extend", "tiny", "-e", "text", "-e", "listen", *more)
    assert found.code == 0, found.err
    (tmp_path / "listen" / "modality-audio.safetensors").unlink()
    found = cli("generate", "tiny", *asked)
    assert found.code == 2 and "modality-audio.safetensors: is missing" in " ".join(found.err.split())


def test_images_and_sounds_of_a_prompt_are_in_the_order_of_its_marks(
    cli: Cli, ears: str, own: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    asked: list[moextend.Prompt] = []

    def generate(model: object, prompts: list[moextend.Prompt], **_: object) -> list[str]:
        asked.extend(prompts)
        return ["so"]

    monkeypatch.setattr(moextend, "generate", generate)
    media = ("--vision", "tiny", "--audio", ears, "--image", "0.png", "--sound", "0.wav", "--sound", "1.wav")
    for prompt in ("<audio> <image> <audio>", "same?"):
        found = cli("generate", "tiny", *media, "-p", prompt)
        assert found.out == "so\n", found.err
    assert [prompt.text for prompt in asked] == [
        "<audio> <image> <audio>",
        "<image>\n<audio>\n<audio>\nsame?",
    ]
    assert [[one.path.name for one in prompt.media if one.path] for prompt in asked] == [
        ["0.wav", "0.png", "1.wav"], ["0.png", "0.wav", "1.wav"],
    ]  # fmt: skip


def test_a_task_of_sounds_is_added_with_its_encoder(
    cli: Cli, ears: str, own: tuple[str, ...], tmp_path: Path
) -> None:
    assert cli("bench", "new", "sequence", "mine", "--audio", ears).code == 0
    found = cli("bench", "add-task", "audio", "--data", "notes.json", "--sequence", "mine")
    assert found.code == 0, found.err
    assert "notes (vqa): " in found.out and f"<audio>\n    {ASK}" in found.out
    assert "(scores 1 by exact@1)" in found.out and "no column of images" not in found.out
    sequence = yaml.safe_load((tmp_path / "registry" / "mine.yaml").read_text())
    assert (sequence["base"], sequence["stages"]) == ({"model": "tiny", "audio": "ears"}, [{"task": "notes"}])
    task = yaml.safe_load((tmp_path / "tasks" / "notes.yaml").read_text())
    assert task["columns"] == {"audio": "clip", "question": "question", "answer": "answer"}
    found = cli("bench", "run", "mine", "--dry-run")
    assert found.code == 0 and "notes: learned and scored" in found.out, found.err
    found = cli("bench", "add-task", "qa", "--data", "notes.json", "--name", "again", "--sequence", "mine")
    assert "note: the data have sounds (column 'clip'), so this is a task about sounds." in found.out
    found = cli("bench", "add-task", "tiny-timbre")
    assert found.code == 0 and "tiny-timbre (vqa): " in found.out, found.err
    assert "the base has no audio encoder; name one under base.audio in registry/sequence.yaml." in found.out
    found = cli("bench", "new", "method", "x", "--audio", ears)
    assert found.code == 2 and "--audio: applies only to a new sequence." in found.err
