"""The store of features on disk."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from moextend.data.images import ImageRef
from moextend.errors import InputError
from moextend.model.feature_cache import FeatureStore
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


@pytest.mark.parametrize("damage", ["cut data", "flipped byte", "cut names", "no data"])
def test_a_damaged_file_costs_only_its_records(tmp_path: Path, damage: str) -> None:
    FeatureStore(ToyEncoder(), tmp_path, batch_size=4)(IMAGES)
    data, names = tmp_path / "toy" / "features.bin", tmp_path / "toy" / "names.txt"
    size = TOKENS * WIDTH * 4
    content, index = bytearray(data.read_bytes()), bytearray(names.read_bytes())
    if damage == "cut data":
        del content[20 * size + 5 :]
    elif damage == "flipped byte":
        content[7 * size + 11] ^= 1
    elif damage == "cut names":
        del index[50:]
    names.write_bytes(index)
    data.write_bytes(content) if damage != "no data" else data.unlink()
    encoder = Counting()
    for _ in range(2):
        again = FeatureStore(encoder, tmp_path, batch_size=4)
        assert equal(again(IMAGES), ToyEncoder()(IMAGES))
    made_again = {
        "cut data": 12,
        "flipped byte": 4,
        "cut names": 32,
        "no data": 32,
    }
    assert encoder.seen == made_again[damage]


def test_features_do_not_depend_on_what_else_was_missing(tmp_path: Path) -> None:
    encoder = load_encoder("tiny")
    drawn = random.Random(0)
    images = [noise(drawn) for _ in range(40)]
    whole = FeatureStore(encoder, tmp_path / "a")(images)
    store = FeatureStore(encoder, tmp_path / "b")
    for _ in range(3):
        store([images[i] for i in drawn.sample(range(40), 7)])
    assert equal(store(images), whole)


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
    again.encoder = SimpleNamespace(
        tokens=None, width=8, tokens_of=series().Fourier().tokens_of, fingerprint=lambda: "fourier1"
    )
    assert all(torch.equal(a, b) for a, b in zip(again(media), of_curves(), strict=True))
    assert (tmp_path / "fourier1" / "features.bin").stat().st_size == sum(each.nbytes for each in of_curves())


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
