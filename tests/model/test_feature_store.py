"""The store of features on disk."""

from __future__ import annotations

import errno
import multiprocessing
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.model.feature_store import FeatureStore
from moextend.model.modality import Features
from moextend.model.vision import load_encoder
from tests.toys import TOKENS, WIDTH, ToyEncoder, curve, noise, picture, series

IMAGES = [picture(i, 2 * i, 5) for i in range(30)]


def equal(found: Features, expected: Features) -> bool:
    return torch.equal(torch.stack(list(found)), torch.stack(list(expected)))


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
    assert equal(first, ToyEncoder()([IMAGES[3], IMAGES[1], IMAGES[3]])) and encoder.seen == 4
    store(IMAGES)
    again = FeatureStore(encoder, tmp_path)
    assert equal(again(IMAGES), ToyEncoder()(IMAGES)) and encoder.seen == 4 + 7 * 4


def test_expected_media_fill_the_batches_of_few_missing_ones(tmp_path: Path) -> None:
    encoder = Counting()
    store = FeatureStore(encoder, tmp_path, batch_size=8)
    store(IMAGES[4:5])
    encoder.seen = 0
    with store.expecting(IMAGES):
        for start in range(0, 30, 3):
            assert equal(store(IMAGES[start : start + 3]), ToyEncoder()(IMAGES[start : start + 3]))
    assert encoder.seen == 32, "29 images in four batches, not ten"
    with store.expecting(IMAGES):
        other = [picture(9, 9, 5)]
        assert equal(store(other), ToyEncoder()(other))
    assert encoder.seen == 40


def test_a_broken_medium_fails_only_the_call_that_asks_for_it(tmp_path: Path) -> None:
    store = FeatureStore(load_encoder("tiny"), tmp_path / "f", batch_size=4)
    broken = ImageRef(data=b"junk", where="row 7")
    missing = ImageRef(path=tmp_path / "no.png", where="row 8")
    for bad, place in ((broken, "row 7"), (missing, "row 8")):
        image = noise(random.Random(place))
        with store.expecting([image, bad, IMAGES[0]]):
            store([image])
            with pytest.raises(InputError, match=place):
                store([bad])
    assert len((store.folder / "names.txt").read_bytes().splitlines()) == 2, "good ones are saved"


def test_expected_media_are_read_as_far_as_needed_and_as_there_is_room(tmp_path: Path) -> None:
    read: list[ImageRef] = []

    def expected() -> Iterator[ImageRef]:
        for image in IMAGES:
            read.append(image)
            yield image

    with FeatureStore(Counting(), tmp_path / "a", batch_size=4).expecting(expected()):
        assert not read
    store = FeatureStore(Counting(), tmp_path / "b", batch_size=4, limit=2 * (TOKENS * WIDTH * 4 + 34))
    with store.expecting(expected()):
        store(IMAGES[:1])
        store(IMAGES[10:13])
    assert read == IMAGES[:2]


@pytest.mark.parametrize("torn", [b"0123", b"x" * 40])
def test_a_torn_append_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    store = FeatureStore(ToyEncoder(), tmp_path)
    store(IMAGES[:5])
    folder = tmp_path / "toy"
    with (folder / "features.bin").open(
        "ab"
    ) as file:  # records were written, their names were not or not whole
        file.write(b"z" * 77)
    if len(torn) < 17:
        with (folder / "names.txt").open("ab") as file:
            file.write(torn)
    again = FeatureStore(ToyEncoder(), tmp_path)
    assert equal(again(IMAGES), ToyEncoder()(IMAGES))
    assert equal(FeatureStore(ToyEncoder(), tmp_path)(IMAGES), ToyEncoder()(IMAGES))


@pytest.mark.parametrize(
    "damage", ["cut data", "flipped byte", "zeroed", "cut names", "torn name", "no data"]
)
def test_a_damaged_file_costs_only_its_records(tmp_path: Path, damage: str) -> None:
    FeatureStore(ToyEncoder(), tmp_path, batch_size=4)(IMAGES)
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
        assert equal(again(IMAGES), ToyEncoder()(IMAGES))
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
    FeatureStore(ToyEncoder(), tmp_path)(IMAGES)
    other = Other()
    other.map.mul_(2)
    assert equal(FeatureStore(other, tmp_path)(IMAGES), other(IMAGES))


def test_a_store_grows_up_to_its_limit(tmp_path: Path) -> None:
    encoder, each = Counting(), TOKENS * WIDTH * 4 + 34
    store = FeatureStore(encoder, tmp_path, batch_size=4, limit=10 * each + 5)
    assert equal(store(IMAGES), ToyEncoder()(IMAGES))
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
    with store.expecting(iter(images)):
        for start in range(0, 400, 5):
            store(images[start : start + 5])
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
            store([images[i] for i in order[start : start + size]])
            if start > 30 * size:
                break
        assert equal(store(images), whole)


