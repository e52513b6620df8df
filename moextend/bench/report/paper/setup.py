"""The paragraphs of a paper that say how its numbers were made, from the records of the runs, and what they cite.

Papers of methods, data sets and base models stand in .bib files; an entry's field `usedby` names what it belongs to
(see bench/methods/references.bib, tasks/references.bib and registry/references.bib), and an @comment what has no paper.
Files of this name in the same folders of a workspace go first. Only what is used is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from moextend.bench import methods
from moextend.bench.report.collect import Experiment, Groups, grouped
from moextend.bench.report.explain import commit_of, packages_of
from moextend.bench.report.formats.latex import BREAKS, breakable, escape
from moextend.bench.report.looks import renamed
from moextend.bench.report.notes import by_source, seeds_note, sources
from moextend.bench.report.views.costs import NEAR, UNMATCHED, costs_table, reference_of, trained_parameters
from moextend.bench.report.views.forgetting import setting
from moextend.bench.run.records import encoder_of
from moextend.bench.scorers import shows
from moextend.errors import SpecError, counted
from moextend.util import content, files

COSTS = {
    "trained_parameters": "trained parameters", "tokens": "training tokens", "flops": "training operations",
}  # fmt: skip
"""Columns of costs that are compared -> how they are called."""
PACKAGES = ("moextend", "torch", "transformers", "accelerate", "peft", "open_clip_torch", "lm-eval")
"""Those whose versions are named."""
FILE = "references.bib"
_HEAD = re.compile(r"@(\w+)\s*\{\s*([^\s,{}]+)\s*,")
_USED = re.compile(r"^\s*usedby\s*=\s*\{([^{}]*)\}\s*,?\s*\n", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One entry of a .bib file."""

    key: str
    used_by: tuple[str, ...]
    """Names, in which "*" stands for any text."""
    text: str
    """The entry as it is written, without `usedby`; "" for what has no paper."""

    def belongs_to(self, name: str) -> bool:
        """Whether it is a reference of a method, task or model."""
        return any(fnmatchcase(name, pattern) for pattern in self.used_by)


class Bibliography:
    """The entries that are known, and those that were cited."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = list(entries)
        self._cited: dict[str, Entry] = {}
        self.unknown: list[str] = []
        """Names that were asked for and have no entry."""

    def cite(self, *names: str) -> str:
        """~\\cite{...} of all entries of the names; "" where there is none, and then they are `unknown`."""
        found: dict[str, Entry] = {}
        for name in names:
            own = [entry for entry in self._entries if entry.belongs_to(name)]
            found |= {entry.key: entry for entry in own if entry.text}
            if not own and name not in self.unknown:
                self.unknown.append(name)
        self._cited |= {key: entry for key, entry in found.items() if key not in self._cited}
        return f"~\\cite{{{','.join(found)}}}" if found else ""

    def knows(self, name: str) -> bool:
        """Whether there is an entry of the name."""
        return any(entry.belongs_to(name) for entry in self._entries)

    @property
    def text(self) -> str:
        """The cited entries, by key."""
        return "\n\n".join(self._cited[key].text for key in sorted(self._cited)) + "\n"


def find_entries(workspace: Path) -> list[Entry]:
    """All entries of the workspace and of the package; of two with one key the first."""
    folders = [
        workspace / "methods", Path(methods.__file__).parent, workspace / "tasks", content.package_folder("tasks"),
        workspace / "registry", content.package_folder("registry"),
    ]  # fmt: skip
    found: list[Entry] = []
    for folder in folders:
        found += read_bib(folder / FILE) if files.exists(folder / FILE) else []
    return found


def read_bib(path: Path) -> list[Entry]:
    """The entries of a .bib file; SpecError if the braces of one do not close, or its text is not UTF-8."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError("is not UTF-8 text.", where=str(path), hint="Save it as UTF-8.") from error
    found = []
    for head in _HEAD.finditer(text):
        entry = text[head.start() : _end(text, head.start(), head[2], path)]
        used = _USED.search(entry)
        names = tuple(name.strip() for name in used[1].split(",")) if used else ()
        found.append(Entry(head[2], names, "" if head[1].lower() == "comment" else _USED.sub("", entry)))
    return found


