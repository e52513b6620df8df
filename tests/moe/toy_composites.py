"""Tiny random models of transformers' composites: towers for images or sound around a text model with experts."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig

from moextend.model.lm_head import auto_class
from tests.moe.toy_families import config_of, randomise

SHRUNK = {
    "hidden_size": 32, "embed_dim": 32, "d_model": 32, "width": 32, "intermediate_size": 32,
    "moe_intermediate_size": 32,
    "ffn_dim": 32, "encoder_ffn_dim": 32, "num_hidden_layers": 1, "depth": 1, "num_layers": 1, "encoder_layers": 1,
    "num_attention_heads": 2, "num_heads": 2, "num_key_value_heads": 2, "encoder_attention_heads": 2,
    "out_hidden_size": 32, "output_dim": 32, "head_dim": 16, "global_head_dim": 16, "vision_output_dim": 32,
    "projector_hidden_size": 32, "deepstack_visual_indexes": [0], "fullatt_block_indexes": [0],
    "global_attn_indexes": [0], "text_hidden_size": 32, "adapter_in_dim": 32, "adapter_out_dim": 32,
    "adapter_input_size": 32, "downsample_hidden_size": 8, "projection_hidden_dim": 32, "mlp_dim": 32,
    "downsample_channels": [8, 32], "output_channels": 8, "n_layers": 1, "image_size": 32, "vision_hidden_size": 32,
    "num_position_embeddings": 64, "max_position_embeddings": 64, "position_embedding_size": 64, "vocab_size": 64,
    "max_source_positions": 64, "max_img_size": 64, "adapter_merge_size": 2,
}  # fmt: skip
"""Sizes of the towers, by what any of them may call them."""
SPECIAL = ("image_token_id", "video_token_id", "audio_token_id", "image_token_index", "video_token_index")
COMPOSITES: dict[str, tuple[str, dict[str, Any]]] = {
    "aria": ("aria_text", {}),
    "deepseek_ocr2": ("deepseek_ocr2_text", {}),
    "dots3_note": (
        "dots3_note_text",
        {"vision_config": {"mlp_layer_types": ["dense"], "per_layer_config": {}}},
    ),
    "ernie4_5_vl_moe": ("ernie4_5_vl_moe_text", {}),
    "gemma4": ("gemma4_text", {}),
    "glm4v_moe": ("glm4v_moe_text", {}),
    "glm5_next": ("glm5_next_text", {}),
    "hy_v4_vl": ("hy_v4_vl_text", {}),
    "inkling2": ("inkling2_text", {}),
    "inkling2_loop": ("inkling2_loop_text", {}),
    "inkling_mm_model": ("inkling_text", {}),
    "kimi_k25": ("deepseek_v3", {}),
    "llama4": ("llama4_text", {}),
    "minimax_m3_vl": ("minimax_m3_vl_text", {}),
    "mistral3": ("mistral4", {}),
    "mistral_large4": ("mistral_large4_text", {}),
    "muse_spark": (
        "muse_spark_text",
        {
            "vision_config": {"layer_types": ["full_attention"]},
            "audio_config": {"patch_sizes": [2], "hidden_sizes": [32], "depths": [1]},
        },
    ),
    "nemotron_h_omni": ("nemotron_h", {}),
    "qwen3_5_moe": ("qwen3_5_moe_text", {}),
    "qwen3_omni_moe_thinker": ("qwen3_omni_moe_text", {"vision_start_token_id": 59}),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", {}),
    "qwen4_exp": ("qwen4_exp_text", {}),
    "step3p7": ("step3p5", {}),
    "unlimited_ocr": ("unlimited_ocr_text", {}),
}
"""Model type -> (the type of its text model, what else its config says)."""


def composite_config(name: str) -> Any:
    """A config with the tiny text model of toy_families and towers of the smallest size."""
    text, more = COMPOSITES[name]
    plain = AutoConfig.for_model(name)
    parts: dict[str, Any] = {}
    for part in plain.sub_configs:
        found = getattr(plain, part)
        if part == "text_config":
            parts[part] = config_of(text).to_dict()
        elif found is not None:
            parts[part] = {**_shrunk(found.to_dict()), **more.get(part, {})}
    top = {key: value for key, value in _shrunk(plain.to_dict()).items() if not isinstance(value, dict)}
    top |= {key: 60 + place for place, key in enumerate(SPECIAL) if getattr(plain, key, None) is not None}
    rest = {key: value for key, value in more.items() if key not in parts}
    return AutoConfig.for_model(name, **{**top, **parts, **rest})


def omni_config() -> Any:
    """A config of the complete Qwen3-Omni: a thinker, which is the language model, and the part that speaks."""
    plain = AutoConfig.for_model("qwen3_omni_moe")
    codes = _shrunk(plain.talker_config.code_predictor_config.to_dict())
    return AutoConfig.for_model(
        "qwen3_omni_moe",
        thinker_config=composite_config("qwen3_omni_moe_thinker").to_dict(),
        talker_config={
            "text_config": config_of("qwen3_omni_moe_talker_text").to_dict(),
            "code_predictor_config": {**codes, "layer_types": ["full_attention"]},
            "thinker_hidden_size": 32,
            "spatial_merge_size": 2,
        },
        code2wav_config={
            **_shrunk(plain.code2wav_config.to_dict()),
            "decoder_dim": 32, "upsample_rates": [2], "upsampling_ratios": [2], "num_quantizers": 2,
            "codebook_size": 16,
        },
    )  # fmt: skip


def _shrunk(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a tower that are not what they are by default: small sizes, in its parts too."""
    small: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and key.endswith("_config"):
            small[key] = _shrunk(value)
        elif key in SHRUNK and value is not None:
            small[key] = SHRUNK[key]
        elif key == "video_temporal_patch_size":
            small[key] = value
    return small


def build_composite(name: str, seed: int = 0) -> Any:
    """A random model of a composite, of the class that `load` would give it."""
    torch.manual_seed(seed)
    config = composite_config(name)
    model = auto_class(config).from_config(config).eval().requires_grad_(False)
    return randomise(model)


@cache
def composite(name: str) -> Any:
    """The model of a composite, built once; a test that changes it puts it back."""
    return build_composite(name)
