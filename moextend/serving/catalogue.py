"""The models of a server: the base, its extensions, sets of them, and `auto`; with fingerprints of their weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import moextend
from moextend.errors import InputError
from moextend.extension import store, task_inference
from moextend.extension.card import read_extension
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach, reach
from moextend.serving import errors

BASE, AUTO, PLUS = "base", "auto", "+"
"""Names with a meaning of their own, and what joins the names of extensions that compute together."""


@dataclass(frozen=True)
class Known:
    """What is served at a moment; another thread may read it while the next one is made."""

    base: str
    """Fingerprint of the base."""
    sets: Mapping[str, tuple[str, ...]]
    """Extension -> itself with its co-active extensions, oldest first."""
    digests: Mapping[str, str]
    """Extension -> digest of its weights."""
    created: Mapping[str, int]
    """Model -> Unix time since which it is served."""
    inference: task_inference.TaskInference | None = None
    """For `auto`; None: no extension has task statistics."""
    auto: str = ""
    """Fingerprint of `auto`: all that it can choose from, and its rule."""
    leaving: frozenset[str] = field(default_factory=frozenset)
    """Extensions that get no new requests."""

    def names_of(self, model: str) -> tuple[str, ...] | None:
        """Extensions of a model's name, oldest first; None: inferred from each input. Raises ApiError 404."""
        if model == BASE:
            return ()
        if model == AUTO and self.inference is not None:
            return None
        parts = model.split(PLUS)
        open_ = {name: own for name, own in self.sets.items() if not self.leaving.intersection(own)}
        if any(part not in open_ for part in parts):
            raise errors.no_model(model, self.created)
        wanted = {name for part in parts for name in open_[part]}
        return tuple(name for name in self.sets if name in wanted)

    def fingerprint(self, names: tuple[str, ...] | None) -> str:
        """Fingerprint of the weights that answer, as `moextend.active_fingerprint`; None: that of `auto`."""
        return self.auto if names is None else "-".join([self.base, *(self.digests[name] for name in names)])

    def models(self) -> dict[str, tuple[str, ...] | None]:
        """Model -> its extensions, for a list."""
        found: dict[str, tuple[str, ...] | None] = {BASE: ()}
        found |= {name: own for name, own in self.sets.items() if not self.leaving.intersection(own)}
        return found | ({AUTO: None} if self.inference else {})


class Catalogue:
    """A model whose extensions change while it is served; only the engine's thread calls methods that change it."""

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model
        self._created: dict[str, int] = {}
        self._inferred: frozenset[str] = frozenset()
        for name in attach.scope_of(model.lm).known:
            check_name(name)
        reach.check(model.lm)
        self.known = self._read()

    def attach(self, folder: Path, name: str | None = None) -> str:
        """Loads the extension in `folder`, and returns its name.

        Raises:
            InputError: as `moextend.load_extension`; or the extension has another name than `name`, or one that a
                server cannot use.
        """
        card = read_extension(folder)
        check_name(card.name)
        if name is not None and name != card.name:
            raise InputError(
                f"its name is '{card.name}', not '{name}'.", where=str(folder), hint="Give its name, or none."
            )
        moextend.load_extension(self.model, folder)
        reach.check(self.model.lm)
        self.known = self._read(self.known.leaving)
        return card.name

    def leave(self, name: str) -> None:
        """Ends new requests for extension `name`. Raises an error if it cannot be unloaded."""
        if name not in self.known.sets:
            raise errors.no_model(name, self.known.sets)
        needed = [other for other, own in self.known.sets.items() if name in own and other != name]
        if needed:
            raise InputError(
                f"extension '{needed[-1]}' was made with '{name}' active and needs it.",
                where=f"detach '{name}'",
                hint=f"Detach first, in this order: {', '.join(reversed(needed))}.",
            )
        self.known = self._read(self.known.leaving | {name})

    def detach(self, name: str) -> None:
        """Unloads extension `name`, which no row reaches any more."""
        moextend.unload(self.model, name)
        self._created.pop(name, None)
        self.known = self._read(self.known.leaving - {name})

    def _read(self, leaving: frozenset[str] = frozenset()) -> Known:
        scope = attach.scope_of(self.model.lm)
        scope.active, self.model.choose = (), None
        sets = {
            name: tuple(other for other in scope.known if other == name or other in scope.coactive[name])
            for name in scope.known
        }
        old = self.known.digests if hasattr(self, "known") else {}
        digests = {name: old.get(name) or store.digest_of(self.model, name) for name in scope.known}
        found = Known(self.model.base_fingerprint(), sets, digests, self._created, leaving=leaving)
        inference = self._inference([name for name in sets if name not in leaving and sets[name] == (name,)])
        if inference is not None:
            parts = [found.fingerprint(tuple(inference.statistics)), inference.fingerprint()]
            found = replace(found, inference=inference, auto="-".join(parts))
        for name in found.models():
            self._created.setdefault(name, int(time.time()))
        return replace(found, created={name: self._created[name] for name in found.models()})

    def _inference(self, names: list[str]) -> task_inference.TaskInference | None:
        """Inference among the extensions that have task statistics; None without any."""
        folders = {name: store.handle(self.model, name).folder for name in names}
        known = {
            name: task_inference.read(folder)
            for name, folder in folders.items()
            if folder is not None and task_inference.find(folder) is not None
        }
        found = task_inference.TaskInference(self.model, known, warned=self._inferred) if known else None
        self._inferred = frozenset(known)
        return found


def check_name(name: str) -> None:
    """Raises InputError for an extension's name that means another model of a server."""
    if name in (BASE, AUTO) or PLUS in name or "/" in name:
        raise InputError(
            f"a server cannot use the name '{name}' of an extension.",
            where="serve",
            hint=f"'{BASE}' and '{AUTO}' are models of their own, and '{PLUS}' joins names. Make it with another name.",
        )
