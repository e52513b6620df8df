"""Silent errors that extending a model of transformers in place can cause."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moextend import (
    Conversation,
    MultimodalLM,
    activate,
    attach,
    new_parameters,
    retention_loss,
)
from moextend.errors import InputError
from moextend.extension import router_memory
from moextend.extension.probe import watched
from moextend.extension.retention import output_loss
from moextend.moe.competing import paper_choice
from moextend.moe.recipe import Mode, Recipe
from moextend.moe.router_parts import Calibration, RouterPart
from moextend.moe.scoring import Scoring
from moextend.moe.sites import find_sites
from tests.moe.toy_families import build
from tests.toys import shake, toy_lm, toy_tokenizer


def close_rows(lm: nn.Module, name: str) -> None:
    """Makes every new expert the last choice of every token (paper routing)."""
    with torch.no_grad():
        for site in find_sites(lm):
            if name not in getattr(site.router, "ext_parts", {}):
                continue
            part: Any = site.router.get_submodule(f"ext_parts.{name}")
            part.bias = nn.Parameter(torch.full((part.count,), -1e4))


def test_experts_that_are_split_over_devices_are_refused() -> None:
    lm = build("mixtral")
    experts: Any = find_sites(lm)[0].experts
    experts._is_expert_parallel = True
    with pytest.raises(InputError, match="split over devices by expert parallelism"):
        attach(lm, "a", {0: [1]})


def test_an_idle_expert_gets_gradients_of_zero_and_optimiser_state(ids: Tensor) -> None:
    lm = toy_lm()
    attach(lm, "a", {0: [1], 1: [2]}, mode="paper")
    close_rows(lm, "a")
    new = new_parameters(lm, "a")
    lm(ids).logits.square().mean().backward()
    assert all(p.grad is not None for p in new.values())
    idle = [p for key, p in new.items() if ".ext_groups." in key]
    assert idle and all(p.grad is not None and not p.grad.any() for p in idle)
    optimiser = torch.optim.AdamW(new.values())
    optimiser.step()
    assert all(optimiser.state[p] for p in new.values())


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_the_auxiliary_loss_sees_the_base_router(mode: Mode, ids: Tensor) -> None:
    lm = toy_lm()
    with torch.no_grad():
        base = lm(ids, output_router_logits=True, labels=ids)
        attach(lm, "a", {0: [1], 2: [0, 3]}, mode=mode)
        out = lm(ids, output_router_logits=True, labels=ids)
    assert [logits.shape for logits in out.router_logits] == [logits.shape for logits in base.router_logits]
    assert torch.equal(out.router_logits[0], base.router_logits[0])
    if mode == "exact":
        assert torch.equal(out.aux_loss, base.aux_loss)


def test_paper_routing_has_no_retention() -> None:
    model = MultimodalLM(build("mixtral"), toy_tokenizer())
    attach(model.lm, "a", {0: [1]}, mode="paper")
    with pytest.raises(InputError, match="retention 'memory' needs routing 'exact'"):
        retention_loss(model, "a", {0: torch.randn(5, 32)}, margin=0.1, weight=1.0, sample=4, seed=0)
    with pytest.raises(InputError, match="routing=paper cannot use retention=memory"):
        Recipe(routing="paper", retention="memory")


def test_memory_reads_what_the_rows_read() -> None:
    """Gemma's router norms its inputs: a loss on the raw ones would close nothing."""
    model = MultimodalLM(build("gemma4_text"), toy_tokenizer())
    attach(model.lm, "a", {0: [1]})
    shake(model.lm, "a")
    site = find_sites(model.lm)[0]
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    loss = retention_loss(model, "a", {0: x}, margin=0.0, weight=1.0, sample=50, seed=0)
    with torch.no_grad():
        site.router.get_parameter("ext_parts.a.bias").fill_(-100.0)
        assert float(loss({}, {})) == 0
        gates = site.router(x)[1][:, -1]
    assert not gates.any()


