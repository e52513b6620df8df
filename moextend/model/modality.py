"""Modalities of a model: each has a frozen encoder, a projector and a placeholder id."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.data.images import ImageRef
from moextend.data.media import MediaRef
from moextend.errors import InputError
from moextend.model.fingerprint import tensors_digest
from moextend.model.messages import no_encoder
from moextend.util import foreign

IMAGE = -200
"""Placeholder id of one visual token in `input_ids`; other modalities have lower ids."""

Features = Tensor | Sequence[Tensor]
"""Features [tokens, width] of each of some media; of equal numbers of tokens also one tensor [media, tokens, width]."""
See = Callable[[Sequence[Any]], Features]
"""Media of one modality -> their features."""
Sources = Mapping[str, See]
"""Modality -> source of its features."""


class Encoder(Protocol):
    """A frozen encoder of one modality; a `torch.nn.Module`."""

    @property
    def width(self) -> int:
        """Width of a token."""
        ...

    @property
    def tokens(self) -> int | None:
        """Number of tokens of every medium; None: it depends on the medium."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Name, source and pre-processing, as JSON values."""
        ...

    def tokens_of(self, medium: Any) -> int:
        """Number of tokens of a medium, at least 1; decodes nothing."""
        ...

    def __call__(self, media: Sequence[Any]) -> Features:
        """Features of media, float32."""
        ...

    def fingerprint(self) -> str:
        """Identifies weights, architecture and pre-processing."""
        ...


def tokens_of(encoder: Encoder, medium: MediaRef) -> int:
    """Number of tokens of a medium. Raises InputError if it cannot be read."""
    fixed = encoder.tokens
    if fixed is not None:
        return fixed
    with _naming([medium]):
        return encoder.tokens_of(medium)


@torch.no_grad()
def encoded(encoder: Encoder, media: Sequence[Any]) -> Features:
    """Features of media by the encoder.

    Where the number of tokens depends on the medium, each is encoded alone: the last bits of a product depend on the
    shape of the batch, and the features of a medium must not depend on its neighbours.

    Raises:
        InputError: a medium cannot be read or encoded, or the encoder gives another number of tokens than it states.
    """
    if encoder.tokens is not None:
        with _naming(media):
            return encoder(media)
    found = [_alone(encoder, medium) for medium in media]
    for medium, one in zip(media, found, strict=True):
        stated = (tokens_of(encoder, medium), encoder.width)
        if one.shape != stated:
            raise InputError(
                f"the encoder returns features of shape {tuple(one.shape)}, but declares {stated}.",
                where=medium.place,
                hint="Correct the encoder: tokens_of, width and its features must agree.",
            )
    return found


def _alone(encoder: Encoder, medium: Any) -> Tensor:
    """Features [tokens, width] of one medium."""
    with _naming([medium]):
        return encoder([medium])[0].float()


@contextmanager
def _naming(media: Sequence[Any]) -> Iterator[None]:
    """Context in which an exception of a reference or an encoder becomes an InputError that names the medium."""
    try:
        yield
    except Exception as error:
        if foreign.is_known(error):
            raise
        bad = media[0] if len(media) == 1 else next(filter(_unreadable, media), media[0])
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
        raise InputError(
            f"{bad.noun} cannot be encoded ({reason}).",
            where=bad.place,
            hint=f"Correct or remove it, or correct the modality '{bad.modality}'.",
        ) from error


def _unreadable(medium: MediaRef) -> bool:
    try:
        medium.open()
    except Exception:
        return True
    return False


def packed(features: Features) -> Tensor:
    """Features of some media as one tensor [tokens, width], one medium after the other."""
    return features.flatten(0, 1) if isinstance(features, Tensor) else torch.cat(list(features))


class Projector(nn.Module):
    """Two-layer GELU MLP from the encoder's width to the LM's (MoExtend section 3.1, as LLaVA-1.5)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))
        self.aligned = False
        """Whether weights were trained (`align`) or loaded; else they are random."""
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Initialises the projector from the seed, as before alignment."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner.reset_parameters()
            self.outer.reset_parameters()
        self.scale.fill_(1.0)
        self.aligned = False

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """That of the class; the weights are no longer random."""
        found = super().load_state_dict(*args, **options)
        self.aligned = True
        return found

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [..., hidden] of the LM for features [..., width]."""
        features = (features * self.scale).to(self.inner.weight.dtype)
        return cast(Tensor, self.outer(F.gelu(self.inner(features))))


@torch.no_grad()
def set_scale(projector: Projector, features: Tensor) -> None:
    """Sets the scale of the projector's input to the inverse standard deviation of `features`."""
    projector.scale.copy_(1.0 / features.std().clamp_min(1e-6))


