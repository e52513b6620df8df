"""The store of image features, and loading of encoders."""

from __future__ import annotations

import io
import multiprocessing
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import moextend
from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.model.vision import FeatureStore, load_encoder
from tests.toys import TOKENS, WIDTH, ToyEncoder, picture

IMAGES = [picture(i, 2 * i, 5) for i in range(30)]


class Counting(ToyEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: Sequence[ImageRef]) -> Tensor:
        self.seen += len(images)
        return super().forward(images)


def test_an_image_is_encoded_once(tmp_path: Path) -> None:
    encoder = Counting()
    store = FeatureStore(encoder, tmp_path, batch_size=4)
    first = store([IMAGES[3], IMAGES[1], IMAGES[3]])
    assert torch.equal(first, ToyEncoder()([IMAGES[3], IMAGES[1], IMAGES[3]])) and encoder.seen == 4
    store.prepare(IMAGES)
    again = FeatureStore(encoder, tmp_path)
    assert torch.equal(again(IMAGES), ToyEncoder()(IMAGES)) and encoder.seen == 4 + 7 * 4


@pytest.mark.parametrize("torn", [b"0123", b"x" * 40])
def test_a_torn_append_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    store = FeatureStore(ToyEncoder(), tmp_path)
    store.prepare(IMAGES[:5])
    folder = tmp_path / "toy"
    with (folder / "features.bin").open(
        "ab"
    ) as file:  # records were written, their names were not or not whole
        file.write(b"z" * 77)
    if len(torn) < 17:
        with (folder / "names.txt").open("ab") as file:
            file.write(torn)
    again = FeatureStore(ToyEncoder(), tmp_path)
    assert torch.equal(again(IMAGES), ToyEncoder()(IMAGES))
    assert torch.equal(FeatureStore(ToyEncoder(), tmp_path)(IMAGES), ToyEncoder()(IMAGES))


@pytest.mark.parametrize(
    "damage", ["cut data", "flipped byte", "zeroed", "cut names", "torn name", "no data"]
)
def test_a_damaged_file_costs_only_its_records(tmp_path: Path, damage: str) -> None:
    FeatureStore(ToyEncoder(), tmp_path, batch_size=4).prepare(IMAGES)
    data, names = tmp_path / "toy" / "features.bin", tmp_path / "toy" / "names.txt"
    size = TOKENS * WIDTH * 4
    content, index = bytearray(data.read_bytes()), bytearray(names.read_bytes())
    if damage == "cut data":
        del content[20 * size + 5 :]
    elif damage == "flipped byte":
        content[7 * size + 11] ^= 1
    elif damage == "zeroed":
        content[-3 * size :] = bytes(3 * size)
    elif damage == "cut names":
        del index[50:]
    elif damage == "torn name":
        index[30] = ord("?")
    names.write_bytes(index)
    data.write_bytes(content) if damage != "no data" else data.unlink()
    encoder = Counting()
    for _ in range(2):
        again = FeatureStore(encoder, tmp_path, batch_size=4)
        assert torch.equal(again(IMAGES), ToyEncoder()(IMAGES))
    made_again = {
        "cut data": 12,
        "flipped byte": 4,
        "zeroed": 4,
        "cut names": 32,
        "torn name": 4,
        "no data": 32,
    }
    assert encoder.seen == made_again[damage]


class Other(ToyEncoder):
    def fingerprint(self) -> str:
        return "other"


def test_another_encoder_never_reads_the_same_records(tmp_path: Path) -> None:
    FeatureStore(ToyEncoder(), tmp_path).prepare(IMAGES)
    other = Other()
    other.map.mul_(2)
    assert torch.equal(FeatureStore(other, tmp_path)(IMAGES), other(IMAGES))


