"""Frozen audio encoders: as many tokens as a sound is long."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from moextend.data.hub import commit_of
from moextend.data.media import MediaRef
from moextend.data.sounds import AudioRef
from moextend.errors import InputError, UnknownName, short
from moextend.model import audio_towers, tiny_audio
from moextend.model.audio_towers import Tower
from moextend.model.fingerprint import tensors_digest
from moextend.model.located import PACE
from moextend.util import content, files, hub_errors

TOKENS_PER_SECOND = 12.5
"""Default number of audio tokens a second; an encoder with fewer frames gives one token per frame."""
FORMS = (
    "Name an encoder of the package, a folder or a hub id (openai/whisper-tiny.en), "
    "and ':<n>/s' after it for n tokens per second (openai/whisper-tiny.en:10/s)."
)


class AudioEncoder(nn.Module):
    """A frozen audio tower as a source of audio tokens.

    A token holds `stack` frames of the tower side by side (as in LLaMA-Omni); zeros complete the last one. A sound that
    is longer than the tower's window is encoded window by window.
    """

    tokens: int | None = None
    """The number of tokens depends on the sound."""

    def __init__(self, tower: Tower, stack: int, name: str = "", source: str = "") -> None:
        super().__init__()
        self.tower, self.stack = tower, stack
        self.width = tower.width * stack
        self.facts: dict[str, Any] = {
            "name": name,
            "source": source,
            "stack": stack,
            "tokens_per_second": tower.frames_per_second / stack,
            "window_seconds": tower.window / tower.rate,
            "layer": "last",
            **tower.facts(),
        }
        self.requires_grad_(False).eval()

    def tokens_of(self, medium: MediaRef) -> int:
        """Number of tokens of a sound, from its header."""
        samples = cast(AudioRef, medium).samples_at(self.tower.rate)
        windows, rest = divmod(samples, self.tower.window)
        frames = windows * self.tower.length(self.tower.window) + (self.tower.length(rest) if rest else 0)
        return -(-frames // self.stack)

    @torch.no_grad()
    def forward(self, media: Sequence[MediaRef]) -> list[Tensor]:
        """Audio tokens [tokens_of(sound), width] of each sound, float32.

        Each sound is computed alone, and once if it is there twice: its features do not depend on the others.
        """
        found = {medium: self._tokens(cast(AudioRef, medium)) for medium in dict.fromkeys(media)}
        return [found[medium] for medium in media]

    def _tokens(self, sound: AudioRef) -> Tensor:
        samples, size = sound.open().resampled(self.tower.rate).samples, self.tower.window
        windows = [np.ascontiguousarray(samples[i : i + size]) for i in range(0, len(samples), size)]
        frames = torch.cat([self.tower.frames(window) for window in windows])
        frames = F.pad(frames, (0, 0, 0, -len(frames) % self.stack))
        return frames.reshape(-1, self.width)

    def train(self, mode: bool = True) -> AudioEncoder:
        """Stays in eval mode, also inside a model in training: a frozen encoder is deterministic."""
        return super().train(False)

    def fingerprint(self) -> str:
        """Sixteen hex digits over weights, architecture, pre-processing and pooling."""
        facts = {key: value for key, value in self.facts.items() if key not in ("name", "source")}
        weights = tensors_digest(cast(nn.Module, self.tower).state_dict())
        return files.digest(weights, json.dumps(facts, sort_keys=True))


def load_encoder(
    name: str, tokens_per_second: float | None = None, *, revision: str | None = None
) -> AudioEncoder:
    """Encoder `name`: of the package ("tiny"), a folder or a hub id (Whisper, wav2vec 2.0, HuBERT, WavLM, AST, CLAP).

    Args:
        name: also with its number of tokens a second: "openai/whisper-tiny.en:10/s".
        tokens_per_second: if the name does not say; None: `TOKENS_PER_SECOND`. Whole frames are stacked, so the
            encoder's own number (`facts`) may differ a little.
        revision: commit, branch or tag of a hub id.

    Raises:
        InputError: there is no such encoder, its files are missing or damaged, or it has fewer frames a second.
    """
    where = f"audio encoder '{short(str(name), 100)}'"
    if paced := PACE.fullmatch(name):
        name, tokens_per_second = paced["name"], float(paced["pace"])
    source = locate(name, where=where)
    path = source / "config.json" if isinstance(source, Path) else _downloaded(source, revision, where)
    config = _config(path, source)
    if isinstance(source, str):  # all files of one model are of one commit
        revision = commit_of([path]) or revision
    tower: Any
    if config.get("model_type") == tiny_audio.MODEL_TYPE and isinstance(source, Path):
        tower = tiny_audio.load_tiny_audio(source)
    else:
        tower = audio_towers.load_tower(str(source), config, revision, where)
    return AudioEncoder(tower, _stack(tower, tokens_per_second, where), name, str(revision or ""))


def _stack(tower: Tower, tokens_per_second: float | None, where: str) -> int:
    """Number of frames per token."""
    frames = tower.frames_per_second
    if tokens_per_second is not None and not 0 < tokens_per_second <= frames * 1.001:
        raise InputError(
            f"gives {frames:g} frames per second, and {tokens_per_second:g} tokens per second were requested.",
            where=where,
            hint=f"Ask for more than 0 and at most {frames:g}.",
        )
    return max(1, round(frames / (tokens_per_second or TOKENS_PER_SECOND)))


def locate(name: str, *, where: str | None = None) -> Path | str:
    """Folder of an encoder (its name may state the tokens a second), else its name as a hub id; downloads nothing.

    Raises:
        InputError: it is neither.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    where = where or f"audio encoder '{short(str(name), 100)}'"
    if paced := PACE.fullmatch(name):
        name = paced["name"]
    models = content.package_folder("registry") / "models"
    for folder in (models / name / "audio", Path(name).expanduser()):
        if name.strip() and files.exists(folder) and folder.is_dir():
            return folder
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"there is no folder '{short(name, 100)}'.", where=where, hint=FORMS) from error
    if "/" not in name:
        packaged = [path.parent.name for path in models.glob("*/audio")]
        raise UnknownName("audio encoder", name, packaged)
    return name


def _config(path: Path, source: Path | str) -> dict[str, Any]:
    """Content of config.json."""
    if not path.is_file():
        raise InputError(
            "holds no audio encoder: there is no config.json.",
            where=str(source),
            hint="Save an encoder of transformers there, with its feature extractor.",
        )
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise InputError("is not a mapping of keys.", where=str(path), hint="Save the encoder again.")
    return found


def _downloaded(name: str, revision: str | None, where: str) -> Path:
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except Exception as error:  # offline, gated, misspelt, without a config
        if (known := hub_errors.of_hub(error, name, revision=revision, where=where)) is not None:
            raise known from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"there is no folder '{name}', and its config.json cannot be downloaded ({lines[0][:200].rstrip('.')}).",
            where=where,
            hint=f"Check the name and the connection. {FORMS}",
        ) from error
