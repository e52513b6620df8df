"""Tasks and captions of images and sounds as parquet files, which are generated on first use."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from moextend.bench.world.hearing import HEARINGS, MATCH, SCENES, Heard, asked_sounds
from moextend.bench.world.questions import ASKERS, Asker, Balance, Question, attributes
from moextend.bench.world.render import DRAWN, DUSK, PLAIN, Domain, drawn, png
from moextend.bench.world.scenes import WORLD_VERSION, Scene, Split, caption, draw_scene, hashed
from moextend.bench.world.sound import wav
from moextend.util import lookup
from moextend.util.files import atomic

SEEDED = re.compile(
    rf"(?P<kind>{'|'.join(DRAWN)})-(?P<place>[1-9])-(?P<asked>looking|coloring)@(?P<seed>[0-9]{{1,9}})"
)
"""Data set of a domain that is drawn from a seed, with scenes of its own: `style-1-looking@7`."""
CAPTIONS = "captions"
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


class View(NamedTuple):
    """Questions about scenes that are drawn in a domain."""

    asker: Asker
    domain: Domain = PLAIN

    def questions(self, scene: Scene) -> Iterator[Question]:
        """All questions about the scene, in the names of the domain."""
        return self.asker(self.domain.named(scene))


def looking(scene: Scene) -> Iterator[Question]:
    """Asks for the color, the shape and the letter at a place."""
    for t in scene.things:
        yield Question("color-at", f"what color at {t.place}", t.color)
        yield Question("shape-at", f"what shape at {t.place}", t.shape)
        yield Question("letter-at", f"which letter at {t.place}", t.letter)


def coloring(scene: Scene) -> Iterator[Question]:
    """Asks for the color at a place, of a shape and with a letter."""
    kinds = ("color-at", "color-of-shape", "color-of-letter")
    return (question for question in attributes(scene) if question.kind in kinds)


VIEWS: dict[str, View] = {
    "plain-looking": View(looking),
    **{f"dusk-{name}": View(asker, DUSK) for name, asker in ASKERS.items()},
}
"""Data set -> what is asked of it, and how it is drawn."""


def view_of(name: str) -> View:
    """The view of a data set about images; those of `ASKERS` are drawn plain."""
    if found := SEEDED.fullmatch(name):
        asker = looking if found["asked"] == "looking" else coloring
        return View(asker, drawn(found["kind"], int(found["place"]), int(found["seed"])))
    return VIEWS.get(name) or View(ASKERS[name])


DATASETS = (*ASKERS, CAPTIONS, *HEARINGS, *VIEWS)
"""The data sets without a seed."""


def check_name(name: str, *, where: str) -> None:
    """Raises UnknownName if the world has no such data set."""
    found = SEEDED.fullmatch(name)
    if found is None or int(found["place"]) > DRAWN[found["kind"]][1]:
        drawn_ones = (f"{kind}-1-looking@0" for kind in DRAWN)
        lookup.choose(
            "data set of the generated world", name, dict.fromkeys((*DATASETS, *drawn_ones)), where=where
        )


def materialise(name: str, folder: Path) -> Path:
    """Folder with `train.parquet` and `test.parquet` of a data set; missing files are written under `folder`."""
    check_name(name, where=f"world:{name}")
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
        media: Row = {"audio": {"bytes": wav(one.sound.performed().samples), "path": f"{group}.wav"}}
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
