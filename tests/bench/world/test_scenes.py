import hashlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moextend.bench.world import words
from moextend.bench.world.domains import RGB
from moextend.bench.world.render import CELL, glyph_mask, png, render
from moextend.bench.world.scenes import Scene, Split, Thing, any_scene, caption, draw_scene, twin


def drawn(seed: int, count: int) -> list[Scene]:
    rng = random.Random(seed)
    return [any_scene(rng) for _ in range(count)]


def test_scenes_and_pixels_are_the_same_on_every_machine() -> None:
    scenes = drawn(0, 200)
    text = "\n".join(map(caption, scenes))
    pixels = b"".join(render(scene).tobytes() for scene in scenes)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "b6fb27b6579e3a88"
    assert hashlib.sha256(pixels).hexdigest()[:16] == "8ba9a278d0eacf54"


def test_png_holds_the_pixels() -> None:
    import io

    from PIL import Image

    scene = drawn(1, 1)[0]
    assert (np.asarray(Image.open(io.BytesIO(png(scene)))) == render(scene)).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_draw_scene_keeps_to_its_split(split: Split) -> None:
    rng = random.Random(2)
    assert all(draw_scene(rng, split).split() == split for _ in range(200))


def test_split_ignores_what_no_question_asks_for() -> None:
    thing = Thing(4, "red", "circle", "big", "A", (1, 1))
    plain = Thing(4, "red", "circle", "big", "A")
    assert Scene((thing,), 210).split() == Scene((plain,), 240).split()


def test_a_fifth_of_the_scenes_is_held_out() -> None:
    held_out = sum(scene.split() == "test" for scene in drawn(3, 2000))
    assert 340 < held_out < 460


@given(st.integers(0, 10**6))
def test_a_twin_differs_in_one_word(seed: int) -> None:
    rng = random.Random(seed)
    scene = any_scene(rng)
    one, other = caption(scene).split(), caption(twin(scene, rng)).split()
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 1


@pytest.mark.parametrize("shape", words.SHAPES)
@pytest.mark.parametrize("color", words.COLORS)
def test_a_thing_is_drawn_in_its_cell_in_its_color(color: str, shape: str) -> None:
    image = render(Scene((Thing(5, color, shape, "small", "H"),), 225))
    colored = (image == RGB[color]).all(-1)
    assert colored.sum() > 15
    assert not colored[:CELL].any() and not colored[2 * CELL :].any() and not colored[:, : 2 * CELL].any()


def test_letters_differ_in_at_least_four_pixels() -> None:
    glyphs = [glyph_mask(letter) for letter in words.LETTERS]
    for i, one in enumerate(glyphs):
        assert all((one != other).sum() >= 4 for other in glyphs[:i])
