"""Where the numbers of a run are from: what the page shows behind every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moextend.bench.report.collect import COMPARED, TITLES, Result
from moextend.bench.report.explain import command, commit_of, method_sources, packages_of
from moextend.bench.report.notes import source
from moextend.bench.report.views.forgetting import setting
from moextend.errors import visible

COSTS = ("trained_parameters", "flops", "tokens", "kept_mb", "seconds", "peak_rss_mb", "peak_gpu_mb")
"""Fields of `StageCost` that are shown."""


def provenance(runs: Sequence[Result]) -> dict[str, Any]:
    """A record a run, in their order; environments and digests that runs share are there once."""
    shared: dict[str, dict[str, Any]] = {"environments": {}, "made": {}}

    def place(kind: str, facts: dict[str, str]) -> int:
        key = repr(sorted(facts.items()))
        return int(shared[kind].setdefault(key, (len(shared[kind]), facts))[0])

    found = []
    for result in runs:
        made = computed(result)
        found.append(
            {
                "id": visible(result.run.id), "made": visible(str(made[-1].get("at", ""))),
                "source": visible(source(result)), "command": visible(command(result.config, anywhere=True)),
                "environments": list(dict.fromkeys(place("environments", _environment(one)) for one in made)),
                "of": place("made", {visible(part): visible(one) for part, one in result.made_of.items()}),
                "models": {visible(name): visible(one) for name, one in method_sources(result.run).items() if one},
                "settings": {visible(key): visible(setting(one)) for key, one in result.facts.settings.items()},
                "metrics": {TITLES[key]: result.summary[key] for key in COMPARED},
                "stated": {
                    visible(f"stage {stage}: {key}"): visible(str(value))
                    for stage, facts in result.facts.stated.items()
                    for key, value in facts.items()
                },
                "costs": [
                    [visible(result.stage_names[stage - 1]), *(getattr(cost, name) for name in COSTS)]
                    for stage, cost in sorted(result.costs.items())
                ],
            }
        )  # fmt: skip
    return {
        "runs": found, "costs": list(COSTS),
        **{kind: [facts for _, facts in known.values()] for kind, known in shared.items()},
    }  # fmt: skip


def computed(result: Result) -> list[dict[str, Any]]:
    """The environments in which a run trained or scored: those with a device; all, or an empty one, where none has."""
    return [one for one in result.environments if one.get("device")] or result.environments or [{}]


def _environment(made: dict[str, Any]) -> dict[str, str]:
    """Name -> what a run was made with, without the time."""
    apart, packages = ("at", "commit", "packages"), packages_of(made)
    found = {"moextend": packages.pop("moextend", ""), "commit": commit_of(made)}
    found["packages"] = ", ".join(f"{name} {one}" for name, one in packages.items())
    found |= {name: str(one) for name, one in made.items() if name not in apart}
    return {visible(name): visible(one) for name, one in found.items() if one}