def _end(text: str, start: int, key: str, path: Path) -> int:
    """Where the braces of the entry that begins at `start` close."""
    depth = 0
    for place in range(text.index("{", start), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    raise SpecError(f"the braces of '{key}' are not closed.", where=str(path), hint="Add a '}'.")


def setup_text(experiment: Experiment, names: Mapping[str, str], bibliography: Bibliography) -> str:
    """The paragraphs in LaTeX of `setup.tex.jinja`: base and tasks, training, methods, scoring, software and hardware.

    `names` are the names that methods and tasks are shown under, where they are others than their own.
    """

    def name(key: str) -> str:
        return escape(names[key]) if key in names else code(key)

    template = Environment(
        block_start_string="<%", block_end_string="%>", variable_start_string="<<", variable_end_string=">>",
        undefined=StrictUndefined, autoescape=False, trim_blocks=False,
    )  # fmt: skip
    template.filters |= {
        "code": code, "cite": bibliography.cite, "escape": escape, "listed": listed, "name": name, "plain": plain,
        "training": _training,
    }  # fmt: skip
    text = Path(__file__).with_name("setup.tex.jinja").read_text(encoding="utf-8")
    return template.from_string(text).render(_facts(experiment, names, name, bibliography)).strip() + "\n"


def code(text: str) -> str:
    """A name as code, which may break between its words."""
    return f"\\texttt{{{breakable(text, f'{BREAKS}-')}}}"  # typewriter fonts do not break at hyphens


def listed(words: Iterable[str]) -> str:
    """The words with commas, and the last with "and"."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def plain(number: float) -> str:
    """A setting as a number: 0.003, 5e-05, 1,000."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _facts(
    experiment: Experiment, names: Mapping[str, str], name: Callable[[str], str], bibliography: Bibliography
) -> dict[str, Any]:
    """What the template says, in LaTeX."""
    results, cite = experiment.results, bibliography.cite
    spec, tasks = experiment.shared["sequence"], experiment.shared["tasks"]
    base, align = spec.get("base") or {}, spec.get("align") or []
    first = next((each for each in results if each.config.order == "given"), results[0])
    groups = grouped(experiment.of("sequence"))

    def task(key: str) -> str:
        return name(key) + cite(key)

    details = [f"revision {code(base['revision'])}"] if base.get("revision") else []
    details += [f"weights in {escape(base['dtype'])}"] if base.get("dtype") else []
    details += [f"quantised ({escape(base['quantize'])})"] if base.get("quantize") else []
    if base.get("upcycle"):
        made = ", ".join(f"{key} {value}" for key, value in base["upcycle"].items() if value is not None)
        details.append(f"a dense model made a Mixture of Experts{cite('upcycle')} ({escape(made)})")
    encoders = {"image": base.get("vision"), "audio": base.get("audio"), **base.get("encoders", {})}
    items: dict[str, set[int]] = {}
    scorers: dict[str, dict[str, None]] = {}
    for result in results:
        for (_, key), cell in result.cells.items():
            items.setdefault(key, set()).add(cell.n)
            if key not in result.text:
                scorers.setdefault(cell.scorer, {})[key] = None
    shown = {key: " or ".join(f"{n:,}" for n in sorted(known)) for key, known in items.items()}
    modes = {"joint": "all tasks at once", "independent": "each task alone, from the base,"}
    reference = reference_of(experiment)
    given = dict.fromkeys(method for (method, _), group in groups.items() if group[0].given)
    made_with = [result.environments[-1] for result in results if result.environments]
    return {
        "base": base,
        "details": details,
        "encoders": [
            f"its {encoder_of(modality)} is {code(one)}{cite(one)}"
            for modality, one in encoders.items()
            if one
        ],
        "aligned": [
            f"on {task(one['task'])}: {_training(one)}"
            for one in (align if isinstance(align, list) else [align])
        ],
        "name": experiment.name,
        "version": spec.get("version", "?"),
        "learned": [
            task(key) + (f" ({shown[key]} test items)" if key in shown else "") for key in first.tasks
        ],
        "orders": list(dict.fromkeys(result.config.order for result in results)),
        "closed": [key for key in (*first.tasks, *first.config.transfer) if tasks[key].get("non_commercial")],
        "train": spec.get("train"),
        "steps": [
            f"{name(one['task'])} {one['steps']:,}" for one in spec["stages"] if one.get("steps") is not None
        ],
        "seeds": escape(renamed(seeds_note(experiment), names)),
        "bounds": [
            f"{words} by {name(method)}"
            for mode, words in modes.items()
            for method in dict.fromkeys(method for method, _ in grouped(experiment.of(mode)))
        ],
        "methods": list(_methods(groups, name, cite)),
        "sources": by_source(sources([experiment]), name),
        "reference": reference and reference[0],
        "near": round(100 * NEAR),
        "unmatched": _unmatched(experiment, name),
        "given": [f"Given the task of every input: {listed(map(name, given))}."] if given else [],
        "limit": spec.get("scoring", {}).get("limit"),
        "transfer": [task(key) for key in first.config.transfer],
        "scorers": [
            f"{_rule(rule, bibliography)} for {listed(map(name, own))}" for rule, own in scorers.items()
        ],
        "text": [f"{task(key)} ({_shots(tasks[key].get('lm_eval') or {})})" for key in first.text],
        "software": _software(made_with),
        "hardware": list(dict.fromkeys(map(_machine, made_with))),
    }


