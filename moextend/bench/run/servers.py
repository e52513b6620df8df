"""Scores the cells of a run by servers: names or starts the server of some weights, and proves its parity."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.bench.run.context import RunContext
from moextend.bench.score.backend import Served
from moextend.bench.score.records import Parity, Weights
from moextend.bench.score.served.answers import ServedModel
from moextend.bench.score.served.client import Client, ServerFailed
from moextend.bench.score.served.parity import Known, compare_task, prove, tolerance_of
from moextend.bench.scoring import OPENAI, VLLM, filled
from moextend.errors import InputError, RunFailed, last_line, masked, short
from moextend.model import sources
from moextend.util import processes
from moextend.util.children import running
from moextend.util.listening import free_port

if TYPE_CHECKING:
    from moextend.model.multimodal import MultimodalLM


EXPORTS = "served"
"""Folder in that of the run, while a server reads from it."""


START = 1800.0
"""Seconds that a server may take to start."""
POLL = 0.5
"""Seconds between two questions whether a server answers."""
GRACE = 10.0
"""Seconds that a server gets to stop."""
OURS = "moextend"
"""Owner of the models of `moextend serve`, whose fingerprints identify weights."""
NAME = "{run}-{stage}-{extension}"
"""Name of a model for a server that a run starts, if none is set."""


def _form(context: RunContext, cell: CellModel) -> str | None:
    """Form that the model of a cell is exported in; None: it is the base, which is there."""
    if cell.index == 0 or cell.weights in context.base_weights:
        return None
    form = context.backend.export
    return "stock" if form == VLLM and not _has_extensions(cell.model) else form


@contextmanager
def folder_of(context: RunContext, cell: CellModel) -> Iterator[str]:
    """Context with the folder (of a base from the hub: the id) of the model of a cell.

    Raises:
        InputError: a base that no other program can load.
        ServerFailed: the model cannot be exported in this form.
    """
    base, form = context.sequence.base, _form(context, cell)
    if form is None:
        if base.upcycle is not None:
            raise InputError(
                "the run makes its own base (upcycle), so no server can load it.",
                where="base.upcycle",
                hint="Save it with moextend upcycle, and name the folder as base.model.",
            )
        if base.quantize is not None:
            raise InputError(
                f"the run quantises its base ({base.quantize}), and a server loads the full one.",
                where="base.quantize",
                hint="Leave out the key, or the server.",
            )
        yield str(sources.find(base.found(context.workspace), where="base.model"))
        return
    out = context.run.folder / EXPORTS
    command = [
        sys.executable, "-P", "-m", "moextend", "export", f"{context.run.folder}:{cell.index}",
        "--as", form, "--out", str(out), "--workspace", str(context.workspace),
        *(["--task", cell.task] if form == "stock" else []),
    ]  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    try:
        # In a process of its own: an export changes the model that it writes.
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            last = last_line(done.stderr, 400) or "no message"
            raise ServerFailed(
                f"stage {cell.index} cannot be exported for the server: {last.removeprefix('error: ')}",
                where=f"scoring.export: {form}",
                hint="See docs/serving.md.",
            )
        yield str(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


@contextmanager
def started(
    command: str,
    client: Callable[[int], Client],
    log: Path,
    *,
    patience: float,
    tick: Callable[[], None],
    **words: str,
) -> Iterator[Client]:
    """Context with a server that the command starts; its output goes to `log`.

    Args:
        client: the client of a server at a port of this host.
        patience: seconds until it must answer.
        tick: called while it starts.
        words: values of the placeholders besides {port}.

    Raises:
        RunFailed: the command does not exist, ends, or does not answer in time.
    """
    port = free_port()
    arguments = [filled(word, port=str(port), **words) for word in shlex.split(command)]
    if arguments[0] == OURS:  # this one, wherever it is installed
        arguments[:1] = [sys.executable, "-P", "-m", OURS]

    def failed(what: str) -> RunFailed:
        line = last_line(log.read_bytes())
        more = f" Its last line: {line}" if line else ""
        hint = f"Its output is in {log}."
        return ServerFailed(f"the server {what}.{more}", where=short(shlex.join(arguments), 200), hint=hint)

    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab"))
        process = stack.enter_context(running(arguments, GRACE, stdout=output))
        found, end = client(port), time.monotonic() + patience
        while not found.is_ready():
            tick()
            if process.poll() is not None:
                raise failed(f"ended with code {process.returncode} before it answered")
            if time.monotonic() > end:
                raise failed(f"does not answer within {patience:g} seconds")
            time.sleep(POLL)
        yield found


@dataclass(frozen=True)
class CellModel:
    """A model in the state of one cell."""

    model: MultimodalLM
    index: int
    task: str
    weights: str
    learned: Sequence[str]


class Servers:
    """Servers of a run, one at a time, and what was proved of them."""

    def __init__(self, context: RunContext, tick: Callable[[], None]) -> None:
        """Args: tick: called while a server starts."""
        if processes.count() > 1:
            raise InputError(
                "several processes of a run cannot share a server.", where="scoring.backend: openai",
                hint="Use one process, or score in process: --backend transformers.",
            )  # fmt: skip
        self.context, self.settings, self._tick = context, context.backend, tick
        self._known = Known()
        self._running: tuple[str, Client] | None = None
        """Weights and client of the server that the run started."""
        self._stack = ExitStack()
        self._engine = ""
        self._proved: dict[tuple[str, str], Weights] = {}
        """(weights, name) -> proof for the present server."""
        self._ready: dict[tuple[str, str], ServedModel] = {}
        """(weights, task) -> model of the present server whose parity is shown."""
        self._ids: dict[tuple[str, str], str] = {}
        """(weights, task) -> digest of the line with its parity, by this process."""

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def note_base(self, model: MultimodalLM) -> None:
        """Notes what the base computes, to tell other weights from it; before anything is learned."""
        self._known.base = model.base_fingerprint()
        self._known.note(model, self._known.base)

    def backend(self, cell: CellModel) -> Served | None:
        """What answers a cell: a server, which is found or started for the first request; None: in process."""
        without = self.settings.export == VLLM and _form(self.context, cell) != VLLM  # encoders
        if self.context.tasks[cell.task].modalities and (self.settings.tasks == "text" or without):
            return None
        return Served(cell.model, lambda: self.ready(cell))

    def shown(self, cell: CellModel) -> str:
        """Digest of the line with the parity of a cell's server; it is checked now where no line has it."""
        key = (cell.weights, cell.task)
        if key not in self._ids:
            for digest, known in self.context.run.parities().items():
                if (known.weights_id, known.task) == key:
                    self._ids[key] = digest
        if key not in self._ids:
            self.ready(cell)
        return self._ids[key]

    def ready(self, cell: CellModel) -> ServedModel:
        """A model of a server that has the weights of a cell and answers a sample of its items as they do.

        Raises:
            ServerFailed: there is no such server; ParityRefused: it answers otherwise.
        """
        key, scoring = (cell.weights, cell.task), self.context.sequence.scoring
        client = self._client(cell)
        if key not in self._ready:
            server = self._model(client, cell)
            limit = tolerance_of(self.settings, cell.model.lm.dtype)
            if (cell.weights, server.name) not in self._proved:
                about = f"stage {cell.index} for {cell.task}"
                self._known.note(cell.model, cell.weights)
                proof = prove(server, self._known, cell.weights, limit, about=about)
                self._proved[cell.weights, server.name] = proof
            compared = compare_task(
                cell.model, server, self.context.tasks[cell.task], scoring, self.context.workspace,
                items=self.settings.parity, tolerance=limit, seed=self.context.config.seed,
            )  # fmt: skip
            record = Parity(
                stage=cell.index, task=cell.task, weights_id=cell.weights, backend=OPENAI,
                server=masked(self.settings.server or self.settings.serve or ""), engine=self._engine,
                model=server.name, at=time.strftime("%Y-%m-%dT%H:%M:%S%z"), tolerance=limit,
                weights=self._proved[cell.weights, server.name], **vars(compared),
            )  # fmt: skip
            self._ids[key] = self.context.run.append_parity(record)
            self._ready[key] = server
        return self._ready[key]

    def _client(self, cell: CellModel) -> Client:
        if self.settings.serve is None:
            assert self.settings.server is not None, "checked by the settings"
            return self._at(self.settings.server)
        if self._running is None or self._running[0] != cell.weights:
            self._stop()
            folder = self._stack.enter_context(folder_of(self.context, cell))
            client = self._stack.enter_context(
                started(
                    self.settings.serve, lambda port: self._at(f"http://127.0.0.1:{port}/v1"),
                    self.context.run.folder / "server.log", patience=START, tick=self._tick,
                    folder=folder, model=self._wanted(cell), **self._words(cell),
                )
            )  # fmt: skip
            self._running = (cell.weights, client)
        return self._running[1]

    def _at(self, url: str) -> Client:
        return Client(url, self.settings.concurrency)

    def _stop(self) -> None:
        """Stops the server that the run started; the next one must prove itself."""
        self._running = None
        self._ready.clear()
        self._proved.clear()
        self._stack.close()

    def _model(self, client: Client, cell: CellModel) -> ServedModel:
        """The model of the cell at a server, by its name; extensions are attached to a server of moextend."""
        entries = {entry["id"]: entry for entry in client.models()}
        ours = bool(entries) and all(entry.get("owned_by") == OURS for entry in entries.values())
        name, own = self._wanted(cell), _extension(self._known.base, cell)
        if self.settings.model is None and name not in entries:
            only = next(iter(entries), name) if len(entries) == 1 else name
            name = own if ours and (_has_extensions(cell.model) or own in entries) else only
        if ours and name == own and name not in entries:
            for index, learned in enumerate(cell.learned, 1):  # oldest first
                if learned in _active(cell.model) and learned not in entries:
                    folder = self.context.run.stage_folder(index, learned).resolve()
                    client.post("extensions", [{"path": str(folder), "name": learned}])
            entries = {entry["id"]: entry for entry in client.models()}
        if name not in entries and not (ours and "+" in name):
            raise ServerFailed(
                f"the server has no model '{name}', only {', '.join(sorted(entries)) or 'none'}.",
                where=client.url,
                hint="Serve it under this name, or set scoring.model, where {run}, {stage}, {task} and {extension} "
                "are replaced.",
            )
        owner = str(entries.get(name, {}).get("owned_by") or (OURS if ours else ""))
        self._engine = " ".join(filter(None, (owner, client.version())))
        listed = entries.get(name, {}).get("system_fingerprint")
        expected = self._fingerprint(cell, listed) if ours and listed else None
        return ServedModel(client, name, expected, one=cell.model.choose is None)

    def _fingerprint(self, cell: CellModel, listed: str) -> str | None:
        """Fingerprint that a server of moextend must have; None: it is not one that follows from the run's weights.

        A stock folder, merged adapters and trained weights have a fingerprint of their own as a base. The encoders of
        the server do not matter to a text.
        """
        full, base = cell.weights, cell.model.base_fingerprint()
        text = not self.context.tasks[cell.task].modalities
        parts = cell.model.base_fingerprint(()), full.removeprefix(base)
        if listed == full or (text and listed.startswith(parts[0]) and listed.endswith(parts[1])):
            return listed
        known = cell.weights == self._known.base or _has_extensions(cell.model)
        stock = self.settings.serve is not None and _form(self.context, cell) == "stock"
        return full if known and not stock else None

    def _wanted(self, cell: CellModel) -> str:
        return filled(self.settings.model or NAME, **self._words(cell))

    def _words(self, cell: CellModel) -> dict[str, str]:
        return {
            "run": self.context.config.slug, "stage": str(cell.index), "task": cell.task,
            "extension": _extension(self._known.base, cell),
        }  # fmt: skip


def _has_extensions(model: MultimodalLM) -> bool:
    from moextend.moe import attach

    with suppress(InputError):  # a dense model
        return bool(attach.scope_of(model.lm).known)
    return False


def _active(model: MultimodalLM) -> tuple[str, ...]:
    from moextend.moe import attach

    with suppress(InputError):  # a dense model
        return tuple(attach.scope_of(model.lm).active)
    return ()


def _extension(base: str, cell: CellModel) -> str:
    """What `moextend serve` calls the weights of a cell; the task or the last stage for a method without extensions."""
    if cell.weights == base:
        return "base"
    if cell.model.choose is not None:
        return "auto"
    own = cell.task if cell.task in cell.learned else cell.learned[-1]
    return "+".join(_active(cell.model)) or own
