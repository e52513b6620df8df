"""Hooks on the router parts of an extension: at which tokens its new experts may compute, and the range of a gate."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from moextend.extension.retention import sites_of
from moextend.moe.competing import Switch
from moextend.moe.families import rows_of
from moextend.moe.sites import Site


def parts_of(model: Any, name: str) -> Iterator[tuple[Site, Any]]:
    """Each MoE block with a part of extension `name`, and its router part."""
    return ((site, site.router.ext_parts[name]) for site in sites_of(model, name))


class Gates:
    """Hooks on the router parts of one extension; they act inside the LM only, not where a loss calls a part."""

    def __init__(
        self, model: Any, name: str, *, shut: bool, with_parent: bool = False, hard: bool = False
    ) -> None:
        """Adds the hooks.

        Args:
            shut: new experts do not compute tokens of media, nor those before (see `up_to_media`).
            with_parent: they compute only tokens for which the base chooses their parent, as in slot routing.
            hard: a gate of exact routing is 0 or 1, with a straight-through gradient, as a slot's.
        """
        self.model, self.shut, self.hard = model, shut, hard
        for site, part in parts_of(model, name):
            chooses = chosen_parents(site, part) if with_parent else None
            part.register_forward_hook(self._hook(chooses))

    def _hook(
        self, chooses: Callable[[torch.Tensor], torch.Tensor] | None
    ) -> Callable[..., torch.Tensor | None]:
        def hook(part: Any, args: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor | None:
            media = self.model.media_tokens
            if media is None:
                return None
            if self.hard:
                out = Switch.apply(out)
            if chooses is not None:
                out = out.masked_fill(~chooses(args[0]), -torch.inf)
            if self.shut and media.numel() == len(out):  # else the tokens of an answer in generation
                out = out.masked_fill(up_to_media(media).reshape(-1, 1), -torch.inf)
            return out

        return hook


def up_to_media(media: torch.Tensor) -> torch.Tensor:
    """[B, T]: tokens of media and all before them, such as the start token, to which tokens of media attend."""
    return media.flip(1).cumsum(1).flip(1) > 0


def chosen_parents(site: Site, part: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Function of router inputs [T, H]: whether the base chooses the parent of each new expert [T, n]."""
    rows, top_k = rows_of(site.router), site.router.top_k

    def chooses(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            index = F.linear(x.to(rows.dtype), rows).topk(top_k, dim=-1)[1]
        return (index.unsqueeze(-1) == torch.tensor(part.parents, device=index.device)).any(1)

    return chooses
