"""Memory of a quantised base, loaded and in training: a quarter of OLMoE-1B-7B, with its widths and 64 experts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import moextend
from moextend import Conversation, MultimodalLM, Settings, attach, detach, new_parameters
from moextend.bench.perf.measure import Ids, peak
from moextend.model import quantising
from moextend.training.estimate import Estimator, Step

pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
ROWS, LENGTH = 2, 64


def quarter() -> object:
    """Four of the 16 layers and a quarter of the vocabulary, so that experts have the share that they have in all."""
    config = AutoConfig.for_model(
        "olmoe", hidden_size=2048, intermediate_size=1024, num_experts=64, num_hidden_layers=4,
        vocab_size=50304 // 4, pad_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def trained(lm: torch.nn.Module, folder: Path) -> tuple[float, float]:
    """Peak bytes of a training of one new expert in both upper layers, and CPU seconds of its last step."""
    model, times, found = MultimodalLM(lm, Ids(), base="none"), [time.process_time()], [0]
    drawn = torch.randint(5, 12000, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    data = [Conversation((("", " ".join(map(str, row))),), closed=False) for row in drawn.tolist()]
    held = sum(p.nbytes for p in lm.parameters())
    settings = Settings(steps=3, batch_size=ROWS, learning_rate=1e-4, bf16=True)
    with peak(found):
        attach(lm, "new", {2: [0], 3: [0]})
        model.learn_only([f"lm.{name}" for name in new_parameters(lm, "new")])
        moextend.train(
            model,
            data,
            settings,
            folder=folder,
            on_step=lambda done, total: times.append(time.process_time()),
        )
    detach(lm, "new")
    return held + found[0], times[-1] - times[-2]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_loading_and_training_stay_small(tmp_path: Path) -> None:
    """A minute or two on a core for each quantisation of 1.7 billion weights."""
    torch.manual_seed(0)
    lm = quarter()
    lm.save_pretrained(tmp_path / "base")  # type: ignore[attr-defined]
    lm.set_experts_implementation("eager")  # type: ignore[attr-defined]
    full, step = trained(lm, tmp_path / "full")  # type: ignore[arg-type]
    size = sum(p.nbytes for p in lm.parameters())  # type: ignore[attr-defined]
    print(f"bfloat16: weights {size / 1e6:,.0f} MB; training {full / 1e6:,.0f} MB; step {step:.2f} s")
    del lm
    mapped = sum(file.stat().st_size for file in (tmp_path / "base").glob("*.safetensors"))
    with torch.device("meta"):
        skeleton = quarter()
    for method, share in (("nf4", 0.35), ("int8", 0.6)):
        found = [0]
        with peak(found):
            config = quantising.Quantisation(method)  # type: ignore[arg-type]
            lm = AutoModelForCausalLM.from_pretrained(
                tmp_path / "base", dtype=torch.bfloat16, quantization_config=config
            )
        size = sum(p.nbytes for p in lm.parameters())
        assert size == quantising.size(skeleton, method, torch.bfloat16)  # type: ignore[arg-type]
        # The file is mapped, and weights that are not quantised stay in it until they are used.
        loading = found[0] - mapped + sum(p.nbytes for p in lm.parameters() if p.dtype == torch.bfloat16)
        lm.set_experts_implementation("eager")
        training, each = trained(lm, tmp_path / method)
        print(
            f"{method}: weights {size / 1e6:,.0f} MB, loading {loading / size:.3f} of them; training "
            f"{training / 1e6:,.0f} MB, {training / full:.3f} of bfloat16; step {each:.2f} s, "
            f"{each / step:.2f} times bfloat16's"
        )
        with torch.device("meta"):
            estimator = Estimator(quarter(), None, method)  # type: ignore[arg-type]
            attach(estimator.lm, "new", {2: [0], 3: [0]})
        estimator.learn_only(new_parameters(estimator.lm, "new").values())
        cost = estimator.training(Step(ROWS, LENGTH, LENGTH, bf16=True))
        assert cost.frozen + cost.states + cost.working == pytest.approx(training, rel=0.05)
        assert loading <= 1.15 * size
        assert training <= share * full
        del lm
