"""What a task must keep to, and what a finding is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A limit of one number of the audit."""

    name: str
    value: float
    finding: str
    """What a task has that passes it, with `{}` for its number."""
    why: str
    """Where the limit is from."""


SOLVED = Limit(
    "base",
    90.0,
    "the base solves {:.0f}%",
    "less than 10 points of headroom: a ceiling, as on saturated benchmarks (MMLU-Pro, Wang et al., 2024)",
)
MAJORITY = Limit(
    "majority",
    60.0,
    "common answers solve {:.0f}%",
    "10 points above a balanced question with two answers; language priors (Antol et al., 2015; Goyal et al., 2017; "
    "MMStar, Chen et al., 2024)",
)
FORMAT = Limit(
    "format",
    10.0,
    "{:.0f} points are only format",
    "points between the strict and the normalised reading of the base, as in bench report readings",
)
DUPLICATES = Limit(
    "duplicates",
    1.0,
    "{:.1f}% of test items are in training",
    "CIFAR-10 and CIFAR-100 have 3.3% and 10% near duplicates (Barz and Denzler, 2020); n-grams: Lee et al. (2022)",
)
SHARED = Limit(
    "shared",
    1.0,
    "{:.1f}% of test items have training media",
    "as for duplicates: other questions about the same image or sound",
)
NAMED = Limit(
    "named",
    5.0,
    "the question names the answer (+{:.0f} points)",
    "points above the majority answer; 5 is the smallest difference that one task of 1,500 items can show",
)
OPTIONS = Limit(
    "options",
    5.0,
    "options are skewed (+{:.0f} points)",
    "points above guessing, where p < 0.001 (chi-square); models prefer places (Zheng et al., 2024)",
)
PROBE = Limit(
    "probe",
    5.0,
    "a linear probe reads little ({:+.0f} points)",
    "points of a linear probe on the encoders' features above the majority answer; a model may read what a linear "
    "probe does not, and is not likely to learn much where it reads nothing",
)
BROKEN = Limit("broken", 1.0, "{:.0f} media cannot be read", "training or scoring stops at them")
SMALL = Limit(
    "small",
    0.0,
    "too few items: {:.1f} points and more can be shown",
    "the claimed difference (--effect) against the least one that the test of bench report finds with 80% power",
)
LIMITS = (SOLVED, MAJORITY, FORMAT, DUPLICATES, SHARED, NAMED, OPTIONS, PROBE, BROKEN, SMALL)
SURE = 0.001
"""p below which options are skewed."""


@dataclass(frozen=True)
class Finding:
    """A limit that a task passes."""

    limit: str
    value: float
    text: str

    @classmethod
    def of(cls, limit: Limit, value: float) -> Finding:
        """The finding of a number."""
        return cls(limit.name, value, limit.finding.format(value))
