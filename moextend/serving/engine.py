"""The thread that computes: it takes waiting prompts into the batch, makes the next tokens, and lets rows go."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from moextend.model.feature_cache import Recent
from moextend.model.generation import stop_ids
from moextend.model.modality import See, gather
from moextend.serving import batch, errors
from moextend.serving.answers import Answer
from moextend.serving.batch import Batch, Row
from moextend.serving.catalogue import Catalogue
from moextend.serving.errors import ApiError
from moextend.serving.jobs import Delta, Done, Job, Token
from moextend.serving.metrics import Metrics
from moextend.serving.reading import Reader, raising, settle

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Bounds of an engine."""

    max_batch: int = 16
    """Maximum number of rows per forward pass."""
    queue: int = 256
    """Prompts that wait."""
    prefill_tokens: int = 8192
    """Tokens of prompts, with padding, that are computed together; a longer prompt is computed alone."""


class Engine:
    """Answers jobs in one thread, in the order of their arrival."""

    def __init__(self, catalogue: Catalogue, limits: Limits, metrics: Metrics) -> None:
        self.catalogue, self.limits, self.metrics = catalogue, limits, metrics
        self.failed = False
        """Whether the thread ended by an error."""
        self.reader = Reader()
        """Reads requests in a thread, which ends with this one."""
        self._model = catalogue.model
        self._stop = stop_ids(self._model)
        self._batch = Batch(self._model)
        self._waiting: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._leaving: dict[str, Future[None]] = {}
        self._changed = threading.Condition()
        self._ends: float | None = None
        self._sources: dict[str, See] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def is_open(self) -> bool:
        """Whether it takes jobs."""
        return self._ends is None and not self.failed

    def start(self) -> None:
        """Starts the threads."""
        self.reader.start()
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues the jobs of a request, all or none.

        Raises ApiError 404 for an unknown model, 429 for a full queue, 503 while it stops.
        """
        with self._changed:
            if not self.is_open:
                raise errors.stopping()
            if len(self._waiting) + len(jobs) > self.limits.queue:
                raise errors.too_many(1)
            known = (
                self.catalogue.known
            )  # one version for all prompts; under the lock, so that it is not unloaded
            for job in jobs:
                job.names = known.names_of(job.model)
            self._waiting.extend(jobs)
            self.metrics.queued(len(self._waiting))
            self._changed.notify()

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Calls a function in the thread, between two tokens."""
        found: Future[T] = Future()
        with self._changed:
            if not self.is_open:
                raise errors.stopping()
            self._calls.append((function, found))  # type: ignore[arg-type]
            self._changed.notify()
        return found

    def attach(self, folder: Path, name: str | None, strength: float | None) -> Future[str]:
        """Loads an extension, and gives the name of its model.

        One that it replaces is unloaded as soon as no row reaches it.
        """

        def load() -> str:
            found = self.catalogue.attach(folder, name, strength, replace=True)
            for old in self.catalogue.known.leaving - self._leaving.keys():
                self._leaving[old] = Future()
            return found

        return self.call(load)

    def detach(self, model: str) -> Future[None]:
        """Unloads an extension, by its model's name, as soon as no row reaches it; new requests are refused at once."""
        found: Future[None] = Future()

        def leave() -> None:
            try:
                self._leaving[self.catalogue.leave(model)] = found
            except Exception as error:
                settle(found, raising(error))

        self.call(leave)
        return found

    def close(self, grace: float) -> None:
        """Refuses new jobs, and fails those that are not answered after `grace` seconds."""
        with self._changed:
            ends = time.monotonic() + grace
            self._ends = ends if self._ends is None else min(self._ends, ends)
            self._changed.notify()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the end of the thread."""
        self._thread.join(timeout)

    @property
    def is_computing(self) -> bool:
        """Whether one of its threads runs."""
        return self._thread.is_alive() or self.reader.is_alive

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._work()
        except BaseException:
            log.exception("The engine failed.")
        self.reader.stop()
        with self._changed:
            self.failed = self._ends is None
            self._ends = self._ends or time.monotonic()
            lost = self._unanswered()
            futures: list[Future[Any]] = [*self._leaving.values(), *(future for _, future in self._calls)]
            self._waiting.clear()
        for job in lost:
            self._fail(job, errors.stopping())
        for future in futures:
            settle(future, raising(errors.stopping()))

    def _is_over(self) -> bool:
        """Waits for work; true after `close`, when nothing is left or the time is over."""
        with self._changed:
            while not (self._batch.rows or self._waiting or self._calls or self._leaving):
                if self._ends is not None:
                    return True
                self._changed.wait()
            return self._ends is not None and time.monotonic() > self._ends

    def _work(self) -> None:
        while self._calls:
            function, found = self._calls.popleft()
            settle(found, function)
        self._give_up()
        self._admit()
        if self._batch.rows:
            self._step()
        self._let_go()

    def _give_up(self) -> None:
        """Ends jobs that nobody waits for, or that take too long."""
        now = time.monotonic()
        with self._changed:
            over = [job for job in self._waiting if job.cancelled or now > job.deadline]
            for job in over:
                self._waiting.remove(job)
        over += [row.job for row in self._batch.rows if self._ends_row(row, now)]
        for job in over:
            self._fail(job, errors.too_late(job.deadline - job.arrived))
        self._batch.drop_finished()

    @staticmethod
    def _ends_row(row: Row, now: float) -> bool:
        if row.finished or not (row.job.cancelled or now > row.job.deadline):
            return False
        row.finished = True
        return True

    def _admit(self) -> None:
        """Takes waiting jobs into the batch."""
        if self._batch.rows and not self._batch.flexible:
            return
        jobs: list[Job] = []
        with self._changed:
            free, longest = self.limits.max_batch - len(self._batch.rows), 0
            while self._waiting and len(jobs) < free:
                longest = max(longest, len(self._waiting[0].ids))
                if jobs and longest * (len(jobs) + 1) > self.limits.prefill_tokens:
                    break
                jobs.append(self._waiting.popleft())
            self.metrics.queued(len(self._waiting))
        rows = self._prepared(jobs)
        if rows:
            self._start(rows)

    def _prepared(self, jobs: Sequence[Job]) -> list[Row]:
        """Rows of jobs: media are encoded, and extensions inferred. A job that fails is answered with the error."""
        rows = []
        known = self.catalogue.known
        for job in jobs:
            try:
                features = gather(job.media, self._features()) if job.media else {}
                if job.names is None:
                    if known.inference is None or job.prompt is None:
                        raise errors.no_model("auto", known.created)
                    job.names = known.inference([job.prompt], self._features())[0]
                if missing := [name for name in job.names if name not in known.sets]:
                    raise errors.no_model(missing[0], known.created)
                job.fingerprint = known.fingerprint(job.names)
                job.shown = tuple(known.shown(name) for name in job.names)
                answer = Answer.of(self._model.tokenizer, job)
                rows.append(Row(job, answer, batch.generator_of(job.settings), features))
            except Exception as error:
                self._fail(job, _logged(error))
        return rows

    def _features(self) -> dict[str, See]:
        """Modality -> source of features that keeps the latest ones: a medium is often asked about again."""
        modalities = self._model.modalities
        self._sources = {
            name: self._sources.get(name) or Recent(modality.see) for name, modality in modalities.items()
        }
        return self._sources

    def _start(self, rows: list[Row]) -> None:
        """Computes prompts and joins them to the batch; of a group that fails, the first half is tried alone."""
        started = Batch(self._model)
        try:
            tokens = started.start(rows)
        except Exception as error:
            if len(rows) == 1:
                self._fail(rows[0].job, _logged(error))
                return
            half = len(rows) // 2
            with self._changed:
                self._waiting.extendleft(row.job for row in reversed(rows[half:]))
            self._start(rows[:half])
            return
        self.metrics.step(started.rows, prompts=True)
        self._take(started, tokens)
        started.drop_finished()
        if started.rows:
            self._batch.join(started)

    def _step(self) -> None:
        try:
            tokens = self._batch.step()
        except Exception as error:
            for row in self._batch.rows:
                if not row.finished:
                    self._fail(row.job, _logged(error))
                row.finished = True
        else:
            self.metrics.step(self._batch.rows, prompts=False)
            self._take(self._batch, tokens)
        self._batch.drop_finished()

    def _take(self, batch: Batch, tokens: Sequence[int]) -> None:
        """Adds the next token of each row to its answer, and ends answers."""
        for row, token, rated in zip(batch.rows, tokens, batch.rated(), strict=True):
            if row.finished:
                continue
            try:
                self._add(row, token, rated)
            except Exception as error:
                row.finished = True
                self._fail(row.job, _logged(error))

    def _add(self, row: Row, token: int, rated: tuple[Token, ...]) -> None:
        job, settings = row.job, row.job.settings
        if settings.max_tokens == 0:
            self._finish(row, "length", 0)
            return
        if not row.answer.ids:
            self.metrics.first(job)
        piece = row.answer.add(token)
        if piece or rated:
            job.deliver(Delta(piece, rated))
        if token in self._stop or row.answer.stopped:
            self._finish(row, "stop", len(row.answer.ids))
        elif len(row.answer.ids) >= settings.max_tokens:
            self._finish(row, "length", len(row.answer.ids))

    def _finish(self, row: Row, reason: str, generated: int) -> None:
        row.finished, job = True, row.job
        if piece := row.answer.end():
            job.deliver(Delta(piece))
        self.metrics.ended(job, len(job.ids), generated)
        job.deliver(Done(reason, generated, row.prompt))

    def _let_go(self) -> None:
        """Unloads extensions that leave and that no job reaches any more."""
        for name, found in list(self._leaving.items()):
            with self._changed:
                jobs = self._unanswered()
            if any(name in (job.names or ()) for job in jobs):
                continue
            del self._leaving[name]
            try:
                self.catalogue.detach(name)
            except Exception as error:
                log.warning("An extension cannot be unloaded.", exc_info=error)
                settle(found, raising(error))
            else:
                settle(found, lambda: None)

    def _unanswered(self) -> list[Job]:
        """Jobs in the batch, and those that wait."""
        return [*(row.job for row in self._batch.rows if not row.finished), *self._waiting]

    def _fail(self, job: Job, error: ApiError) -> None:
        self.metrics.lost(job)
        job.deliver(error)


def _logged(error: Exception) -> ApiError:
    found = errors.of(error)
    if found.status >= 500:
        log.error("A request failed.", exc_info=error)
    return found
