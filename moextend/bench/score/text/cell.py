"""Score of a text task: lm-eval's answers, saved by weights and key, and their scores."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from moextend.bench.score.lines import text_item
from moextend.bench.score.records import Scores
from moextend.bench.task import TaskSpec, TextTask, code_allowed
from moextend.errors import InputError, MoextendError, RunFailed, SpecError, UnknownName
from moextend.util import hub_errors, processes
from moextend.util.files import digest, read_lines, write_lines

if TYPE_CHECKING:
    from moextend.bench.score.backend import Backend
    from moextend.bench.score.served.answers import ServedModel
    from moextend.bench.score.text.harness import Loaded
    from moextend.model.multimodal import MultimodalLM


BY = ("acc", "acc_norm", "acc_bytes")
"""Metrics that depend on the likeliest choice alone, by which it is chosen."""


def score_text(
    model: MultimodalLM,
    task: TaskSpec,
    folder: Path,
    *,
    tokenizer: str,
    batch_size: int,
    limit: int | None,
    workspace: Path,
    on_items: Callable[[int, int], None] | None = None,
    share: Callable[[Path], AbstractContextManager[object]] = nullcontext,
    backend: Backend | None = None,
) -> tuple[Scores, Path, bool]:
    """Scores, the file of the answers (under `folder`), and whether the answers existed before.

    `backend` answers instead of the model in this process, if it is that of a server.

    Raises RunFailed if lm-eval fails on this task, and InputError if the task is wrong.
    """
    text = text_of(task)
    least = min((n for n in (text.limit, limit) if n is not None), default=None)
    try:
        loaded = processes.in_turn(lambda: load_task(task, workspace))
        key = {
            "format": 2,
            "task": loaded.digest,
            "metric": text.metric,
            "num_fewshot": text.num_fewshot,
            "tokenizer": tokenizer,
            "dtype": str(model.lm.dtype),
            "batch_size": batch_size,
            "limit": least,
            **({"backend": backend.name} if backend and backend.name else {}),
        }
        path = task.predictions(folder, digest(key))
        with processes.first_enters(lambda: share(path)):
            kept = processes.first_says(lambda: _kept(path))
            if kept is not None:
                return kept, path, True
            served = backend.served() if backend and backend.served else None
            scores, records = _run(model, loaded, text.metric, batch_size, least, on_items, served)
            # The summary is the last line: a file that has one is complete.
            if processes.is_first():
                write_lines(path, [*records, {"summary": asdict(scores)}])
    except MoextendError:
        raise
    except Exception as error:
        where = f"{task.path or task.task}: lm_eval"
        if (known := hub_errors.of_hub(error, None, "dataset", where=where)) is not None:
            raise known from error
        raise RunFailed(
            f"lm-eval failed on '{text.task}' ({type(error).__name__}: {error}).",
            where=where,
            hint="Run the task alone: lm_eval --tasks ... --limit 5.",
        ) from error
    return scores, path, False


def first_answers(
    model: MultimodalLM, task: TaskSpec, *, batch_size: int, limit: int, workspace: Path
) -> list[dict[str, Any]]:
    """Lines of the first `limit` items of a text task (of each task of a group), answered now; nothing is saved."""
    return _run(model, load_task(task, workspace), text_of(task).metric, batch_size, limit, None)[1]


def text_content(task: TaskSpec, workspace: Path) -> str:
    """Digest of the data, the files and the code of a text task; quick after its scoring."""
    return load_task(task, workspace).content


def text_commits(task: TaskSpec, workspace: Path) -> dict[str, str]:
    """Data set on the hub -> its opened commit, of a text task; quick after its scoring."""
    return load_task(task, workspace).commits


def _kept(path: Path) -> Scores | None:
    """The score in a complete file of answers; None if the file is missing, incomplete or damaged."""
    try:
        lines = read_lines(path)
        if not lines or "summary" not in lines[-1]:
            return None
        scores = Scores(**lines[-1]["summary"])
        return scores if scores.n == len(lines) - 1 else None
    except (SpecError, TypeError):
        return None


def text_of(task: TaskSpec) -> TextTask:
    """The lm-eval task of a text task."""
    assert task.lm_eval is not None, "read_task refuses a text task without it"
    return task.lm_eval


def load_task(task: TaskSpec, workspace: Path) -> Loaded:
    """The lm-eval task with its data; checks its metric before the model computes."""
    from moextend.bench.score.text.harness import load

    text = text_of(task)
    folder = None if text.path is None else task.folder() / text.path
    where = f"{task.path or task.task}: lm_eval"
    unsafe = InputError(
        "runs code that the model writes.",
        where=where,
        hint="Allow it in a safe environment, such as a container: --allow-code.",
    )
    if text.runs_code and not code_allowed():
        raise unsafe
    loaded = load(
        text.task, folder, text.num_fewshot, workspace, trusted=text.trust_remote_code, revisions=text.revisions,
        where=f"{where}.task",
    )  # fmt: skip
    metric = text.metric.split(",")[0]
    for part in loaded.tasks.values():
        if getattr(part, "UNSAFE_CODE", False) and not code_allowed():
            raise unsafe
        known = part.aggregation()
        if metric not in known:
            raise UnknownName("metric", metric, known, where=f"{where}.metric")
        if part.higher_is_better().get(metric) is False:
            raise InputError(
                f"'{metric}' is better when it is lower, so it is not a percentage.",
                where=f"{where}.metric",
                hint=f"Choose another one of: {', '.join(known)}.",
            )
    return loaded


def _run(
    model: MultimodalLM,
    loaded: Loaded,
    metric: str,
    batch_size: int,
    limit: int | None,
    on_items: Callable[[int, int], None] | None,
    served: ServedModel | None = None,
) -> tuple[Scores, list[dict[str, Any]]]:
    from moextend.bench.score.text.harness import run

    found = run(model, loaded, batch_size=batch_size, limit=limit, on_items=on_items, served=served)
    column = _column(found, loaded, metric)
    records = [
        record_of(name, sample, column, _question(loaded.tasks[name], sample))
        for name in loaded.tasks
        for sample in found["samples"][name]
        if sample["filter"] == column.partition(",")[2]
    ]
    return _scores(found, loaded, column, records), records


def _column(found: dict[str, Any], loaded: Loaded, metric: str) -> str:
    """Key of the metric with its filter in lm-eval's results; the first filter if the task sets none."""
    first = found["results"][next(iter(loaded.tasks))]
    columns = [key for key in first if "," in key and "_stderr" not in key]
    chosen = [key for key in columns if key == metric or key.partition(",")[0] == metric]
    if not chosen:
        raise UnknownName("metric", metric, columns)
    return str(chosen[0])


