"""A Mixture-of-Experts language model with image input: encoder, projector and causal LM in one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.data.images import ImageRef
from moextend.model import lm_head
from moextend.model.chat import Chat
from moextend.model.fingerprint import cached_digest, rounded_digest, tensors_digest
from moextend.model.vision import VisionEncoder

IMAGE = -200
"""Placeholder id of one visual token in `input_ids`."""
IGNORE = -100
"""Label of a position without loss."""


class Chooser(Protocol):
    """Chooses the extensions of each prompt."""

    def __call__(
        self, prompts: Sequence[Any], see: Callable[[Sequence[ImageRef]], Tensor] | None = None
    ) -> list[tuple[str, ...]]:
        """Names of extensions for each prompt; `see`: source of image features, None: the model's."""
        ...

    def reaching(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Context in which only the extensions with these names compute."""
        ...

    def fingerprint(self) -> str:
        """Identifies everything that the choice depends on."""
        ...


class Projector(nn.Module):
    """Two-layer GELU MLP from the encoder's width to the LM's (MoExtend section 3.1, as LLaVA-1.5)."""

    def __init__(self, vision_width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(vision_width, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Initialises the projector from the seed, as before alignment."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner.reset_parameters()
            self.outer.reset_parameters()
        self.scale.fill_(1.0)

    def forward(self, features: Tensor) -> Tensor:
        """Visual tokens [..., hidden] for features [..., vision_width]."""
        features = (features * self.scale).to(self.inner.weight.dtype)
        return cast(Tensor, self.outer(F.gelu(self.inner(features))))


class MultimodalLM(nn.Module):
    """A transformers causal LM, its tokenizer and, for images, an encoder with its projector."""

    def __init__(self, lm: Any, tokenizer: Any, vision: VisionEncoder | None = None) -> None:
        super().__init__()
        self.lm, self.tokenizer = lm, tokenizer
        self.vision: VisionEncoder | None = vision
        self.features: Callable[[Sequence[ImageRef]], Tensor] | None = None
        """Source of image features; None: the encoder itself (see vision.FeatureStore)."""
        self.chat: Chat | None = None
        """Chat template for prompts; None: prompts are used as they are."""
        self.choose: Chooser | None = None
        """Chooses the extensions of each prompt; None: the active ones compute (see `activate`)."""
        self.projector = (
            Projector(vision.width, lm_head.text_config(lm.config).hidden_size) if vision else None
        )
        self._by_id = lm_head.needs_ids(lm)
        self.requires_grad_(False).eval()
        self._base = self._rounded = ""
        self._before: list[str] = []
        self._after: list[str] = []
        self.base_dtype = ""
        """Number type of the LM's weights when they were loaded ("float32")."""
        self.rename_base()

    @property
    def device(self) -> torch.device:
        """Device of the LM's weights."""
        return cast(torch.device, self.lm.device)

    @property
    def visual_tokens(self) -> int:
        """Number of tokens per image."""
        return self.vision.tokens if self.vision else 0

    @property
    def context(self) -> int | None:
        """Maximum number of tokens of the LM; None: its config sets no limit."""
        config = lm_head.text_config(self.lm.config)
        found: int | None = getattr(config, "max_position_embeddings", None)
        return found

    def embed(self, input_ids: Tensor, features: Tensor | None) -> Tensor:
        """Embeddings [B, T, H] of ids [B, T]; projected image features replace the IMAGE placeholders, in order.

        features: [images, tokens, width] of all images of the batch.
        """
        holes = input_ids == IMAGE
        embedded = self.lm.get_input_embeddings()(input_ids.masked_fill(holes, 0))
        if features is None or self.projector is None:
            return cast(Tensor, embedded)
        visual = self.projector(features.to(embedded.device)).to(embedded.dtype)
        assert int(holes.sum()) == visual.shape[0] * visual.shape[1], "as many holes as visual tokens"
        filled = embedded.masked_scatter(holes.unsqueeze(-1), visual.reshape(-1, visual.shape[-1]))
        return cast(Tensor, filled)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor, features: Tensor | None = None) -> Tensor:
        """Last hidden states [B, T, H], without the LM head."""
        with self.given(input_ids, self.embed(input_ids, features)) as inputs:
            out = lm_head.decoder(self.lm)(**inputs, attention_mask=attention_mask, use_cache=False)
        return cast(Tensor, out.last_hidden_state)

    @contextmanager
    def given(self, input_ids: Tensor, embedded: Tensor) -> Iterator[dict[str, Tensor]]:
        """Context that yields the prompt's arguments for the LM: embeddings [B, T, H] (see `embed`), or ids.

        A decoder that needs ids (`lm_head.needs_ids`) gets the ids, and its first embedding look-up returns
        `embedded`. A visual token has id 0 there.
        """
        if not self._by_id:
            yield {"inputs_embeds": embedded}
            return
        table = self.lm.get_input_embeddings()

        def instead(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            hook.remove()
            return embedded

        hook = table.register_forward_hook(instead)
        try:
            yield {"input_ids": input_ids.masked_fill(input_ids == IMAGE, 0)}
        finally:
            hook.remove()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits at the labelled positions [N, vocabulary] and their mean cross-entropy (nats).

        Without labels: logits at all positions [B, T, vocabulary].
        """
        hidden = self.hidden(input_ids, attention_mask, features)
        if labels is None:
            return {"logits": lm_head.logits(self.lm, hidden)}
        wanted = labels[:, 1:]
        chosen = wanted != IGNORE
        logits = lm_head.logits(self.lm, hidden[:, :-1][chosen])
        return {"loss": F.cross_entropy(logits.float(), wanted[chosen]), "logits": logits}

    def base_fingerprint(self) -> str:
        """Fingerprint of the LM's weights as loaded, of the encoder and of the projector."""
        return "-".join([self._base, *self._sight()])

    def _sight(self) -> list[str]:
        """Fingerprints of encoder and projector before a conversion of the number type."""
        if self.vision is None or self.projector is None:
            return []
        now = [self.vision.fingerprint(), tensors_digest(self.projector.state_dict())]
        return self._before if now == self._after else now

    def _apply(self, fn: Any, recurse: bool = True) -> MultimodalLM:
        """Called by `to`, `half`, `cuda`, ...: a conversion of the number type does not change the base."""
        weight = None if self.projector is None else self.projector.inner.weight
        if weight is None or fn(weight.new_empty(0)).dtype == weight.dtype:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            return self
        before = self._sight()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._after = []
        self._before, self._after = before, self._sight()
        return self

    def base_rounded(self) -> str:
        """Fingerprint of the LM's weights that does not depend on their number type (see `rounded_digest`); cached."""
        if not self._rounded:
            base = {key: tensor for key, tensor in self.lm.state_dict().items() if ".ext_" not in key}
            self._rounded = rounded_digest(base)
        return self._rounded

    def rename_base(self) -> None:
        """Makes the LM's current weights the base of `base_fingerprint`."""
        self._base = cached_digest(self.lm.state_dict())
        self._rounded = ""
        self.base_dtype = str(self.lm.dtype).removeprefix("torch.")

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> trainable parameter."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def learn_only(self, names: Sequence[str]) -> None:
        """Freezes all parameters except these."""
        wanted = set(names)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in wanted)


@torch.no_grad()
def set_scale(projector: Projector, features: Tensor) -> None:
    """Sets the scale of the projector's input to the inverse standard deviation of `features`."""
    projector.scale.copy_(1.0 / features.std().clamp_min(1e-6))
