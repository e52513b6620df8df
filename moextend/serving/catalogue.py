"""The models of a server: the base, its extensions, sets of them, and `auto`; with fingerprints of their weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import moextend
from moextend.errors import InputError
from moextend.extension import store, task_inference
from moextend.extension.card import read_extension
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach, reach, recipe
from moextend.moe.strengths import below_one, checked, named
from moextend.serving import errors

BASE, AUTO, PLUS, WEAK = "base", "auto", "+", ":"
"""Names with a meaning of their own; what joins the names of extensions that compute together; what comes before a
strength below 1."""


@dataclass(frozen=True)
class Known:
    """What is served at a moment; another thread may read it while the next one is made."""

    base: str
    """Fingerprint of the base."""
    sets: Mapping[str, tuple[str, ...]]
    """Extension -> itself with its co-active extensions, oldest first."""
    names: Mapping[str, str]
    """Extension -> name that clients give; two have the same while one replaces the other."""
    digests: Mapping[str, str]
    """Extension -> digest of its weights."""
    strengths: Mapping[str, float]
    """Extension -> strength, for those below 1."""
    leaving: frozenset[str]
    """Extensions that get no new requests."""
    created: Mapping[str, int]
    """Model -> Unix time since which it is served."""
    inference: task_inference.TaskInference | None = None
    """For `auto`; None: no extension has task statistics."""
    auto: str = ""
    """Fingerprint of `auto`: all that it can choose from, and its rule."""

    def names_of(self, model: str) -> tuple[str, ...] | None:
        """Extensions of a model's name, oldest first; None: inferred from each input. Raises ApiError 404."""
        known = self.models()
        if model in known:
            return known[model]
        wanted: set[str] = set()
        for part in model.split(PLUS):
            if part in (BASE, AUTO) or part not in known:
                raise errors.no_model(model, known)
            wanted.update(known[part] or ())
        return tuple(name for name in self.sets if name in wanted)

    def fingerprint(self, names: tuple[str, ...] | None) -> str:
        """Fingerprint of the weights that answer, as `moextend.active_fingerprint`; None: that of `auto`."""
        if names is None:
            return self.auto
        strengths = {name: self.strengths.get(name, 1.0) for name in names}
        computing = [named(self.digests[name], strength) for name, strength in strengths.items() if strength]
        return "-".join([self.base, *computing])

    def shown(self, name: str) -> str:
        """The model of extension `name`: what clients call it, with its strength if that is below 1."""
        own = self.names[name]
        return f"{own}{WEAK}{self.strengths[name]!r}" if name in self.strengths else own

    def extensions(self) -> dict[str, str]:
        """Model of an extension that gets new requests -> the extension."""
        return {
            self.shown(name): name for name, own in self.sets.items() if not self.leaving.intersection(own)
        }

    def models(self) -> dict[str, tuple[str, ...] | None]:
        """Model -> its extensions."""
        own = {model: self.sets[name] for model, name in self.extensions().items()}
        return {BASE: (), **own} | ({AUTO: None} if self.inference else {})


