"""Settings of scoring: batches and limits, and the backend that answers (docs/serving.md)."""

from __future__ import annotations

import re
import shlex
import string
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from moextend.training.settings import Batch
from moextend.util.spec import Spec, unset

TRANSFORMERS, OPENAI, VLLM = "transformers", "openai", "vllm"
"""The backends."""
VLLM_SERVER = "moextend serve {folder} --vllm start --port {port}"
"""Command of the backend vllm."""
PLACES = frozenset(("folder", "port", "model", "run", "stage", "task", "extension"))
"""Placeholders of the command that starts a server."""
NAMES = PLACES - {"folder", "port", "model"}
"""Placeholders of the name of a model."""


class Backend(Spec):
    """What scores the cells of a run; the answers must not depend on it, which is checked (parity)."""

    backend: Literal["transformers", "openai", "vllm"] = unset(TRANSFORMERS)
    """transformers, in the process of the run; openai: a server of the OpenAI protocol; vllm: the same, of the command
    and the export for vLLM."""
    server: str | None = unset(None)
    """Address of a running server: http://HOST:PORT/v1."""
    serve: str | None = unset(None)
    """Command that starts a server for the weights of a cell, such as `vllm serve {folder} --port {port}`."""
    model: str | None = unset(None)
    """Name of the model in the requests, with {run}, {stage}, {task}, {extension} (the task if it is learned, else
    `base`); null: the only one that the server lists."""
    export: Literal["stock", "moextend", "vllm"] = unset("stock")
    """Form of the folder for `serve` (docs/export.md); vllm: stock for models without extensions."""
    tasks: Literal["all", "text"] = unset("all")
    """text: tasks with images, sounds or other media are scored in process."""
    concurrency: int = Field(default=8, ge=1, le=1024, exclude_if=lambda value: value == 8)
    """Maximum number of requests at a time."""
    parity: int = Field(default=8, ge=1, exclude_if=lambda value: value == 8)
    """Items per task that are compared with transformers before a cell is scored."""
    tolerance: float | None = Field(default=None, gt=0, le=1, exclude_if=lambda value: value is None)
    """Maximum difference of log-likelihoods, in nats per token; null: 0.001, or 0.05 for 16-bit numbers."""

    @model_validator(mode="before")
    @classmethod
    def _of_vllm(cls, values: Any) -> Any:
        if not (isinstance(values, dict) and values.get("backend") == VLLM):
            return values
        return values | {"serve": values.get("serve") or VLLM_SERVER, "export": VLLM, "backend": OPENAI}

    @field_validator("server")
    @classmethod
    def _is_address(cls, server: str | None) -> str | None:
        """The address with its path; it is recorded, so it may hold no password."""
        if server is None:
            return None
        try:
            parts = urlsplit(server)
            wrong = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
        except ValueError:
            wrong = True
        if wrong:
            raise ValueError("is not an address such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("has a password or a query; a key belongs in the variable OPENAI_API_KEY")
        return server.rstrip("/") if parts.path.strip("/") else f"{server.rstrip('/')}/v1"

    @field_validator("serve")
    @classmethod
    def _is_command(cls, serve: str | None) -> str | None:
        if serve is None:
            return None
        _check_places(serve, PLACES)
        if not shlex.split(serve):
            raise ValueError("is empty")
        if "{port}" not in serve:
            raise ValueError("has no {port}: each server gets a free port")
        return serve

    @field_validator("model")
    @classmethod
    def _is_name(cls, model: str | None) -> str | None:
        if model is not None:
            _check_places(model, NAMES)
        return model

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.backend == TRANSFORMERS and (given := self.record()):
            raise ValueError(f"{next(iter(given))} is for backend: openai")
        if self.backend == OPENAI and (self.server is None) == (self.serve is None):
            raise ValueError(
                "backend: openai needs either server (the address of a running server) or serve (a "
                "command that starts one)"
            )
        return self

    def record(self) -> dict[str, Any]:
        """The settings that are not defaults; {} in process."""
        fields = Backend.model_fields.items()
        return {name: value for name, one in fields if (value := getattr(self, name)) != one.default}


class Scoring(Backend):
    """Scoring of the cells of the matrix."""

    batch_size: Batch = 64
    """Prompts per batch."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum items per task; null: all."""


def _check_places(text: str, known: frozenset[str]) -> None:
    """Raises ValueError for another placeholder than the known ones, or a text that is no template."""
    try:
        named = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"is not a template ({error}); write a literal brace twice") from error
    for name in named:
        if name not in known:
            shown = ", ".join(f"{{{each}}}" for each in sorted(known))
            raise ValueError(f"{{{name}}} is not a placeholder; available are {shown}")


def filled(text: str, **values: str) -> str:
    """The template with its placeholders replaced."""
    return re.sub(r"\{\{|\}\}|\{(\w+)\}", lambda found: values[found[1]] if found[1] else found[0][0], text)
