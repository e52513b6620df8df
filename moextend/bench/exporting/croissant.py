"""A sequence, or the whole generated world, as a Croissant data set: its data files with their checksums, and a card.

Croissant 1.0 with its vocabulary for responsible AI (https://docs.mlcommons.org/croissant/docs/croissant-spec.html and
croissant-rai-spec.html). All of it is read from the YAML files of sequence and tasks.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moextend.bench.data.source import WORLD, files_of, find_source, is_generated, parse_split
from moextend.bench.report.paper.setup import find_entries
from moextend.bench.sequence import find_sequence, scored_tasks, stage_tasks
from moextend.bench.task import TaskSpec, find_task
from moextend.bench.world.data import materialise
from moextend.bench.world.scenes import WORLD_VERSION
from moextend.errors import InputError
from moextend.util import content, files, spec

GENERATED = "world"
"""Name of the data set of all generated tasks."""
FILE = "croissant.json"
RAI = {
    "rai:dataUseCases": "Measures",
    "rai:dataLimitations": "Does not measure",
    "rai:dataCollection": "Sources",
    "rai:dataBiases": "Biases",
    "rai:personalSensitiveInformation": "Personal data",
    "rai:dataReleaseMaintenancePlan": "Versions",
}
"""Field of the card -> its heading on a page."""
_CR = (
    "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace separator source subField transform "
    "samplingRate"
)
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/", "dct": "http://purl.org/dc/terms/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{key: f"cr:{key}" for key in _CR.split()},
}  # fmt: skip
FORMATS = {
    ".parquet": "application/x-parquet", ".jsonl": "application/jsonlines", ".json": "application/json",
    ".csv": "text/csv", ".tsv": "text/tsv",
}  # fmt: skip
TYPES = {"image": "sc:ImageObject", "audio": "sc:AudioObject", "video": "sc:VideoObject"}


def write(name: str, folder: Path, workspace: Path) -> Path:
    """Writes `croissant.json` of a sequence (or `world`) to a folder, beside its generated data; the file.

    Data of the hub and of the user stay where they are. Raises UnknownName: no such sequence or task.
    """
    about, tasks = described(name, workspace)
    folder.mkdir(parents=True, exist_ok=True)
    distribution, records = list[dict[str, Any]](), list[dict[str, Any]]()
    for task in tasks:
        for split, own in _files(task, folder, workspace):
            distribution += [one for one in own if one not in distribution]
            records += [_records(task, split, own[-1], folder)]
    found = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        **about,
        "datePublished": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "isLiveDataset": any("sha256" not in one for one in distribution),
        "distribution": distribution,
        "recordSet": records,
    }
    files.write_json(folder / FILE, found)
    return folder / FILE


def described(name: str, workspace: Path) -> tuple[dict[str, Any], list[TaskSpec]]:
    """What a data set is called, holds, measures and does not measure, in the fields of Croissant, and its tasks."""
    if name == GENERATED:
        known = [find_task(each, workspace) for each in content.names("tasks", workspace)]
        tasks = [task for task in known if _is_drawn(task)]
        about = {
            "name": name,
            "description": "Scenes, sounds and texts that are generated.",
            "version": WORLD_VERSION,
        }
        learned, more, own, aligned = "the tasks of sequences", [], True, []
    else:
        sequence = find_sequence(name, workspace)
        aligned = [find_task(align.task, workspace) for align in sequence.align]
        every = [*stage_tasks(sequence, workspace), *scored_tasks(sequence, workspace), *aligned]
        tasks = [*{task.task: task for task in every}.values()]
        about = {"name": name, "description": sequence.description or name, "version": sequence.version}
        learned, more = (
            _listed(stage.task for stage in sequence.stages),
            [*sequence.retention, *sequence.transfer],
        )
        own = (
            content.package_folder("registry").resolve() in sequence.path.parents if sequence.path else False
        )
    measures = f"What a model learns of {learned}, one after the other, and what it forgets of each."
    measures += f" What this changes in {_listed(more)}, which are not learned." if more else ""
    about["license"] = [*dict.fromkeys(task.licence or "not stated" for task in tasks)]
    if own:
        about["citeAs"] = next(e.text for e in find_entries(workspace) if e.belongs_to("benchmark"))
    plan = f"{name}@{about['version']} does not change: what can change a score gets another version."
    about["version"] = f"{about['version']}.0.0" if isinstance(about["version"], int) else about["version"]
    return about | dict(zip(RAI, [measures, *_card(tasks, aligned), plan], strict=True)), tasks


def _card(tasks: list[TaskSpec], aligned: list[TaskSpec]) -> tuple[str, str, str, str]:
    """What tasks do not measure, their sources, biases and personal data; nothing is asked in `aligned`."""
    drawn = [task for task in tasks if _is_drawn(task)]
    real = [task for task in tasks if task not in drawn]
    asked = [task for task in tasks if task.kind != "text" and task not in aligned]
    rules, longest = (
        _listed(sorted({task.scorer for task in asked})),
        max((task.max_new_tokens for task in asked), default=0),
    )
    limits = [f"Conversations: answers have at most {longest} tokens, scored by {rules}."]
    if drawn:
        limits.append(
            "Photographs, natural voices and natural language: what is generated has 48x48 pixels, three seconds of "
            "sound, and words of a closed vocabulary. Its numbers show mechanisms, not what a large model would do."
        )
    if judged := [task.task for task in tasks if task.needs]:
        limits.append(f"{_listed(judged)}: a judge is needed, and there is none.")
    if closed := [task.task for task in tasks if task.non_commercial]:
        limits.append(f"For non-commercial use only: {_listed(closed)}.")
    sources = [f"Generated from seeds (version {WORLD_VERSION} of the generated world)"] if drawn else []
    sources += [task.source or f"not stated for {task.task}" for task in real]
    biases = (
        ["Generated questions are chosen so that answers of one kind are about as frequent."] if drawn else []
    )
    biases += (
        ["Those of the sources; moextend bench audit shows majority answers and duplicates."] if real else []
    )
    personal = ["Generated data are about no person."] if drawn else []
    personal += ["Data of others may show or name people: see their sources."] if real else []
    return " ".join(limits), f"{'; '.join(dict.fromkeys(sources))}.", " ".join(biases), " ".join(personal)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _is_drawn(task: TaskSpec) -> bool:
    """Whether its items are generated, or a file of the package."""
    return is_generated(task) or bool(_text_files(task))


def _text_files(task: TaskSpec) -> dict[str, Path]:
    """Split -> file of a text task whose YAML of lm-eval names files beside it."""
    if task.lm_eval is None or task.lm_eval.path is None:
        return {}
    folder = task.folder() / task.lm_eval.path
    path = folder / f"{task.lm_eval.task}.yaml"
    if not path.is_file():
        return {}
    named = (spec.read_yaml(path).get("dataset_kwargs") or {}).get("data_files") or {}
    found = {split: Path(str(file).replace("{folder}", str(folder))) for split, file in named.items()}
    return {split: file for split, file in found.items() if file.is_file() and file.suffix in FORMATS}


def _files(task: TaskSpec, folder: Path, workspace: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each split with its files; the last is the one that has its rows."""
    for split, path in _text_files(task).items():
        copied = folder / "text" / path.name
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copied)
        yield split, [_file(copied, folder)]
    if (data := task.data) is None:
        return
    parts = [parse_split(name, where=task.task) for name in (data.train, data.test) if name]
    for split in dict.fromkeys(part.split for part in parts):
        if is_generated(task):
            made = materialise(data.located.removeprefix(WORLD), folder / GENERATED)
            yield split, [_file(made / f"{split}.parquet", folder)]
            continue
        try:
            found = find_source(data, task.folder(), workspace, where=task.task)
        except InputError:  # not put there yet
            own = data.located
            named = {"name": own, "contentUrl": own, "encodingFormat": "application/octet-stream"}
            yield split, [{"@type": "cr:FileObject", "@id": own, **named, "description": data.prepare}]
            continue
        if found.hub is None:
            paths = files_of(found, split, where=task.task)
            for number, path in enumerate(paths, 1):
                yield split if len(paths) == 1 else f"{split}-{number}", [_file(path, folder)]
        else:
            yield split, _hub(found.hub, data.config or "default", split)