class Catalogue:
    """A model whose extensions change while it is served; only the engine's thread calls methods that change it.

    Extensions keep the strengths that they have in `model`.
    """

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model
        self._created: dict[str, int] = {}
        self._inferred: frozenset[str] = frozenset()
        self._digests: dict[str, str] = {}
        scope = attach.scope_of(model.lm)
        self._strengths, self._names = dict(scope.strengths), {name: name for name in scope.known}
        for name in scope.known:
            check_name(name)
        reach.check(model.lm)
        self.known = self._read()

    def attach(
        self, folder: Path, name: str | None = None, strength: float | None = None, *, replace: bool = False
    ) -> str:
        """Loads the extension in `folder`, and returns the name of its model.

        Args:
            name: what clients call it; None: its own name.
            strength: None: that of the extension that it replaces, or else 1.
            replace: whether `name` may be that of another extension, which then gets no new requests.

        Raises:
            InputError: as `moextend.load_extension`; or the name is taken, or one that a server cannot use; or the
                extension that it replaces is needed by another one; or it is stronger than one of its co-active ones.
        """
        own = read_extension(folder).name
        called = own if name is None else name
        check_name(called)
        old = next((each for each in self._getting() if self._names[each] == called), None)
        if old is not None and not (replace and name is not None):
            raise InputError(
                f"the server already has an extension '{called}'.",
                where=str(folder),
                hint=f'To replace it, give its name: "name": "{called}". To serve both, give another one.',
            )
        if old is not None:
            self._check_free(old)
            strength = self._strengths.get(old, 1.0) if strength is None else strength
        while own in self.known.sets:  # another version of it is loaded
            own += "_"
        given = checked({own: 1.0 if strength is None else strength})
        moextend.load_extension(self.model, folder, name=own)
        self._names[own] = called
        known = {each: self._strengths.get(each, 1.0) for each in self.known.sets}
        try:
            reach.check(self.model.lm)
            attach.check_together(self.model.lm, known | given)
            if old in attach.scope_of(self.model.lm).coactive[own]:
                raise InputError(
                    f"it was made with '{called}' active and needs it, so it cannot replace it.",
                    where=str(folder),
                    hint="Give another name.",
                )
        except InputError:
            self.detach(own)
            raise
        self._strengths |= below_one(given, [own])
        if old is not None:
            self._created.pop(self.known.shown(old), None)
        self.known = self._read(self.known.leaving | ({old} if old else set()))
        return self.known.shown(own)

    def leave(self, model: str) -> str:
        """Ends new requests for the extension with this model, and returns its name.

        Raises an error if it cannot be unloaded.
        """
        known = self.known
        if model not in known.extensions():
            raise errors.no_model(model, known.extensions())
        name = known.extensions()[model]
        self._check_free(name)
        self.known = self._read(known.leaving | {name})
        return name

    def _getting(self) -> list[str]:
        """Extensions that get new requests."""
        return [name for name in self.known.sets if name not in self.known.leaving]

    def _check_free(self, name: str) -> None:
        """Raises InputError if another extension needs this one."""
        needed = [
            self._names[other] for other, own in self.known.sets.items() if name in own and other != name
        ]
        if needed:
            raise InputError(
                f"extension '{needed[-1]}' was made with '{self._names[name]}' active and needs it.",
                where=f"detach '{self._names[name]}'",
                hint=f"Detach first, in this order: {', '.join(reversed(needed))}.",
            )

    def detach(self, name: str) -> None:
        """Unloads extension `name`, which no row reaches any more."""
        moextend.unload(self.model, name)
        self._strengths.pop(name, None)
        self._digests.pop(name, None)
        self._names.pop(name, None)
        self.known = self._read(self.known.leaving - {name})

    def _read(self, leaving: frozenset[str] = frozenset()) -> Known:
        scope = attach.scope_of(self.model.lm)
        scope.active, scope.strengths, self.model.choose = (), dict(self._strengths), None
        sets = {
            name: tuple(other for other in scope.known if other == name or other in scope.coactive[name])
            for name in scope.known
        }
        for name in sets.keys() - self._digests.keys():
            self._digests[name] = store.digest_of(self.model, name)
        found = Known(
            self.model.base_fingerprint(), sets, dict(self._names), dict(self._digests), scope.strengths, leaving,
            self._created,
        )  # fmt: skip
        inference = self._inference([name for name in sets if name not in leaving and sets[name] == (name,)])
        if inference is not None:
            parts = [found.fingerprint(tuple(inference.statistics)), inference.fingerprint()]
            found = replace(found, inference=inference, auto="-".join(parts))
        self._created = {name: self._created.get(name, int(time.time())) for name in found.models()}
        return replace(found, created=self._created)

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
    """Raises InputError for a name that no extension can have, and for that of the base."""
    recipe.check_name(name)
    if name == BASE:
        raise InputError(
            f"'{BASE}' is the model without extensions.",
            where="serve",
            hint="Give it another name: -e NAME=FOLDER.",
        )
