"""What is known of a router: its family, its scoring, its row matrix, and the experts that it chose.

`exact` routing adds new experts to the router's own choice and needs only its rows. `paper` routing repeats the
router's scoring over more experts, so it needs a row of the table (family_table.py). A router without a row is
extended in `exact` routing if its rows are a matrix with the name ``weight``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from moextend.errors import InputError
from moextend.moe.constants import held
from moextend.moe.family_table import BY_LOGITS, FAMILIES
from moextend.moe.scoring import Family, Scoring, attribute_at


def family_of(router: nn.Module) -> Family:
    """Row of `router`; for an unknown router a row that works in `exact` routing only."""
    for kind in type(router).__mro__:
        if kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__]
    kind = type(router)
    return Family(kind.__name__, "", "", refused=f"it does not know the router {kind.__name__}")


def check_paper(router: nn.Module) -> None:
    """Raises InputError if `paper` routing cannot repeat the scoring of `router`."""
    family = family_of(router)
    if family.scoring is None:
        raise InputError(
            f"routing 'paper' cannot extend {family.router}: {family.refused}.",
            hint="Use routing 'exact', which extends every family. docs/families.md lists what 'paper' extends.",
        )


def scoring_of(router: nn.Module, given: Sequence[Any] = ()) -> Scoring:
    """Scoring of `router`; `given`: the arguments that its block passes besides the hidden states.

    Raises:
        InputError: `paper` routing cannot repeat the scoring.
    """
    check_paper(router)
    scoring = family_of(router).scoring
    assert scoring is not None
    return scoring(router, given)


def chooses_by_logits(router: nn.Module) -> bool:
    """Whether the router returns logits and chooses the k largest of them, without a bias."""
    return family_of(router).scoring in BY_LOGITS


def rows_of(router: nn.Module) -> Tensor | None:
    """Row matrix [m, H] of a router; None for a module without one, which is not a router."""
    try:
        rows = attribute_at(router, family_of(router).rows)
    except AttributeError:
        return None
    return rows if isinstance(rows, Tensor) and rows.dim() == 2 else None


def features(router: nn.Module, x: Tensor) -> Tensor:
    """Features [T, H] that the rows are multiplied with, for router inputs x [T, H]."""
    make = family_of(router).features
    return x if make is None else make(router, x)


def chosen_experts(router: nn.Module, out: Any) -> Tensor:
    """Experts [T, k] that `router` chose, from its output `out`."""
    if len(out) > 2:
        return cast(Tensor, out[2])
    return cast(Tensor, out[1].topk(cast(int, router.top_k), dim=-1)[1])


def with_parents(values: Tensor, parents: Sequence[int]) -> Tensor:
    """Values [m + n]: those of the base's experts [m], then those of the new experts' parents."""
    return torch.cat([values, values[held(parents, values.device)]])
