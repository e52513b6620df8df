"""Tiny random audio encoders of every supported kind, saved as their checkpoints are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers as hf

from moextend.data.sounds import AudioRef
from moextend.model.tiny_audio import TinyAudio, TinyAudioConfig


def sound(seconds: float, seed: int = 0, rate: int = 8_000) -> AudioRef:
    """Noise of so many seconds, and its row."""
    drawn = np.random.default_rng(seed).normal(0, 0.1, max(1, round(seconds * rate)))
    return AudioRef.of(drawn.astype(np.float32), rate, where=f"row {seed}")


def whisper(folder: Path) -> None:
    config = hf.WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=20, max_source_positions=100, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    hf.WhisperForConditionalGeneration(config).save_pretrained(folder)
    hf.WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)


def own(folder: Path) -> None:
    TinyAudio(TinyAudioConfig(mels=16, width=16, layers=1, inner=16, seconds=2)).save(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "whisper": whisper,
    "own": own,
}


def saved(kind: str, folder: Path) -> Path:
    """Folder with an encoder of this kind."""
    torch.manual_seed(0)
    KINDS[kind](folder)
    return folder
