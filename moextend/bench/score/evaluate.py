"""Scores one cell of the accuracy matrix: a model in its current state on one task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from moextend.bench.data import data_digest, open_items
from moextend.bench.score import text, vqa
from moextend.bench.score.backend import Backend, in_process
from moextend.bench.score.records import LM_EVAL, Cell, Scores
from moextend.bench.scoring import Scoring
from moextend.bench.task import TaskSpec
from moextend.errors import InputError
from moextend.util import memory, processes
from moextend.util.files import digest, sha256

if TYPE_CHECKING:
    from moextend.model.multimodal import MultimodalLM

Share = Callable[[Path], AbstractContextManager[object]]
"""Context in which a file of predictions is made."""


def score_cell(
    model: MultimodalLM,
    task: TaskSpec,
    *,
    weights: str,
    folder: Path,
    scoring: Scoring,
    workspace: Path,
    stage: int = 0,
    on_items: vqa.Progress | None = None,
    share: Share = nullcontext,
    backend: Backend | None = None,
) -> Cell:
    """Score of `model` on `task`.

    Predictions are kept in a folder below `folder`, named by a digest of `weights`, whose length grows with the
    number of extensions; the cell has the path of their file relative to `folder`. Existing ones are used again.
    `weights` must identify everything that the model's answers depend on. The file is made in the context
    `share(path)` (see SharedPredictions). Several processes share the work and get the same cell. `backend` answers;
    by default `model` in this process.

    Raises:
        RunFailed: the task cannot be scored; other tasks are not affected.
        InputError: the task or its data are wrong.
    """
    began = time.monotonic()
    own = folder / digest(weights)
    backend = backend or in_process(model, scoring.batch_size)
    if task.kind == "text":
        scores, path, reused = text.score_text(
            model, task, own, tokenizer=tokenizer_digest(model.tokenizer), batch_size=scoring.batch_size,
            limit=scoring.limit, workspace=workspace, on_items=on_items, share=share, backend=backend,
        )  # fmt: skip
    else:
        scores, path, reused = _questions(
            model, task, own, scoring, workspace, backend, on_items=on_items, share=share
        )
    size, sha = processes.first_says(lambda: (path.stat().st_size, sha256(path)))
    return Cell(
        stage=stage, task=task.task, weights=weights, seconds=time.monotonic() - began,
        scorer=f"{LM_EVAL}{task.lm_eval.metric}" if task.lm_eval else task.scorer,
        predictions=path.relative_to(folder).as_posix(), size=size, sha256=sha, reused=reused,
        batch_size=memory.most_rows(), backend=backend.name,
        **vars(scores),
    )  # fmt: skip


def _questions(
    model: MultimodalLM,
    task: TaskSpec,
    folder: Path,
    scoring: Scoring,
    workspace: Path,
    backend: Backend,
    *,
    on_items: vqa.Progress | None,
    share: Share,
) -> tuple[Scores, Path, bool]:
    """Scores of a task that is not of lm-eval, the file of the predictions, and whether they existed before."""
    from moextend.model.feature_cache import expecting

    def key() -> str:
        return vqa.prediction_key(
            task, data_digest(task, "test", workspace), scoring, tokenizer=prompt_digest(model),
            dtype=str(model.lm.dtype), backend=backend.name,
        )  # fmt: skip

    asked = key()
    path = task.predictions(folder, asked)
    items = open_items(task, "test", workspace, scoring.limit)
    with processes.first_enters(lambda: share(path)), expecting(model, items, vqa.answer_order(items)):
        records, made = vqa.predict(
            task, items, backend, path, batch_size=scoring.batch_size, on_items=on_items
        )
        if made and key() != asked:
            path.unlink(missing_ok=True)
            raise InputError(
                f"the data of task '{task.task}' changed while they were scored.",
                where=task.task,
                hint="Restore them, and run the same command again.",
            )
    scores, lines = vqa.score_items(records, task.scorer)
    if processes.is_first():
        vqa.write_scores(path, task.scorer, lines)
    return scores, path, made == 0


def prompt_digest(model: MultimodalLM) -> str:
    """Digest of the processing of a prompt: the tokenizer, and the chat template if it is used."""
    ids, chat = tokenizer_digest(model.tokenizer), getattr(model, "chat", None)
    return f"{ids}-{chat.fingerprint()}" if chat else ids


_TOKENIZERS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of a tokenizer: of its full model if it is a fast one, else of its vocabulary."""
    if tokenizer not in _TOKENIZERS:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            rules: Any = tokenizer.get_vocab()
        else:
            rules = json.loads(backend.to_str())
            # Set by the last call that padded or truncated; not part of the tokenizer's identity.
            rules.pop("padding", None), rules.pop("truncation", None)
        _TOKENIZERS[tokenizer] = digest(type(tokenizer).__name__, rules, tokenizer.special_tokens_map)
    return _TOKENIZERS[tokenizer]
