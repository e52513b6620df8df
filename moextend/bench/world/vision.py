"""Vision encoder of the tiny base: a CLIP of open_clip, trained on captions of scenes.

A batch contains, with every scene, twins that differ in one attribute of one thing. Without these hard negatives the
encoder matches images and captions by colors and places, and does not learn to read letters.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from moextend.bench.world import words
from moextend.bench.world.language import IDS, Optimizers
from moextend.bench.world.render import CELL, PLAIN, SIDE, Domain, render
from moextend.bench.world.scenes import Scene, Split, caption, draw_scene, twin
from moextend.bench.world.words import COLORS, LETTERS, SHAPES, SIZES
from moextend.util.files import write_json

LAYERS, WIDTH, HEADS = 4, 64, 4
CAPTION_TOKENS = 32
POOL = 4000
"""Number of groups (a scene and its twins) in the training set."""
MEAN = STD = (0.5, 0.5, 0.5)
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "image_size": SIDE,
            "patch_size": CELL,
            "layers": LAYERS,
            "width": WIDTH,
            "head_width": WIDTH // HEADS,
        },
        "text_cfg": {
            "context_length": CAPTION_TOKENS,
            "vocab_size": len(IDS),
            "width": WIDTH,
            "heads": HEADS,
            "layers": 2,
            "pool_type": "eos",
            "eos_id": IDS[words.EOS],
        },
    },
    "preprocess_cfg": {
        "size": [SIDE, SIDE],
        "mode": "RGB",
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
"""Content of `open_clip_config.json`."""
VALUES = {"color": COLORS, "shape": SHAPES, "size": SIZES, "letter": LETTERS}


def build_vision_model(seed: int) -> Any:
    """An untrained CLIP. A patch is one cell, so that an image has nine tokens of width 64."""
    import open_clip
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    torch.manual_seed(seed)
    config = CONFIG["model_cfg"]
    return open_clip.CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=CLIPVisionCfg(**config["vision_cfg"]),
        text_cfg=CLIPTextCfg(**config["text_cfg"]),
    )


def pixels(scenes: list[Scene], domain: Domain = PLAIN) -> Tensor:
    """Images as input of the encoder, (B, 3, 48, 48)."""
    stacked = torch.stack([torch.from_numpy(render(scene, domain)) for scene in scenes])
    return (stacked.permute(0, 3, 1, 2).float() / 255 - MEAN[0]) / STD[0]


def caption_ids(scenes: list[Scene]) -> Tensor:
    """Captions as input of the text tower, (B, 32)."""
    ids = torch.full((len(scenes), CAPTION_TOKENS), IDS[words.PAD])
    for row, scene in zip(ids, scenes, strict=True):
        tokens = [words.BOS, *caption(scene).split(), words.EOS]
        row[: len(tokens)] = torch.tensor([IDS[word] for word in tokens])
    return ids


class Pool(NamedTuple):
    """Generated groups of a scene and its twins: (groups, members, ...)."""

    images: Tensor
    captions: Tensor


def draw_pool(seed: int, groups: int, members: int) -> Pool:
    """Training scenes with `members - 1` twins each."""
    rng = random.Random(seed)
    scenes = [scene for _ in range(groups) for scene in _group(rng, members)]
    images = torch.stack([torch.from_numpy(render(scene)) for scene in scenes])
    captions = caption_ids(scenes)
    return Pool(
        images.reshape(groups, members, *images.shape[1:]), captions.reshape(groups, members, CAPTION_TOKENS)
    )


def _group(rng: random.Random, members: int) -> list[Scene]:
    scene = draw_scene(rng, "train")
    group = [scene]
    while len(group) < members:
        other = twin(scene, rng)
        if other.split() == "train" and caption(other) not in map(caption, group):
            group.append(other)
    return group


def train_vision_model(model: Any, seed: int, steps: int, batch: int, members: int = 4) -> float:
    """Trains in place; returns the mean contrastive loss of the last 20 steps. `batch`: number of groups."""
    pool = draw_pool(seed, POOL, members)
    generator = torch.Generator().manual_seed(seed)
    optimizers = Optimizers(model, steps, _is_matrix, adam=2e-3, muon=0.02)
    target = torch.arange(batch * members)

    def clamp() -> None:
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    def loss_of() -> tuple[Tensor, Tensor]:
        clamp()
        chosen = torch.randint(0, len(pool.images), (batch,), generator=generator)
        images = pool.images[chosen].flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        image, text, scale = model((images - MEAN[0]) / STD[0], pool.captions[chosen].flatten(0, 1))
        logits = scale * image @ text.T
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        return loss, loss

    found = optimizers.train("vision encoder", loss_of)
    clamp()
    return found


def _is_matrix(name: str, weight: Tensor) -> bool:
    return weight.dim() == 2 and "resblocks" in name


@torch.no_grad()
def patch_features(model: Any, images: Tensor, batch: int = 500) -> Tensor:
    """Patch tokens of the penultimate layer, (B, 9, 64), the input of a projector."""
    features = []
    for part in torch.split(images, batch):
        out = model.visual.forward_intermediates(
            part, indices=[LAYERS - 2], intermediates_only=True, output_fmt="NLC"
        )
        features.append(out["image_intermediates"][-1])
    return torch.cat(features)


def save_vision_model(model: Any, folder: Path) -> None:
    """Writes `open_clip_config.json` and `open_clip_model.safetensors` in the format of "local-dir:"."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "open_clip_config.json", CONFIG)
    weights = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})


