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
from moextend.serving.batch import Batch, Row
from moextend.serving.catalogue import Catalogue
from moextend.serving.errors import ApiError
from moextend.serving.jobs import Answer, Delta, Done, Job, Token

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

    def __init__(self, catalogue: Catalogue, limits: Limits) -> None:
        self.catalogue, self.limits = catalogue, limits
        self._model = catalogue.model
        self._stop = stop_ids(self._model)
        self._batch = Batch(self._model)
        self._waiting: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], object], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._ends: float | None = None
        self._sources: dict[str, See] = {}
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def is_open(self) -> bool:
        """Whether it takes jobs."""
        return self._ends is None

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues the jobs of a request, all or none.

        Raises ApiError 404 for an unknown model, 429 for a full queue, 503 while it stops.
        """
        with self._changed:
            if not self.is_open:
                raise errors.stopping()
            if len(self._waiting) + len(jobs) > self.limits.queue:
                raise errors.busy(429, "the queue is full. Try again in 1 s.", "queue_full", again=1)
            known = self.catalogue.known  # under the lock, so that what it names is not unloaded
            for job in jobs:
                job.names = known.names_of(job.model)
            self._waiting.extend(jobs)
            self._changed.notify()

    def attach(self, folder: Path, name: str | None, strength: float | None) -> Future[str]:
        """Loads an extension between two tokens, and gives the name of its model.

        One that it replaces is unloaded as soon as no row reaches it.
        """
        return self._call(lambda: self.catalogue.attach(folder, name, strength, replace=True))

    def detach(self, model: str) -> Future[None]:
        """Refuses new requests for an extension, by its model's name; it is unloaded as soon as no row reaches it."""
        return self._call(lambda: self.catalogue.leave(model))

    def close(self, grace: float) -> None:
        """Refuses new jobs, and fails those that are not answered after `grace` seconds."""
        with self._changed:
            ends = time.monotonic() + grace
            self._ends = ends if self._ends is None else min(self._ends, ends)
            self._changed.notify()

    def _call(self, function: Callable[[], T]) -> Future[T]:
        """Calls a function in the thread, between two tokens."""
        found: Future[T] = Future()
        with self._changed:
            if not self.is_open:
                raise errors.stopping()
            self._calls.append((function, found))
            self._changed.notify()
        return found

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._work()
        except BaseException:
            log.exception("The engine failed.")
        with self._changed:
            self._ends = self._ends or time.monotonic()
            lost = self._unanswered()
            self._waiting.clear()
        for job in lost:
            job.deliver(errors.stopping())
        for _, future in self._calls:
            _settle(future, errors.stopping())

    def _is_over(self) -> bool:
        """Waits for work; true after `close`, when nothing is left or the time is over."""
        with self._changed:
            while not (self._batch.rows or self._waiting or self._calls or self.catalogue.known.leaving):
                if self._ends is not None:
                    return True
                self._changed.wait()
            return self._ends is not None and time.monotonic() > self._ends

    def _work(self) -> None:
        while self._calls:
            function, found = self._calls.popleft()
            try:
                _settle(found, function())
            except Exception as error:
                _settle(found, error)
        self._give_up()
        self._admit()
        if self._batch.rows:
            self._step()
        self._let_go()

    def _give_up(self) -> None:
        """Ends jobs that nobody waits for, or that take too long."""
        now = time.monotonic()

        def is_over(job: Job) -> bool:
            return job.cancelled or now > job.deadline

        with self._changed:
            over = [job for job in self._waiting if is_over(job)]
            for job in over:
                self._waiting.remove(job)
        for row in self._batch.rows:
            if not row.finished and is_over(row.job):
                row.finished = True
                over.append(row.job)
        for job in over:
            seconds = job.deadline - job.arrived
            job.deliver(ApiError(504, f"the request took more than {seconds:g} s.", code="timeout"))
        self._batch.drop_finished()

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
        rows = []
        for job in jobs:
            try:
                rows.append(self._prepared(job))
            except Exception as error:
                _fail(job, error)
        if rows:
            self._start(rows)

    def _prepared(self, job: Job) -> Row:
        """Row of a job: its media are encoded, and its extensions inferred."""
        known, own = self.catalogue.known, job.settings
        features = gather(job.prompt.media, self._features()) if job.prompt.media else {}
        if job.names is None:
            if known.inference is None:
                raise errors.no_model("auto", known.models())
            job.names = known.inference([job.prompt], self._features())[0]
        if missing := [name for name in job.names if name not in known.served]:
            raise errors.no_model(missing[0], known.models())
        job.fingerprint = known.fingerprint(job.names)
        job.shown = tuple(known.served[name].model for name in job.names)
        answer = Answer(
            self._model.tokenizer, own.stop, stripped=own.stripped, stream=own.stream,
            before=() if own.stripped else job.ids, lead=own.lead,
        )  # fmt: skip
        return Row(job, answer, batch.generator_of(own), features)

    def _features(self) -> dict[str, See]:
        """Modality -> source of features that keeps the latest ones: a medium is often asked about again."""
        modalities = self._model.modalities
        self._sources = {
            name: self._sources.get(name) or Recent(modality.see) for name, modality in modalities.items()
        }
        return self._sources

    def _start(self, rows: Sequence[Row]) -> None:
        """Computes prompts and joins them to the batch; of a group that fails, the first one is tried alone."""
        started = Batch(self._model)
        try:
            tokens = started.start(rows)
        except Exception as error:
            if len(rows) == 1:
                _fail(rows[0].job, error)
                return
            with self._changed:
                self._waiting.extendleft(row.job for row in reversed(rows[1:]))
            self._start(rows[:1])
            return
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
                    _fail(row.job, error)
                row.finished = True
        else:
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
                _fail(row.job, error)

    def _add(self, row: Row, token: int, rated: tuple[Token, ...]) -> None:
        answer, most = row.answer, row.job.settings.max_tokens
        if most:
            piece = answer.add(token)
            if piece or rated:
                row.job.deliver(Delta(piece, rated))
        ended = most > 0 and (token in self._stop or answer.stopped)
        if ended or len(answer.ids) >= most:
            row.finished = True
            if piece := answer.end():
                row.job.deliver(Delta(piece))
            row.job.deliver(Done("stop" if ended else "length", len(answer.ids), row.prompt))

    def _let_go(self) -> None:
        """Unloads extensions that leave and that no job reaches any more."""
        if not self.catalogue.known.leaving:
            return
        with self._changed:
            reached = {name for job in self._unanswered() for name in job.names or ()}
        for name in self.catalogue.known.leaving:
            if name not in reached:
                self.catalogue.detach(name)

    def _unanswered(self) -> list[Job]:
        """Jobs in the batch, and those that wait."""
        return [*(row.job for row in self._batch.rows if not row.finished), *self._waiting]


def _settle(future: Future[Any], found: object) -> None:
    """Gives a future its result or error, unless nobody waits for it any more."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


def _fail(job: Job, error: Exception) -> None:
    found = errors.of(error)
    if found.status >= 500:
        log.error("A request failed.", exc_info=error)
    job.deliver(found)
