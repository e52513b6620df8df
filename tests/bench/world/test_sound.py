"""Notes, melodies and recordings."""

import io
import random
import wave
from typing import get_args

import numpy as np
import pytest

from moextend.bench.world import sound
from moextend.bench.world.scenes import Split
from moextend.bench.world.sound import RATE, REGISTERS, Melody, Note
from moextend.bench.world.words import COLORS, ROWS, vocabulary


def spectrum(samples: sound.Wave) -> tuple[np.ndarray, np.ndarray]:
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 14)) ** 2
    return np.fft.rfftfreq(1 << 14, 1 / RATE), power / power.sum()


def test_a_melody_sounds_the_same_every_time_and_other_takes_differ() -> None:
    notes = (Note("green", "top", "big"), Note("cyan", "bottom", "small"))
    one, again, other = (sound.play(Melody(notes, 3, take)) for take in (1, 1, 2))
    assert (one.samples == again.samples).all() and one.spans == again.spans
    assert one.samples[: len(other.samples)].tolist() != other.samples[: len(one.samples)].tolist()


def test_every_timbre_has_a_color_of_its_own() -> None:
    assert tuple(sorted(sound.TIMBRES)) == tuple(sorted(COLORS))
    assert len(set(sound.TIMBRES.values())) == len(COLORS)


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("row", ROWS)
def test_the_pitch_is_in_its_register(color: str, row: str) -> None:
    for player in range(5):
        samples = sound.play(Melody((Note(color, row, "big"),), player, player)).samples
        frequencies, power = spectrum(samples)
        around = (frequencies > REGISTERS[row] / 1.4) & (frequencies < REGISTERS[row] * 1.4)
        below = frequencies < REGISTERS[row] / 1.7
        assert power[around].sum() > 0.15 and power[below].sum() < 0.1


def test_timbres_differ_in_their_spectra() -> None:
    def mean_frequency(color: str) -> float:
        frequencies, power = spectrum(sound.play(Melody((Note(color, "bottom", "big"),))).samples)
        return float((frequencies * power).sum())

    assert mean_frequency("blue") < mean_frequency("purple") < mean_frequency("red")


def test_spans_hold_the_notes_and_pauses_lie_between() -> None:
    rng = random.Random(0)
    for _ in range(50):
        melody = sound.draw_melody(rng, "train")
        samples, spans = sound.play(melody)
        assert len(spans) == len(melody.notes)
        starts, ends = zip(*spans, strict=True)
        assert all(0.04 < later - end < 0.09 for later, end in zip(starts[1:], ends, strict=False))
        loud = [np.abs(samples[int(a * RATE) : int(b * RATE)]).max() for a, b in spans]
        quiet = np.abs(samples[: int(starts[0] * RATE)]).max()
        assert min(loud) > 1.2 * quiet and np.abs(samples).max() <= 1
        assert 0.2 < len(samples) / RATE < 2.2


def test_long_notes_are_longer_than_short_ones() -> None:
    def seconds(size: str, player: int) -> float:
        ((start, end),) = sound.play(Melody((Note("red", "top", size),), player)).spans
        return end - start

    long, short = ([seconds(size, player) for player in range(50)] for size in ("big", "small"))
    assert min(long) > 1.5 * max(short)


def test_a_wav_holds_the_samples() -> None:
    samples = sound.play(Melody((Note("blue", "top", "small"),))).samples
    with wave.open(io.BytesIO(sound.wav(samples))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 1)
        read = (np.frombuffer(file.readframes(file.getnframes()), np.uint8) - 128.0) / 127
    assert np.abs(read - samples).max() < 1e-6


@pytest.mark.parametrize("split", get_args(Split))
def test_draws_keep_to_their_split_and_their_colors(split: Split) -> None:
    rng = random.Random(1)
    drawn = [sound.draw_melody(rng, split, 2, 2, ["red", "blue"]) for _ in range(100)]
    assert all(melody.split() == split and len(melody.notes) == 2 for melody in drawn)
    assert {note.color for melody in drawn for note in melody.notes} == {"red", "blue"}


def test_a_melody_of_several_notes_is_of_one_split() -> None:
    rng = random.Random(2)
    splits: dict[str, set[str]] = {}
    for split in get_args(Split):
        for _ in range(1000):
            melody = sound.draw_melody(rng, split, 2)
            splits.setdefault(melody.content(), set()).add(split)
    assert all(len(found) == 1 for found in splits.values())


def test_a_description_has_the_words_of_the_base() -> None:
    melody = Melody((Note("red", "top", "big"), Note("blue", "bottom", "small")))
    assert sound.describe(melody) == "top big red ; bottom small blue ."
    assert set(sound.describe(melody).split()) <= set(vocabulary())