def _prepare(folder: str, start: int) -> None:
    FeatureStore(ToyEncoder(), Path(folder), batch_size=3)(IMAGES[start : start + 20])


def test_processes_share_a_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_prepare, args=(str(tmp_path), start)) for start in (0, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = FeatureStore(ToyEncoder(), tmp_path)
    assert equal(store(IMAGES), ToyEncoder()(IMAGES))


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    assert equal(FeatureStore(ToyEncoder(), tmp_path)(IMAGES), ToyEncoder()(IMAGES))
    encoder = Counting()
    assert equal(FeatureStore(encoder, tmp_path)(IMAGES), ToyEncoder()(IMAGES)) and encoder.seen == 0


def curves() -> list[Any]:
    return [curve(*(0.5 * j + i for j in range(3 * i % 14 + 1))) for i in range(30)]


def of_curves() -> list[torch.Tensor]:
    return [series().Fourier()([each])[0] for each in curves()]


def test_records_of_different_sizes_are_kept(tmp_path: Path) -> None:
    store, media = FeatureStore(series().Fourier(), tmp_path, batch_size=4), curves()
    first = store([media[3], media[1], media[3]])
    assert [len(each) for each in first] == [3, 1, 3]
    store(media)
    again = FeatureStore(series().Fourier(), tmp_path)
    again.encoder = SimpleNamespace(tokens=None, width=8, tokens_of=series().Fourier().tokens_of)
    assert all(torch.equal(a, b) for a, b in zip(again(media), of_curves(), strict=True))
    assert (tmp_path / "fourier1" / "features.bin").stat().st_size == sum(each.nbytes for each in of_curves())


@pytest.mark.parametrize(
    "damage", ["cut data", "flipped byte", "cut names", "torn name", "torn append", "no data"]
)
def test_a_damaged_file_costs_only_its_records_of_different_sizes(tmp_path: Path, damage: str) -> None:
    FeatureStore(series().Fourier(), tmp_path, batch_size=4)(curves())
    data, names = tmp_path / "fourier1" / "features.bin", tmp_path / "fourier1" / "names.txt"
    content, index = bytearray(data.read_bytes()), bytearray(names.read_bytes())
    if damage == "cut data":
        del content[-40:]
    elif damage == "flipped byte":
        content[70] ^= 1
    elif damage == "cut names":
        del index[100:]
    elif damage == "torn name":
        index[len(index) - 50] = ord("?")
    elif damage == "torn append":
        content += b"z" * 77
    names.write_bytes(index)
    data.write_bytes(content) if damage != "no data" else data.unlink()
    for _ in range(2):
        again = FeatureStore(series().Fourier(), tmp_path, batch_size=4)
        assert all(torch.equal(a, b) for a, b in zip(again(curves()), of_curves(), strict=True))


def test_a_store_of_different_sizes_grows_up_to_its_limit(tmp_path: Path) -> None:
    sizes = [each.nbytes + 60 for each in of_curves()]
    store = FeatureStore(series().Fourier(), tmp_path, batch_size=4, limit=sum(sizes[:7]) + 5)
    store(curves())
    assert all(torch.equal(a, b) for a, b in zip(store(curves()), of_curves(), strict=True))
    assert sum(file.stat().st_size for file in (tmp_path / "fourier1").iterdir()) == sum(sizes[:7])


def _prepare_curves(folder: str, start: int) -> None:
    FeatureStore(series().Fourier(), Path(folder), batch_size=3)(curves()[start : start + 20])


def test_processes_share_a_store_of_different_sizes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_prepare_curves, args=(str(tmp_path), start)) for start in (0, 10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = FeatureStore(series().Fourier(), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(store(curves()), of_curves(), strict=True))


def test_a_medium_is_encoded_alone_where_sizes_differ(tmp_path: Path) -> None:
    """Its features must not depend on the other media of a batch."""
    asked: list[int] = []

    class Counted(series().Fourier):  # type: ignore[misc]
        def forward(self, media: Sequence[Any]) -> list[torch.Tensor]:
            asked.append(len(media))
            found: list[torch.Tensor] = super().forward(media)
            return found

    FeatureStore(Counted(), tmp_path)(curves())
    assert asked == [1] * 30


@pytest.mark.parametrize("again", [False, True])
def test_a_store_that_is_removed_meanwhile_begins_again(tmp_path: Path, again: bool) -> None:
    store = FeatureStore(ToyEncoder(), tmp_path, batch_size=5)
    expected = store(IMAGES[:20])
    for path in (store._data, store._index):
        path.unlink()
    if again:  # by another process, in another order
        FeatureStore(ToyEncoder(), tmp_path, batch_size=5)(IMAGES[25:10:-1])
    assert equal(store(IMAGES[:20]), expected)
    fresh = FeatureStore(counting := Counting(), tmp_path, batch_size=5)
    assert equal(fresh(IMAGES[:20]), expected) and counting.seen == 0, "all of them are kept again"
