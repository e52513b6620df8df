"""The certificate of an extension: its claims, the record with their evidence, its page, and the check of a record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moextend.errors import InputError, SpecError
from moextend.extension.folder import contents
from moextend.util import files
from moextend.util.spec import Record

KIND = "moextend certificate"
Status = Literal["proved", "failed", "not checked"]
Fact = int | float | str | list[str]
AGAIN = "Create it again: moextend certify EXTENSION --base BASE."
SCOPES = ("own", "auto", "all")
FILE, PAGE = "certificate-{}.json", "certificate-{}.md"
"""Names of the record and the page of a scope, so that the certificates of several scopes lie side by side."""
LIMITS = """\
- "Proved" for tensors and files means all of them. For inputs it means those that were compared, on this machine and
  with these versions; other inputs may reach new experts where every input may, or where the task is inferred.
- Inputs are computed one at a time. In a batch, padding and other inputs may change last bits, with and without the
  extension.
- The SHA-256 shows that the record was not changed by accident. It is no signature: whoever changes the record can
  compute it again."""


@dataclass(frozen=True)
class Checked:
    """A claim, and how it is checked."""

    name: str
    statement: str
    scopes: tuple[str, ...] = SCOPES
    """Scopes whose certificates have it."""
    active: str = ""
    """While inputs are computed with the extension attached, active are: none, auto, all, or itself; "": no inputs."""
    inputs: tuple[str, ...] = ()
    """Kinds of inputs: far, near, own."""
    same: str = ""
    """Why the claim is not checked if these inputs do not change, where equal results prove little."""


CLAIMS = (
    Checked(
        "files",
        "The extension's files are complete: formats are known, SHA-256 sums are those that the cards state, all "
        "numbers are finite, and no file can hold code.",
    ),
    Checked("base", "The base is the one that the extension was trained on."),
    Checked("attach", "The extension attaches to the base."),
    Checked(
        "base tensors",
        "No base tensor changes by a bit: before the extension is attached, while it is attached, after inputs were "
        "computed with it, and after it is unloaded.",
    ),
    Checked(
        "text, task given",
        "With the extension attached and not activated, as for inputs of other tasks where the task is given, text is "
        "answered by the base: no new expert is reached, and logits and answers are equal bit for bit.",
        ("own", "auto"), "none", ("far", "near"),
    ),
    Checked(
        "text, task inferred",
        "With the task inferred from each input, text that has nothing to do with the task is answered by the base: "
        "no new expert is reached, and logits and answers are equal bit for bit.",
        ("auto",), "auto", ("far",),
    ),
    Checked(
        "near inputs, task inferred", "The same holds for inputs near the task that are not its own.",
        ("auto",), "auto", ("near",),
    ),
    Checked(
        "text, always active", "With the extension active for every input, text is answered as by the base.",
        ("all",), "all", ("far",), "these texts did not change, and nothing keeps others from changing.",
    ),
    Checked(
        "comparison", "The comparison can see the extension: with it active, the same inputs give other logits.",
        active="itself", inputs=("far", "own"),
        same="these inputs do not change when the extension is active, so equal results say little.",
    ),
    Checked(
        "unload",
        "After unloading, the model is the base again: the same classes of modules, and on all texts the same logits "
        "and answers bit for bit.",
    ),
    Checked(
        "server",
        "A server answers text as this process does, as the base by its model `base`, and as the extension by that of "
        "its name: the same greedy answers, and log-probabilities of inputs within 0.001 nats per token.",
    ),
    Checked("forgetting", "The extension is a stage of the named run, whose records give its row of forgetting."),
)  # fmt: skip
"""All claims, in order."""


class _Part(BaseModel):
    """A part of a certificate. A key that no release wrote is none."""

    model_config = ConfigDict(**{**Record.model_config, "extra": "forbid"})


class Compared(_Part):
    """One set of inputs before the extension was attached and with it; the counts are of inputs."""

    name: str
    """Name of the set."""
    items: int
    """Number of inputs."""
    inputs_reached: int
    """Those of which a token used a new expert."""
    logits_changed: int
    """Those with other logits, at any position and by any bit."""
    answers_changed: int
    """Those with another greedy answer."""
    largest_change: float
    """Largest change of the log-likelihood of a given answer, in nats."""

    @property
    def unchanged(self) -> bool:
        """Whether all results are equal bit for bit, and no input reached a new expert."""
        return not (self.inputs_reached or self.logits_changed or self.answers_changed)


class Claim(_Part):
    """A statement, whether it was proved, and the numbers that say so."""

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


class InputSet(_Part):
    """A set of inputs that the claims are about."""

    name: str
    """Name, as in the claims."""
    items: int
    """Number of inputs."""
    digest: str
    """Sixteen hex digits over texts, answers and media (SHA-256)."""


class Certificate(Record):
    """`certificate-SCOPE.json`: the claims about one extension on one base, in one scope."""

    model_config = _Part.model_config

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
    others: list[str]
    """Names of extensions that were attached before it."""
    base: dict[str, str]
    """The base: its name, the fingerprint of language model, encoders and projectors, and the type of its weights."""
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

    @property
    def verdict(self) -> str:
        """The number of claims of each status, in a sentence."""
        statuses = [claim.status for claim in self.claims]
        counts = [f"{statuses.count(status)} {status}" for status in ("proved", "failed", "not checked")]
        return f"{len(statuses)} claims: {', '.join(counts)}."

    @property
    def summary(self) -> str:
        """A table of the claims and their statuses, in Markdown."""
        rows = [(one.name, _marked(one.status), one.items or "-") for one in self.claims]
        return table(("claim", "status", "compared"), rows)

    def write_to(self, out: Path) -> Certificate:
        """Writes the record, with its SHA-256, and the page; returns it with the folder relative to `out`."""
        folder = Path(os.path.relpath(self.folder, out)).as_posix()
        final = self.model_copy(update={"folder": folder})
        final = final.model_copy(update={"sha256": digest_of(final.model_dump())})
        final.write(out / FILE.format(final.scope))
        files.write_text(out / PAGE.format(final.scope), page(final))
        return final


def claim(name: str, status: Status, **more: Any) -> Claim:
    """The claim of this name; `more`: further fields."""
    statement = next(one.statement for one in CLAIMS if one.name == name)
    return Claim(name=name, statement=statement, status=status, **more)


def claims_of(scope: str) -> list[str]:
    """Names of the claims of a certificate, in order; none for an unknown scope."""
    return [one.name for one in CLAIMS if scope in one.scopes]


def files_in(folder: Path) -> list[Path]:
    """The certificates in a folder, one for each scope."""
    return [path for scope in SCOPES if (path := folder / FILE.format(scope)).is_file()]


def digest_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all keys but `sha256`."""
    text = json.dumps(
        {key: value for key, value in values.items() if key != "sha256"},
        sort_keys=True, separators=(",", ":"), ensure_ascii=False,
    )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()


