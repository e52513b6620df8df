"""What the numbers of a run are made of: one record, part by part, that cells keep, runs obey and tables compare.

A part is named in words ("the test data of task 'pets'"), and its value is a digest of content. Left out are what
config.json states, and what is only noted (`RunDir.environments`): packages, commit, processor and threads. Generated
data and files of the package are left out, too: they have versions. Commits of the hub are resolved at the first use,
recorded in the facts of the run, and opened ever after.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench import scorers
from moextend.bench.data import data_digest, hub_revision
from moextend.bench.data.source import SPLITS, Split, find_source, is_generated
from moextend.bench.plugins import PACKAGE, WORKSPACE, code_digest, code_of
from moextend.bench.run.config import RunConfig
from moextend.bench.run.records import BASE, RunFacts, encoder_of
from moextend.bench.run.rundir import RunDir, changed_since, run_name
from moextend.bench.score.records import Cell
from moextend.bench.score.text import text_commits, text_content
from moextend.bench.sequence import Base, memory_texts
from moextend.bench.task import SEED
from moextend.data.digests import FileDigests
from moextend.errors import InputError, MoextendError, RunConflict, SpecError
from moextend.model import sources
from moextend.model.base_name import base_parts
from moextend.model.encoders import locate
from moextend.util import content, files

if TYPE_CHECKING:
    from moextend.bench.checkpoints import Checkpoint
    from moextend.bench.task import TaskSpec

log = logging.getLogger(__name__)

GENERIC = "file of generic text (memory of the sequence)"
FILES = "files of the "
"""Start of the parts of models in folders."""
OPENED = "configuration or tokenizer of the base"
READ_BY_LOADERS = (".safetensors", ".json", ".jinja", ".model", ".txt", ".py")
"""Suffixes of files of a checkpoint that its model and processor are loaded from; a trainer keeps others there, too."""
NO_WEIGHTS = (".md", ".png", ".jpg", ".pdf")
"""Suffixes of files in the folder of a model that no loader reads."""
Memo = dict[tuple[str, str], str | None]
"""(Task as JSON, split) -> digest of its data now; None for those that are not compared."""


def data_part(split: str, task: str) -> str:
    """The data of a split."""
    return f"{split} data of task '{task}'"


def of_seeds(parts: Mapping[str, str], config: RunConfig) -> dict[str, str]:
    """Parts under names by which runs of several seeds are compared: data of which each seed has its own name it."""
    own = [name for name, task in config.tasks.items() if SEED in (task.get("data") or {}).get("path", "")]
    named = {data_part(split, name): name for name in own for split in SPLITS}
    return {f"{part} with seed {config.seed}" if part in named else part: one for part, one in parts.items()}


def text_part(task: str) -> str:
    """The data of a text task, with its YAML files and their code."""
    return f"data or files of text task '{task}'"


def scorer_part(scorer: str) -> str:
    """The code of a scorer."""
    return f"code of scorer '{scorer}'"


def method_part(config: RunConfig) -> str:
    """The code of the method."""
    return f"code of method '{config.method.partition(':')[0]}'"


def splits(config: RunConfig) -> list[tuple[str, Split]]:
    """(task, split) of all data about media that a run uses."""
    aligned = [align.task for align in config.sequence_spec.align]
    learned = {} if config.scored else dict.fromkeys([*config.stages, *aligned])
    scored = dict.fromkeys([*config.stages, *config.transfer])
    return [(name, "train") for name in learned] + [(name, "test") for name in scored]


def known(run: RunDir) -> dict[str, str]:
    """The parts that the cells of a run were made of."""
    with suppress(InputError):  # damaged lines, which the worker refuses
        return {part: one for cell in run.cells().values() for part, one in cell.inputs.items()}
    return {}


def of_cells(cells: Iterable[Cell]) -> dict[str, str]:
    """The parts that cells of one run were made of; SpecError if two cells were made of different ones."""
    found: dict[str, str] = {}
    for cell in cells:
        for part, one in cell.inputs.items():
            if found.setdefault(part, one) != one:
                raise SpecError(
                    f"the {part} of {cell.task} after stage {cell.stage} is not that of other cells.",
                    hint="Run the same command again, which says what to restore.",
                )
    # The weights of row 0 and OPENED say more than files, which may hold the same in another form.
    return {part: one for part, one in found.items() if not part.startswith(FILES)}


def code_parts(config: RunConfig) -> dict[str, str]:
    """The plug-ins of a run, which are imported."""
    found = {method_part(config): config.method_spec.source}
    for task in config.tasks.values():
        if task.get("kind") != "text" and task.get("scorer"):
            found[scorer_part(task["scorer"])] = scorers.source_of(task["scorer"], config.workspace)
    return {part: source.sha256[:16] for part, source in found.items() if source != PACKAGE}


def method_code(run: RunDir) -> dict[str, Path]:
    """Path -> file, of the code of a method that is a plug-in in a file of the workspace; empty if it changed since."""
    with suppress(MoextendError, OSError):  # a plug-in that is gone
        source = run.config.method_spec.source
        path = (run.config.workspace / source.place).resolve()
        if source.origin == WORKSPACE and code_digest(path)[:16] == known(run).get(method_part(run.config)):
            return code_of(path)
    return {}


def checkpoint_part(stage: int) -> str:
    """The checkpoint of a stage that was trained elsewhere."""
    return f"{FILES}checkpoint of stage {stage}"


def checkpoint_digest(run: RunDir, stage: int, named: Checkpoint | None = None) -> str:
    """Digest of the checkpoint of a stage, or of another one: its files or commits of the hub, and how it is loaded."""
    one, commits = named or run.config.checkpoints[stage], recorded(run).models
    with FileDigests(run.config.workspace / ".cache") as digests:
        own = [
            [path.name, digests.of(path)]
            for folder in one.folders()
            for path in (_files_of(folder) if not one.is_extended else sorted(folder.rglob("*")))
            if path.suffix in READ_BY_LOADERS and path.name != "trainer_state.json"
        ]
    remote = [name for name in (one.model, one.processor) if name and not files.exists(name)]
    return files.digest(own, commits.get(checkpoint_of(stage)) or remote, one.settings())


def refuse_other_checkpoints(run: RunDir, config: RunConfig) -> None:
    """Raises RunConflict if a command names other models, or fewer, than those that a run has scored."""
    if not run.config_path.exists():
        return
    before, parts = run.config.checkpoints, known(run)
    for stage in sorted({stage for stage, _ in run.cells()}):
        one = config.checkpoints[stage] if stage < len(config.checkpoints) else None
        if one == before[stage]:
            continue  # its files are compared with those that were scored wherever they are read
        same = one is not None and one.folders() and parts.get(checkpoint_part(stage))
        if not same or checkpoint_digest(run, stage, one) != same:
            named = "no model" if one is None else f"'{one.word}'"
            raise RunConflict(
                f"has scored '{before[stage].word}' as stage {stage}, and {named} is named now.",
                where=run_name(run.folder),
                hint="Name the models as before, or another --name or --seed for another training.",
            )


def checkpoint_of(stage: int) -> str:
    """The checkpoint of a stage among the models of a run that may come from the hub."""
    return f"checkpoint of stage {stage}"


def checkpoint_revision(run: RunDir, stage: int) -> str | None:
    """Revision at which the checkpoint of a stage is opened, as `base_revision`."""
    one = run.config.checkpoints[stage]
    if one.server is not None:
        return None
    return _revision(run, checkpoint_of(stage), one.model, one.revision)


def file_parts(run: RunDir) -> dict[str, str]:
    """The generic text, and the files of a base and of encoders, or of checkpoints, in folders of the user."""
    config = run.config
    if config.scored:
        stages = range(len(config.checkpoints))
        return {checkpoint_part(stage): checkpoint_digest(run, stage) for stage in stages}
    sequence, workspace = config.sequence_spec, config.workspace
    found = {GENERIC: files.digest(memory_texts(sequence.memory_file()))} if sequence.memory else {}
    named = {BASE: sequence.base.found(workspace)}
    named |= {encoder_of(modality): name for modality, name in sequence.base.encoders_in(workspace).items()}
    with FileDigests(workspace / ".cache") as digests:
        for what, name in named.items():
            own = [] if _is_packaged(name) else _files_of(Path(name))
            if own:
                found[f"{FILES}{what}"] = files.digest({path.name: digests.of(path) for path in own})
    return found


def opened_part(model: Any, folder: str, prompts: str) -> dict[str, str]:
    """How the base reads a prompt and computes, besides its weights, whose fingerprint is in row 0."""
    found: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json") if not _is_packaged(folder) else ():
        if (path := Path(folder) / name).is_file():
            found[name] = files.read_json(path)
            for noted in ("transformers_version", "_name_or_path"):
                found[name].pop(noted, None)
    return {OPENED: files.digest(prompts, found, str(model.lm.dtype))}


def weights_parts(weights: str) -> dict[str, str]:
    """The weights of the base and its encoders, by a fingerprint of row 0; projectors are aligned by each run."""
    lm, modalities = base_parts(weights)
    encoders = {f"weights of the {encoder_of(name)}": encoder for name, (encoder, _) in modalities.items()}
    return {"weights of the base": lm, **encoders}


def refuse_changed(run: RunDir, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises RunConflict for the first part that a run has used, and that changed."""
    for part, one in now.items():
        if before.get(part, one) != one:
            raise changed_since(run, f"the {part}")


