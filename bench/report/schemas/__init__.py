"""Export of results in the schemas of other tools, for leaderboards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from moextend.bench.report.collect import Experiment
from moextend.bench.report.schemas.snapshot import Snapshot, snapshots
from moextend.errors import InputError
from moextend.util import lookup

SCHEMAS = {
    "lm-eval": "moextend.bench.report.schemas.lm_eval:write",
    "every-eval-ever": "moextend.bench.report.schemas.every_eval_ever:write",
}
"""Schema -> function that writes the files of one run after one stage."""


def check(schema: str, organization: str | None) -> None:
    """Checks the options before results are read.

    Raises:
        UnknownName: no such schema.  InputError: an organization for a schema without a field for it.
    """
    lookup.choose("schema", schema, SCHEMAS, where="--as")
    if organization and schema != "every-eval-ever":
        raise InputError(
            f"{schema} has no field for it.", where="--organization", hint="Use it with --as every-eval-ever."
        )


def write(
    experiments: Sequence[Experiment],
    schema: str,
    out: Path,
    *,
    items: bool = False,
    organization: str | None = None,
) -> list[Path]:
    """Writes the files of every run and stage below `out` and returns their paths; equal runs give equal bytes.

    Args:
        items: whether to write the single answers. Cells with missing or damaged predictions have none; damaged ones
            are listed in `Result.lacks`.
        organization: the organization that made and evaluated the models; None: unknown.

    Raises:
        UnknownName, InputError: see `check`; two runs have one name; a run has no date.
    """
    check(schema, organization)
    found = list(snapshots(experiments))
    name, count = Counter(snapshot.name for snapshot in found).most_common(1)[0] if found else ("", 0)
    if count > 1:
        raise InputError(
            f"{count} runs have the name '{name.rpartition('/')[0]}'.",
            where="RUN",
            hint="Export each into a separate folder.",
        )
    writer: Callable[[Snapshot, Path, bool, str | None], list[Path]] = lookup.load(SCHEMAS[schema])
    return [path for snapshot in found for path in writer(snapshot, out, items, organization)]
