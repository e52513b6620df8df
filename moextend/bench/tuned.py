"""Where the settings of a method come from, and the settings that `bench tune` found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field

from moextend.util.spec import Spec

Source = Literal["validation items", "published", "default", "nothing", "test items"]
"""validation items: chosen on training items that were held out. published: values of a paper. default: nothing was
chosen for this sequence. nothing: set by hand for this sequence, without a search. test items: chosen on items that are
scored, which favours methods with more choices."""
TEST: Source = "test items"
"""Source that favours methods with more choices; tables mark it."""
VALIDATION: Source = "validation items"
"""Source of what `bench tune` chose; with " of NAME" where it was chosen on another sequence."""
NO_SETTINGS = "no settings"
"""Source of a method that has nothing to set, such as the base."""
NOT_STATED = "not stated"
"""What tables say of a run without a source."""
STATED = f"^({'|'.join(get_args(Source))}|{NO_SETTINGS}|{VALIDATION} (of|with) .+)$"
"""Pattern of the source of a run's settings: one of the above, or what `bench tune` chose elsewhere or with other
steps."""

Value = str | int | float | bool | list[str]
Settings = dict[str, dict[str, str | int | float | bool | list[str] | list[int]]]
"""Method -> its settings in a sequence."""
T = TypeVar("T")


class Tuned(Spec):
    """What `bench tune` chose for a method, and how (docs/tuning.md)."""

    settings: dict[str, Value]
    """The chosen settings; they override those under `settings`."""
    fixed: dict[str, Any] | None = None
    """Settings of the method under `settings` that were not searched; null: not recorded."""
    score: float
    """Mean final accuracy on the validation items of the tuned tasks, over the seeds, in percent (CIDEr-D: up to
    1,000)."""
    trials: int = Field(ge=1)
    """Number of settings that were tried: the budget, and those beyond the ends of ranges."""
    failed: int = Field(default=0, ge=0)
    """Number of these that could not be trained or scored, and were left out."""
    seeds: list[int] = Field(min_length=1)
    """Seeds of every trial."""
    tasks: list[str]
    """The tuned tasks, in learning order."""
    validation: int
    """Percent of their training data that was held out to score the trials."""
    limit: int | None = None
    """Maximum number of validation items per task; null: all."""
    steps: int | None = None
    """Training steps per stage; null: not recorded."""
    versions: dict[str, str] = Field(default={})
    """Package -> its version."""
    date: str
    """Day on which it was chosen, as 2026-01-31."""


def base_spec(text: str) -> tuple[str, frozenset[str]]:
    """Name and settings of `name:key=value,...`; the order of the settings does not matter."""
    name, _, tail = text.partition(":")
    return name.strip(), frozenset(part.strip() for part in tail.split(",") if part.strip())


def chosen_for(text: str, tuned: Mapping[str, T]) -> tuple[T | None, bool]:
    """The entry of a method, and whether it is of exactly these settings.

    An entry also holds for the method with more settings: the entry with the most settings in common is used.
    """
    name, settings = base_spec(text)
    fitting = [
        (entry, own)
        for known, entry in tuned.items()
        for other, own in [base_spec(known)]
        if other == name and own <= settings
    ]
    if not fitting:
        return None, False
    entry, own = max(fitting, key=lambda pair: len(pair[1]))
    return entry, own == settings