def _file(path: Path, folder: Path) -> dict[str, Any]:
    place = Path(os.path.relpath(path, folder)).as_posix()
    kind = FORMATS.get(path.suffix.lower(), "application/octet-stream")
    return {
        "@type": "cr:FileObject", "@id": place, "name": place, "contentUrl": place, "encodingFormat": kind,
        "sha256": files.sha256(path),
    }  # fmt: skip


def _hub(name: str, config: str, split: str) -> list[dict[str, Any]]:
    """A data set of the hub as its own conversion to Parquet: branch refs/convert/parquet, CONFIG/SPLIT/*.parquet."""
    url = f"https://huggingface.co/datasets/{name}/tree/refs%2Fconvert%2Fparquet"
    repository = {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": url,
        "encodingFormat": "git+https",
    }
    place = f"{name}/{config}/{split}"
    return [repository, {
        "@type": "cr:FileSet", "@id": place, "name": place, "containedIn": {"@id": name},
        "encodingFormat": FORMATS[".parquet"], "includes": f"{config}/{split}/*.parquet",
    }]  # fmt: skip


def _records(task: TaskSpec, split: str, file: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record set of a split: the columns that its task reads."""
    name, kind = f"{task.task}/{split}", "fileSet" if file["@type"] == "cr:FileSet" else "fileObject"
    columns = dict.fromkeys(task.columns.singles.values(), "sc:Text")
    media: dict[str, str] = {}
    if task.kind == "text":
        (first, *_) = files.read_lines(folder / file["contentUrl"])
        columns = {key: "sc:Integer" if isinstance(value, int) else "sc:Text" for key, value in first.items()}
    else:
        columns |= dict.fromkeys(
            (task.columns.choices or "").split(",") if task.columns.choices else (), "sc:Text"
        )
        media = {
            each: TYPES.get(one, "sc:Text")
            for one, joined in task.columns.by_modality.items()
            for each in joined.split(",")
        }
    fields = []
    for column, type_ in {**media, **columns}.items():
        source: dict[str, Any] = {kind: {"@id": file["@id"]}, "extract": {"column": column}}
        in_file = file["encodingFormat"] == FORMATS[".parquet"]
        if column in media and in_file:
            source["transform"] = {"jsonPath": "bytes"}
        shown = type_ if column not in media or in_file else "sc:Text"
        fields.append(
            {
                "@type": "cr:Field",
                "@id": f"{name}/{column}",
                "name": column,
                "dataType": shown,
                "source": source,
            }
        )
    how = f"prompt {task.prompt!r}, scored by {task.scorer}" if task.kind != "text" else "scored by lm-eval"
    about = f"{task.description or task.task}: {how}"
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": about, "field": fields}
