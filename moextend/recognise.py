"""Which extension an input belongs to, found without being told: `scope: auto`.

Each extension keeps the mean and the scatter of frozen features of its own inputs (the mean embedding of the text
tokens and the mean image feature); an input goes to the extension with the nearest mean under the shared covariance
(linear discriminant analysis). A later extension never changes the mean of an earlier one, and no raw data is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moextend import expand, files
from moextend.batches import Conversation
from moextend.fingerprint import tensors_digest
from moextend.generation import Prompt
from moextend.multimodal import MultimodalLM

FILE = "recogniser.safetensors"
RULE = "lda2"
"""Version of the rule that chooses; part of every fingerprint."""
MARK = "<image>"


@dataclass(frozen=True)
class Portrait:
    """What the inputs of one extension look like."""

    mean: Tensor
    """[D]"""
    scatter: Tensor
    """[D, D]: sum of outer products of deviations from the mean."""
    count: int
    sample: Tensor
    """[n, D]: features of some inputs that the mean was not made from, for measuring the accuracy."""
    sees: bool
    """Whether the inputs have images."""


@torch.no_grad()
def features(model: MultimodalLM, prompts: Sequence[Prompt]) -> Tensor:
    """[prompts, H + vision width]: mean embedding of the text's tokens, then the mean image feature (0 without)."""
    table, see = model.lm.get_input_embeddings(), model.features or model.vision
    rows = []
    for prompt in prompts:
        ids = model.tokenizer(prompt.text.replace(MARK, " "), add_special_tokens=False)["input_ids"]
        text = table(torch.tensor(ids or [0], device=model.device)).float().mean(0)
        image = torch.zeros(model.vision.width if model.vision else 0, device=model.device)
        if prompt.images and see:
            image = see(prompt.images).to(model.device).flatten(0, 1).mean(0)
        rows.append(torch.cat([text, image]))
    return torch.stack(rows).cpu()


def portray(model: MultimodalLM, prompts: Sequence[Prompt], *, tested: int = 128) -> Portrait:
    """The portrait of an extension from its training prompts; the first `tested` of them only measure."""
    x = features(model, prompts)
    tested = min(tested, len(x) // 2)
    sample, x = x[:tested], x[tested:].double()
    deviation = x - x.mean(0)
    return Portrait(
        x.mean(0).float(), (deviation.T @ deviation).float(), len(x), sample, bool(prompts[0].images)
    )


def prompts_of(conversations: Sequence[Conversation]) -> list[Prompt]:
    """First questions, as `portray` takes them: of those with images, if there are any, else of all."""
    prompts = [
        Prompt(text, row.images[: text.count(MARK)]) for row in conversations for text, _ in row.turns[:1]
    ]
    return [prompt for prompt in prompts if prompt.images] or prompts


def nearest(portraits: Mapping[str, Portrait], x: Tensor, sees: bool) -> list[str | None]:
    """For features [n, D] the name of the nearest extension that takes such inputs (with or without images).

    None where there is none. Distance: Mahalanobis under the pooled covariance of features scaled to unit variance,
    shrunk by a hundredth; without the scale, features of large numbers (images) would drown the others (text).
    """
    fitting = {name: portrait for name, portrait in portraits.items() if portrait.sees == sees}
    if not fitting:
        return [None] * len(x)
    means = torch.stack([p.mean for p in fitting.values()]).double()
    pooled = torch.stack([p.scatter for p in fitting.values()]).double().sum(0)
    pooled = pooled / sum(p.count for p in fitting.values())
    scale = (pooled.diagonal() + means.var(0, correction=0)).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    within = pooled / scale / scale[:, None] + 0.01 * torch.eye(len(pooled))
    deviation = (x.double()[:, None] - means) / scale
    distance = (deviation * torch.linalg.solve(within, deviation.mT).mT).sum(-1)
    names = list(fitting)
    return [names[i] for i in distance.argmin(1).tolist()]


def accuracy(portraits: Mapping[str, Portrait]) -> dict[str, float]:
    """Name -> share of the sampled inputs that are taken for the extension's own, 0..1."""
    found = {}
    for name, portrait in portraits.items():
        taken = nearest(portraits, portrait.sample, portrait.sees)
        found[name] = sum(other == name for other in taken) / len(taken)
    return found


class Recogniser:
    """Chooses the extension of each prompt; see `generation.generate`."""

    def __init__(
        self,
        model: MultimodalLM,
        portraits: Mapping[str, Portrait],
        reaching: Callable[[Sequence[str]], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.model, self.portraits = model, dict(portraits)
        self._reaching = reaching or partial(expand.reaching, model.lm)

    def reaching(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Within it, only these extensions compute (or what else `reaching` makes of the names)."""
        return self._reaching(names)

    def fingerprint(self) -> str:
        """Names the rule and the portraits."""
        known = {f"{name}.mean": p.mean for name, p in self.portraits.items()}
        known |= {f"{name}.scatter": p.scatter for name, p in self.portraits.items()}
        return f"{RULE}-{tensors_digest(known)}"

    def __call__(self, prompts: Sequence[Prompt]) -> list[tuple[str, ...]]:
        """The extensions that each prompt may reach: one, or none."""
        chosen: list[tuple[str, ...]] = []
        for prompt, x in zip(prompts, features(self.model, prompts), strict=True):
            name = nearest(self.portraits, x[None], bool(prompt.images))[0]
            chosen.append((name,) if name else ())
        return chosen


def write(portrait: Portrait, folder: Path) -> None:
    """Keeps a portrait beside an extension."""
    tensors = {
        "mean": portrait.mean,
        "scatter": portrait.scatter,
        "count": torch.tensor(portrait.count),
        "sample": portrait.sample.contiguous(),
        "sees": torch.tensor(portrait.sees),
    }
    with files.atomic(folder / FILE) as path:
        save_file(tensors, path)


def read(folder: Path) -> Portrait:
    """The portrait that `write` kept."""
    kept = load_file(folder / FILE)
    return Portrait(kept["mean"], kept["scatter"], int(kept["count"]), kept["sample"], bool(kept["sees"]))
