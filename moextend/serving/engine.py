"""The engine: answers jobs in batches, and changes extensions between them, all in one thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moextend.model.feature_cache import Recent
from moextend.model.modality import Sources
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.serving.batch import Batch, Job
from moextend.serving.catalogue import Catalogue, Known
from moextend.serving.protocol import ApiError, error_of
from moextend.util.listening import LogFormat

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Settings of a server."""

    host: str = "127.0.0.1"
    key: str | None = None
    """Key of the API; None: none is needed."""
    admin: bool = False
    """Whether extensions may be attached and detached."""
    log: LogFormat | None = None
    """Form of the access log; None: none is written."""
    max_batch: int = 16
    """Rows per forward pass."""
    max_new_tokens: int = 1024
    """Tokens per answer."""
    prefill_tokens: int = 8192
    """Tokens of prompts, with padding, that are computed together; a longer prompt is computed alone."""
    queue: int = 256
    """Prompts that wait; more are refused."""
    body: int = 32 << 20
    """Bytes of the body of a request, images included."""
    timeout: float = 600
    """Seconds from the arrival of a request to its last token."""
    grace: int = 10
    """Seconds that open requests get when the server stops."""


class Models(Protocol):
    """The models of a server."""

    model: MultimodalLM
    """What makes prompts and inputs."""
    known: Known

    def attach(self, folder: Path, called: str | None, strength: float | None, *, replace: bool) -> str:
        """Loads an extension, see `Catalogue.attach`."""
        ...

    def detach(self, model: str) -> None:
        """Unloads an extension, see `Catalogue.detach`."""
        ...


class Answers(Protocol):
    """What answers jobs: the engine of this process, or vLLM."""

    catalogue: Models
    options: Options

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues the jobs of a request, all or none."""
        ...

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Calls a function that changes the models."""
        ...

    async def prove(self) -> None:
        """Raises ApiError if it cannot answer now."""
        ...


class Engine:
    """Answers jobs, and calls functions that change the model, in the order of their arrival.

    A batch has the job that waits longest, and those that reach the same extensions.
    """

    def __init__(self, catalogue: Catalogue, options: Options) -> None:
        self.catalogue: Models = catalogue
        self.options = options
        self._waiting: list[Job] = []  # those that came after the latest change
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "engine")

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues the jobs of a request, all or none. Raises ApiError 429 for a full queue."""
        with self._lock:
            self._waiting[:] = [job for job in self._waiting if not job.over]
            if len(self._waiting) + len(jobs) > self.options.queue:
                full = "the queue is full. Try again in 1 s."
                raise ApiError(429, full, code="queue_full", headers={"Retry-After": "1"})
            self._waiting += jobs
        for _ in jobs:  # enough batches, also if each job reaches other extensions
            self._worker.submit(self._work, self._waiting)

    async def prove(self) -> None:
        """It can answer."""

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Calls a function between two batches: after the jobs that wait now, and before those that come."""
        self._waiting = []
        return self._worker.submit(function)

    def _work(self, waiting: list[Job]) -> None:
        """Answers the first job that waits, and others that reach the same extensions."""
        with self._lock:
            jobs = [job for job in waiting if not job.over]
        sources = {name: Recent(see) for name, see in self.catalogue.model.modalities.sources().items()}
        batch, longest = list[Job](), 0
        for job in jobs:
            try:
                find_names(job, self.catalogue.known, sources)
            except Exception as error:
                _fail(job, error)
                continue
            if batch and job.names != batch[0].names:
                continue
            longest = max(longest, len(job.ids))
            if batch and longest * (len(batch) + 1) > self.options.prefill_tokens:
                break
            batch.append(job)
            if len(batch) == self.options.max_batch:
                break
        with self._lock:
            waiting[:] = [job for job in waiting if not (job.over or job in batch)]
        if batch:
            self._answer(batch, sources)

    def _answer(self, jobs: Sequence[Job], sources: Sources) -> None:
        """Computes a batch to its end; if prompts fail together, each is tried alone."""
        model, started = self.catalogue.model, False
        try:
            with attach.reaching(model.lm, jobs[0].names):
                batch = Batch(model, jobs)
                batch.start(sources)
                started = True
                while not all(job.over for job in jobs):
                    batch.step()
        except Exception as error:
            if started or len(jobs) == 1:
                for job in jobs:
                    if not job.over:
                        _fail(job, error)
        for job in jobs:
            if not job.over:
                self._answer([job], sources)


def find_names(job: Job, known: Known, sources: Sources | None = None) -> None:
    """Finds the extensions that a job reaches. Raises ApiError 404 if its model is not served any more."""
    if job.known is known:
        return
    names = known.names_of(job.asked.model)
    if names is None:
        assert known.inference is not None
        names = known.inference([job.prompt], sources)[0]
    job.known, job.names = known, names


def _fail(job: Job, error: Exception) -> None:
    found = error_of(error)
    if found.status >= 500:
        log.error("A request failed.", exc_info=error)
    job.over = True
    job.deliver(found)
