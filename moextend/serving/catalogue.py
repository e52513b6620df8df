"""The models of a server: the base, its extensions, sets of them, and `auto`; with fingerprints of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import moextend
from moextend.errors import InputError
from moextend.extension import store, task_inference
from moextend.extension.card import read_extension
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach, reach, recipe
from moextend.moe.strengths import checked, named
from moextend.serving import errors

BASE, AUTO, PLUS, WEAK = "base", "auto", "+", ":"
"""Names with a meaning of their own; what joins the names of extensions that compute together; what comes before a
strength below 1."""


@dataclass(frozen=True)
class Served:
    """An extension that is served."""

    name: str
    """What clients call it; two have the same while one replaces the other."""
    strength: float
    digest: str
    """Of its weights."""
    together: tuple[str, ...] = ()
    """Itself with its co-active extensions, oldest first."""
    leaves: bool = False
    """Whether it gets no new requests."""

    @property
    def model(self) -> str:
        """Its model: what clients call it, with its strength if that is below 1."""
        return self.name if self.strength == 1 else f"{self.name}{WEAK}{self.strength!r}"


@dataclass(frozen=True)
class Known:
    """What is served at a moment; another thread may read it while the next one is made."""

    base: str
    """Fingerprint of the base."""
    served: dict[str, Served]
    """Extensions, oldest first."""
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
        return tuple(name for name in self.served if name in wanted)

    def fingerprint(self, names: tuple[str, ...] | None) -> str:
        """Fingerprint of the weights that answer, as `moextend.active_fingerprint`; None: that of `auto`."""
        if names is None:
            return self.auto
        found = [self.served[name] for name in names]
        return "-".join([self.base, *(named(one.digest, one.strength) for one in found if one.strength)])

    @property
    def leaving(self) -> list[str]:
        """Extensions that get no new requests, the youngest first: it may need an older one."""
        return [name for name, one in reversed(self.served.items()) if one.leaves]

    def extensions(self) -> dict[str, str]:
        """Model of an extension that gets new requests -> the extension."""
        leaving = {*self.leaving}
        return {
            one.model: name for name, one in self.served.items() if not leaving.intersection(one.together)
        }

    def models(self) -> dict[str, tuple[str, ...] | None]:
        """Model -> its extensions."""
        own = {model: self.served[name].together for model, name in self.extensions().items()}
        return {BASE: (), **own} | ({AUTO: None} if self.inference else {})


class Catalogue:
    """A model whose extensions change while it is served; only the engine's thread calls methods that change it.

    Extensions keep the strengths that they have in `model`.
    """

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model
        self._inferred: frozenset[str] = frozenset()
        scope = attach.scope_of(model.lm)
        strengths = dict(scope.strengths)
        for name in scope.known:
            check_name(name)
        reach.check(model.lm)
        self.known = self._read(
            {
                name: Served(name, strengths.get(name, 1.0), store.digest_of(model, name))
                for name in scope.known
            }
        )

    def attach(
        self, folder: Path, name: str | None = None, strength: float | None = None, *, replace: bool = False
    ) -> str:
        """Loads the extension in `folder`, and returns the name of its model.

        Args:
            name: what clients call it; None: its own name.
            strength: None: that of the extension that it replaces, or else 1.
            replace: whether it may be that of another extension, which then gets no new requests.

        Raises:
            InputError: as `moextend.load_extension`; or the name is taken, or one that a server cannot use; or the
                extension that it replaces is needed by another one; or it is stronger than one of its co-active ones.
        """
        own, served = read_extension(folder).name, self.known.served
        called = own if name is None else name
        check_name(called)
        old = next((each for each, one in served.items() if one.name == called and not one.leaves), None)
        if old is not None and not replace:
            raise InputError(
                f"the server already has an extension '{called}'.",
                where=str(folder),
                hint="Give another name.",
            )
        if old is not None:
            self._check_free(old)
        if strength is None:
            strength = 1.0 if old is None else served[old].strength
        strength = checked({called: strength})[called]
        while own in served:  # another version of it is loaded
            own += "_"
        moextend.load_extension(self.model, folder, name=own)
        try:
            reach.check(self.model.lm)
            strengths = {each: one.strength for each, one in served.items()}
            attach.check_together(self.model.lm, strengths | {own: strength})
            if old in attach.scope_of(self.model.lm).coactive[own]:
                raise InputError(
                    f"it was made with '{called}' active and needs it, so it cannot replace it.",
                    where=str(folder),
                    hint="Give another name.",
                )
            if gone := {*self.known.leaving}.intersection(attach.scope_of(self.model.lm).coactive[own]):
                raise InputError(
                    f"it was made with '{served[min(gone)].name}' active, which is being detached.",
                    where=str(folder),
                    hint="Attach that one again first.",
                )
        except InputError:
            self.detach(own)
            raise
        made = Served(called, strength, store.digest_of(self.model, own))
        self.known = self._read({**self._leaving(old), own: made})
        return made.model

    def leave(self, model: str) -> None:
        """Ends new requests for the extension with this model. Raises an error if it cannot be unloaded."""
        known = self.known.extensions()
        if model not in known:
            raise errors.no_model(model, known)
        self._check_free(known[model])
        self.known = self._read(self._leaving(known[model]))

    def _leaving(self, name: str | None) -> dict[str, Served]:
        """The extensions, of which one gets no new requests."""
        served = self.known.served
        return {each: replace(one, leaves=True) if each == name else one for each, one in served.items()}

    def _check_free(self, name: str) -> None:
        """Raises InputError if another extension needs this one."""
        served = self.known.served
        needed = [
            one.name
            for other, one in served.items()
            if name in one.together and other != name and not one.leaves
        ]
        if needed:
            raise InputError(
                f"extension '{needed[-1]}' was made with '{served[name].name}' active and needs it.",
                where=f"detach '{served[name].name}'",
                hint=f"Detach first, in this order: {', '.join(reversed(needed))}.",
            )

    def detach(self, name: str) -> None:
        """Unloads extension `name`, which no row reaches any more."""
        moextend.unload(self.model, name)
        self.known = self._read({each: one for each, one in self.known.served.items() if each != name})

    def _read(self, served: Mapping[str, Served]) -> Known:
        """What is served, with these extensions; none of them is active in the model outside of a batch."""
        scope = attach.scope_of(self.model.lm)
        strengths = {name: one.strength for name, one in served.items() if one.strength < 1}
        scope.active, scope.strengths, self.model.choose = (), strengths, None
        found = {}
        for name in scope.known:
            together = tuple(other for other in scope.known if other == name or other in scope.coactive[name])
            found[name] = replace(served[name], together=together)
        known = Known(self.model.base_fingerprint(), found)
        inference = self._inference(
            [n for n, one in found.items() if not one.leaves and one.together == (n,)]
        )
        if inference is None:
            return known
        parts = [known.fingerprint(tuple(inference.statistics)), inference.fingerprint()]
        return replace(known, inference=inference, auto="-".join(parts))

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