def test_a_store_grows_up_to_its_limit(tmp_path: Path) -> None:
    encoder, each = Counting(), TOKENS * WIDTH * 4 + 34
    store = FeatureStore(encoder, tmp_path, batch_size=4, limit=10 * each + 5)
    reported: list[tuple[int, int]] = []
    store.prepare(IMAGES, lambda done, total: reported.append((done, total)))
    assert reported == [(4, 10), (8, 10), (10, 10)]
    assert torch.equal(store(IMAGES), ToyEncoder()(IMAGES))
    assert sum(file.stat().st_size for file in (tmp_path / "toy").iterdir()) == 10 * each
    encoder.seen = 0
    store(IMAGES[:10])
    assert encoder.seen == 0


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    class Wide(ToyEncoder):
        tokens, width = 64, 256

        def forward(self, images: Sequence[ImageRef]) -> Tensor:
            return torch.full((len(images), 64, 256), float(len(images[0].read())))

    store = FeatureStore(Wide(), tmp_path, batch_size=8)
    images = [ImageRef(data=str(i).encode()) for i in range(400)]
    tracemalloc.start()
    store.prepare(images)
    for start in range(0, 400, 8):
        store(images[start : start + 8])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "toy" / "features.bin").stat().st_size == 400 * 64 * 256 * 4  # 26 MB
    assert peak < 4 << 20


def test_features_do_not_depend_on_what_else_was_missing(tmp_path: Path) -> None:
    encoder = load_encoder("tiny")
    drawn = random.Random(0)
    images = [noise(drawn) for _ in range(150)]
    whole = FeatureStore(encoder, tmp_path / "a")(images)
    for name, size in (("b", 1), ("c", 7), ("d", 100)):
        store = FeatureStore(encoder, tmp_path / name)
        order = drawn.sample(range(150), 150)
        for start in range(0, 150, size):
            store.prepare([images[i] for i in order[start : start + size]])
            if start > 30 * size:
                break
        assert torch.equal(store(images), whole)


def noise(drawn: random.Random) -> ImageRef:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (48, 48), drawn.randbytes(48 * 48 * 3)).save(buffer, "PNG")
    return ImageRef(data=buffer.getvalue())


def _prepare(folder: str, start: int) -> None:
    FeatureStore(ToyEncoder(), Path(folder), batch_size=3).prepare(IMAGES[start : start + 20])


def test_processes_share_a_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_prepare, args=(str(tmp_path), start)) for start in (0, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = FeatureStore(ToyEncoder(), tmp_path)
    assert torch.equal(store(IMAGES), ToyEncoder()(IMAGES))


def test_the_encoder_sees_the_same_in_a_model_that_trains() -> None:
    model = moextend.load("tiny", vision="tiny")
    assert model.vision is not None
    drawn = random.Random(0)
    images = [noise(drawn) for _ in range(64)]
    before = model.vision(images)
    model.train()
    assert not any(module.training for module in model.vision.modules())
    assert torch.equal(model.vision(images), before)


def test_the_shipped_encoder_sees_nine_patches() -> None:
    encoder = load_encoder("tiny")
    assert encoder([IMAGES[0], IMAGES[1]]).shape == (2, 9, encoder.width)
    assert encoder.fingerprint() == load_encoder("tiny").fingerprint()


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(InputError, match="no vision encoder 'ViT-Q/openai'"):
        load_encoder("ViT-Q/openai")


def test_a_broken_and_a_missing_image_say_where(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 7: the image is broken"):
        ImageRef(data=b"\x89PNG nonsense", where="row 7").open()
    with pytest.raises(InputError, match=r"row 8.*none\.png: the image cannot be read"):
        ImageRef(path=tmp_path / "none.png", where="row 8").open()


@pytest.mark.parametrize("name", ["tiny", "timm:test_efficientnet"])
def test_how_images_become_square(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sides of a wide image are cut off, or seen, depending on the pre-processing."""
    if name.startswith("timm"):
        import timm

        weights = tmp_path / "weights.pt"
        torch.save(timm.create_model("test_efficientnet").state_dict(), weights)
        name = f"{name}/{weights}"
    wide = Image.new("RGB", (400, 100), (0, 0, 0))
    wide.paste((255, 255, 255), (0, 0, 100, 100))
    seen = {}
    prints = set()
    for resize in ("shortest", "longest", "squash"):
        encoder = load_encoder(name, resize=resize)
        pixels = encoder.preprocess(wide)
        seen[resize] = float(pixels[:, pixels.shape[1] // 2].max()), pixels
        prints.add(encoder.fingerprint())
    assert seen["shortest"][0] < seen["squash"][0], "the white end is cut off"
    assert seen["longest"][0] == pytest.approx(seen["squash"][0], abs=0.2)
    assert len(prints) == 3, "features of one way are never taken for those of another"
