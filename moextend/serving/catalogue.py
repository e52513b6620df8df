"""The models of a server: the base, its extensions, sets of them, and `auto`; with fingerprints of their weights."""

from __future__ import annotations

import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import moextend
from moextend.errors import InputError
from moextend.export.served import BASE, PLUS, WEAK
from moextend.extension import store, task_inference
from moextend.extension.card import read_extension
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.moe.strengths import checked, named
from moextend.serving.protocol import no_model

AUTO = "auto"
"""The model whose extension is inferred from each prompt."""


@dataclass(frozen=True)
class Served:
    """An extension that is served."""

    called: str
    """Its name for clients."""
    strength: float
    digest: str
    """Of its weights."""
    together: tuple[str, ...]
    """Names in the model: its co-active extensions, oldest first, and itself."""
    tasks: task_inference.TaskStatistics | None
    """For `auto`; None: it is not chosen."""

    @property
    def model(self) -> str:
        """Its model: its name for clients, with its strength if that is below 1."""
        return self.called if self.strength == 1 else f"{self.called}{WEAK}{self.strength!r}"


@dataclass(frozen=True)
class Known:
    """What is served at a moment."""

    base: str
    """Fingerprint of the base."""
    served: dict[str, Served]
    """Extensions by their names in the model, oldest first."""
    inference: task_inference.TaskInference | None = None
    """For `auto`; None: no extension has task statistics."""
    auto: str = ""
    """Fingerprint of `auto`: all that it can choose from, and its rule."""

    @classmethod
    def of(cls, model: MultimodalLM, served: dict[str, Served], warned: Container[str] = ()) -> Known:
        """What is served with these extensions; `warned`: those of too few held-out inputs that were named before."""
        known = cls(model.base_fingerprint(), served)
        tasks = {name: one.tasks for name, one in served.items() if one.tasks is not None}
        if not tasks:
            return known
        inference = task_inference.TaskInference(model, tasks, warned=warned)
        return replace(
            known,
            inference=inference,
            auto="-".join([known.fingerprint(tuple(tasks)), inference.fingerprint()]),
        )

    def names_of(self, model: str) -> tuple[str, ...] | None:
        """Extensions of a model's name, oldest first; None: inferred from each input. Raises ApiError 404."""
        known = self.models()
        if model in known:
            return known[model]
        wanted: set[str] = set()
        for part in model.split(PLUS):
            if part in (BASE, AUTO) or part not in known:
                raise no_model(model, known)
            wanted.update(known[part] or ())
        return tuple(name for name in self.served if name in wanted)

    def fingerprint(self, names: tuple[str, ...] | None) -> str:
        """Fingerprint of the weights that answer, as `moextend.active_fingerprint`; None: that of `auto`."""
        if names is None:
            return self.auto
        found = [self.served[name] for name in names]
        return "-".join([self.base, *(named(one.digest, one.strength) for one in found if one.strength)])

    def shown(self, names: Iterable[str]) -> list[str]:
        """The models of extensions."""
        return [self.served[name].model for name in names]

    def models(self) -> dict[str, tuple[str, ...] | None]:
        """Model -> its extensions."""
        own = {one.model: one.together for one in self.served.values()}
        return {BASE: (), **own} | ({AUTO: None} if self.inference else {})


class Catalogue:
    """A model whose extensions change while it is served; only the engine's thread calls methods that change it.

    Extensions keep the strengths that they have in `model`.
    """

    def __init__(self, model: MultimodalLM) -> None:
        self.model = model
        scope = attach.scope_of(model.lm)
        self.known = Known(model.base_fingerprint(), {})
        self._serve({name: self._read(name, name, scope.strengths.get(name, 1.0)) for name in scope.known})

    def attach(
        self, folder: Path, called: str | None = None, strength: float | None = None, *, replace: bool = False
    ) -> str:
        """Loads the extension in `folder`, and returns the name of its model.

        Args:
            called: its name for clients; None: its own name.
            strength: None: that of the extension that it replaces, or else 1.
            replace: whether it may have the name of another extension, which is then unloaded.

        Raises:
            InputError: as `moextend.load_extension` and `moextend.unload`; or the name is taken, or one that a server
                cannot use; or it is stronger than one of its co-active ones. The served extensions stay the same.
        """
        served, lm = self.known.served, self.model.lm
        called = read_extension(folder).name if called is None else called
        if called == BASE:
            hint = "Give it another name: -e NAME=FOLDER."
            raise InputError(f"'{BASE}' is the model without extensions.", where=str(folder), hint=hint)
        old = next((name for name, one in served.items() if one.called == called), None)
        if strength is None:
            strength = 1.0 if old is None else served[old].strength
        strength = checked({called: strength})[called]
        name = f"{called}-{secrets.token_hex(4)}" if replace and called in served else called
        moextend.load_extension(self.model, folder, name=name)
        try:
            attach.check_together(lm, {each: one.strength for each, one in served.items()} | {name: strength})
            made = self._read(name, called, strength)
            if old is not None:
                moextend.unload(self.model, old)
        except BaseException:
            moextend.unload(self.model, name)
            self._serve(served)
            raise
        self._serve({**{each: one for each, one in served.items() if each != old}, name: made})
        return made.model

    def detach(self, model: str) -> None:
        """Unloads the extension with this model.

        Raises ApiError 404 for an unknown one, and InputError if another extension needs it.
        """
        served = self.known.served
        name = next((name for name, one in served.items() if one.model == model), None)
        if name is None:
            raise no_model(model, [one.model for one in served.values()])
        moextend.unload(self.model, name)
        self._serve({each: one for each, one in served.items() if each != name})

    def _read(self, name: str, called: str, strength: float) -> Served:
        """The loaded extension `name`."""
        coactive, tasks = attach.scope_of(self.model.lm).coactive[name], None
        folder = store.handle(self.model, name).folder
        if folder is not None and not coactive and task_inference.find(folder) is not None:
            tasks = task_inference.read(folder)
        return Served(called, strength, store.digest_of(self.model, name), (*coactive, name), tasks)

    def _serve(self, served: dict[str, Served]) -> None:
        """Serves these extensions; none of them is active in the model outside of a batch."""
        scope, before = attach.scope_of(self.model.lm), self.known.inference
        strengths = {name: one.strength for name, one in served.items() if one.strength < 1}
        scope.active, scope.strengths, self.model.choose = (), strengths, None
        self.known = Known.of(self.model, served, warned=before.statistics if before else ())