def _question(task: Any, sample: dict[str, Any]) -> str:
    """What an item asks, without the examples before it; the whole prompt where the task has no one question."""
    asked = task.doc_to_text(sample["doc"])
    return asked if isinstance(asked, str) else str(sample["arguments"][0][0])


def record_of(task: str, sample: dict[str, Any], column: str, question: str) -> dict[str, Any]:
    """Saved record of one item: question, gold answer, prediction, log-likelihoods, and the metric's value."""
    metric = column.partition(",")[0]
    record: dict[str, Any] = {"task": task, "id": sample["doc_id"], "question": question}
    responses, gold = sample["filtered_resps"], sample["target"]
    if responses and isinstance(responses[0], list | tuple) and len(responses[0]) == 2:
        choices = [arguments[1].strip() for arguments in sample["arguments"]]
        lls = [float(response[0]) for response in responses]
        record["gold"] = choices[gold] if isinstance(gold, int) and gold < len(choices) else gold
        record["prediction"] = choices[_likeliest(lls, choices, metric)]
        record["loglikelihoods"] = lls
    else:
        record["gold"] = gold
        record["prediction"] = responses[0] if len(responses) == 1 else responses
    record["right"] = sample.get(metric)
    return record


class Again:
    """Compares kept answers of a text task with its data here, and scores them by lm-eval's metric again."""

    def __init__(self, loaded: Loaded, metric: str) -> None:
        self._loaded, self._metric = loaded, metric.split(",")[0]
        self._asked: dict[tuple[str, int], tuple[Any, Any, list[str]]] = {}
        self._values: dict[tuple[Any, ...], Any] = {}

    def __call__(self, line: Mapping[str, Any]) -> tuple[float | None, str]:
        """What the metric gives an answer, and in what its record differs from the item; "" if in nothing.

        The value is None where the record does not tell it: metrics over all items, and whether a text was the
        likeliest.
        """
        name, item = str(line["task"]), int(line["id"])
        part = self._loaded.tasks.get(name)
        if part is None or not 0 <= item < len(part.eval_docs):
            return None, "no such item"
        if (name, item) not in self._asked:
            self._asked[name, item] = self._read(part, part.eval_docs[item])
        asked, gold, choices = self._asked[name, item]
        if isinstance(asked, str) and line.get("question") != asked:
            return None, "another question"
        if line.get("gold") != gold:
            return None, "another gold answer"
        if part.OUTPUT_TYPE not in ("multiple_choice", "generate_until"):
            return None, ""
        given, rated = line.get("prediction"), line.get("loglikelihoods") or []
        if rated and len(rated) != len(choices):
            return None, "other choices"
        best = [_likeliest(rated, choices, by) for by in BY] if rated else []
        same = (name, item, *(best if self._metric in BY else rated or [str(given)]))
        if same not in self._values:
            answers = given if isinstance(given, list) else [given]
            found = part.process_results(
                part.eval_docs[item], [(each, False) for each in rated] if rated else answers
            )
            self._values[same] = found.get(self._metric)
        value = self._values[same]
        return (float(value), "") if isinstance(value, int | float) else (None, "")

    @staticmethod
    def _read(part: Any, doc: Any) -> tuple[Any, Any, list[str]]:
        """Question, gold answer and choices of an item, as `record_of` has them."""
        gold, choices = part.doc_to_target(doc), list[str]()
        if part.OUTPUT_TYPE == "multiple_choice":
            choices = [str(choice).strip() for choice in part.doc_to_choice(doc)]
            gold = choices[gold] if isinstance(gold, int) else gold
        return part.doc_to_text(doc), gold, choices


