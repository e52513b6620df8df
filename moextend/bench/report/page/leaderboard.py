"""A leaderboard: the page of reports for all runs of some packs, with an index of sequences, methods and entries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moextend.bench import methods, metrics
from moextend.bench.report.collect import Experiment, Result, collect, key_of, refuse_unproved
from moextend.bench.report.explain import commit_of, packages_of
from moextend.bench.report.packs import packs_in
from moextend.bench.report.page import bundle
from moextend.bench.report.page.data import standings
from moextend.bench.report.page.provenance import computed
from moextend.bench.report.table import number
from moextend.bench.run.pack import unpack
from moextend.bench.run.rundir import RunDir, find_runs, run_name
from moextend.errors import InputError, RunConflict, visible
from moextend.util import files


@dataclass(frozen=True)
class Built:
    """What a leaderboard shows."""

    index: Path
    packs: int
    runs: int
    sequences: int
    bytes: int
    """Size of all files."""


def build(packs: Sequence[Path], out: Path) -> Built:
    """Writes the leaderboard of all runs of `packs`, files or folders of them, into the new folder `out`.

    Equal packs give equal bytes, in whatever order they are named. A run that is in several packs counts once.

    Raises:
        InputError: a file is no pack, or damaged; a folder has none; no report takes a run; `out` is not empty.
        RunConflict: two packs have different results of the same run.
    """
    files.check_new(out)
    found = packs_in(packs)
    with tempfile.TemporaryDirectory(prefix="moextend-packs-") as name, files.new_folder(out) as made:
        place = Path(name)
        origin = _opened(found, place)
        experiments = _collected(origin)
        bundle(experiments, made, workspace=place, site=_site(experiments, origin))
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    return Built(out / "index.html", len(found), len(origin), len(experiments), size)


def _opened(packs: Sequence[Path], place: Path) -> dict[Path, Path]:
    """Folder of a run -> its pack, every run once; of two copies the one that has the answers."""
    known: dict[tuple[str, str], tuple[RunDir, Path]] = {}
    for index, pack in enumerate(packs):
        unpack(pack, runs := place / str(index) / "runs", place)
        for run in find_runs(runs):
            first, other = known.get(key_of(run.config), (None, pack))
            if first is None or ("predictions" in first.left_out and "predictions" not in run.left_out):
                known[key_of(run.config)] = run, pack
            if first is not None and not _same(first, run):
                what = f"its results of {run_name(run.folder)} are not those of {other}."
                raise RunConflict(what, where=str(pack), hint="Leave one of the two packs out.")
    return {run.folder: pack for run, pack in known.values()}


def _same(one: RunDir, other: RunDir) -> bool:
    """Whether two folders hold the same run with the same scores."""
    scores = ((run.folder / "scores.jsonl").read_bytes() for run in (one, other))
    return one.id == other.id and len(set(scores)) == 1


def _collected(origin: Mapping[Path, Path]) -> list[Experiment]:
    """The experiments by sequence and version; InputError for runs that no report takes."""
    runs = sorted(map(RunDir, origin), key=lambda run: (run_name(run.folder), run.id))
    experiments = collect(runs)
    taken = {result.run.folder for each in experiments for result in each.results}
    if left_out := [pack for folder, pack in origin.items() if folder not in taken]:
        names = [name for each in experiments for name in each.left_out]
        raise InputError(
            f"no report takes {'; '.join(names)}.", where=str(left_out[0]), hint="Pack these runs again."
        )
    refuse_unproved(experiments)
    return sorted(experiments, key=lambda one: (one.name, -_version(one)))


def _version(experiment: Experiment) -> int:
    version = experiment.shared["sequence"].get("version")
    return version if isinstance(version, int) else 0


def _site(experiments: Sequence[Experiment], origin: Mapping[Path, Path]) -> dict[str, Any]:
    """What the first view shows; the rest is in parts. page/src/data.ts has the same records."""
    keys = [f"{one.name}@{_version(one)}" for one in experiments]
    keys = [
        f"{key}-{one.variant}" if keys.count(key) > 1 else key
        for key, one in zip(keys, experiments, strict=True)
    ]
    return {
        "sequences": [_sequence(one, key) for one, key in zip(experiments, keys, strict=True)],
        "methods": _methods(experiments),
        "history": sorted(_history(experiments, origin), key=lambda one: one["made"], reverse=True),
    }


def _sequence(experiment: Experiment, key: str) -> dict[str, Any]:
    sequence, known = experiment.shared["sequence"], standings(experiment)
    best = {}
    for identity, own in known.items():
        method, (_, group) = next(iter(own.items()))
        acc = number(*metrics.mean_and_sd([result.summary["acc"] for result in group]))
        best[identity] = [visible(method), acc.text]
    return {
        "key": visible(key), "differs": visible(experiment.differs),
        "tasks": [visible(stage["task"]) for stage in sequence["stages"]],
        "methods": sum(map(len, known.values())), "best": best,
        "seeds": sorted({result.config.seed for result in experiment.results}),
        "made": max(_made(result)[0] for result in experiment.results),
    }  # fmt: skip


def _methods(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """The methods by name, without their settings, with the places of the experiments that have them."""
    found: dict[str, dict[str, Any]] = {}
    for place, experiment in enumerate(experiments):
        for result in experiment.results:
            name = result.config.method.partition(":")[0]
            about = found.setdefault(name, _about(name, result))
            about["at"] = sorted({*about["at"], place})
            about["identities"] = sorted({*about["identities"], result.facts.task_identity or "?"})
    return [found[name] for name in sorted(found)]


def _about(name: str, result: Result) -> dict[str, Any]:
    about = {"name": visible(name), "description": "", "source": "", "at": [], "identities": []}
    if result.config.scored:
        return about | {"source": "trained elsewhere, and only scored here (bench score)"}
    if name not in methods.OWN:
        return about | {"source": "a plug-in, whose code is not in the pack; a run has its digest"}
    kind = methods.KNOWN.find(name, None).value
    own = " ".join((kind.__doc__ or "").strip().partition("\n\n")[0].split())
    return about | {
        "description": own,
        "source": methods.OWN[name].partition(":")[0].replace(".", "/") + ".py",
    }


def _history(experiments: Sequence[Experiment], origin: Mapping[Path, Path]) -> Iterator[dict[str, Any]]:
    """An entry is what one version at one commit adds to a sequence."""
    for place, experiment in enumerate(experiments):
        groups: dict[tuple[str, str], list[Result]] = {}
        for result in experiment.results:
            _, environment = _made(result)
            groups.setdefault(
                (packages_of(environment).get("moextend", ""), commit_of(environment)), []
            ).append(result)
        for (version, commit), own in groups.items():
            yield {
                "made": max(_made(result)[0] for result in own), "at": place,
                "packs": sorted({visible(origin[result.run.folder].name) for result in own}),
                "methods": sorted({visible(result.config.method) for result in own}),
                "seeds": sorted({result.config.seed for result in own}),
                "version": visible(version), "commit": visible(commit),
            }  # fmt: skip


def _made(result: Result) -> tuple[str, dict[str, Any]]:
    """The day on which a run last computed something, and the environment of then."""
    environment = computed(result)[-1]
    return visible(str(environment.get("at", "")))[:10], environment
