"""The certificate of an extension: claims with their evidence, and the SHA-256 of the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moextend.errors import InputError, SpecError
from moextend.util import files
from moextend.util.record import Record

KIND = "moextend certificate"
Status = Literal["proved", "failed", "not checked"]
Fact = int | float | str | list[str]
AGAIN = "Create it again: moextend certify EXTENSION --base BASE."
_TEXT_CLAIMS = {
    "own": ("text, task given",),
    "auto": ("text, task given", "text, task inferred", "near inputs, task inferred"),
    "all": ("text, always active",),
}
"""Scope -> its claims about text."""
FILE, PAGE = "certificate-{}.json", "certificate-{}.md"
"""Names of the record and the page of a scope, so that the certificates of several scopes lie side by side."""
_STRICT = ConfigDict(**{**Record.model_config, "extra": "forbid"})
"""A key that no release wrote is no part of a certificate."""


def claims_in_use(scope: str) -> list[str]:
    """Claims that need the extension attached, in order; KeyError for an unknown scope."""
    return ["attach", "base tensors", *_TEXT_CLAIMS[scope], "comparison", "unload"]


def claims_of(scope: str) -> list[str]:
    """All claims of a certificate, in order; none for an unknown scope."""
    return ["files", "base", *claims_in_use(scope), "forgetting"] if scope in _TEXT_CLAIMS else []


def files_in(folder: Path) -> list[Path]:
    """The certificates in a folder, one for each scope."""
    return [folder / name for scope in _TEXT_CLAIMS if (folder / (name := FILE.format(scope))).is_file()]


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all keys but `sha256`."""
    text = json.dumps(
        {key: value for key, value in values.items() if key != "sha256"},
        sort_keys=True, separators=(",", ":"), ensure_ascii=False,
    )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()


class Compared(BaseModel):
    """One set of inputs before the extension was attached and with it; counts of inputs unless it says tokens."""

    model_config = _STRICT

    name: str
    """Name of the set."""
    items: int
    """Number of inputs."""
    tokens: int
    """Their tokens."""
    inputs_reached: int
    """Inputs of which a token used a new expert."""
    tokens_reached: int
    """Tokens that used a new expert in any layer."""
    logits_changed: int
    """Inputs with other logits, at any position and by any bit."""
    likelihoods_changed: int
    """Inputs whose given answer has another log-likelihood."""
    answers_changed: int
    """Inputs with another greedy answer."""
    largest_change: float
    """Largest change of a log-likelihood, in nats."""

    @property
    def unchanged(self) -> bool:
        """Whether all results are equal bit for bit, and no input reached a new expert."""
        return not (
            self.inputs_reached or self.logits_changed or self.likelihoods_changed or self.answers_changed
        )


class Claim(BaseModel):
    """A statement, whether it was proved, and the numbers that say so."""

    model_config = _STRICT

    name: str
    """Short name."""
    statement: str
    """What is claimed."""
    status: Status
    """proved: on the inputs of the evidence, or for all tensors and files. failed: a counterexample was found."""
    reason: str = ""
    """Why it failed or was not checked."""
    items: int = 0
    """Number of things that were compared: inputs, tensors or files."""
    evidence: dict[str, Fact] = Field(default_factory=dict)
    """Further numbers and fingerprints."""
    sets: list[Compared] = Field(default_factory=list)
    """Comparison of each set of inputs."""


class InputSet(BaseModel):
    """A set of inputs that the claims are about."""

    model_config = _STRICT

    name: str
    """Name, as in the claims."""
    meaning: str
    """What its inputs are."""
    items: int
    """Number of inputs."""
    digest: str
    """Sixteen hex digits over texts, answers and media (SHA-256)."""


class BaseFacts(BaseModel):
    """The base that the claims are about."""

    model_config = _STRICT

    name: str
    """Name that it was loaded by."""
    fingerprint: str
    """Fingerprint of language model, encoders and projectors (`MultimodalLM.base_fingerprint`)."""
    dtype: str
    """Number type of its weights."""
    tensors: int
    """Number of tensors."""
    bytes: int
    """Their size in memory."""


class Certificate(Record):
    """`certificate-SCOPE.json`: the claims about one extension on one base, in one scope."""

    model_config = _STRICT

    kind: str = KIND
    """Marks the file."""
    extension: str
    """Name of the extension."""
    folder: str
    """Its folder, relative to that of the certificate."""
    files: dict[str, str]
    """Name of each file of the extension -> SHA-256."""
    mode: str
    """Routing mode."""
    scope: str
    """Use that is certified: own, auto or all."""
    reads: list[str]
    """Modalities of the inputs that its task inference accepts; none: text."""
    others: list[str]
    """Names of extensions that were attached before it."""
    base: BaseFacts
    """The base."""
    inputs: list[InputSet]
    """Inputs that were compared."""
    claims: list[Claim]
    """The claims."""
    command: str
    """Command that made the certificate."""
    date: str
    """UTC."""
    versions: dict[str, str]
    """Versions of Python and packages, device, processor and number of threads."""
    sha256: str = ""
    """SHA-256 of the canonical JSON of all other keys: sorted keys, no spaces, UTF-8."""

    @property
    def sound(self) -> bool:
        """Whether no claim failed."""
        return all(claim.status != "failed" for claim in self.claims)

    def digest(self) -> str:
        """The SHA-256 that the record must have."""
        return digest_of(self.model_dump())

    def signed(self) -> Certificate:
        """The record with its SHA-256."""
        return self.model_copy(update={"sha256": self.digest()})


def read(path: Path) -> Certificate:
    """Certificate from a file; InputError if there is none."""
    return read_with_digest(path)[0]


def read_with_digest(path: Path) -> tuple[Certificate, str]:
    """Certificate from a file, and the SHA-256 of what the file says, before it is read as a record.

    Raises:
        InputError: there is no certificate; or the file has a key twice, or one that a certificate does not have.
    """
    try:
        values = files.read_json(path, unique=True)
    except FileNotFoundError as error:
        raise InputError("no such certificate.", where=str(path), hint=AGAIN) from error
    except SpecError as error:
        raise SpecError(error.what, where=error.where, hint=AGAIN) from error
    found = Certificate.parse(values, where=str(path), hint=AGAIN)
    if found.kind != KIND:
        raise InputError("is not a certificate of an extension.", where=str(path), hint=AGAIN)
    return found, digest_of(values)
