"""A tiny random model of every MoE family of transformers that can be extended."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

VOCABULARY = 64
SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "vocab_size": VOCABULARY, "intermediate_size": 24, "moe_intermediate_size": 24, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 16,
    "tie_word_embeddings": False,
}  # fmt: skip
GROUPS = {"n_routed_experts": 6, "num_local_experts": 6, "num_experts": 6, "n_group": 2, "topk_group": 1}
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
INDEXED = {"index_topk": 64, "index_head_dim": 16, "index_n_heads": 2, "head_dim": 8}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
SPARSE = {"mlp_layer_types": ["sparse", "sparse"]}
LATE = {"first_k_dense_replace": 1}

CONFIGS: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "minimax": {"layer_types": ["full_attention", "linear_attention"], "block_size": 8},
    "qwen3_5_moe_text": LINEAR,
    "qwen3_vl_moe_text": {},
    "hunyuan_v1_moe": {"moe_topk": 2},
    "olmoe": {},
    "flex_olmo": {},
    "qwen2_moe": {},
    "qwen3_moe": {"norm_topk_prob": True},
    "qwen3_next": LINEAR,
    "qwen4_exp_text": {
        **LINEAR, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "qwen3_omni_moe_text": {},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 16},
    "mellum": {},
    "lara_mini": {"linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "jamba": {
        "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 0,
        "expert_layer_period": 1, "mamba_d_state": 4,
    },
    "granitemoe": {},
    "granitemoeshared": {"shared_intermediate_size": 16},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8,
        "shared_intermediate_size": 16, "mamba_chunk_size": 8,
    },
    "granitemoe_swa": {},
    "aria_text": {"moe_num_shared_experts": 1},
    "gpt_oss": {"layer_types": ["sliding_attention", "full_attention"]},
    "openai_privacy_filter": {},
    "cohere2_moe": {},
    "deepseek_v2": {**LATENT, **GROUPS, "topk_method": "group_limited_greedy", "head_dim": 8},
    "deepseek_ocr2_text": SPARSE,
    "unlimited_ocr_text": SPARSE,
    "mistral4": {**LATENT, **GROUPS, "head_dim": 16},
    "mistral_large4_text": {**LATENT, **INDEXED, **GROUPS, **SPARSE},
    "ernie4_5_moe": {"moe_layer_start_index": 0},
    "ernie4_5_vl_moe_text": {
        "moe_intermediate_size": [24, 16], "moe_layer_start_index": 0, "moe_k": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    },
    "longcat_flash": {
        **LATENT, "head_dim": 8, "num_layers": 2, "zero_expert_num": 2, "expert_ffn_hidden_size": 24,
        "ffn_hidden_size": 24, "moe_topk": 2,
    },
    "gemma4_text": {
        "enable_moe_block": True, "global_head_dim": 8, "layer_types": ["sliding_attention", "full_attention"],
        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "top_k_experts": 2,
    },
    "diffusion_gemma_text": {
        "global_head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "top_k_experts": 2,
    },
    "phimoe": {},
    "axk1": {**LATENT, **GROUPS, **SPARSE, "head_dim": 8},
    "axk2": {**LATENT, **INDEXED, **SPARSE},
    "bailing_hybrid": {**LATENT, **GROUPS, **SPARSE, "layer_types": ["linear_attention", "full_attention"]},
    "deepseek_v3": {**LATENT, **GROUPS, **LATE, "head_dim": 8},
    "deepseek_v32": {**LATENT, **INDEXED, **GROUPS, **SPARSE},
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": {
        **LATENT, **INDEXED, **SPARSE, "layer_types": ["indexed_attention", "indexed_attention"],
    },
    "exaone_moe": {},
    "glm4_moe": {**GROUPS, **LATE},
    "glm4_moe_lite": {**LATENT, **SPARSE},
    "glm4v_moe_text": {
        **LATE,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]
        },
    },
    "glm5_next_text": {
        **LATENT, **INDEXED, **SPARSE, "qk_rope_head_dim": 0, "linear_head_dim": 8, "linear_num_heads": 2,
        "layer_types": ["linear_attention", "indexed_attention"],
    },
    "glm_moe_dsa": {**LATENT, **INDEXED, **SPARSE},
    "hy_v4": {**LATENT, **INDEXED, **SPARSE},
    "hy_v4_vl_text": {
        **LATENT, **INDEXED, **SPARSE,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    },
    "kimi_linear": {
        **LATENT, "linear_num_heads": 2, "linear_head_dim": 8, "num_experts_per_token": 2,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "mimo_v2_flash": {},
    "nemotron_h": {
        "mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 8, "moe_latent_size": 16,
        "moe_shared_expert_intermediate_size": 24,
    },
    "solar_open": {},
    "beam": {**GROUPS, **SPARSE},
    "afmoe": {"num_dense_layers": 1},
    "hy_v3": {},
    "minimax_m2": {},
    "minimax_m3_vl_text": {},
    "step3p5": {
        **SPARSE, "share_expert_dim": 16, "sliding_window": 16, "layer_types": ["full_attention", "full_attention"],
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "flint": {"mlp_only_layers": [0]},
    "kolibri1": {},
    "laguna": {},
    "muse_spark_text": {"moe_hidden_size": 48},
    "deepseek_v4": {"mlp_layer_types": ["hash_moe", "moe"]},
    "inkling2_text": {"unpadded_vocab_size": VOCABULARY},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCABULARY},
    "inkling_text": {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "rel_extent": 16},
    "zaya": {"num_experts_per_tok": 1},
    "llama4_text": {
        "attention_chunk_size": 32, "num_experts_per_tok": 1, "intermediate_size_mlp": 24,
        "interleave_moe_layer_step": 1,
    },
}  # fmt: skip


def config_of(family: str, **more: Any) -> Any:
    plain = AutoConfig.for_model(family)
    known = {
        key: value for key, value in SHAPE.items() if key in plain.to_dict() or key in plain.attribute_map
    }
    return AutoConfig.for_model(family, **{**known, **CONFIGS[family], **more})


def class_of(config: Any) -> type[PreTrainedModel]:
    """The causal LM of a config; the bare model where there is none."""
    home = type(config).__module__.replace("configuration_", "modeling_")
    __import__(home)
    kinds = [
        kind
        for _, kind in inspect.getmembers(sys.modules[home], inspect.isclass)
        if issubclass(kind, PreTrainedModel) and kind.__module__ == home and kind.config_class is type(config)
    ]
    for ending in ("ForCausalLM", "Model"):
        for kind in kinds:
            if kind.__name__.endswith(ending) and not kind.__name__.endswith("PreTrainedModel"):
                return kind
    raise LookupError(f"no model for {type(config).__name__}: {[kind.__name__ for kind in kinds]}")


def build(family: str, seed: int = 0, **more: Any) -> Any:
    """A random model whose every weight, bias and correction bias counts."""
    torch.manual_seed(seed)
    config = config_of(family, **more)
    model = (
        class_of(config)(config).eval().requires_grad_(False)
    )  # frozen as attach leaves it: Jamba computes otherwise
    return randomise(model)


@torch.no_grad()
def randomise(model: Any) -> Any:
    """The model, with random numbers for every weight, bias and correction bias."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if "correction_bias" in name or "expert_bias" in name:
            tensor.normal_(0, 0.1)
        elif "per_expert_scale" in name:
            tensor.uniform_(0.5, 1.5)
        elif isinstance(tensor, torch.nn.Parameter) and (tensor.dim() > 1 or name.endswith("bias")):
            tensor.normal_(0, 0.2)
    return model


@cache
def family(name: str) -> Any:
    """The model of a family, built once; a test that changes it puts it back."""
    return build(name)


def outputs(model: Any, ids: Tensor, **more: Any) -> Tensor:
    """Logits [B, T, vocabulary], or last hidden states [B, T, H] of a model without a head."""
    if not hasattr(model, "codec_embedding"):
        more["input_ids"] = ids
    else:  # the talker of Qwen3-Omni has no tokens of text
        more["inputs_embeds"] = model.codec_embedding(ids)
    with torch.no_grad():
        out: Tensor = model(**more)[0]
    return out
