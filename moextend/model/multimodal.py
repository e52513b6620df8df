"""A Mixture-of-Experts language model with images and other media as input: causal LM and modalities in one module."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moextend.errors import RunFailed
from moextend.model import lm_head
from moextend.model.base_name import base_name, type_name
from moextend.model.chat import Chat
from moextend.model.fingerprint import rounded_digest, tensors_digest
from moextend.model.modality import Encoder, Modalities, Sources
from moextend.moe import attach, low_bits

IGNORE = -100
"""Label of a position without loss."""


class Chooser(Protocol):
    """Chooses the extensions of each prompt."""

    def __call__(self, prompts: Sequence[Any], sources: Sources | None = None) -> list[tuple[str, ...]]:
        """Names of extensions for each prompt; `sources`: sources of features, None: the model's."""
        ...

    def reaching(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Context in which only the extensions with these names compute."""
        ...

    def fingerprint(self) -> str:
        """Identifies everything that the choice depends on."""
        ...


class MultimodalLM(nn.Module):
    """A transformers causal LM, its tokenizer and its modalities: encoders with their projectors."""

    def __init__(
        self,
        lm: Any,
        tokenizer: Any,
        encoders: Mapping[str, Encoder] | None = None,
        base: str = "",
    ) -> None:
        """
        Args:
            encoders: modality -> encoder.
            base: fingerprint of the LM's weights, if it has none (`export.served.open_inputs`).
        """
        super().__init__()
        self.lm, self.tokenizer = lm, tokenizer
        self.modalities = Modalities()
        for name, encoder in (encoders or {}).items():
            self.modalities.add(name, encoder, self.width)
        self.chat: Chat | None = None
        """Chat template for prompts; None: prompts are used as they are."""
        self.choose: Chooser | None = None
        """Chooses the extensions of each prompt; None: the active ones compute (see `activate`)."""
        self.media_tokens: Tensor | None = None
        """[B, T], whether a token is one of a medium, in `given`: for hooks on parts of the LM. None elsewhere.

        While an answer is generated it stays that of the prompt, and the LM computes one token of each row at a time.
        """
        self._by_id = lm_head.needs_ids(lm)
        self.requires_grad_(False).eval()
        self._base, self._rounded = base, ""
        self.base_dtype = ""
        """Number type of the LM's weights when they were loaded, with a quantisation ("float32", "bfloat16+nf4")."""
        if not base:
            self.rename_base()

    @property
    def device(self) -> torch.device:
        """Device of the LM's weights."""
        return cast(torch.device, self.lm.device)

    @property
    def width(self) -> int:
        """Width of the LM's embeddings."""
        return cast(int, lm_head.text_config(self.lm.config).hidden_size)

    @property
    def context(self) -> int | None:
        """Maximum number of tokens of the LM; None: its config sets no limit."""
        config = lm_head.text_config(self.lm.config)
        found: int | None = getattr(config, "max_position_embeddings", None)
        return found

    def embed(self, input_ids: Tensor, features: Mapping[str, Tensor] | None = None) -> Tensor:
        """Embeddings [B, T, H] of ids [B, T]; projected features replace the placeholders of their modality, in order.

        features: modality -> features [tokens, width] of all its media in the batch, one medium after the other.

        Raises:
            RunFailed: a modality has another number of placeholders than of features.
        """
        embedded = cast(Tensor, self.lm.get_input_embeddings()(_without_holes(input_ids)))
        for name, own in (features or {}).items():
            modality = self.modalities[name]
            holes = input_ids == modality.placeholder
            tokens = modality.projector(own.to(embedded.device)).to(embedded.dtype)
            if int(holes.sum()) != len(tokens):
                raise RunFailed(
                    f"{int(holes.sum())} placeholders and {len(tokens)} tokens of modality '{name}'.",
                    where="embed",
                    hint="Its encoder must give as many tokens for a medium as its tokens_of states.",
                )
            embedded = embedded.masked_scatter(holes.unsqueeze(-1), tokens)
        return embedded

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor, features: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Last hidden states [B, T, H], without the LM head."""
        with self.given(input_ids, self.embed(input_ids, features)) as inputs:
            out = lm_head.decoder(self.lm)(**inputs, attention_mask=attention_mask, use_cache=False)
        return cast(Tensor, out.last_hidden_state)

    @contextmanager
    def given(self, input_ids: Tensor, embedded: Tensor) -> Iterator[dict[str, Tensor]]:
        """Context that yields the prompt's arguments for the LM: embeddings [B, T, H] (see `embed`), or ids.

        A decoder that needs ids (`lm_head.needs_ids`) gets the ids, and its first embedding look-up returns
        `embedded`. A token of a medium has id 0 there.
        """
        before, self.media_tokens = self.media_tokens, input_ids < 0
        try:
            with self._given(input_ids, embedded) as inputs:
                yield inputs
        finally:
            self.media_tokens = before

    @contextmanager
    def _given(self, input_ids: Tensor, embedded: Tensor) -> Iterator[dict[str, Tensor]]:
        if not self._by_id:
            yield {"inputs_embeds": embedded}
            return
        table = self.lm.get_input_embeddings()

        def instead(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            hook.remove()
            return embedded

        hook = table.register_forward_hook(instead)
        try:
            yield {"input_ids": _without_holes(input_ids)}
        finally:
            hook.remove()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
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

    def base_fingerprint(self, modalities: Collection[str] | None = None) -> str:
        """Fingerprint of the LM's weights as loaded, and of the encoders and projectors of its modalities.

        Args:
            modalities: only of these; None: of all.
        """
        names = self.modalities if modalities is None else [n for n in self.modalities if n in modalities]
        return base_name(self._base, {name: self.modalities[name].fingerprints() for name in names})

    def base_rounded(self) -> str:
        """Fingerprint of the LM's weights that does not depend on their number type (see `rounded_digest`); cached."""
        if not self._rounded:
            plain, known = low_bits.originals(self.lm, attach.base_tensors(self.lm))
            self._rounded = rounded_digest(plain, known)
        return self._rounded

    def rename_base(self) -> None:
        """Makes the LM's current weights, without those of extensions, the base of `base_fingerprint`."""
        self._base, self._rounded = self.lm_fingerprint(), ""
        self.base_dtype = type_name(self.lm.dtype, low_bits.method_of(self.lm))

    def lm_fingerprint(self) -> str:
        """Fingerprint of the LM's weights as they are now, without those of extensions; it names a quantisation."""
        parts = (tensors_digest(attach.base_tensors(self.lm)), low_bits.method_of(self.lm))
        return "_".join(filter(None, parts))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> trainable parameter."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def learn_only(self, names: Sequence[str]) -> None:
        """Freezes all parameters except these."""
        wanted = set(names)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in wanted)


def _without_holes(input_ids: Tensor) -> Tensor:
    """Ids with 0 for placeholders, which are below 0."""
    return input_ids.masked_fill(input_ids < 0, 0)
