"""Language model of the tiny base: a Mixtral with under a million parameters, for the text world."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from moextend.bench.world import words
from moextend.bench.world.questions import Balance
from moextend.bench.world.text import Item, Piece, training_line
from moextend.bench.world.words import LONGEST
from moextend.model.generation import Prompt, choice_likelihoods
from moextend.model.multimodal import MultimodalLM

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz iteration of Muon (Jordan et al., 2024)."""
WORDS = words.vocabulary()
IDS = {word: i for i, word in enumerate(WORDS)}
ROPE_THETA = 500.0
"""RoPE base. Lines are short: with Mixtral's 1e6 most frequencies hardly rotate within a line, and the model does not
learn within a thousand steps which attribute belongs to which thing."""
AUXILIARY = 0.01
"""Weight of the router's load-balancing loss."""


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Approximation of the nearest (semi-)orthogonal matrix, for one matrix or a stack."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x: Tensor = matrix.mT if tall else matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class OrthogonalMomentum(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for 2-D weights and stacks of them."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every weight by an orthogonal matrix times the learning rate."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                mean = state.setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalised(weight.grad.lerp(mean, group["momentum"]))
                scale = max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5
                weight.add_(update, alpha=-group["lr"] * scale)


class Optimizers:
    """Both optimizers of a model, with the same cosine schedule with warm-up."""

    def __init__(
        self, model: nn.Module, steps: int, is_matrix: Callable[[str, Tensor], bool], adam: float, muon: float
    ) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if is_matrix(name, p)]
        rest = [p for name, p in named if not is_matrix(name, p)]
        self.model, self.steps, self.done = model, steps, 0
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=adam, weight_decay=0.01, betas=(0.9, 0.98)),
            OrthogonalMomentum(matrices, lr=muon),
        ]
        self.rates = (adam, muon)

    def train(self, what: str, loss_of: Callable[[], tuple[Tensor, Tensor]]) -> float:
        """Trains in place; returns the mean loss of the last 20 steps.

        Args: loss_of: a step's loss, and what is minimised.
        """
        losses = []
        self.model.train()
        for _ in track(range(self.steps), what):
            loss, minimised = loss_of()
            self.step(minimised)
            losses.append(loss.item())
        self.model.eval()
        return sum(losses[-20:]) / len(losses[-20:])

    def step(self, loss: Tensor) -> None:
        """One step, with the gradient norm clipped at 1."""
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for part, rate in zip(self.parts, self.rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * schedule(self.done, self.steps)
            part.step()
        self.done += 1


def schedule(step: int, steps: int, warmup: float = 0.05) -> float:
    """Factor on the learning rate at a step: linear warm-up, then cosine to zero."""
    rise = max(1, int(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def build_language_model(seed: int) -> Any:
    """An untrained MixtralForCausalLM: 4 layers, width 96, 4 experts of which 2 are active."""
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(seed)
    config = MixtralConfig(
        vocab_size=len(WORDS),
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=LONGEST,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        router_aux_loss_coef=AUXILIARY,
        pad_token_id=IDS[words.PAD],
        bos_token_id=IDS[words.BOS],
        eos_token_id=IDS[words.EOS],
    )
    return MixtralForCausalLM(config)


def line_batch(lines: list[Piece]) -> tuple[Tensor, Tensor]:
    """Token ids with `<bos>` first (B, L), and the loss weight of each token (B, L)."""
    rows = [torch.tensor([IDS[words.BOS], *(IDS[word.text] for word in line)]) for line in lines]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IDS[words.PAD])
    weights = torch.zeros(ids.shape)
    for row, line in zip(weights, lines, strict=True):
        row[1 : len(line) + 1] = torch.tensor([word.weight for word in line])
    return ids, weights


def train_language_model(model: Any, seed: int, steps: int, batch: int) -> float:
    """Trains in place on newly generated lines; returns the mean loss of the last 20 steps."""
    rng = random.Random(seed)
    balance = Balance(rng)
    optimizers = Optimizers(model, steps, _is_matrix, adam=3e-3, muon=0.02)
    model.set_experts_implementation("eager")

    def loss_of() -> tuple[Tensor, Tensor]:
        ids, weights = line_batch([training_line(rng, balance) for _ in range(batch)])
        out = model(input_ids=ids, output_router_logits=True, use_cache=False)
        each = functional.cross_entropy(out.logits[:, :-1].mT, ids[:, 1:], reduction="none")
        loss = (each * weights[:, 1:]).sum() / weights[:, 1:].sum()
        return loss, loss + AUXILIARY * out.aux_loss

    return optimizers.train("language model", loss_of)


def _is_matrix(name: str, weight: Tensor) -> bool:
    return weight.dim() >= 2 and not any(part in name for part in ("embed", "lm_head", "gate.weight"))


def text_accuracy(model: MultimodalLM, items: list[Item]) -> float:
    """Percent of items whose right choice has the highest sum of log-probabilities."""
    prompts, choices = [Prompt(item["context"]) for item in items], [item["choices"] for item in items]
    found = choice_likelihoods(model, prompts, choices, batch_size=256)
    hits = (own.index(max(own)) == item["gold"] for own, item in zip(found, items, strict=True))
    return 100 * sum(hits) / len(items)
