"""Predictions that the runs of a workspace share: the first run that needs them makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.store import Damaged, Store, numerics
from moextend.util import files

if TYPE_CHECKING:
    from moextend.model.multimodal import MultimodalLM


@dataclass(frozen=True)
class SharedPredictions:
    """Complete files of predictions in the store, each a node.

    One process works on a file at a time; the others wait for it and copy the result.
    """

    store: Store
    key: str
    """Digest of what answers besides the task: weights, method, device, versions."""
    about: str = ""
    """That in words."""
    on_wait: Callable[[], None] | None = None

    @staticmethod
    def of(
        model: MultimodalLM,
        weights: str,
        store: Store,
        *,
        about: str,
        method: Any = None,
        on_wait: Callable[[], None] | None = None,
    ) -> SharedPredictions:
        """Predictions of these weights on this kind of device with these versions: the last bits depend on them.

        `method`: what answers besides the weights, as JSON; None: the base alone.
        """
        key = files.digest(weights, method, numerics(model.device))
        return SharedPredictions(store, key, about, on_wait)

    @contextmanager
    def __call__(self, path: Path) -> Iterator[None]:
        """Context that makes `path`, which may exist already; after the block the file must be complete."""
        node = self.store.node("predictions", files.digest(self.key, path.name))
        with node.lease(self.on_wait):
            if not path.exists() and node.card():
                with suppress(Damaged):
                    node.copy(path.name, path)
            yield
            if path.exists() and not node.card():
                node.put({path.name: path}, about=f"{self.about}: {path.stem.rpartition('-')[0]}")
