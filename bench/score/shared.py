"""Predictions of the base, which the runs of a workspace share: the first run that needs them makes them."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.errors import MoextendError
from moextend.util import files

if TYPE_CHECKING:
    from moextend.model.multimodal import MultimodalLM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedPredictions:
    """A folder of complete files of predictions, named like those of a run, each with its SHA-256.

    One process works on a file at a time; the others wait for it and copy the result.
    """

    folder: Path

    @staticmethod
    def of(model: MultimodalLM, weights: str, cache: Path) -> SharedPredictions:
        """Predictions of these weights on this kind of device with these versions: the last bits depend on them."""
        import torch

        kind = model.device.type
        device = torch.cuda.get_device_name(model.device) if kind == "cuda" else platform.machine()
        threads = torch.get_num_threads() if kind == "cpu" else 0
        key = files.digest(weights, kind, device, threads, torch.__version__)
        return SharedPredictions(cache / key)

    @contextmanager
    def __call__(self, path: Path) -> Iterator[None]:
        """Context that makes `path`, which may exist already; after the block the file must be complete."""
        from filelock import FileLock

        kept = self.folder / path.name
        with files.disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{path.name}.lock"):
            if not path.exists() and (data := self._read(kept)) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_bytes(path, data)
            yield
            if not kept.exists() and path.exists():
                self._keep(path, kept)

    def _read(self, kept: Path) -> bytes | None:
        """The bytes of a kept file; None without one, or if it is damaged, which removes it."""
        try:
            data = kept.read_bytes()
            if files.read_json(_card(kept)) == files.sha256(kept):
                return data
            log.warning("%s: damaged; it is made again.", kept)
        except FileNotFoundError:
            pass
        except (OSError, MoextendError) as error:
            log.warning("%s: cannot be used (%s); it is made again.", kept, error)
        kept.unlink(missing_ok=True)
        return None

    def _keep(self, path: Path, kept: Path) -> None:
        try:
            files.write_json(_card(kept), files.sha256(path))
            files.write_bytes(kept, path.read_bytes())
        except (OSError, MoextendError) as error:  # a full disk: the run has its own file
            log.warning("%s: not kept for other runs (%s).", kept, error)


def _card(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.sha256.json")
