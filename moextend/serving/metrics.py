"""Numbers of a server for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from moextend.serving.batch import Row
from moextend.serving.jobs import Job

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters, gauges and histograms, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "moextend_requests", "Answered requests.", ["path", "status"], registry=registry
        )
        self._answers = Counter(
            "moextend_answers", "Answered prompts, by extensions.", ["extensions"], registry=registry
        )
        self._queue = Gauge("moextend_queue_length", "Prompts that wait.", registry=registry)
        self._rows = Gauge("moextend_batch_rows", "Rows of the latest step.", registry=registry)
        self._steps = Counter(
            "moextend_steps", "Forward passes, of prompts or of next tokens.", ["of"], registry=registry
        )
        self._mixed = Counter(
            "moextend_mixed_steps", "Passes with rows of different extensions.", registry=registry
        )
        self._prompt = Counter("moextend_prompt_tokens", "Tokens of answered prompts.", registry=registry)
        self._generated = Counter("moextend_generated_tokens", "Tokens of answers.", registry=registry)
        self._lost = Counter(
            "moextend_unanswered", "Prompts that failed, timed out or were given up.", registry=registry
        )
        self._first = Histogram(
            "moextend_time_to_first_token_seconds", "From arrival.", buckets=SECONDS, registry=registry
        )
        self._duration = Histogram(
            "moextend_answer_seconds", "From arrival to the last token.", buckets=SECONDS, registry=registry
        )

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)

    def request(self, path: str, status: int) -> None:
        """Counts a request; status 499: the client closed the connection."""
        self._requests.labels(path, str(status)).inc()

    def queued(self, length: int) -> None:
        """Length of the queue."""
        self._queue.set(length)

    def step(self, rows: Sequence[Row], *, prompts: bool) -> None:
        """Counts a forward pass."""
        self._rows.set(len(rows))
        self._steps.labels("prompts" if prompts else "tokens").inc()
        if len({row.job.reached for row in rows}) > 1:
            self._mixed.inc()

    def first(self, job: Job) -> None:
        """Time to the first token of a job."""
        self._first.observe(time.monotonic() - job.arrived)

    def ended(self, job: Job, prompt: int, generated: int) -> None:
        """Counts an answered job with its tokens."""
        names = job.shown  # clients can make any number of sets
        self._answers.labels("several" if len(names) > 1 else names[0] if names else "base").inc()
        self._duration.observe(time.monotonic() - job.arrived)
        self._prompt.inc(prompt)
        self._generated.inc(generated)

    def lost(self, job: Job) -> None:
        """Counts a job without an answer."""
        self._lost.inc()