def probe_scenes(seed: int, count: int, split: Split) -> list[Scene]:
    """New scenes of a split for measuring the encoder."""
    rng = random.Random(seed)
    return [draw_scene(rng, split) for _ in range(count)]


def probe_accuracies(
    model: Any, seed: int, learned: int = 3000, scored: int = 500, domain: Domain = PLAIN
) -> dict[str, float]:
    """Percent of things in test scenes whose attribute a linear probe predicts from the token of their cell.

    The probe is trained and scored on pictures of the domain.
    """
    train, test = probe_scenes(seed, learned, "train"), probe_scenes(seed + 1, scored, "test")
    train_x, test_x = _thing_tokens(model, train, domain), _thing_tokens(model, test, domain)
    mean, std = train_x.mean(0), train_x.std(0)
    train_x, test_x = (train_x - mean) / std, (test_x - mean) / std
    accuracies = {}
    for attribute, values in VALUES.items():
        classifier = _linear_probe(train_x, _labels(train, attribute), len(values), seed)
        hits = classifier(test_x).argmax(-1) == _labels(test, attribute)
        accuracies[attribute] = round(100 * hits.float().mean().item(), 1)
    return accuracies


def _thing_tokens(model: Any, scenes: list[Scene], domain: Domain) -> Tensor:
    features = patch_features(model, pixels(scenes, domain))
    return torch.stack([features[i, t.cell] for i, scene in enumerate(scenes) for t in scene.things])


def _labels(scenes: list[Scene], attribute: str) -> Tensor:
    values = VALUES[attribute]
    return torch.tensor([values.index(getattr(t, attribute)) for scene in scenes for t in scene.things])


def _linear_probe(x: Tensor, y: Tensor, classes: int, seed: int, steps: int = 300) -> nn.Linear:
    torch.manual_seed(seed)
    classifier = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.03, weight_decay=1e-3)
    for _ in range(steps):
        loss = functional.cross_entropy(classifier(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.requires_grad_(False)


def feature_scale(model: Any, seed: int, count: int = 500) -> float:
    """Standard deviation of the raw patch tokens over training scenes; a projector divides by it."""
    features = patch_features(model, pixels(probe_scenes(seed, count, "train")))
    return float(features.std())
