"""The readable page of a certificate, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.certificate.record import Certificate, Claim, Compared

MARKS = {"proved": "proved", "failed": "**FAILED**", "not checked": "not checked"}
LIMITS = """\
- "Proved" for tensors and files means all of them. For inputs it means those that were compared, on this machine and
  with these versions; other inputs may reach new experts where every input may, or where the task is inferred.
- Inputs are computed one at a time. In a batch, padding and other inputs may change last bits, with and without the
  extension.
- The SHA-256 shows that the record was not changed by accident. It is no signature: whoever changes the record can
  compute it again.
"""
COLUMNS = (
    "inputs",
    "items",
    "tokens",
    "inputs reached",
    "tokens reached",
    "logits",
    "log-likelihoods",
    "answers",
)


def page(certificate: Certificate) -> str:
    """The page."""
    c = certificate
    verdict = verdict_of(c)
    facts = [
        ("base", f"{c.base.name} (`{c.base.fingerprint}`, {c.base.dtype}, {c.base.tensors} tensors)"),
        ("routing and scope", f"{c.mode}, {c.scope}"),
        ("other extensions", ", ".join(c.others) or "none"),
        ("made", f"{c.date} with `{c.command}`" if c.command else c.date),
        ("versions", ", ".join(f"{name} {version}" for name, version in c.versions.items())),
        ("SHA-256 of the record", f"`{c.sha256}`"),
    ]
    parts = [f"# Certificate of extension '{c.extension}'", verdict, _table(("", ""), facts)]
    parts.append(_table(("claim", "status", "compared"), [_row(one) for one in c.claims]))
    parts += [_section(one) for one in c.claims]
    inputs = [(one.name, one.meaning, str(one.items), f"`{one.digest}`") for one in c.inputs]
    if inputs:
        parts += ["## Inputs", _table(("set", "meaning", "items", "digest"), inputs)]
    hashes = [(f"`{name}`", f"`{value}`") for name, value in c.files.items()]
    parts += ["## Files", _table(("file", "SHA-256"), hashes), "## Limits", LIMITS.strip()]
    return "\n\n".join(parts) + "\n"


def verdict_of(certificate: Certificate) -> str:
    """The number of claims of each status, in a sentence."""
    counts = [f"{sum(one.status == status for one in certificate.claims)} {status}" for status in MARKS]
    return f"{len(certificate.claims)} claims: {', '.join(counts)}."


def _row(one: Claim) -> tuple[str, ...]:
    return one.name, MARKS[one.status], str(one.items or "-")


def _section(one: Claim) -> str:
    lines = [f"## {one.name[0].upper()}{one.name[1:]}", f"{one.statement} {MARKS[one.status].capitalize()}."]
    if one.status == "failed":
        lines[1] = f"{one.statement} {MARKS['failed']}."
    if one.reason:
        lines.append(f"Reason: {one.reason}")
    if one.sets:
        lines.append(_table(COLUMNS, [_compared(each) for each in one.sets]))
    if one.evidence:
        lines.append("\n".join(f"- {name}: {_fact(value)}" for name, value in one.evidence.items()))
    return "\n\n".join(lines)


def _compared(one: Compared) -> tuple[str, ...]:
    numbers = (
        one.items, one.tokens, one.inputs_reached, one.tokens_reached, one.logits_changed, one.likelihoods_changed,
        one.answers_changed,
    )  # fmt: skip
    return one.name, *map(str, numbers)


def _fact(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [" | ".join(titles), " | ".join("---" for _ in titles), *(" | ".join(row) for row in escaped)]
    return "\n".join(f"| {line} |" for line in lines)
