"""The spec of a stage that was trained elsewhere: a checkpoint that `moextend bench score` scores."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from moextend.bench.scoring import OPENAI, Backend
from moextend.errors import InputError
from moextend.extension.folder import is_extended
from moextend.model import sources
from moextend.util import bounded_yaml, files, spec
from moextend.util.lookup import Attention, Dtype
from moextend.util.spec import Spec, unset

ADAPTER = "adapter_config.json"
"""The file of an adapter of peft in its folder."""
_REVISION = re.compile(r"(?P<name>[^@]+/[^@]+)@(?P<revision>[\w./-]+)")


class Checkpoint(Spec):
    """A model that was trained elsewhere: a folder saved by transformers, a hub id, an adapter of peft, or an extended
    model."""

    model: str = Field(min_length=1)
    """A folder saved by transformers, or a hub id. Of an adapter: its base; of a server: the model's name there."""
    server: str | None = unset(None)
    """Address of a server of the OpenAI protocol, which makes the prompts; `processor` names the model that it serves,
    for its tokenizer."""
    adapter: str | None = unset(None)
    """Folder of a peft adapter on `model`."""
    revision: str | None = unset(None)
    """Revision of a hub model."""
    processor: str | None = unset(None)
    """Folder or hub id of the processor or tokenizer; null: that of the checkpoint."""
    dtype: Dtype = unset("auto")
    """Number type of the weights; auto: the checkpoint's own."""
    attn_implementation: Attention | None = unset(None)
    """eager, sdpa or flash_attention_2; null: transformers' choice."""
    trust_remote_code: bool = unset(False)
    """Whether code that comes with the checkpoint may run."""
    stated: dict[str, str | int | float] = unset({})
    """What is known of its training, such as command, hours, tokens and data: shown as stated, not measured."""

    @model_validator(mode="before")
    @classmethod
    def _names_a_base(cls, values: Any) -> Any:
        """The base of an adapter is the one that its config names, unless `model` says otherwise."""
        if isinstance(values, dict) and values.get("adapter") and not values.get("model"):
            record = files.read_json(Path(values["adapter"]) / ADAPTER)
            named = {"model": record.get("base_model_name_or_path"), "revision": record.get("revision")}
            values = {**{key: one for key, one in named.items() if one}, **values}
        return values

    @property
    def is_extended(self) -> bool:
        """Whether it is the folder of an extended model (`moextend export --as moextend`)."""
        return self.server is None and is_extended(self.model)

    @property
    def word(self) -> str:
        """What names it on the command line."""
        if self.server is not None:
            return f"{self.server}#{self.model}"
        return self.adapter or (f"{self.model}@{self.revision}" if self.revision else self.model)

    def folders(self) -> list[Path]:
        """The local folders that it is read from."""
        named = filter(None, (None if self.server else self.model, self.adapter, self.processor))
        return [Path(name) for name in dict.fromkeys(named) if files.exists(name)]

    def settings(self) -> dict[str, Any]:
        """What its answers depend on besides its files."""
        served = {"served": True} if self.server else {}
        return self.model_dump(include={"revision", "dtype", "attn_implementation"}) | served

    def check(self, where: str) -> Self:
        """The checkpoint with absolute paths; InputError if something that it names cannot be one."""
        if self.server is not None:
            return self._served(where)
        source = sources.find(self.model, where=where)
        if isinstance(source, Path):
            if sources.gguf_file(source) is not None:
                raise InputError("is a .gguf file.", where=where, hint="Name a folder saved by transformers.")
            sources.check_folder(source, self.model)
            if not self.is_extended and not any(source.glob("*.safetensors")):
                raise InputError(
                    f"'{self.model}' holds no .safetensors file.", where=where,
                    hint="Save the model by save_pretrained, and name its folder.",
                )  # fmt: skip
        if self.adapter is not None and not (Path(self.adapter) / "adapter_model.safetensors").is_file():
            raise InputError(
                f"'{self.adapter}' holds no adapter_model.safetensors.", where=where,
                hint="Save the adapter by save_pretrained of peft, and name its folder.",
            )  # fmt: skip
        return self._placed("model", "adapter", "processor")

    def _served(self, where: str) -> Self:
        backend = spec.parse(Backend, {"backend": OPENAI, "server": self.server}, where=where)
        if self.adapter is not None or self.processor is None:
            what = "takes no adapter" if self.adapter else "needs the tokenizer of the model that it serves"
            hint = (
                "Name only one of them."
                if self.adapter
                else "Name the folder or hub id of that model: processor."
            )
            raise InputError(f"a server {what}.", where=where, hint=hint)
        return self._placed("processor").model_copy(update={"server": backend.server})

    def _placed(self, *keys: str) -> Self:
        """With absolute paths of what is here."""
        named = {key: getattr(self, key) for key in keys}
        here = {key: str(Path(name).resolve()) for key, name in named.items() if name and files.exists(name)}
        return self.model_copy(update=here)


