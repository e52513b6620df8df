"""Spoken letters and digits."""

import random
from typing import get_args

import numpy as np
import pytest

from moextend.bench.world import speech
from moextend.bench.world.scenes import Split
from moextend.bench.world.sound import RATE, Wave
from moextend.bench.world.speech import NAMES, SPOKEN, Utterance
from moextend.bench.world.words import vocabulary


def heard(sign: str, speaker: int, take: int = 0) -> Wave:
    return speech.say(Utterance((sign,), speaker, take)).samples


def shape(samples: Wave) -> np.ndarray:
    """Log spectrum in 8 parts of the time and 16 bands: what a simple ear hears."""
    parts = np.array_split(samples, 8)
    bands = [
        np.array_split(np.abs(np.fft.rfft(part * np.hanning(len(part)), 512)) ** 2, 16) for part in parts
    ]
    logs = np.log([[band.mean() + 1e-3 for band in part] for part in bands])
    return np.asarray((logs - logs.mean()).ravel() / logs.std())


def test_all_letters_and_digits_have_names_of_known_phonemes() -> None:
    assert set(NAMES) == {*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789"}
    assert set("".join(NAMES.values())) <= set(speech.PHONEMES)
    assert len(set(NAMES.values())) == 36
    assert set(SPOKEN) <= set(NAMES) and set(SPOKEN) <= set(vocabulary())


def test_an_utterance_sounds_the_same_every_time_and_takes_and_speakers_differ() -> None:
    assert (heard("A", 1, 2) == heard("A", 1, 2)).all()
    assert heard("A", 1, 2).tolist() != heard("A", 1, 3).tolist()
    assert speech.voice_of(1) == speech.voice_of(1) != speech.voice_of(2)


def test_signs_differ_more_than_speakers() -> None:
    """The nearest of 36 mean shapes names the sign for most new speakers, with no learning at all."""
    known = {sign: np.mean([shape(heard(sign, speaker)) for speaker in range(12)], 0) for sign in NAMES}
    asked = [(sign, shape(heard(sign, speaker, 9))) for sign in NAMES for speaker in (100, 101, 102)]
    hits = [sign == min(known, key=lambda name: np.abs(known[name] - one).sum()) for sign, one in asked]
    assert np.mean(hits) > 0.75


@pytest.mark.parametrize("speaker", [0, 1, 2])
def test_the_pitch_is_the_voice_s(speaker: int) -> None:
    samples = heard("E", speaker)
    start = len(samples) // 3
    part = samples[start : start + 800] - samples[start : start + 800].mean()
    similarity = np.correlate(part, part, "full")[799:]
    lags = slice(RATE // 280, RATE // 70)
    period = lags.start + int(similarity[lags].argmax())
    assert RATE / period == pytest.approx(speech.voice_of(speaker).pitch, rel=0.2)


def test_hisses_are_higher_than_vowels() -> None:
    samples, ((start, end),) = speech.say(Utterance(("S",), 4))
    middle = int((start + end) / 2 * RATE)

    def mean(part: Wave) -> float:
        power = np.abs(np.fft.rfft(part)) ** 2
        return float((np.fft.rfftfreq(len(part), 1 / RATE) * power).sum() / power.sum())

    assert mean(samples[middle + 400 : int(end * RATE)]) > 2500 > mean(samples[: middle - 400])


def test_spans_hold_the_signs() -> None:
    samples, spans = speech.say(Utterance(("H", "3"), 7))
    assert len(spans) == 2 and spans[0][1] < spans[1][0]
    assert 0.5 < spans[1][1] < len(samples) / RATE < 1.6


@pytest.mark.parametrize("split", get_args(Split))
def test_draws_keep_to_their_split(split: Split) -> None:
    rng = random.Random(0)
    drawn = [speech.draw_utterance(rng, split) for _ in range(300)]
    assert all(one.split() == split for one in drawn)
    assert {len(one.signs) for one in drawn} == {1, 2}
    assert {one.signs[0] for one in drawn} == set(SPOKEN)


def test_speakers_and_words_are_of_one_split() -> None:
    rng = random.Random(1)
    train, test = ([speech.draw_utterance(rng, split) for _ in range(1500)] for split in ("train", "test"))
    assert not {one.speaker for one in train} & {one.speaker for one in test}
    words = [{one.signs for one in drawn if len(one.signs) > 1} for drawn in (train, test)]
    assert not words[0] & words[1]


def test_a_spelling_has_the_words_of_the_base() -> None:
    assert speech.spell(Utterance(("H", "3"), 0)) == "letter H ; letter 3 ."
