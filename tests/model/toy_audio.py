"""Tiny random audio encoders of every supported kind, saved as their checkpoints are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from transformers.models.clap.modeling_clap import ClapAudioModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from moextend.data.sounds import AudioRef
from moextend.model.tiny_audio import TinyAudio, TinyAudioConfig


def sound(seconds: float, seed: int = 0, rate: int = 8_000) -> AudioRef:
    """Noise of so many seconds, and its row."""
    drawn = np.random.default_rng(seed).normal(0, 0.1, max(1, round(seconds * rate)))
    return AudioRef.of(drawn.astype(np.float32), rate, where=f"row {seed}")


def whisper(part: bool) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        config = hf.WhisperConfig(
            d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1,
            decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=20, max_source_positions=100, pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        (WhisperEncoder if part else hf.WhisperForConditionalGeneration)(config).save_pretrained(folder)
        hf.WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)

    return save


def waves(kind: str, norm: str = "group") -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        config = getattr(hf, f"{kind}Config")(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
            num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, feat_extract_norm=norm,
            do_stable_layer_norm=norm == "layer", vocab_size=12,
        )  # fmt: skip
        getattr(hf, f"{kind}ForCTC")(config).save_pretrained(folder)
        hf.Wav2Vec2FeatureExtractor().save_pretrained(folder)

    return save


def ast(folder: Path) -> None:
    config = hf.ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_length=96,
        num_mel_bins=32,
    )
    hf.ASTForAudioClassification(config).save_pretrained(folder)
    hf.ASTFeatureExtractor(num_mel_bins=32, max_length=96).save_pretrained(folder)


def clap(part: bool, fused: bool = False) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        audio: dict[str, Any] = {
            "window_size": 4, "num_mel_bins": 64, "spec_size": 256, "patch_embeds_hidden_size": 8, "hidden_size": 16,
            "depths": [1, 1], "num_attention_heads": [1, 2], "patch_size": 4, "patch_stride": [4, 4],
            "enable_fusion": fused, "projection_dim": 8,
        }  # fmt: skip
        if part:
            ClapAudioModel(hf.ClapAudioConfig(**audio)).save_pretrained(folder)
        else:
            text = {
                "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                "intermediate_size": 8, "projection_dim": 8,
            }  # fmt: skip
            config = hf.ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
            hf.ClapModel(config).save_pretrained(folder)
        cut = "fusion" if fused else "rand_trunc"
        hf.ClapFeatureExtractor(
            sampling_rate=16_000,
            hop_length=160,
            fft_window_size=1024,
            max_length_s=2,
            truncation=cut,
            frequency_max=8_000,
        ).save_pretrained(folder)

    return save


def own(folder: Path) -> None:
    TinyAudio(TinyAudioConfig(mels=16, width=16, layers=1, inner=16, seconds=2)).save(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "whisper": whisper(part=False),
    "whisper-encoder": whisper(part=True),
    "wav2vec2": waves("Wav2Vec2"),
    "wav2vec2-layer": waves("Wav2Vec2", "layer"),
    "hubert": waves("Hubert"),
    "wavlm": waves("WavLM"),
    "ast": ast,
    "clap": clap(part=False),
    "clap-fused": clap(part=False, fused=True),
    "clap-audio": clap(part=True),
    "own": own,
}


def saved(kind: str, folder: Path) -> Path:
    """Folder with an encoder of this kind."""
    torch.manual_seed(0)
    KINDS[kind](folder)
    return folder
