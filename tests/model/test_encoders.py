"""Image encoders by name: their tokens, their pre-processing, and refused names."""

from __future__ import annotations

import io
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.model import encoders
from moextend.model.vision import load_encoder

TEXT = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1}
CLIP = {"image_size": 32, "patch_size": 8, "layers": 3, "width": 32, "head_width": 8}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("no name may be looked up over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def clip_folder(folder: Path, vision: dict[str, Any], preprocess: dict[str, Any] | None = None) -> Path:
    """A folder as open_clip saves it, with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}}
    if preprocess:
        config["preprocess_cfg"] = preprocess
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}")
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def timm_file(model: str, path: Path) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model(model).state_dict(), path)
    return path


def noise(width: int = 40, height: int = 32) -> ImageRef:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0))
    return drawn(Image.fromarray(pixels.to(torch.uint8).numpy()))


def drawn(image: Image.Image) -> ImageRef:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


class Watch:
    """Output of a module, and how often it ran."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.runs, self.out = 0, torch.empty(0)
        module.register_forward_hook(self._see)

    def _see(self, module: object, args: object, out: torch.Tensor) -> None:
        self.runs, self.out = self.runs + 1, out


def test_a_clip_transformer_gives_its_penultimate_patches(tmp_path: Path) -> None:
    encoder = load_encoder(str(clip_folder(tmp_path, CLIP)))
    tower: Any = encoder.tower
    blocks = tower.transformer.resblocks
    penultimate, last = Watch(blocks[-2]), Watch(blocks[-1])
    tokens = encoder([noise()])
    assert tokens.shape == (1, 16, 32) == (1, encoder.tokens, encoder.width)
    assert torch.equal(tokens, penultimate.out[:, 1:]) and last.runs == 0


@pytest.mark.parametrize(("trunk", "prefix"), [("test_vit", 1), ("test_vit_relpos", 0)])
@pytest.mark.parametrize("home", ["open_clip", "timm"])
def test_a_transformer_of_timm_gives_its_penultimate_patches(
    trunk: str, prefix: int, home: str, tmp_path: Path
) -> None:
    inner: Any
    if home == "timm":
        encoder = load_encoder(f"timm:{trunk}/{timm_file(trunk, tmp_path / 'w.safetensors')}")
        inner = encoder.tower
    else:
        pool = timm.create_model(trunk).global_pool
        vision = {"image_size": 160, "timm_model_name": trunk, "timm_pool": pool, "timm_proj": "linear"}
        encoder = load_encoder(str(clip_folder(tmp_path, vision)))
        inner = encoder.tower.get_submodule("trunk")
    assert inner.num_prefix_tokens == prefix
    penultimate, last = Watch(inner.blocks[-2]), Watch(inner.blocks[-1])
    tokens = encoder([noise()])
    assert torch.equal(tokens, penultimate.out[:, prefix:]) and last.runs == 0
    assert tokens.shape == (1, (160 // 16) ** 2, inner.embed_dim)


def test_a_convolutional_network_gives_its_last_map(tmp_path: Path) -> None:
    encoder = load_encoder(
        f"timm:test_efficientnet/{timm_file('test_efficientnet', tmp_path / 'w.safetensors')}"
    )
    watched = Watch(encoder.tower.get_submodule("bn2"))
    tokens = encoder([noise(), drawn(Image.new("RGB", (50, 50), "red"))])
    rows, columns = watched.out.shape[2:]
    assert tokens.shape == (2, rows * columns, watched.out.shape[1])
    assert torch.equal(tokens[1, columns + 1], watched.out[1, :, 1, 1])


def test_tokens_are_pooled_to_the_grid_of_the_name(tmp_path: Path) -> None:
    name = str(clip_folder(tmp_path, CLIP))
    own, pooled = load_encoder(name), load_encoder(f"{name}:2x2")
    assert (own.tokens, pooled.tokens) == (16, 4) and own.fingerprint() != pooled.fingerprint()
    tokens = own([noise()])[0].unflatten(0, (4, 4))
    quarters = [
        tokens[rows, columns].mean((0, 1))
        for rows in (slice(2), slice(2, 4))
        for columns in (slice(2), slice(2, 4))
    ]
    torch.testing.assert_close(pooled([noise()])[0], torch.stack(quarters))
    assert load_encoder(f"{name}:1x4")([noise()]).shape == (1, 4, 32)
    assert torch.equal(load_encoder(f"{name}:4x4")([noise()]), own([noise()]))


def test_preprocessing_is_the_encoders_own(tmp_path: Path) -> None:
    own = {"size": [32, 32], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.125], "interpolation": "bilinear",
           "resize_mode": "squash"}  # fmt: skip
    encoder = load_encoder(str(clip_folder(tmp_path, CLIP, own)))
    image = Image.new("RGB", (64, 16), (255, 0, 51))
    image.paste((0, 0, 51), (32, 0, 64, 16))
    seen = encoder.preprocess(image)
    assert seen.shape == (3, 32, 32)
    assert torch.allclose(seen[:, 5, 2], torch.tensor([(1 - 0.1) / 0.5, -0.2 / 0.25, (0.2 - 0.3) / 0.125]))
    assert torch.allclose(seen[0, 5, 30], torch.tensor(-0.1 / 0.5))


def test_weights_under_other_names_load_in_order(tmp_path: Path) -> None:
    path = timm_file("test_efficientnet", tmp_path / "w.safetensors")
    renamed = tmp_path / "other.pth"
    own = timm.create_model("test_efficientnet").state_dict()
    weights = load_file(path)
    torch.save({f"other_{i}": weights[name] for i, name in enumerate(own)}, renamed)
    first, second = (load_encoder(f"timm:test_efficientnet/{file}") for file in (path, renamed))
    assert torch.equal(first([noise()]), second([noise()]))
    assert first.fingerprint() == second.fingerprint()
    with pytest.raises(InputError, match=r"w\.safetensors does not fit the model"):
        load_encoder(f"timm:test_vit/{path}")


def test_a_package_may_carry_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carried_weights" / "models"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="holds 0 files of weights"):
        encoders.find_tower("timm:test_vit/package:carried_weights")
    path = timm_file("test_vit", package / "w.safetensors")
    assert encoders.find_tower("timm:test_vit/package:carried_weights").weights == path
    assert "carried_weights" not in sys.modules
    with pytest.raises(InputError, match=r"no package 'not_there' is installed\. Install it.*not-there"):
        encoders.find_tower("timm:test_vit/package:not_there")


def test_folders_of_both_libraries_load(tmp_path: Path, offline: None) -> None:
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_vit"), str(tmp_path / "timm"), safe_serialization=True)
    assert load_encoder(str(tmp_path / "timm")).tokens == 100
    with pytest.raises(InputError, match="holds no image encoder"):
        load_encoder(str(tmp_path))
    folder = clip_folder(tmp_path / "clip", CLIP)
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_encoder(str(folder))


@pytest.fixture
def built_in(tmp_path: Path) -> Iterator[str]:
    """A small model among those that open_clip knows by name."""
    config = tmp_path / "moextend-test-clip.json"
    config.write_text(json.dumps({"embed_dim": 16, "vision_cfg": CLIP, "text_cfg": TEXT}))
    open_clip.add_model_config(config)
    yield config.stem
    open_clip.factory._MODEL_CONFIG_PATHS.remove(config)
    del open_clip.factory._MODEL_CONFIGS[config.stem]


def test_a_built_in_model_takes_a_file_and_a_tag(
    built_in: str, tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "clip.safetensors"
    save_file({k: v.contiguous() for k, v in open_clip.create_model(built_in).state_dict().items()}, path)
    plain = load_encoder(f"{built_in}/{path}")
    assert plain.tokens == 16
    tags = {"made": {"url": "none", "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, built_in, tags)
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(path))
    quick = load_encoder(f"{built_in}/made")
    tower: Any = quick.tower
    assert type(tower.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert not torch.equal(quick([noise()]), plain([noise()]))
    with pytest.raises(InputError, match=rf"no vision encoder '{built_in}'"):
        encoders.find_tower(built_in)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-L-14-337/openai", r"no vision encoder 'ViT-L-14-337/openai'\. Name one of the package"),
        ("ViT-L-14-336/opnai", "no vision encoder"),
        ("ViT-L-14-336", "no vision encoder"),
        ("ViT-L-14/weights.pt", r"no such file of weights: weights\.pt"),
        ("timm:tf_eficientnet_lite0", "no vision encoder"),
        ("timm:tf_efficientnet_lite0.in22k", "no vision encoder"),
        ("timm:test_vit/none.pth", r"no such file of weights: none\.pth"),
        ("tinny", "no vision encoder"),
        ("tiny:0x3", "rows and columns are 1 or more"),
        ("tiny:9x9", "gives 3x3 tokens, and 9x9 were requested"),
    ],
)
def test_a_wrong_name_is_one_clear_error_without_a_download(name: str, message: str, offline: None) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(name)


def test_one_block_has_no_penultimate_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives no visual tokens"):
        load_encoder(str(clip_folder(tmp_path, CLIP | {"layers": 1})))