@pytest.mark.parametrize(
    "name",
    ["mixtral", "gemma4_text", "llama4_text", "nemotron_h", "muse_spark_text", "zaya"],
)
def test_a_memory_has_what_a_change_of_the_output_is_computed_from(name: str) -> None:
    """Experts that read other values than the router, and routers that need more than their inputs."""
    model = MultimodalLM(build(name), toy_tokenizer())
    data = [Conversation((("w5 w9 w33 w12", ""),))]
    kept = router_memory.collect(model, data, tokens=1, seed=0)
    site = find_sites(model.lm)[0]
    attach(model.lm, "a", {0: [1]})
    shake(model.lm, "a")
    with torch.no_grad():
        site.router.get_parameter("ext_parts.a.bias").fill_(9.0)
    place, outputs = -1, []
    for names in ([], ["a"]):
        activate(model.lm, names)
        inputs: list[torch.Tensor] = []

        def look(site: object, x: torch.Tensor, out: object, inputs: list[torch.Tensor] = inputs) -> None:
            inputs.append(x.flatten(0, -2))

        def computed(module: object, args: object, out: Any) -> None:
            outputs.append((out[0] if isinstance(out, tuple) else out).flatten(0, -2))

        hook = (site.block if site.dense else site.experts).register_forward_hook(computed)
        for _ in watched(model, data, [site], look, batch_size=1):
            pass
        hook.remove()
        (place,) = (inputs[0] == kept.router_inputs[0]).all(1).nonzero().flatten().tolist()
    before, after = (out[place].detach() for out in outputs)
    expected = float((after - before).square().sum() / before.square().sum())
    found = float(output_loss(model, "a", kept, weight=1.0, sample=1, seed=0)({}, {}).detach())
    assert found == pytest.approx(expected, rel=1e-3) and found > 0
    other = name in ("gemma4_text", "nemotron_h", "muse_spark_text")
    assert bool(kept.expert_inputs) == other


ROUTING = {
    "softmax, renormalised": Scoring(True),
    "sigmoid, bias, groups, scaled": Scoring(
        True, Tensor.sigmoid, torch.tensor([0.3, -0.2, 0.1, 0.4, 0.0]), limited=True, scale=2.5, eps=1e-20
    ),
    "softmax, bias": Scoring(True, bias=torch.tensor([0.3, -0.2, 0.1, 0.4, 0.0])),
    "softmax, gains": Scoring(True, gain=torch.tensor([1.5, 0.5, 1.0, 2.0, 0.7])),
}


@pytest.mark.parametrize("how", ROUTING.values(), ids=ROUTING.keys())
def test_gradients_of_paper_routing(how: Scoring) -> None:
    generator = torch.Generator().manual_seed(3)
    old = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    new = torch.randn(6, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    calibration = Calibration(7).double()
    nn.init.normal_(calibration.outer.weight, std=0.1, generator=generator)
    nn.init.normal_(calibration.inner.weight, std=0.5, generator=generator)
    part = RouterPart(torch.zeros(2, 1), None, calibration, [1, 3])

    def weights(old: Tensor, new: Tensor) -> Tensor:
        scores = old.softmax(-1) if how.score is None else how.score(old)
        base = scores.topk(3)[1]
        chosen = scores.gather(1, base)
        kept = chosen / chosen.sum(-1, keepdim=True) * how.scale if how.normalise else chosen * how.scale
        return paper_choice(how, old, new, kept, base, [1, 3], [part])[1]

    assert torch.autograd.gradcheck(weights, (old, new))


def test_new_experts_compete_with_what_the_base_chose_of_its_groups() -> None:
    """DeepSeek-V3: one of two groups is open for a token, and the new experts are."""
    lm = build("deepseek_v3", routed_scaling_factor=2.5)
    site: Any = find_sites(lm)[-1]
    attach(lm, "a", {site.layer: [1, 4]}, mode="paper", calibrate=False)
    shake(lm, "a", 0.2)
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    part, bias = site.router.ext_parts["a"], site.router.e_score_correction_bias
    with torch.no_grad():
        _, weights, index = site.router(x)[:3]
        scores = torch.cat([x @ site.router.weight.T, part(x)], 1).sigmoid()
        merit = scores + torch.cat([bias, bias[[1, 4]]])
        best = merit[:, :6].view(-1, 2, 3).topk(2)[0].sum(-1).argmax(-1)
        closed = torch.arange(6) // 3 != best[:, None]
        chosen = merit.masked_fill(torch.cat([closed, torch.zeros(40, 2).bool()], 1), -1e9).topk(2)[1]
        shares = scores.gather(1, chosen)
        wanted = torch.zeros(40, 8).scatter(1, chosen, 2.5 * shares / shares.sum(-1, keepdim=True))
    assert torch.allclose(torch.zeros(40, 8).scatter(1, index, weights), wanted, atol=1e-5)
    assert (index >= 6).any() and (index < 6).any()


ONE: dict[str, dict[str, Any]] = {"mixtral": {}, "qwen3_moe": {"norm_topk_prob": True}, "gpt_oss": {}}


@pytest.mark.parametrize("name", ONE)
def test_paper_routing_of_one_expert_with_weight_one_is_refused(name: str) -> None:
    lm = build(name, num_experts_per_tok=1, **ONE[name])
    layer = find_sites(lm)[-1].layer
    with pytest.raises(
        InputError, match=r"no gradient for rows and calibrations.*Use routing 'exact' or 'slot'"
    ):
        attach(lm, "a", {layer: [0]}, mode="paper")
    attach(lm, "a", {layer: [0]}, mode="slot")