class Modality(nn.Module):
    """A modality of a model: its frozen encoder, its projector and the id of its placeholders."""

    def __init__(self, name: str, encoder: Encoder, hidden: int, placeholder: int) -> None:
        super().__init__()
        self.name, self.placeholder = name, placeholder
        self.encoder: Encoder = encoder
        self.projector = Projector(encoder.width, hidden)
        self.features: See | None = None
        """Source of features; None: the encoder itself (see feature_cache.FeatureStore)."""
        self.added: Mapping[str, Any] | None = None
        """Of a modality that was added after loading: name and settings of its encoder, as JSON values."""
        self.needed_by: set[str] = set()
        """Extensions that were trained while the model had this modality, if it was added after loading."""
        self._before: tuple[str, str] | None = None
        self._after: tuple[str, str] | None = None
        self.requires_grad_(False).eval()

    @property
    def see(self) -> See:
        """Source of features: its own one, or the encoder."""
        return self.features or self.encode

    def encode(self, media: Sequence[Any]) -> Features:
        """Features of media by the encoder; see `encoded`."""
        return encoded(self.encoder, media)

    def tokens_of(self, medium: MediaRef) -> int:
        """Number of tokens of a medium."""
        return tokens_of(self.encoder, medium)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Parameters of the encoder."""
        return list(cast(nn.Module, self.encoder).parameters())

    def train(self, mode: bool = True) -> Modality:
        """The encoder stays in eval mode: a frozen encoder is deterministic."""
        super().train(mode)
        cast(nn.Module, self.encoder).eval()
        return self

    def fingerprints(self) -> tuple[str, str]:
        """Fingerprints of encoder and projector; a conversion of the number type does not change them."""
        now = (self.encoder.fingerprint(), tensors_digest(self.projector.state_dict()))
        return self._before if self._before is not None and now == self._after else now

    def known_as(self, fingerprints: tuple[str, str]) -> None:
        """Makes these the fingerprints of encoder and projector as they are now."""
        self._before = self._after = None
        self._before, self._after = fingerprints, self.fingerprints()

    def _apply(self, fn: Any, recurse: bool = True) -> Modality:
        """Called by `to`, `half`, `cuda`, ...: a conversion of the number type does not change the fingerprints."""
        weight = self.projector.inner.weight
        if fn(weight.new_empty(0)).dtype == weight.dtype:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            return self
        before = self.fingerprints()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.known_as(before)
        return self


class Modalities(nn.ModuleDict):
    """Name -> modality, in the order in which they were added."""

    def __getitem__(self, key: str) -> Modality:
        return cast(Modality, super().__getitem__(key))

    def items(self) -> ItemsView[str, Modality]:
        """Names and modalities."""
        return cast(ItemsView[str, Modality], super().items())

    def values(self) -> ValuesView[Modality]:
        """Modalities."""
        return cast(ValuesView[Modality], super().values())

    def add(self, name: str, encoder: Encoder, hidden: int) -> Modality:
        """Adds a modality with a new projector to an LM of width `hidden`.

        Raises:
            InputError: the name is taken or cannot be used, or the encoder lacks an attribute of `Encoder`.
        """
        _check_encoder(name, encoder)
        if name in self or hasattr(self, name):
            why = "the model already has it" if name in self else "a name of PyTorch"
            raise InputError(
                f"{why}.",
                where=f"modality '{name}'",
                hint="Load the model without it." if name in self else "Rename the modality.",
            )
        taken = {modality.placeholder for modality in self.values()}
        free = IMAGE if name == ImageRef.modality else next(i for i in count(IMAGE - 1, -1) if i not in taken)
        with torch.random.fork_rng(devices=[]):
            self[name] = Modality(name, encoder, hidden, free)
        return self[name]

    def holes(self, media: Sequence[MediaRef]) -> list[list[int]]:
        """Placeholder ids of each medium. Raises InputError for a medium of another modality."""
        found = []
        for medium in media:
            modality = cast("Modality | None", self._modules.get(medium.modality))
            if modality is None:
                raise no_encoder(medium)
            found.append([modality.placeholder] * tokens_of(modality.encoder, medium))
        return found

    def sources(self) -> dict[str, See]:
        """Name -> source of features."""
        return {name: modality.see for name, modality in self.items()}


def gather(media: Sequence[MediaRef], sources: Sources) -> dict[str, Tensor]:
    """Modality -> features [tokens, width] of its media, in their order; modalities without media are left out."""
    own: dict[str, list[MediaRef]] = {}
    for medium in media:
        own.setdefault(medium.modality, []).append(medium)
    return {name: packed(sources[name](each)) for name, each in own.items()}


def _check_encoder(name: str, encoder: Any) -> None:
    lacking = [
        each
        for each in ("width", "tokens", "facts", "tokens_of", "fingerprint")
        if not hasattr(encoder, each)
    ]
    if isinstance(encoder, nn.Module) and not lacking:
        return
    what = f"lacks {', '.join(lacking)}" if isinstance(encoder, nn.Module) else "is not a torch.nn.Module"
    raise InputError(
        f"{type(encoder).__name__} {what}.",
        where=f"encoder of modality '{name}'",
        hint="See moextend.model.modality.Encoder for what an encoder has.",
    )
