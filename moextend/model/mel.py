"""Log-mel spectrograms in torch, as Whisper computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
