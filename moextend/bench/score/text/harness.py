"""lm-eval through its Python API. This module imports lm-eval, so import it only to score a text task."""

from __future__ import annotations

import inspect
import json
import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, is_dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface as huggingface
import lm_eval.utils
import numpy
import torch
from datasets.exceptions import DatasetGenerationError
from jinja2.sandbox import SandboxedEnvironment
from lm_eval import evaluate
from lm_eval.tasks import TaskManager

from moextend.bench.score.checkpoint import LoadedCheckpoint
from moextend.bench.score.text import folder as folders
from moextend.bench.score.text.choices import SharedContext
from moextend.bench.score.text.lm import HarnessLM, ServedLM
from moextend.bench.task import code_allowed
from moextend.data.digests import FileDigests
from moextend.data.hub import LocalData, pinned
from moextend.data.table import root_cause
from moextend.errors import InputError, UnknownName
from moextend.util import content, memory
from moextend.util.files import digest
from moextend.util.quiet import quiet_datasets, quiet_loggers

if TYPE_CHECKING:
    from moextend.bench.score.served.answers import ServedModel


_FEWSHOT_SEED = 1234
"""lm-eval's default, so that the numbers equal those of its command line."""


@dataclass(frozen=True)
class Loaded:
    """A task (or the tasks of a group) of lm-eval with its data, cached in the process."""

    name: str
    tasks: dict[str, Any]
    groups: dict[str, Any]
    content: str
    """Digest of the tasks' configs, code and data."""
    digest: str
    """Digest of these and of the version of lm-eval: of what answers and scores depend on."""
    commits: dict[str, str]
    """Data set on the hub -> its opened commit."""
    local: LocalData
    """The local files that were read."""


@lru_cache(maxsize=2)
def _manager(folder: Path | None, _stamps: tuple[Any, ...]) -> TaskManager:
    """Index of a folder's tasks, or of lm-eval's own tasks (takes seconds) without a folder."""
    return TaskManager(include_path=None if folder is None else str(folder), include_defaults=folder is None)


def load(
    name: str,
    folder: Path | None,
    num_fewshot: int | None,
    workspace: Path,
    *,
    trusted: bool = False,
    revisions: Mapping[str, str] | None = None,
    where: str,
) -> Loaded:
    """Task `name` of `folder`, or of lm-eval; UnknownName if there is none. `revisions`: of its hub data sets.

    Raises InputError if the folder's YAML files run code, unless it is `trusted` or the package's own.
    """
    pins = tuple(sorted((revisions or {}).items()))
    if folder is None:
        return _load(name, None, num_fewshot, workspace, (), True, pins, where)
    stamps = folders.stamps(folders.checked(folder, where=where))
    trusted = trusted or folder.resolve().is_relative_to(content.package_folder("tasks").resolve())
    found = _load(name, folder, num_fewshot, workspace, stamps, trusted, pins, where)
    if not found.local.is_as_read():
        _load.cache_clear()
        found = _load(name, folder, num_fewshot, workspace, stamps, trusted, pins, where)
    return found


@lru_cache(maxsize=64)
def _load(
    name: str,
    folder: Path | None,
    num_fewshot: int | None,
    workspace: Path,
    stamps: tuple[Any, ...],
    trusted: bool,
    pins: tuple[tuple[str, str], ...],
    where: str,
) -> Loaded:
    cache = workspace / ".cache"
    ready = None if folder is None else folders.rendered(folder, workspace)
    if ready is not None and folder is not None and not trusted:
        folders.refuse_code(ready, folder, where=where)
    local = LocalData(cache)
    with _calm():
        manager = _manager(ready, stamps)
        if name not in manager.all_tasks:
            raise UnknownName("lm-eval task", name, manager.all_tasks, where=where)
        with pinned(dict(pins), local) as commits, nullcontext() if folder is None else _readable(where):
            found = manager.load([name])
    for task in found["tasks"].values():
        _set_fewshot(task, num_fewshot)
    parts = _content(found, (ready, folder), cache)
    return Loaded(
        name,
        found["tasks"],
        found.get("groups", {}),
        digest(parts),
        digest(lm_eval.__version__, parts),
        commits,
        local,
    )


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Context in which local data that cannot be read are wrong input."""
    try:
        with quiet_loggers("datasets", level=logging.CRITICAL):  # it logs before it raises
            yield
    except (DatasetGenerationError, UnicodeError) as error:
        raise InputError(
            f"its data cannot be read ({root_cause(error)}).", where=where, hint="Correct the file."
        ) from error


def _set_fewshot(task: Any, wanted: int | None) -> None:
    """Sets the number of examples like lm-eval's command line: a task with zero examples gets none."""
    own = task.get_config("num_fewshot")
    if wanted is None:
        wanted = own or 0
    if own != 0:
        task.set_config(key="num_fewshot", value=wanted)


