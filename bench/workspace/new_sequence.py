"""Creates sequences of the workspace, without stages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from moextend.bench.run.plan import DEFAULT
from moextend.bench.sequence import OWN
from moextend.bench.task import NAME
from moextend.bench.workspace.yaml_edit import quoted, set_value
from moextend.errors import InputError, short
from moextend.util import content

HEAD = """# The tasks that this workspace learns, in order. Edit it as you like; moextend bench add-task adds a task.
# Everything but the tasks was copied from the package's sequence '{name}'.
"""
FRESH = """# The tasks that this workspace learns, in order. Edit it as you like; moextend bench add-task adds a task.
# The training settings are a start and not tuned: choose them for this base.
sequence: {name}
version: 1
description: The tasks of this workspace.
base: {base}
{align}stages: []
retention: []   # text tasks that are only scored: what the base should not forget
train: {{steps: 200, batch_size: 16, learning_rate: 5.0e-4}}
"""
ALIGN = (
    "# The projector of {} is random until it is aligned; name a caption task here:\n"
    "# align: {{task: MY-CAPTIONS, steps: 300, batch_size: 16, learning_rate: 1.0e-3}}\n"
)
NONE: Mapping[str, str | None] = MappingProxyType({})
"""No encoder is named."""
ENCODERS = {"vision": "the image encoder", "audio": "the audio encoder"}
"""Key of `base` -> what it names."""


def new_text(path: Path, base: str | None = None, encoders: Mapping[str, str | None] = NONE) -> str:
    """YAML of a new sequence at `path`: the package's default without stages, or a plain one for another base.

    Args: encoders: key of `base` -> encoder.
    """
    default = content.package_folder("registry") / f"{DEFAULT}.yaml"
    named = {key: encoder for key, encoder in encoders.items() if encoder is not None}
    if base in (None, DEFAULT) and named in ({}, {"vision": DEFAULT}):
        return _emptied(default, path)
    fields = {"model": base or DEFAULT, **named}
    return FRESH.format(
        name=quoted(path.stem),
        base="{" + ", ".join(f"{key}: {quoted(value)}" for key, value in fields.items()) + "}",
        align="".join(ALIGN.format(ENCODERS[key]) for key in named),
    )


def new_path(name: str, workspace: Path, *, where: str) -> Path:
    """File of a new sequence. Raises InputError if the name is invalid or taken."""
    if not NAME.fullmatch(name) or name.endswith((".yaml", ".yml")):
        raise InputError(
            f"'{short(name, 60)}' is not a name.",
            where=where,
            hint="Use letters, digits, '-', '_', '.' and '+', starting with a letter or digit, and no file extension.",
        )
    known = content.names("registry", workspace)
    if name in known:
        raise InputError(
            f"a sequence '{name}' already exists ({known[name]}).", where=where, hint="Choose another name."
        )
    return workspace / "registry" / f"{name}.yaml"


def run_command(sequence: str) -> str:
    """Command that runs a sequence of the workspace."""
    return "moextend bench run" + ("" if sequence == OWN else f" {sequence}")


def _emptied(path: Path, to: Path) -> str:
    text = set_value(path.read_text(encoding="utf-8"), "stages", [], where=str(path))
    text = re.sub(r"^(#.*\n)+", "", text)
    text = re.sub(r"^sequence:.*$", f"sequence: {quoted(to.stem)}", text, flags=re.MULTILINE)
    text = re.sub(r"^description:.*$", "description: The tasks of this workspace.", text, flags=re.MULTILINE)
    text = re.sub(r"^version:.*$", "version: 1", text, flags=re.MULTILINE)
    # Tuned on the package's tasks, not on those of this workspace.
    tuned = r"^#.*bench tune.*\ntuned:\n(?: .*\n)+"
    text = re.sub(tuned, f"tuned_from: {path.stem}\n", text, flags=re.MULTILINE)
    return HEAD.format(name=path.stem) + text