def refuse_other_inputs(run: RunDir, memo: Memo) -> None:
    """Raises RunConflict if something changed that a done run has used.

    What is gone or cannot be read now is not compared, nor data of the hub, which are pinned. `memo` keeps
    digests of data.
    """
    config, before = run.config, known(run)
    refuse_changed(run, before, code_parts(config))
    now: dict[str, str] = {}
    with suppress(MoextendError, OSError):
        now = file_parts(run)
    refuse_changed(run, before, now)
    for name in config.tasks:
        parts: dict[str, Split] = {data_part("train", name): "train", data_part("test", name): "test"}
        parts[text_part(name)] = "test"
        for part in parts.keys() & before.keys():
            one = _own_data(config.task_spec(name), parts[part], config.workspace, memo)
            refuse_changed(run, before, {part: one} if one else {})


def text_parts(task: TaskSpec, workspace: Path) -> dict[str, str]:
    """The data of a text task that has just been loaded."""
    return (
        {}
        if task.lm_eval is None or has_version(task)
        else {text_part(task.task): text_content(task, workspace)}
    )


def setting_parts(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a method, defaults included."""
    return {
        f"setting '{key}' of the method": json.dumps(value, sort_keys=True) for key, value in settings.items()
    }


def has_version(task: TaskSpec) -> bool:
    """Whether the data of a task are generated, or files of the package."""
    if task.lm_eval is None:
        return is_generated(task)
    folder = task.folder() / (task.lm_eval.path or "")
    packaged = content.package_folder("tasks").resolve()
    return task.lm_eval.path is not None and folder.resolve().is_relative_to(packaged)


def _is_packaged(name: str) -> bool:
    return (content.package_folder("registry") / "models" / Path(name).name).exists() and not Path(
        name
    ).is_absolute()


def _files_of(path: Path) -> list[Path]:
    """What a loader may read of a model; empty for a name that is no folder or file."""
    if not files.exists(path):
        return []
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return [
        each
        for each in inside
        if each.is_file() and not each.name.startswith(".") and each.suffix.lower() not in NO_WEIGHTS
    ]


def _own_data(task: TaskSpec, split: Split, workspace: Path, memo: Memo) -> str | None:
    """Digest of data in files of the user; None for other data, or if they cannot be read."""
    key = (task.model_dump_json(), split)
    if key not in memo:
        memo[key] = None
        try:
            text = task.lm_eval
            if text is not None and text.path is not None and not has_version(task):
                memo[key] = text_content(task, workspace)
            if task.data is not None and not has_version(task):
                hub = find_source(task.data, task.folder(), workspace, where=task.task).hub
                memo[key] = data_digest(task, split, workspace) if hub is None else None
        except Exception as error:  # lm-eval and datasets raise anything for files that are gone
            log.info("%s: the data cannot be compared (%s).", task.task, error)
    return memo[key]


def pinned_task(task: TaskSpec, facts: RunFacts) -> TaskSpec:
    """The task with its data at the recorded commits; the task itself if none is recorded."""
    if task.data is not None and task.task in facts.revisions:
        data = task.data.model_copy(update={"revision": facts.revisions[task.task]})
        return task.model_copy(update={"data": data})
    if task.lm_eval is not None and task.task in facts.text_data:
        text = task.lm_eval.model_copy(update={"revisions": facts.text_data[task.task]})
        return task.model_copy(update={"lm_eval": text})
    return task


def pin_data(run: RunDir, tasks: dict[str, TaskSpec], workspace: Path) -> None:
    """Records the commits of hub data that the run opens for the first time, and pins `tasks` to them."""
    known = recorded(run).revisions
    found = {name: hub_revision(task, workspace) for name, task in tasks.items() if name not in known}
    new = {name: commit for name, commit in found.items() if commit is not None}
    if new:
        run.write_facts(revisions={**known, **new})
        tasks.update({name: pinned_task(tasks[name], recorded(run)) for name in new})


def record_commits(run: RunDir, task: TaskSpec, workspace: Path) -> None:
    """Records the commits of a text task that has just been scored for the first time in this process."""
    known = recorded(run).text_data
    if task.kind == "text" and task.task not in known and (found := text_commits(task, workspace)):
        run.write_facts(text_data={**known, task.task: found})


def base_revision(run: RunDir, base: Base, workspace: Path) -> str | None:
    """Revision of the base that the run opens: its recorded commit; at the first use that of now, which is recorded."""
    return _revision(run, BASE, base.found(workspace), base.revision)


def _revision(run: RunDir, what: str, model: str, revision: str | None) -> str | None:
    """Recorded commit of a model of the hub; at the first use that of `revision` now, which is recorded."""
    name = sources.find(model)
    if isinstance(name, Path):
        return revision
    known = recorded(run).models.get(what, {}).get(name)
    found = known or sources.commit(name, revision)
    if found is None:
        return revision
    if known is None:
        _record_models(run, what, {name: found})
    return found


@contextmanager
def encoder_revisions(run: RunDir, encoders: Mapping[str, str]) -> Iterator[None]:
    """Context in which encoders are loaded at the run's recorded commits; new ones are recorded.

    Args: encoders: modality -> encoder.
    """
    found = {modality: locate(modality, name) for modality, name in encoders.items()}
    remote = {modality: where for modality, where in found.items() if where.remote}
    if not remote:
        yield
        return
    known = {modality: recorded(run).models.get(encoder_of(modality), {}) for modality in remote}
    with sources.pinned({name: sha for commits in known.values() for name, sha in commits.items()}) as opened:
        yield
    named = {where.repository: modality for modality, where in remote.items() if where.repository}
    for modality in remote:  # repositories of open_clip and timm are known only after loading
        own = {name: sha for name, sha in opened.items() if named.get(name, "image") == modality}
        if own.keys() - known[modality].keys():
            _record_models(run, encoder_of(modality), {**own, **known[modality]})


def _record_models(run: RunDir, what: str, commits: Mapping[str, str]) -> None:
    run.write_facts(models={**recorded(run).models, what: dict(commits)})


def recorded(run: RunDir) -> RunFacts:
    """Facts of a run; empty if they are damaged, which the worker refuses."""
    try:
        return run.facts()
    except InputError:
        return RunFacts()
