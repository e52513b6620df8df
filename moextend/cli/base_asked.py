"""The base of a command that also takes the folder of an extended model, with its encoders and extensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from moextend.cli import before
from moextend.cli.opening import device_of, opened
from moextend.errors import InputError
from moextend.extension.folder import is_extended

if TYPE_CHECKING:
    from moextend.export.auto import MoextendConfig
    from moextend.model.multimodal import MultimodalLM


@dataclass(frozen=True)
class BaseAsked:
    """A base as it is named on the command line, and how it is loaded."""

    name: str
    """What `moextend.load` takes, or the folder of an extended model (`moextend export --as moextend`)."""
    encoders: Mapping[str, str]
    """Modality -> its encoder. An extended model has its own."""
    projectors: Sequence[Path] | None
    dtype: str | None = None
    """Number type; None: float32, of an extended model that of the training."""
    attention: str | None = None
    device: str = "cpu"

    @cached_property
    def config(self) -> MoextendConfig | None:
        """Config of an extended model; None for every other base."""
        if not is_extended(self.name):
            return None
        from moextend.export.opening import read_config

        return read_config(Path(self.name))

    @cached_property
    def extensions(self) -> dict[Path, float]:
        """Folder -> strength of the extensions of an extended model, oldest first."""
        if self.config is None:
            return {}
        from moextend.export.opening import extension_folders

        found = extension_folders(self.config, Path(self.name))
        return {folder: self.config.strengths.get(name, 1.0) for name, folder in found.items()}

    def projector_folders(self) -> Sequence[Path]:
        """Folders of the projectors of the base's encoders."""
        if self.config is None:
            return self.projectors or ()
        from moextend.export.saving import PROJECTORS

        return [Path(self.name) / PROJECTORS / modality for modality in self.config.encoders]

    def check(self) -> set[str]:
        """Modalities with an encoder. Raises InputError if the base, an encoder or an option does not exist."""
        dtype = self.dtype or "float32"
        if self.config is None:
            before.check_model(self.name, self.encoders, self.projectors, dtype, self.attention, self.device)
            return set(self.encoders)
        given = [before.OPTIONS[name] for name in self.encoders] + ["--projector"] * bool(self.projectors)
        if given:
            raise InputError(
                f"'{self.name}' has its own encoders and projectors.", where=given[0], hint="Leave it out."
            )
        from moextend.export.opening import base_of

        base = base_of(self.config, Path(self.name))
        before.check_model(base, self.config.encoders, None, dtype, self.attention, self.device)
        return set(self.config.encoders)

    def open(self) -> MultimodalLM:
        """The base with its encoders and projectors, without extensions."""
        if self.config is None:
            dtype = self.dtype or "float32"
            return opened(self.name, self.encoders, self.projectors, dtype, self.attention, self.device, None)
        from moextend.export.opening import load_base
        from moextend.util.quiet import quiet_process

        quiet_process()
        return load_base(
            Path(self.name), self.config, dtype=self.dtype,
            device=device_of(self.device), attn_implementation=self.attention,
        )  # fmt: skip
