"""A small encoder of sounds: log-mel spectrogram as of Whisper, convolutions and a transformer; 220,000 parameters."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moextend.util import files

MODEL_TYPE = "moextend-audio"
"""`model_type` in its config.json."""
_NEAR = 31
"""Number of frames that the convolution for positions covers."""


FLOOR, SILENT = 1e-10, -10.0
"""Power below which a spectrogram is silent, and its logarithm."""


class LogMel(nn.Module):
    """Waves -> log-mel spectrogram: base 10, at most 8 below the loudest value of the sound, (value + 4) / 4."""

    def __init__(self, bank: np.ndarray[Any, Any], fft: int, hop: int) -> None:
        """Args: bank: mel filters [bins, mels]; fft, hop: samples of a frame, and from one frame to the next."""
        super().__init__()
        self.fft, self.hop = fft, hop
        # No buffers: they stay float32 in a model of half precision.
        self.bank, self.window = torch.from_numpy(bank).float().T.contiguous(), torch.hann_window(fft)

    def forward(self, waves: Tensor, frames: int) -> Tensor:
        """Spectrogram [B, mels, frames] of waves [B, samples], float32; silence follows after the samples.

        Frame i is centred at sample i * hop. The start of a wave is reflected. So is its end, if the frames end there.
        """
        # Frames that only see silence need no transform; a reflection needs more than half a frame.
        seen = min(frames, -(-(waves.shape[1] + self.fft) // self.hop))
        seen = max(seen, self.fft // 2 // self.hop + 1)
        waves = F.pad(waves.float(), (0, seen * self.hop - waves.shape[1]))
        window = self.window.to(waves.device)
        stft = torch.stft(waves, self.fft, self.hop, window=window, return_complex=True, pad_mode="reflect")
        power = stft[..., :-1].real.square() + stft[..., :-1].imag.square()
        logs = (self.bank.to(waves.device) @ power).clamp_min(FLOOR).log10()
        least = logs.amax((1, 2), keepdim=True) - 8
        found, silence = ((each + 4) / 4 for each in (torch.maximum(logs, least), least.clamp_min(SILENT)))
        return torch.cat([found, silence.expand(-1, logs.shape[1], max(0, frames - seen))], 2)[..., :frames]


def slaney(fft: int, mels: int, rate: int) -> np.ndarray[Any, Any]:
    """Mel filters [bins, mels] from 0 Hz to half the rate, on Slaney's scale with unit areas."""
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(1 + fft // 2, mels, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")


@dataclass(frozen=True)
class TinyAudioConfig:
    """Sizes of a TinyAudio; config.json holds them."""

    model_type: str = MODEL_TYPE
    rate: int = 16_000
    """Samples per second."""
    fft: int = 400
    """Samples of a frame of the spectrogram."""
    hop: int = 160
    """Samples from one frame to the next."""
    mels: int = 64
    """Bands of the spectrogram."""
    width: int = 96
    """Width of the features, a multiple of `heads`."""
    strides: tuple[int, ...] = (2, 2, 1)
    """Strides of the convolutions; their product is the number of frames of the spectrogram per feature."""
    layers: int = 2
    """Blocks of the transformer."""
    heads: int = 4
    inner: int = 192
    """Width of the MLPs."""
    seconds: int = 30
    """Longest sound that is encoded at once."""


class TinyAudio(nn.Module):
    """Waves -> features. The features of a sound depend on no other sound of a batch."""

    def __init__(self, config: TinyAudioConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TinyAudioConfig()
        self.rate, self.width, self.window = config.rate, config.width, config.rate * config.seconds
        self.frames_per_second = config.rate / config.hop / math.prod(config.strides)
        self.mel = LogMel(slaney(config.fft, config.mels, config.rate), config.fft, config.hop)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.width if i else config.mels, config.width, 3, stride, padding=1)
            for i, stride in enumerate(config.strides)
        )
        self.near = nn.Conv1d(config.width, config.width, _NEAR, padding=_NEAR // 2, groups=config.width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def length(self, samples: Any) -> Any:
        """Number of features of a sound with so many samples (a number or a Tensor)."""
        return self._lengths(samples)[-1]

    def _lengths(self, samples: Any) -> list[Any]:
        """Numbers of frames: of the spectrogram, and after each convolution."""
        found = [-(-samples // self.config.hop)]
        for stride in self.config.strides:
            found.append(-(-found[-1] // stride))
        return found

    def forward(self, waves: Tensor, samples: Tensor | None = None) -> Tensor:
        """Features [B, frames, width] of waves [B, n] at `rate`.

        samples: number of samples of each sound [B], zeros follow in `waves`; the features after its `length` are 0.
        """
        if samples is None:
            samples = torch.full((len(waves),), waves.shape[1], device=waves.device)
        first, *rest = self._lengths(samples)
        frames, more = -(-waves.shape[1] // self.config.hop), -(-self.config.fft // self.config.hop)
        x = self.mel(waves, frames + more)[..., :frames]  # silence follows each sound, also the longest
        x = _masked(x.to(self.norm.weight.dtype), first)
        for convolution, length in zip(self.convolutions, rest, strict=True):
            x = _masked(F.gelu(convolution(x)), length)
        x = (x + F.gelu(self.near(x))).mT
        seen = torch.arange(x.shape[1], device=x.device) < rest[-1][:, None]
        for block in self.blocks:
            x = block(x, seen)
        return cast(Tensor, self.norm(x) * seen[..., None])

    @torch.no_grad()
    def frames(self, samples: np.ndarray[Any, Any]) -> Tensor:
        """Features [length(n), width] of one sound of n samples."""
        wave = torch.from_numpy(samples).to(self.norm.weight.device)
        return cast(Tensor, self(wave[None])[0].float())

    def facts(self) -> dict[str, Any]:
        """What the features depend on besides the weights."""
        return json.loads(json.dumps(asdict(self.config)))  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        """Writes config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        with files.atomic(folder / "model.safetensors") as path:
            save_file({name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}, path)
        files.write_json(folder / "config.json", self.facts())


class _Block(nn.Module):
    """A transformer block with norms before attention and MLP."""

    def __init__(self, config: TinyAudioConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, config.inner), nn.Linear(config.inner, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x: [B, frames, width]; seen: frames [B, frames] that are attended."""
        batch, frames, width = x.shape
        qkv = self.qkv(self.before(x)).view(batch, frames, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None, :])
        x = x + self.out(found.transpose(1, 2).reshape(batch, frames, width))
        return cast(Tensor, x + self.outer(F.gelu(self.inner(self.between(x)))))


def _masked(x: Tensor, lengths: Tensor) -> Tensor:
    """x [B, channels, frames] with zeros after the lengths [B]."""
    return x * (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None]


def load_tiny_audio(folder: Path) -> TinyAudio:
    """The encoder that `TinyAudio.save` wrote; raises what the libraries do for missing or damaged files."""
    sizes = files.read_json(folder / "config.json")
    found = TinyAudio(TinyAudioConfig(**{**sizes, "strides": tuple(sizes["strides"])}))
    found.load_state_dict(load_file(folder / "model.safetensors"))
    return found
