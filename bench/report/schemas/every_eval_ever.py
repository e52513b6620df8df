"""Records of Every Eval Ever, schema 0.3.0: data/<collection>/<developer>/<model>/<uuid>.json, <uuid>_samples.jsonl.

Schemas: eval.schema.json and instance_level_eval.schema.json of https://github.com/evaleval/every_eval_ever. Scores are
proportions; the values in percent, as in reports, are under `details`. Unknown values are left out, or "unknown" where
the schema requires a value.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

from moextend.bench.report.explain import command
from moextend.bench.report.schemas.snapshot import Item, Snapshot, without_folders
from moextend.bench.run.inputs import data_part
from moextend.bench.run.rundir import slug
from moextend.bench.score.records import LM_EVAL, Cell
from moextend.bench.scorers import shows
from moextend.bench.scorers.table import BY_NAME
from moextend.util import files

VERSION = "0.3.0"
"""Of the schema."""
UNKNOWN = "unknown"
NAMESPACE = "moextend"
"""First part of the ids of models of an unknown organization."""


def write(snapshot: Snapshot, out: Path, items: bool, organization: str | None) -> list[Path]:
    """Writes the record of one model, with its answers if `items`, and returns the paths."""
    record = _record(snapshot, organization)
    folder = Path("data", slug(f"moextend-{snapshot.sequence}"), *record["model_info"]["id"].split("/"))
    name = _uuid(record["evaluation_id"])
    path, samples = out / folder / f"{name}.json", out / folder / f"{name}_samples.jsonl"
    rows = _rows(snapshot, record) if items else []
    if rows:
        files.write_lines(samples, rows, synced=False)
        record["detailed_evaluation_results"] = {
            "format": "jsonl",
            "file_path": (folder / samples.name).as_posix(),
            "hash_algorithm": "sha256",
            "checksum": files.sha256(samples),
            "total_rows": len(rows),
        }
    files.write_json(path, record)
    if not rows:  # of an earlier call: the schema forbids samples that the record does not name
        with files.disk_errors(samples):
            samples.unlink(missing_ok=True)
    return [path, samples] if rows else [path]


def _uuid(name: str) -> str:
    """A version 4 UUID that is the same for the same name."""
    return str(uuid.UUID(bytes=hashlib.sha256(name.encode()).digest()[:16], version=4))


def _record(snapshot: Snapshot, organization: str | None) -> dict[str, Any]:
    model = _model(snapshot, organization)
    when = str(int(snapshot.started.timestamp()))
    packages = {f"{name.replace('-', '_')}_version": version for name, version in snapshot.packages.items()}
    return {
        "schema_version": VERSION,
        "evaluation_id": f"{snapshot.sequence}/{model['id']}/{when}",
        "evaluation_timestamp": when,
        "retrieved_timestamp": str(int(snapshot.ended.timestamp())),
        "source_metadata": {
            "source_name": "moextend",
            "source_type": "evaluation_run",
            "source_organization_name": organization or UNKNOWN,
            "evaluator_relationship": "first_party" if organization else "other",
        },
        "eval_library": {
            "name": "moextend",
            "version": snapshot.packages.get("moextend") or UNKNOWN,
            "additional_details": _strings({**packages, "environments": snapshot.environments}),
        },
        "model_info": model,
        "evaluation_results": [_result(snapshot, cell, when) for cell in snapshot.cells],
    }


def _model(snapshot: Snapshot, organization: str | None) -> dict[str, Any]:
    name = "-".join(slug(part) for part in snapshot.name.split("/"))
    version = snapshot.packages.get("transformers")
    return {
        "name": snapshot.name,
        "id": f"{slug(organization or NAMESPACE)}/{name}",
        **({"developer": organization} if organization else {}),
        "inference_engine": {"name": "transformers", **({"version": version} if version else {})},
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": UNKNOWN,
            **_strings(snapshot.record()),
        },
    }


def _result(snapshot: Snapshot, cell: Cell, when: str) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": cell.n}
    if cell.stderr is not None:
        uncertainty["standard_error"] = {"value": cell.stderr / 100, "method": "analytic"}
    details = {
        "percent": cell.value,
        "stderr_points": cell.stderr,
        "scorer": cell.scorer,
        "weights": cell.weights,
        "task_version": snapshot.task(cell).get("version"),
        "predictions_sha256": cell.sha256 or None,
        "by_kind": cell.by_kind or None,
        "readings": cell.readings or None,
    }
    return {
        "evaluation_result_id": f"{cell.task}:{cell.scorer}",
        "evaluation_name": _evaluation(snapshot, cell),
        "source_data": _source(snapshot, cell),
        "evaluation_timestamp": when,
        "metric_config": _metric(snapshot, cell),
        "score_details": {
            "score": cell.value / 100,
            "details": _strings(details),
            "uncertainty": uncertainty,
        },
        "generation_config": _generation(snapshot, cell),
    }


def _evaluation(snapshot: Snapshot, cell: Cell) -> str:
    return f"{snapshot.sequence}.{cell.task}"


def _source(snapshot: Snapshot, cell: Cell) -> dict[str, Any]:
    """The data; `hf_dataset` only if the run has a hub revision of them."""
    task = snapshot.task(cell)
    data, text = task.get("data") or {}, task.get("lm_eval") or {}
    revision = snapshot.revision(cell)
    more = {
        "config": data.get("config"),
        "revision": revision,
        "split": None if revision else data.get("test"),
        "path": None if revision else without_folders(data.get("path")),
        "lm_eval_task": text.get("task"),
        "test_digest": cell.inputs.get(data_part("test", cell.task)),
        "source": task.get("source") or None,
        "licence": task.get("licence") or None,
    }
    details = {"additional_details": _strings(more)}
    if revision:
        hub = {"hf_repo": data["path"], "hf_split": data["test"]}
        return {"dataset_name": data["path"], "source_type": "hf_dataset", **hub, **details}
    return {"dataset_name": text.get("task") or cell.task, "source_type": "other", **details}


def _metric(snapshot: Snapshot, cell: Cell) -> dict[str, Any]:
    """The scorer; with its range for scorers of the package and of lm-eval."""
    text = cell.by_lm_eval
    name = cell.scorer.removeprefix(LM_EVAL)
    known = "accuracy" if name == "acc" else f"lm-evaluation-harness.{name}"
    found: dict[str, Any] = {
        "metric_id": known if text else f"moextend.{name}",
        "metric_name": name,
        "lower_is_better": False,
    }
    description = " ".join(filter(None, [snapshot.task(cell).get("description"), shows(cell.scorer)]))
    if description:
        found["evaluation_description"] = description
    if text or cell.scorer in BY_NAME:
        top = 1.0 if text else BY_NAME[cell.scorer].top
        found |= {"score_type": "continuous", "min_score": 0.0, "max_score": top}
        found |= {"metric_unit": "proportion"} if top == 1 else {}
    return found


def _generation(snapshot: Snapshot, cell: Cell) -> dict[str, Any]:
    """Decoding settings: greedy for image tasks; for text tasks set by lm-eval's task, except the number of shots."""
    task, config = snapshot.task(cell), snapshot.result.config
    arguments = {"execution_command": command(config.model_copy(update={"places": {}}))}
    if task.get("kind") == "text":
        more = {"num_fewshot": (task.get("lm_eval") or {}).get("num_fewshot")}
        return {"generation_args": arguments, "additional_details": _strings(more)}
    decoding = {"temperature": 0.0, "max_tokens": task["max_new_tokens"], "prompt_template": task["prompt"]}
    more = {"decoding": "greedy", "num_fewshot": 0}
    return {"generation_args": {**decoding, **arguments}, "additional_details": _strings(more)}


