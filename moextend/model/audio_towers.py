"""Audio towers of transformers: they compute the frames of one sound.

Each tower gives the frames of its last layer, as Qwen2-Audio and LLaMA-Omni take them from Whisper, and only those
that the sound fills. A sound is computed alone: some towers (wav2vec 2.0 with group norm) depend on padding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.errors import InputError
from moextend.model.mel import LogMel
from moextend.util import hub_errors
from moextend.util.quiet import quiet_loggers

Samples = np.ndarray[Any, np.dtype[np.float32]]


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


class TransformersTower(nn.Module):
    """What the towers of transformers have in common."""

    window: int
    width: int
    frames_per_second: float
    extractor_class: ClassVar[str]
    model_class: ClassVar[str]
    """Class of transformers that reads the weights."""
    own_class: ClassVar[str] = ""
    """The same for a checkpoint with the audio part alone ("module:class")."""
    parts: ClassVar[tuple[str, ...]] = ("",)
    """Prefixes of the tensors that the tower needs."""
    settings: ClassVar[tuple[str, ...]]
    """Settings of the extractor that change its output."""

    def __init__(self, model: Any, extractor: Any, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.extractor, self._config = self.part(model), extractor, config
        self.rate = int(extractor.sampling_rate)

    @staticmethod
    def part(model: Any) -> Any:
        """The audio part of a loaded model."""
        return model

    def length(self, samples: int) -> int:
        """Number of frames of so many samples."""
        raise NotImplementedError

    def frames(self, samples: Samples) -> Tensor:
        """Frames [length, width] of one sound, float32."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Config of the checkpoint and settings of the extractor."""
        return {
            "config": dict(self._config),
            "preprocess": {name: _plain(getattr(self.extractor, name)) for name in self.settings},
        }

    def _input(self, values: Any) -> Tensor:
        weight = next(self.model.parameters())
        return torch.as_tensor(values).to(weight.device, weight.dtype)


