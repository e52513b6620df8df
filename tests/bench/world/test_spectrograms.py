"""The sheet of spectrograms."""

from pathlib import Path

from moextend.bench.world.picture import draw_sounds


def test_a_sheet_is_drawn(tmp_path: Path) -> None:
    from PIL import Image

    draw_sounds(tmp_path / "sounds.png", 0)
    assert Image.open(tmp_path / "sounds.png").size == (960, 570)
