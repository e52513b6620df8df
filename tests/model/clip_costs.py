"""What reading sounds costs besides the encoder: ``python -m tests.model.clip_costs ENCODER CLIPS COUNT``.

ENCODER: a folder of an audio encoder. CLIPS: a folder of sounds (FLAC, WAV, ...), which repeat until COUNT are read,
cut or padded to three seconds. Prints milliseconds of CPU time a clip, of the encoder's forward pass and of all else
(decoding, resampling, spectrogram, pooling), and the resident memory after each tenth of the clips.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from moextend import AudioRef
from moextend.model.audio import load_encoder

SECONDS = 3
SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")


def of_three_seconds(path: Path, folder: Path) -> Path:
    """A WAV file of exactly three seconds, at the rate of the clip."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    made = folder / f"{path.parent.name}-{path.stem}.wav"
    soundfile.write(made, np.resize(samples[:, 0], SECONDS * rate), rate)
    return made


def resident() -> float:
    """Memory of this process in MB; Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def measure(encoder: str, clips: list[Path], count: int, *, skip: bool) -> dict[str, Any]:
    """Costs of `count` clips; `skip`: the encoder's forward pass is computed once only."""
    found = load_encoder(encoder)
    model: Any = cast(Any, found.tower).model
    forward, inside, kept = model.forward, [0.0], list[Any]()

    def timed(*given: Any, **more: Any) -> Any:
        began = time.process_time()
        if not (skip and kept):
            kept[:] = [forward(*given, **more)]
        inside[0] += time.process_time() - began
        return kept[0]

    found([AudioRef(path=clips[0])])  # first calls are slower
    model.forward = timed
    memory, began = list[float](), time.process_time()
    for number, clip in enumerate(itertools.islice(itertools.cycle(clips), count), 1):
        with torch.no_grad():
            found([AudioRef(path=clip)])
        if number % max(1, count // 10) == 0:
            memory.append(resident())
    everything = time.process_time() - began
    return {
        "clips": count,
        "encoder_ms": round(1000 * inside[0] / count, 3),
        "else_ms": round(1000 * (everything - inside[0]) / count, 3),
        "rss_mb": memory,
    }


def main() -> None:
    """The command."""
    import tempfile

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder")
    parser.add_argument("clips", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--skip-encoder", action="store_true", help="compute the encoder once only")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in asked.clips.rglob("*") if path.suffix in SUFFIXES)
    with tempfile.TemporaryDirectory() as folder:
        clips = [of_three_seconds(path, Path(folder)) for path in paths[: asked.count]]
        print(json.dumps(measure(asked.encoder, clips, asked.count, skip=asked.skip_encoder)))


if __name__ == "__main__":
    main()
