"""Tasks and captions of images and sounds as parquet files, which are generated on first use."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moextend.bench.world.domains import PLAIN
from moextend.bench.world.hearing import HEARINGS, MATCH, SCENES, Heard, asked_sounds
from moextend.bench.world.questions import ASKERS, Balance, Question
from moextend.bench.world.recital import perform
from moextend.bench.world.render import png
from moextend.bench.world.scenes import WORLD_VERSION, Scene, Split, caption, draw_scene, hashed
from moextend.bench.world.sound import wav
from moextend.bench.world.views import VIEWS, view_of
from moextend.errors import UnknownName
from moextend.util.files import atomic

CAPTIONS = "captions"
DATASETS = (*ASKERS, CAPTIONS, *HEARINGS, *VIEWS)
SPLITS: tuple[Split, ...] = ("train", "test")
IMAGES = {"train": 8000, "test": 500}
"""Number of images per split of an image task."""
CAPTIONED = {"train": 4000, "test": 500}
"""Number of images per split of the captions."""
SOUNDS = {"train": 3000, "test": 500}
"""Number of sounds per split of a task."""
MATCHED = {"train": 6000, "test": 500}
"""Number of pairs of an image and a sound per split."""
RECITED = {"train": 250, "test": 250}
"""Number of scenes that are described, drawn and recited."""
ASKED = {"train": 3, "test": 1}
"""Number of questions per image, and maximum number of questions per sound."""

Row = dict[str, Any]


def materialise(name: str, folder: Path) -> Path:
    """Folder with `train.parquet` and `test.parquet` of a data set; missing files are written under `folder`."""
    if name not in DATASETS:
        raise UnknownName("data set of the generated world", name, DATASETS, where=f"world:{name}")
    target = folder / f"{name}-v{WORLD_VERSION}"
    for split in SPLITS:
        path = target / f"{split}.parquet"
        if not path.exists():
            _write(rows(name, split), path)
    return target


def rows(name: str, split: Split) -> list[Row]:
    """Rows of a split: question_id, image_id or group, image, audio and text of a scene, question, answer, kind."""
    if name in HEARINGS:
        return list(_sound_rows(name, split, heard(name, split)))
    return list(_rows(name, split, asked_scenes(name, split)))


def heard(name: str, split: Split) -> Iterator[tuple[Heard, list[Question]]]:
    """Sounds of a split with their questions."""
    rng = random.Random(hashed(f"{name} {split} v{WORLD_VERSION}"))
    count = {MATCH: MATCHED, SCENES: RECITED}.get(name, SOUNDS)[split]
    return asked_sounds(name, rng, split, count, ASKED[split])


def asked_scenes(name: str, split: Split) -> Iterator[tuple[Scene, list[Question]]]:
    """Scenes of a split with their questions; for captions one empty question with the caption as answer."""
    rng = random.Random(hashed(f"{name} {split} v{WORLD_VERSION}"))
    if name == CAPTIONS:
        for _ in range(CAPTIONED[split]):
            scene = draw_scene(rng, split)
            yield scene, [Question("caption", "", caption(scene))]
        return
    balance, view, made = Balance(rng), view_of(name), 0
    while made < IMAGES[split]:
        scene = draw_scene(rng, split)
        questions = balance.choose(view.questions(scene), ASKED[split])
        if len(questions) == ASKED[split]:
            made += 1
            yield scene, questions


def _rows(name: str, split: Split, scenes: Iterable[tuple[Scene, list[Question]]]) -> Iterator[Row]:
    domain = PLAIN if name == CAPTIONS else view_of(name).domain
    for i, (scene, questions) in enumerate(scenes):
        image_id = f"{name}-{split}-{i:05}"
        image = {"bytes": png(scene, domain), "path": f"{image_id}.png"}
        for j, q in enumerate(questions):
            yield {
                "question_id": f"{image_id}-{j}",
                "image_id": image_id,
                "image": image,
                "question": q.words,
                "answer": q.answer,
                "kind": q.kind,
            }


def _sound_rows(name: str, split: Split, sounds: Iterable[tuple[Heard, list[Question]]]) -> Iterator[Row]:
    for i, (one, questions) in enumerate(sounds):
        group = f"{name}-{split}-{i:05}"
        media: Row = {"audio": {"bytes": wav(perform(one.sound).samples), "path": f"{group}.wav"}}
        if one.scene is not None:
            media["image"] = {"bytes": png(one.scene), "path": f"{group}.png"}
            media["text"] = caption(one.scene)
        for j, q in enumerate(questions):
            text = {"question": q.words, "answer": q.answer, "kind": q.kind}
            yield {"question_id": f"{group}-{j}", "group": group, **media, **text}


def _write(table: list[Row], path: Path) -> None:
    """Writes a parquet file atomically; concurrent writers write the same bytes."""
    import pyarrow
    from pyarrow import parquet

    medium = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema(
        [(key, medium if key in ("image", "audio") else pyarrow.string()) for key in table[0]]
    )
    with atomic(path) as temporary:
        # zstd stores a sound once for all its questions; images are small, and their files stay as they are
        codec = "zstd" if "audio" in table[0] else "snappy"
        parquet.write_table(pyarrow.Table.from_pylist(table, schema=schema), temporary, compression=codec)
