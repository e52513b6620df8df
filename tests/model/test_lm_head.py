"""The output of `MultimodalLM` for ids and images equals that of the family's own forward pass."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import MultimodalLM, Prompt, generate
from moextend.model import lm_head
from moextend.model.modality import IMAGE
from moextend.model.multimodal import IGNORE
from tests.moe.toy_composites import COMPOSITES, composite
from tests.moe.toy_families import CONFIGS, build, class_of, config_of, family
from tests.toys import TOKENS, WIDTH, ToyEncoder, features_of, picture, toy_tokenizer

MORE = {
    "granitemoe": {"logits_scaling": 3.0},
    "granitemoehybrid": {"logits_scaling": 3.0},
    "gemma4_text": {"final_logit_softcapping": 2.0},
}
WITHOUT_HEAD = {
    "qwen3_vl_moe_text", "qwen3_omni_moe_text", "qwen3_omni_moe_talker_text", "openai_privacy_filter",
    "deepseek_ocr2_text", "unlimited_ocr_text", "mistral_large4_text", "ernie4_5_vl_moe_text",
    "diffusion_gemma_text", "glm4v_moe_text", "glm5_next_text", "hy_v4_vl_text", "step3p5", "muse_spark_text",
}  # fmt: skip
"""Named, since to look at the classes imports all families, which each process that collects would do."""
WITH_HEAD = [name for name in CONFIGS if name not in WITHOUT_HEAD]
OF_EVERY_KIND = [
    "deepseek_v4",
    "gemma4",
    "llama4",
    "nemotron_h_omni",
    "qwen3_omni_moe_thinker",
    "qwen3_vl_moe",
]


@cache
def lm_of(name: str) -> Any:
    if name in COMPOSITES:
        return composite(name)
    more: dict[str, Any] = MORE.get(name, {})
    return build(name, **more) if name in MORE else family(name)


def seeing(name: str) -> MultimodalLM:
    torch.manual_seed(0)
    return MultimodalLM(lm_of(name), toy_tokenizer(), {"image": ToyEncoder()})


def own_logits(model: MultimodalLM, ids: Tensor, features: Tensor | None) -> Tensor:
    """The logits of the LM's own forward pass; images take the place of the embeddings of token 0."""
    table = model.lm.get_input_embeddings()

    def fill(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        visual = model.modalities["image"].projector(features)
        return out.masked_scatter((ids == IMAGE).unsqueeze(-1), visual.to(out.dtype).flatten(0, 1))

    hook = table.register_forward_hook(fill) if features is not None else None
    try:
        given = ids.masked_fill(ids == IMAGE, 0)
        out = model.lm(input_ids=given, attention_mask=torch.ones_like(ids), use_cache=False)
        found: Tensor = out.logits
        return found
    finally:
        if hook is not None:
            hook.remove()


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=[pytest.mark.long] if place % 3 and name not in MORE else [])
            for place, name in enumerate(WITH_HEAD)
        ),
        *COMPOSITES,
    ],
)
@torch.no_grad()
def test_text_and_images_give_the_familys_own_logits(name: str) -> None:
    model = seeing(name)
    assert isinstance(model.context, int)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (2, 9), generator=generator)
    mask = torch.ones_like(ids)
    expected = own_logits(model, ids, None)
    torch.testing.assert_close(model(ids, mask)["logits"], expected, atol=1e-6, rtol=1e-5)
    chosen = torch.tensor([[False, True, False, True, False, False, True, True, True]] * 2)
    labelled = model(ids, mask, labels=ids.masked_fill(~chosen, IGNORE))["logits"]
    torch.testing.assert_close(labelled, expected[:, :-1][chosen[:, 1:]], atol=1e-5, rtol=1e-4)
    ids[:, 2 : 2 + TOKENS] = IMAGE
    features = torch.randn(2, TOKENS, WIDTH, generator=generator)
    seen = own_logits(model, ids, features)
    assert not torch.allclose(seen, expected)
    torch.testing.assert_close(
        model(ids, mask, features={"image": features.flatten(0, 1)})["logits"], seen, atol=1e-6, rtol=1e-5
    )


def test_families_without_a_head_are_those_whose_model_has_none() -> None:
    for name in WITHOUT_HEAD:
        assert not class_of(config_of(name)).__name__.endswith("ForCausalLM"), name


@pytest.mark.parametrize("name", OF_EVERY_KIND)
@torch.no_grad()
def test_generation_is_the_argmax_of_these_logits(name: str) -> None:
    model = seeing(name)
    prompts = [Prompt("w1 <image> w2 w3", (picture(250),)), Prompt("w4 w5")]
    output = []
    for prompt in prompts:
        ids = model.tokenizer(prompt.text.replace("<image>", "<unk>"))["input_ids"]
        ids = [piece for i in ids for piece in ([IMAGE] * TOKENS if i == 3 else [i])]
        features = features_of(model, prompt.media) if prompt.media else None
        start = len(ids)
        while len(ids) < start + 3 and ids[-1] != model.tokenizer.eos_token_id:
            ids.append(int(own_logits(model, torch.tensor([ids]), features)[0, -1].argmax()))
        output.append(model.tokenizer.decode(ids[start:], skip_special_tokens=True).strip())
    assert generate(model, prompts, max_new_tokens=3, batch_size=1) == output
    assert generate(model, prompts, max_new_tokens=3, batch_size=2) == output


@torch.no_grad()
def test_embeddings_of_every_layer_are_of_the_prompts_ids() -> None:
    """Gemma with embeddings in each layer cannot find its ids again in embeddings that hold an image."""
    lm = build("gemma4_text", hidden_size_per_layer_input=8, vocab_size_per_layer_input=64)
    model = MultimodalLM(lm, toy_tokenizer(), {"image": ToyEncoder()})
    assert lm_head.needs_ids(lm)
    ids = torch.tensor([[1, 7, *[IMAGE] * TOKENS, 9]])
    features = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        model(ids, torch.ones_like(ids), features={"image": features.flatten(0, 1)})["logits"],
        own_logits(model, ids, features),
    )