def items_here(loaded: Loaded, task: TaskSpec, limit: int | None) -> int:
    """Number of items of a text task that a run with this limit of the sequence answers."""
    least = min((n for n in (text_of(task).limit, limit) if n is not None), default=None)
    return sum(min(len(part.eval_docs), least or len(part.eval_docs)) for part in loaded.tasks.values())


def _likeliest(lls: Sequence[float], choices: Sequence[str], metric: str) -> int:
    """Place of the choice that a metric takes, by log-likelihoods."""
    return max(range(len(lls)), key=lambda place: lls[place] / _length(metric, choices[place]))


def _length(metric: str, choice: str) -> float:
    """Divisor of a log-likelihood before choices are compared."""
    if metric == "acc_norm":
        return float(max(1, len(choice)))
    return float(max(1, len(choice.encode()))) if metric == "acc_bytes" else 1.0


def _scores(found: dict[str, Any], loaded: Loaded, column: str, records: Sequence[dict[str, Any]]) -> Scores:
    results = found["results"]
    parts = {name: [record["right"] for record in records if record["task"] == name] for name in loaded.tasks}
    values = {name: float(results[name][column]) for name in parts}
    total = results.get(loaded.name, {}).get(column)
    value = fmean(values.values()) if total is None else float(total)
    if not 0 <= value <= 1:
        raise InputError(
            f"'{column}' is {value:.4g}, not a fraction from 0 to 1.", hint="Choose another metric, e.g. acc."
        )
    fractions = {
        key.removesuffix(",none"): 100 * number
        for key, number in results.get(loaded.name, results[next(iter(parts))]).items()
        if "," in key and isinstance(number, float) and 0 <= number <= 1
    }
    single = len(parts) == 1
    return Scores(
        value=100 * value,
        stderr=_standard_error(value, values, parts),
        n=len(records),
        by_kind={} if single else {name: 100 * number for name, number in values.items()},
        kind_sizes={} if single else {name: len(part) for name, part in parts.items()},
        readings=fractions,
    )


def _standard_error(value: float, values: dict[str, float], parts: dict[str, list[Any]]) -> float | None:
    """Standard error of a mean over items (and over tasks), in points; None if the metric is not a mean."""
    if not all(isinstance(x, int | float) for part in parts.values() for x in part):
        return None
    sizes = {name: len(part) for name, part in parts.items()}
    if min(sizes.values()) < 2 or any(abs(fmean(parts[name]) - values[name]) > 1e-9 for name in parts):
        return None
    for weights in (
        {name: n / sum(sizes.values()) for name, n in sizes.items()},
        dict.fromkeys(sizes, 1 / len(sizes)),
    ):
        if abs(sum(weights[name] * values[name] for name in parts) - value) < 1e-9:
            errors = {name: stdev(parts[name]) / math.sqrt(sizes[name]) for name in parts}
            return 100 * math.hypot(*(weights[name] * error for name, error in errors.items()))
    return None


def sampled_answers(
    model: MultimodalLM,
    task: TaskSpec,
    *,
    batch_size: int,
    limit: int | None,
    items: int,
    seed: str,
    workspace: Path,
    served: ServedModel | None = None,
) -> list[tuple[str, str | float, int]]:
    """(item, answer or log-likelihood in nats, its tokens) of a sample of the items of a text task; nothing is saved.

    The choice of the answer with the highest log-likelihood is an answer, too. `limit`: only among the first items.
    """
    from moextend.bench.score.text.harness import run

    loaded = load_task(task, workspace)
    places = [
        (name, place)
        for name, part in loaded.tasks.items()
        for place in range(min(len(part.eval_docs), limit or len(part.eval_docs)))
    ]
    samples: dict[str, list[int]] = {}
    for name, place in sorted(random.Random(seed).sample(places, min(items, len(places)))):
        samples.setdefault(name, []).append(place)
    found = run(model, loaded, batch_size=batch_size, limit=None, served=served, samples=samples)
    return [
        value
        for name in samples
        for sample in found["samples"][name]
        if sample["filter"] == found["samples"][name][0]["filter"]
        for value in _values(model, text_item({"task": name, "id": sample["doc_id"]}), sample)
    ]


def _values(model: MultimodalLM, item: str, sample: dict[str, Any]) -> list[tuple[str, str | float, int]]:
    """What the model gave for an item, before any filter."""
    values: list[tuple[str, str | float, int]] = []
    for (response, *_), arguments in zip(sample["resps"], sample["arguments"], strict=True):
        if isinstance(response, str):
            values.append((item, response, 1))
            continue
        number = response[0] if isinstance(response, list | tuple) else response
        text = str(arguments[-1])
        values.append(
            (item, float(number), len(model.tokenizer(text, add_special_tokens=False)["input_ids"]))
        )
    likelihoods = [value for _, value, _ in values if isinstance(value, float)]
    if len(likelihoods) > 1:
        best = max(range(len(likelihoods)), key=lambda place: likelihoods[place])
        values.append((item, f"choice {best + 1}", 1))
    return values