def _content(found: Mapping[str, Any], places: Sequence[Path | None], cache: Path) -> list[Any]:
    """The configs, the code and digests of the data of tasks and groups; equal in all processes."""

    def written(config: Any) -> str:
        text = json.dumps(config, sort_keys=True, default=_source)
        for place in filter(None, places):
            # The path of the folder is not part of the task's identity.
            text = text.replace(str(place.resolve()), "")
        return text

    with FileDigests(cache) as known:
        parts: list[Any] = [
            [name, written(task.dump_config()), str(task.VERSION), _data_digest(task.dataset, known)]
            for name, task in sorted(found["tasks"].items())
        ]
    for name, group in sorted(found.get("groups", {}).items()):
        metrics = [
            asdict(one) if is_dataclass(one) and not isinstance(one, type) else one
            for one in group.aggregate_metric_list or ()
        ]
        parts.append([name, written({"metrics": metrics, "version": group.version})])
    # The config has the source of the functions that it names, but not of what they use.
    code = folders.code(places[-1]) if places[-1] is not None else []
    return [*parts, *([["code", *code]] if code else [])]


def _source(value: Any) -> str:
    """A value that JSON does not have, without its address in memory: a function as its source."""
    if callable(value):
        with suppress(OSError, TypeError):
            return inspect.getsource(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))


def _data_digest(data: Any, known: FileDigests) -> Any:
    """Digests of the files of the splits, or of the rows if there are no files."""
    if isinstance(data, dict):
        return {str(split): _data_digest(rows, known) for split, rows in data.items()}
    files = getattr(data, "cache_files", None)
    if files:
        return [known.of(Path(file["filename"])) for file in files]
    return digest([dict(row) for row in data] if data is not None else None)


def run(
    model: Any,
    loaded: Loaded,
    *,
    batch_size: int,
    limit: int | None,
    on_items: Callable[[int, int], None] | None = None,
    served: ServedModel | None = None,
    samples: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """lm-eval's results for a model in its current state, with a record of every item under "samples".

    Args:
        served: a model of a server, which answers instead; its requests are made as for `model`.
        samples: task -> places of its items: only these, and no groups.
    """
    training = model.lm.training
    tasks = {name: task for name, task in loaded.tasks.items() if samples is None or name in samples}
    with _calm(on_items):
        options = {"batch_size": memory.fitted(batch_size)}
        # Of a model that was trained elsewhere only what transformers promises of all models is used.
        own = HarnessLM if isinstance(model, LoadedCheckpoint) else SharedContext
        lm = own(model, **options) if served is None else ServedLM(served, model, **options)
        for task in tasks.values():
            # Its generator has another state since the last call, and would draw other examples.
            task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        try:
            with torch.no_grad():
                found = evaluate(
                    lm=lm,
                    task_dict={"tasks": tasks, "groups": loaded.groups if samples is None else {}},
                    limit=None if samples is not None else limit,
                    samples=None if samples is None else {name: list(own) for name, own in samples.items()},
                    bootstrap_iters=0,
                    log_samples=True,
                    confirm_run_unsafe_code=code_allowed(),
                )
        finally:
            model.lm.train(training)
    return dict(found)


@contextmanager
def _calm(on_items: Callable[[int, int], None] | None = None) -> Iterator[None]:
    """Context with lm-eval's seeds and without progress bars and log lines; restores all random states.

    Its templates run in a sandbox, as a template could use all of Python, and each is compiled once: lm-eval compiles
    them again for every item, which takes most of its time.
    """
    own = lm_eval.utils.env
    sandbox = SandboxedEnvironment(
        loader=own.loader, undefined=own.undefined, keep_trailing_newline=own.keep_trailing_newline
    )
    sandbox.filters |= own.filters
    sandbox.from_string = lru_cache(maxsize=256)(sandbox.from_string)  # type: ignore[method-assign, assignment]
    with ExitStack() as stack:
        stack.enter_context(quiet_datasets())
        stack.enter_context(quiet_loggers("lm_eval", "datasets", "transformers"))
        stack.enter_context(torch.random.fork_rng())
        stack.callback(random.setstate, random.getstate())
        stack.callback(numpy.random.set_state, numpy.random.get_state())
        bars = [(lm_eval.api.task, None), (lm_eval.api.model, None), (huggingface, on_items)]
        changed: list[tuple[Any, str, Any]] = [(lm_eval.utils, "env", sandbox)]
        changed += [(module, "tqdm", partial(_Bar, report)) for module, report in bars]
        for module, name, value in changed:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        random.seed(0)
        numpy.random.seed(_FEWSHOT_SEED)
        torch.manual_seed(_FEWSHOT_SEED)
        yield


class _Bar:
    """The part of tqdm that lm-eval uses: nothing is shown, and progress is reported."""

    def __init__(
        self,
        report: Callable[[int, int], None] | None,
        iterable: Iterable[Any] = (),
        *,
        total: int | None = None,
        disable: bool = False,
        **_options: Any,
    ) -> None:
        self._report, self._iterable = None if disable else report, iterable
        self._done, self._total = 0, total or 0

    def __iter__(self) -> Iterator[Any]:
        for value in self._iterable:
            yield value
            self.update(1)

    def update(self, n: int = 1) -> None:
        """Reports `n` more requests as done."""
        self._done += n
        if self._report is not None and self._total:
            self._report(min(self._done, self._total), self._total)

    def close(self) -> None:
        """Does nothing."""