def _rows(snapshot: Snapshot, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers that have a score of their own."""
    return [
        _row(snapshot, record, cell, item)
        for cell in snapshot.cells
        for item in snapshot.items(cell)
        if item.score is not None
    ]


def _row(snapshot: Snapshot, record: dict[str, Any], cell: Cell, item: Item) -> dict[str, Any]:
    """One answer; a question that is not recorded is empty and without a hash, with a note in `metadata`."""
    known = BY_NAME.get(cell.scorer)
    asked = {"raw": item.question or "", "reference": item.references}
    found: dict[str, Any] = {
        "schema_version": VERSION,
        "evaluation_id": record["evaluation_id"],
        "model_id": record["model_info"]["id"],
        "evaluation_name": _evaluation(snapshot, cell),
        "evaluation_result_id": f"{cell.task}:{cell.scorer}",
        "sample_id": item.id,
        "sample_hash": None if item.question is None else _sample_hash(asked),
        "interaction_type": "single_turn",
        "input": {**asked, "choices": item.choices},
        "output": {"raw": [item.answer]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": item.answer,
                "extraction_method": cell.scorer,
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": item.score, "is_correct": (item.score or 0) >= (known.top if known else 1)},
        "metadata": _strings(
            {
                "input": "not recorded" if item.question is None else None,
                "kind": item.kind,
                "group": item.group,
                "image": item.image,
                "loglikelihoods": item.likelihoods,
            }
        ),
    }
    return found


def _sample_hash(asked: dict[str, Any]) -> str:
    """Hash of the recipe that the maintainers of the schema recommend, to join models by sample."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _strings(values: dict[str, Any]) -> dict[str, str]:
    """Additional details, as strings; unknown ones are left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
        if value is not None
    }