class Whisper(TransformersTower):
    """Whisper: 50 frames a second, in windows that silence fills up to 30 s."""

    extractor_class, model_class = "WhisperFeatureExtractor", "WhisperModel"
    own_class = "models.whisper.modeling_whisper:WhisperEncoder"
    parts = ("encoder.",)
    settings = ("feature_size", "sampling_rate", "hop_length", "n_fft", "n_samples", "padding_value")

    def __init__(self, model: Any, extractor: Any, config: Mapping[str, Any]) -> None:
        super().__init__(model, extractor, config)
        self.window, self.width = extractor.n_samples, self.model.config.d_model
        self._per_frame = int(self.window // self.model.config.max_source_positions)
        self.frames_per_second = self.rate / self._per_frame
        # Only the sound is transformed, not the silence after it.
        self.mel = LogMel(extractor.mel_filters, extractor.n_fft, extractor.hop_length)

    @staticmethod
    def part(model: Any) -> Any:
        """The encoder of the whole model, or the encoder itself."""
        return model.get_encoder() if hasattr(model, "decoder") else model

    def length(self, samples: int) -> int:
        """One frame per 320 samples begun."""
        return -(-samples // self._per_frame)

    def frames(self, samples: Samples) -> Tensor:
        """Positions of the last layer, after the final norm."""
        wave = torch.from_numpy(samples)[None].to(next(self.model.parameters()).device)
        mel = self.mel(wave, self.window // self.extractor.hop_length)
        found = self.model(self._input(mel)).last_hidden_state[0]
        return cast(Tensor, found[: self.length(len(samples))].float())


class Waves(TransformersTower):
    """wav2vec 2.0, HuBERT and WavLM: 50 frames a second of the samples themselves, at most 30 s at once."""

    extractor_class, model_class = "Wav2Vec2FeatureExtractor", "AutoModel"
    settings = ("sampling_rate", "do_normalize", "padding_value")

    def __init__(self, model: Any, extractor: Any, config: Mapping[str, Any]) -> None:
        super().__init__(model, extractor, config)
        own = self.model.config
        self.window, self.width = 30 * self.rate, own.hidden_size
        self.frames_per_second = self.rate / float(np.prod(own.conv_stride))
        self._least = 1
        for kernel, stride in zip(reversed(own.conv_kernel), reversed(own.conv_stride), strict=True):
            self._least = (self._least - 1) * stride + kernel
        if hasattr(
            self.model, "masked_spec_embed"
        ):  # of training; missing in some checkpoints, and then random
            self.model.masked_spec_embed.data.zero_()

    def length(self, samples: int) -> int:
        """What its convolutions leave; a sound shorter than their reach is padded."""
        own = self.model.config
        for kernel, stride in zip(own.conv_kernel, own.conv_stride, strict=True):
            samples = (max(samples, kernel) - kernel) // stride + 1
        return samples

    def frames(self, samples: Samples) -> Tensor:
        """Frames of the last layer."""
        values = self.extractor(samples, sampling_rate=self.rate, return_tensors="pt").input_values
        values = F.pad(values, (0, max(0, self._least - len(samples))))
        return cast(Tensor, self.model(self._input(values)).last_hidden_state[0].float())


class Spectrogram(TransformersTower):
    """Audio spectrogram transformer (AST): one frame per column of patches, the mean over its bands; 10 a second."""

    extractor_class, model_class = "ASTFeatureExtractor", "ASTModel"
    settings = ("sampling_rate", "num_mel_bins", "max_length", "do_normalize", "mean", "std")
    _hop = 160

    def __init__(self, model: Any, extractor: Any, config: Mapping[str, Any]) -> None:
        super().__init__(model, extractor, config)
        own = self.model.config
        self.width, self._per_frame = own.hidden_size, int(own.time_stride * self._hop)
        self._columns = (own.max_length - own.patch_size) // own.time_stride + 1
        self.window = self._columns * self._per_frame
        self.frames_per_second = self.rate / self._per_frame

    def facts(self) -> dict[str, Any]:
        """Also which library computes the filter bank: they differ slightly."""
        from transformers.utils import is_speech_available

        return {**super().facts(), "filter_bank": "torchaudio" if is_speech_available() else "transformers"}

    def length(self, samples: int) -> int:
        """One frame per column that begins in the sound."""
        return -(-samples // self._per_frame)

    def frames(self, samples: Samples) -> Tensor:
        """Columns of the last layer."""
        padded = np.pad(samples, (0, max(0, 400 - len(samples))))  # a frame of the filter bank
        values = self.extractor(padded, sampling_rate=self.rate, return_tensors="pt").input_values
        found = self.model(self._input(values)).last_hidden_state[0, 2:]  # after two class tokens
        columns = found.view(-1, self._columns, self.width).mean(0)
        return cast(Tensor, columns[: self.length(len(samples))].float())


class Clap(TransformersTower):
    """Audio tower of CLAP (HTSAT): 3.2 frames a second of the last map, its bands side by side; 10 s at once."""

    extractor_class, model_class = "ClapFeatureExtractor", "ClapModel"
    own_class = "models.clap.modeling_clap:ClapAudioModel"
    parts = ("audio_model.", "audio_encoder.")
    settings = (
        "sampling_rate", "feature_size", "hop_length", "fft_window_size", "nb_max_samples", "truncation", "padding",
        "frequency_min", "frequency_max",
    )  # fmt: skip

    def __init__(self, model: Any, extractor: Any, config: Mapping[str, Any]) -> None:
        super().__init__(model, extractor, config)
        self.window = extractor.nb_max_samples
        with torch.no_grad():
            self._columns, self.width = self._map(np.zeros(self.window, np.float32)).shape
        self.frames_per_second = self._columns * self.rate / self.window

    @staticmethod
    def part(model: Any) -> Any:
        """The audio tower of the whole model, or the tower itself."""
        return getattr(model, "audio_model", model)

    def length(self, samples: int) -> int:
        """One frame per column that begins in the sound."""
        return int(-(-samples * self._columns // self.window))

    def frames(self, samples: Samples) -> Tensor:
        """Columns of the last map."""
        return self._map(samples)[: self.length(len(samples))]

    def _map(self, samples: Samples) -> Tensor:
        values = self.extractor(samples, sampling_rate=self.rate, return_tensors="pt").input_features
        longer = torch.zeros(1, 1, dtype=torch.bool)  # the extractor would say so of a random sound
        found = self.model(self._input(values), is_longer=longer).last_hidden_state[0]
        return cast(Tensor, found.flatten(0, 1).T.float())


def _plain(value: Any) -> Any:
    """A setting as JSON."""
    return json.loads(json.dumps(value, default=str))


KINDS: dict[str, type[TransformersTower]] = {
    "whisper": Whisper,
    "wav2vec2": Waves,
    "hubert": Waves,
    "wavlm": Waves,
    "audio-spectrogram-transformer": Spectrogram,
    "clap": Clap,
    "clap_audio_model": Clap,
}
"""`model_type` of a config -> tower."""


def load_tower(source: str, config: Mapping[str, Any], revision: str | None, where: str) -> TransformersTower:
    """Tower of a folder or hub id, whose config.json holds `config`.

    Raises:
        InputError: of another kind, its extractor or weights are missing or do not fit, or no safetensors.
    """
    import transformers

    kind = KINDS.get(str(config.get("model_type")))
    if kind is None:
        raise InputError(
            f"holds a model of type '{config.get('model_type')}', which is not a supported audio encoder.",
            where=where,
            hint=f"Supported: {', '.join(KINDS)}.",
        )
    extractor = _extractor(getattr(transformers, kind.extractor_class), source, revision, where)
    alone = kind.own_class.partition(":")[2]
    own = bool(alone) and alone in (config.get("architectures") or ())
    reader = (
        resolve_name(f"transformers.{kind.own_class}") if own else getattr(transformers, kind.model_class)
    )
    with quiet_loggers("transformers"):
        model, info = _weights(reader, source, revision, where)
    needed = ("",) if own else kind.parts
    missing = sorted(name for name in info["missing_keys"] if name.startswith(needed))
    missing = [name for name in missing if not name.endswith("masked_spec_embed")]
    if missing:
        raise InputError(
            f"the checkpoint lacks {len(missing)} tensors, which would be random ({missing[0]}, ...).",
            where=where,
            hint="Compare config.json with the weights, or copy the checkpoint again.",
        )
    facts = {key: value for key, value in config.items() if key not in _CHANGING}
    try:
        tower = kind(model.eval(), extractor, facts)
        with torch.no_grad():
            found = tower.frames(np.zeros(tower.rate // 5, np.float32))
        assert found.shape == (tower.length(tower.rate // 5), tower.width), f"it gives {list(found.shape)}"
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"its preprocessor_config.json does not fit its model ({_first(error)}).",
            where=where,
            hint="Copy both files from the same checkpoint.",
        ) from error
    return tower


def _extractor(reader: Any, source: str, revision: str | None, where: str) -> Any:
    try:
        return reader.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        if not Path(source).exists() and (known := hub_errors.of_hub(error, source, where=where)):
            raise known from error
        raise InputError(
            f"its preprocessor_config.json is missing or cannot be read ({_first(error)}).",
            where=where,
            hint="An encoder needs config.json, model.safetensors and preprocessor_config.json; "
            f"{reader.__name__}().save_pretrained(folder) writes the last.",
        ) from error


def _weights(reader: Any, source: str, revision: str | None, where: str) -> tuple[Any, dict[str, Any]]:
    try:
        return cast(
            tuple[Any, dict[str, Any]],
            reader.from_pretrained(
                source,
                revision=revision,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            ),
        )
    except Exception as error:  # of transformers, safetensors and their downloads
        if not Path(source).exists() and (known := hub_errors.of_hub(error, source, where=where)):
            raise known from error
        binary = Path(source, "pytorch_model.bin").exists() or "cannot be loaded with `safetensors`" in str(
            error
        )
        raise InputError(
            "has no weights as safetensors."
            if binary
            else f"its weights cannot be loaded ({_first(error)}).",
            where=where,
            hint="Files of pickle (.bin) may run programs and are not read. Save the model again with transformers "
            "(save_pretrained writes model.safetensors)."
            if binary
            else "Check the files, or the name and the connection.",
        ) from error


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".")