def parse_stage(text: str, where: str = "--stage", **settings: Any) -> Checkpoint:
    """A stage from a word of the command line: a folder, a hub id, also with a revision (me/model@v2), or URL#MODEL."""
    if re.match("https?://", text):
        server, _, model = text.partition("#")
        if not model:
            raise InputError(
                "names no model of the server.", where=where, hint=f"Write: {server}#MODEL (its name in /models)."
            )  # fmt: skip
        found = spec.parse(Checkpoint, {"server": server, "model": model, **settings}, where=where)
        return found.check(where)
    if (Path(text) / "extension.json").is_file():
        raise InputError(
            f"'{text}' is an extension without its base.", where=where,
            hint=f"Write both to a folder: moextend export {text} --base BASE --as moextend --out FOLDER.",
        )  # fmt: skip
    if (Path(text) / ADAPTER).is_file():
        return spec.parse(Checkpoint, {"adapter": text, **settings}, where=where).check(where)
    named = _REVISION.fullmatch(text)
    if named and not files.exists(text):
        settings = {**settings, "revision": named["revision"]}
        text = named["name"]
    return spec.parse(Checkpoint, {"model": text, **settings}, where=where).check(where)


def read_stages(path: Path, **settings: Any) -> list[Checkpoint]:
    """Stages from a YAML list of words as in `parse_stage`, or of mappings; relative paths start at its folder."""
    found = []
    value = bounded_yaml.load(bounded_yaml.read_text(path), where=str(path))
    if not isinstance(value, list):
        raise InputError("holds no list of stages.", where=str(path), hint="Write one per line: - FOLDER")
    for number, each in enumerate(value):
        where = f"{path}[{number}]"
        if isinstance(each, str):
            found.append(parse_stage(_beside(each, path), where, **settings))
            continue
        named = {key: _beside(one, path) for key, one in each.items()} if isinstance(each, dict) else each
        found.append(spec.parse(Checkpoint, {**settings, **named}, where=where).check(where))
    return found


def complete_in(folder: Path, pattern: str, settled: float) -> list[Path]:
    """Checkpoints in a folder that a trainer writes to, in the order of the numbers in their names.

    Args:
        pattern: of their names, as in a shell.
        settled: seconds in which nothing in a complete one has changed.
    """
    found = [path for path in folder.glob(pattern) if path.is_dir() and _is_complete(path, settled)]
    return sorted(found, key=lambda path: ([int(n) for n in re.findall("[0-9]+", path.name)], path.name))


def _is_complete(folder: Path, settled: float) -> bool:
    """Whether a folder has a config, all shards of its weights, and no file that changed just now."""
    try:
        index = folder / "model.safetensors.index.json"
        shards = (
            {*files.read_json(index)["weight_map"].values()} if index.is_file() else {"model.safetensors"}
        )
        wanted = {"config.json", *shards}
        if (folder / ADAPTER).is_file():
            wanted = {"adapter_model.safetensors"}
        there = {path.name: path.stat().st_mtime for path in folder.iterdir() if path.is_file()}
    except (OSError, InputError, KeyError, TypeError, AttributeError):  # it is being written, or removed
        return False
    return wanted <= there.keys() and time.time() - max(there.values()) >= settled


def _beside(name: Any, path: Path) -> Any:
    """A path next to the file if there is one, else the name as it is."""
    return str(path.parent / name) if isinstance(name, str) and files.exists(path.parent / name) else name