def check_record(path: Path, folder: Path | None = None) -> tuple[Certificate, list[str]]:
    """A written certificate, and why it is not that of the extension: SHA-256, files, missing claims.

    Args:
        path: the file. folder: of the extension; None: the one that the certificate names.

    Raises:
        InputError: there is no certificate, or it has a key twice, or one that a certificate does not have.
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
    folder, problems = folder or path.parent / found.folder, []
    if digest_of(values) != found.sha256:  # of what the file says, before it is read as a record
        problems.append("its SHA-256 is not that of its content: it was changed after it was made.")
    if (made := claims_of(found.scope)) != [one.name for one in found.claims]:
        problems.append(
            f"its claims are not those that are always made: {', '.join(made) or 'no such scope'}."
        )
    present = contents(folder)
    for name, wanted in found.files.items():
        if name not in present.own:
            problems.append(f"{folder / name} is missing.")
        elif files.sha256(folder / name) != wanted:
            problems.append(f"{folder / name} is not the file that was certified.")
    problems += [f"{folder / name} was added." for name in present.own if name not in found.files]
    problems += [f"{folder / name} was added, and can hold code." for name in present.code]
    return found, problems


def page(c: Certificate) -> str:
    """The readable page of a certificate, in Markdown; the record has the numbers."""
    facts = [
        ("base", f"{c.base['name']} (`{c.base['fingerprint']}`, {c.base['dtype']})"),
        ("routing and scope", f"{c.mode}, {c.scope}"),
        ("other extensions", ", ".join(c.others) or "none"),
        ("made", f"{c.date} with `{c.command}`" if c.command else c.date),
        ("versions", ", ".join(f"{name} {version}" for name, version in c.versions.items())),
        ("SHA-256 of the record", f"`{c.sha256}`"),
    ]
    claims = [
        (one.name, _marked(one.status), one.items or "-", one.reason, one.statement) for one in c.claims
    ]
    hashes = [(f"`{name}`", f"`{value}`") for name, value in c.files.items()]
    parts = [
        f"# Certificate of extension '{c.extension}'", c.verdict, table(("", ""), facts),
        table(("claim", "status", "compared", "reason", "what is claimed"), claims),
        "## Files", table(("file", "SHA-256"), hashes), "## Limits", LIMITS,
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _marked(status: Status) -> str:
    return "**FAILED**" if status == "failed" else status


def table(titles: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    titles = list(titles)
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, ["---"] * len(titles), *cells))
