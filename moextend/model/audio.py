"""Frozen audio encoders: as many tokens as a sound is long.

A tower gives the frames of its last layer, as Qwen2-Audio and LLaMA-Omni take them from Whisper, but only those that a
sound fills. A sound is computed alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from moextend.data.hub import commit_of
from moextend.data.media import MediaRef
from moextend.data.sounds import AudioRef
from moextend.errors import InputError, UnknownName, short
from moextend.model.encoders import PACE
from moextend.model.fingerprint import tensors_digest
from moextend.model.tiny_audio import MODEL_TYPE, LogMel, load_tiny_audio
from moextend.util import content, files, hub_errors
from moextend.util.quiet import quiet_loggers

Samples = np.ndarray[Any, np.dtype[np.float32]]
TOKENS_PER_SECOND = 12.5
"""Default number of audio tokens a second; an encoder with fewer frames gives one token per frame."""
FORMS = (
    "Name an encoder of the package, a folder or a hub id (openai/whisper-tiny.en), "
    "and ':<n>/s' after it for n tokens per second (openai/whisper-tiny.en:10/s)."
)
_NONE = "cannot be loaded as an audio encoder"
_FILES = (
    "It needs config.json, model.safetensors and preprocessor_config.json of one checkpoint, as save_pretrained of "
    "transformers writes them; pickles (.bin) are not read."
)
_CHANGING = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
"""Keys of a config that do not change the frames."""


class Tower(Protocol):
    """A frozen network from the samples of one sound to frames."""

    rate: int
    """Samples per second of its input."""
    window: int
    """Maximum number of samples at once."""
    width: int
    frames_per_second: float

    def length(self, samples: int) -> int:
        """Number of frames of so many samples (1 to `window`); at least one."""
        ...

    def frames(self, samples: Samples) -> Tensor:
        """Frames [length, width], float32."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the frames depend on besides the weights."""
        ...


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


class Whisper(nn.Module):
    """Whisper: 50 frames a second, in windows that silence fills up to 30 s."""

    part = "encoder."
    """Prefix of the tensors that the tower needs."""
    settings = ("feature_size", "sampling_rate", "hop_length", "n_fft", "n_samples", "padding_value")
    """Settings of the extractor that change its output."""

    def __init__(self, model: Any, extractor: Any, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.extractor, self._config = model.get_encoder(), extractor, config
        self.rate = int(extractor.sampling_rate)
        self.window, self.width = extractor.n_samples, self.model.config.d_model
        self._per_frame = int(self.window // self.model.config.max_source_positions)
        self.frames_per_second = self.rate / self._per_frame
        # Only the sound is transformed, not the silence after it.
        self.mel = LogMel(extractor.mel_filters, extractor.n_fft, extractor.hop_length)

    def facts(self) -> dict[str, Any]:
        """Config of the checkpoint and settings of the extractor, as JSON values."""
        settings = {name: getattr(self.extractor, name) for name in self.settings}
        return {
            "config": dict(self._config),
            "preprocess": json.loads(json.dumps(settings, default=str)),
        }

    def length(self, samples: int) -> int:
        """One frame per 320 samples begun."""
        return -(-samples // self._per_frame)

    def frames(self, samples: Samples) -> Tensor:
        """Positions of the last layer, after the final norm."""
        weight = next(self.model.parameters())
        mel = self.mel(
            torch.from_numpy(samples)[None].to(weight.device), self.window // self.extractor.hop_length
        )
        found = self.model(mel.to(weight.dtype)).last_hidden_state[0]
        return cast(Tensor, found[: self.length(len(samples))].float())


def load_encoder(name: str, *, revision: str | None = None) -> AudioEncoder:
    """Encoder `name`: of the package ("tiny"), a folder or a hub id (Whisper).

    Args:
        name: also with its number of tokens a second, else `TOKENS_PER_SECOND`: "openai/whisper-tiny.en:10/s". Whole
            frames are stacked, so the encoder's own number (`facts`) may differ a little.
        revision: commit, branch or tag of a hub id.

    Raises:
        InputError: there is no such encoder, its files are missing or damaged, or it has fewer frames a second.
    """
    where = f"audio encoder '{short(str(name), 100)}'"
    asked: float | None = None
    if paced := PACE.fullmatch(name):
        name, asked = paced["name"], float(paced["pace"])
    source = locate(name, where=where)
    tower: Any
    repository = source if isinstance(source, str) else None
    with hub_errors.explained(_NONE, where=where, hint=_FILES, repository=repository, revision=revision):
        path = Path(
            source / "config.json"
            if isinstance(source, Path)
            else hf_hub_download(source, "config.json", revision=revision)
        )
        config = dict(files.read_json(path))
        if isinstance(source, str):  # all files of one model are of one commit
            revision = commit_of([path]) or revision
        if config.get("model_type") == MODEL_TYPE and isinstance(source, Path):
            tower = load_tiny_audio(source)
        else:
            tower = _load_tower(str(source), config, revision, where)
    frames = tower.frames_per_second
    if asked is not None and not 0 < asked <= frames * 1.001:
        raise InputError(
            f"gives {frames:g} frames per second, and {asked:g} tokens per second were requested.",
            where=where,
            hint=f"Ask for more than 0 and at most {frames:g}.",
        )
    stack = max(1, round(frames / (asked or TOKENS_PER_SECOND)))
    return AudioEncoder(tower, stack, name, str(revision or ""))


def locate(name: str, *, where: str | None = None) -> Path | str:
    """Folder of an encoder (its name may state the tokens a second), else its name as a hub id; downloads nothing.

    Raises:
        InputError: it is neither.
    """
    where = where or f"audio encoder '{short(str(name), 100)}'"
    if paced := PACE.fullmatch(name):
        name = paced["name"]
    models = content.package_folder("registry") / "models"
    for folder in (models / name / "audio", Path(name).expanduser()):
        if name.strip() and files.exists(folder) and folder.is_dir():
            return folder
    if not hub_errors.is_name(name):
        raise InputError(f"there is no folder '{short(name, 100)}'.", where=where, hint=FORMS)
    if "/" not in name:
        packaged = [path.parent.name for path in models.glob("*/audio")]
        raise UnknownName("audio encoder", name, packaged)
    return name


def _load_tower(source: str, config: Mapping[str, Any], revision: str | None, where: str) -> Whisper:
    """Tower of a folder or hub id, whose config.json holds `config`; InputError for another kind or missing tensors."""
    import transformers

    if config.get("model_type") != "whisper":
        what = f"holds a model of type '{config.get('model_type')}', which is not a supported audio encoder."
        raise InputError(what, where=where, hint="Supported: whisper.")
    given: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    kinds: Any = transformers
    extractor = kinds.WhisperFeatureExtractor.from_pretrained(source, **given)
    with quiet_loggers("transformers"):
        model, info = kinds.WhisperModel.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **given
        )
    if missing := sorted(name for name in info["missing_keys"] if name.startswith(Whisper.part)):
        raise InputError(
            f"the checkpoint lacks {len(missing)} tensors, which would be random ({missing[0]}, ...).",
            where=where,
            hint="Compare config.json with the weights, or copy the checkpoint again.",
        )
    facts = {key: value for key, value in config.items() if key not in _CHANGING}
    with torch.no_grad():
        tower = Whisper(model.eval(), extractor, facts)
        tower.frames(np.zeros(tower.rate // 5, np.float32))  # refuses an extractor that does not fit
    return tower