def _methods(groups: Groups, name: Callable[[str], str], cite: Callable[[str], str]) -> Iterator[str]:
    """A row a method, with its settings."""
    for (method, order), group in groups.items():
        if order == "given" or (method, "given") not in groups:
            settings = {key: value for key, value in group[0].facts.settings.items() if value is not None}
            trained, identity = trained_parameters(group), group[0].facts.task_identity or "not recorded"
            facts = [f"{escape(key)} {escape(setting(value))}" for key, value in settings.items()]
            facts += [f"{trained.text} trained parameters per stage"] if trained.number else []
            facts.append(f"task id {escape(identity)}")
            yield f"{name(method)}{cite(method.partition(':')[0])}: {', '.join(facts)}."


def _unmatched(experiment: Experiment, name: Callable[[str], str]) -> list[str]:
    """The methods that differ from the reference, by column of costs."""
    rows = costs_table(experiment).records if experiment.of("sequence") else []
    found = {
        key: dict.fromkeys(row["method"].of for row in rows if UNMATCHED in row[key].after) for key in COSTS
    }
    return [f"{COSTS[key].capitalize()}: {listed(map(name, own))}." for key, own in found.items() if own]


def _rule(scorer: str, bibliography: Bibliography) -> str:
    """A scorer with its paper, and what its score is, where its name says otherwise."""
    cited = bibliography.cite(f"scorer:{scorer}") if bibliography.knows(f"scorer:{scorer}") else ""
    what = shows(scorer)
    return code(scorer) + cited + (f" ({escape(what)})" if what else "")


def _shots(settings: Mapping[str, Any]) -> str:
    few = settings.get("num_fewshot")
    return escape(str(settings.get("metric", "acc"))) + (f", {few}-shot" if few else "")


def _software(made_with: Sequence[Mapping[str, Any]]) -> list[str]:
    """Packages with their versions, and the commits of this one."""

    def either(words: Iterable[str]) -> str:
        return escape(" or ".join(dict.fromkeys(words)))

    versions = {"Python": [str(each.get("python", "?")) for each in made_with]}
    for package in PACKAGES:
        versions[package] = [one for each in made_with if (one := packages_of(each).get(package))]
    commits = [*filter(None, map(commit_of, made_with))]
    found = [f"{escape(name)} {either(known)}" for name, known in versions.items() if known]
    return found + ([f"commit {either(commits)} of moextend"] if commits else [])


def _machine(made: Mapping[str, Any]) -> str:
    parts = [
        f"device {made['device']}" if made.get("device") else "",
        made.get("gpu"),
        f"{made['cpus']} CPU cores" if made.get("cpus") else "",
        counted(made["threads"], "thread") if made.get("threads") else "",
        made.get("processor"),
        made.get("platform"),
    ]
    return ", ".join(str(part) for part in parts if part)


def _training(train: Mapping[str, Any]) -> str:
    """Steps, batch, learning rate and schedule in words."""
    parts = train.get("gradient_accumulation", 1)
    batch = f"batches of {train['batch_size'] * parts:,}" + (f" (in {parts} parts)" if parts > 1 else "")
    schedule, warmup = train.get("schedule", "cosine"), 100 * train.get("warmup", 0)
    return ", ".join(
        [
            f"{train['steps']:,} steps",
            batch,
            f"AdamW with learning rate {plain(train['learning_rate'])}",
            f"{schedule} schedule, warm-up over {warmup:g}\\% of the steps",
            f"weight decay {plain(train.get('weight_decay', 0.0))}",
            *(
                [f"gradients cut to norm {plain(train['max_grad_norm'])}"]
                if train.get("max_grad_norm")
                else []
            ),
            *(["in bfloat16"] if train.get("bf16") else []),
        ]
    )
