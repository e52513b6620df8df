"""The paragraphs of a paper that say how its numbers were made, from the records of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from moextend.bench.methods import TITLES
from moextend.bench.report.ablations import setting, settings_of
from moextend.bench.report.collect import Experiment, Result, grouped
from moextend.bench.report.costs import NEAR, reference_of, trained_parameters, unmatched
from moextend.bench.report.latex import BREAKS, breakable, escape
from moextend.bench.report.paper.bibliography import Bibliography
from moextend.bench.report.sources import by_source, sources
from moextend.bench.run.records import encoder_of
from moextend.bench.scorers import shows
from moextend.errors import counted

COSTS = {
    "trained_parameters": "trained parameters", "tokens": "training tokens", "flops": "training operations",
}  # fmt: skip
"""Columns of costs that are compared -> how they are called."""
PACKAGES = ("moextend", "torch", "transformers", "accelerate", "peft", "open_clip_torch", "lm-eval")
"""Those whose versions are named."""


def setup_text(experiment: Experiment, names: dict[str, str], bibliography: Bibliography) -> str:
    """The paragraphs in LaTeX: base and tasks, training, methods, scoring, software and hardware.

    `names` are the names that methods and tasks are shown under, where they are others than their own.
    """
    writer = _Writer(experiment, names, bibliography)
    parts = {
        "Base and tasks": [writer.base(), writer.alignment(), writer.sequence(), writer.licences()],
        "Training": [writer.training(), writer.seeds()],
        "Methods": [writer.methods()],
        "Choice of settings": [writer.sources()],
        "What is not matched": [writer.unmatched()],
        "Scoring": [writer.scoring(), writer.text_tasks(), writer.metrics()],
        "Software and hardware": [writer.software(), writer.hardware()],
    }
    texts = {title: " ".join(filter(None, sentences)) for title, sentences in parts.items()}
    return "\n\n".join(f"\\paragraph{{{title}.}}\n{text}" for title, text in texts.items() if text) + "\n"


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


class _Writer:
    """Sentences about one experiment; "" for one that does not apply."""

    def __init__(self, experiment: Experiment, names: dict[str, str], bibliography: Bibliography) -> None:
        self.experiment, self.names = experiment, names
        self.cite, self.knows = bibliography.cite, bibliography.knows
        self.results = experiment.results
        self.spec: dict[str, Any] = experiment.shared["sequence"]
        self.tasks: dict[str, dict[str, Any]] = experiment.shared["tasks"]
        first = next((each for each in self.results if each.config.order == "given"), self.results[0])
        self.learned, self.text, self.transfer = first.tasks, first.text, first.config.transfer
        self.groups = grouped(experiment.of("sequence"))

    def name(self, key: str) -> str:
        """A method or task, as the tables show it."""
        return escape(self.names[key]) if key in self.names else code(key)

    def task(self, key: str) -> str:
        """A task with its reference."""
        return self.name(key) + self.cite(key)

    def base(self) -> str:
        base = self.spec["base"]
        words = f"The base is {code(base['model'])}{self.cite(base['model'])}"
        details = [f"revision {code(base['revision'])}"] if base.get("revision") else []
        details += [f"weights in {escape(base['dtype'])}"] if base.get("dtype") else []
        if base.get("upcycle"):
            made = ", ".join(f"{key} {value}" for key, value in base["upcycle"].items() if value is not None)
            details.append(f"a dense model made a Mixture of Experts{self.cite('upcycle')} ({escape(made)})")
        words += f" ({'; '.join(details)})" if details else ""
        encoders = {"image": base.get("vision"), "audio": base.get("audio"), **base.get("encoders", {})}
        named = [
            f"its {encoder_of(modality)} is {code(name)}{self.cite(name)}"
            for modality, name in encoders.items()
            if name
        ]
        return f"{', '.join([words, listed(named)] if named else [words])}."

    def alignment(self) -> str:
        align: Any = self.spec.get("align") or []
        alignments: list[dict[str, Any]] = align if isinstance(align, list) else [align]
        aligned = [f"on {self.task(one['task'])}: {_training(one)}" for one in alignments]
        if not aligned:
            return ""
        what = "projectors were" if len(aligned) > 1 else "projector was"
        return f"The {what} first aligned {'; '.join(aligned)}; the other weights were frozen."

    def sequence(self) -> str:
        items = _items(self.results)
        words = [
            self.task(task) + (f" ({items[task]} test items)" if task in items else "")
            for task in self.learned
        ]
        name = f"The sequence {code(self.experiment.name)} (version {escape(str(self.spec.get('version', '?')))})"
        orders = list(dict.fromkeys(result.config.order for result in self.results))
        more = f" Orders: {escape(', '.join(orders))}." if orders != ["given"] else ""
        count = counted(len(words), "task")
        return f"{name} has {count}, learned one after the other: {listed(words)}.{more}"

    def licences(self) -> str:
        closed = [
            self.name(task)
            for task in (*self.learned, *self.transfer)
            if self.tasks[task].get("non_commercial")
        ]
        return f"For non-commercial use only: {listed(closed)}." if closed else ""

    def training(self) -> str:
        own = [
            f"{self.name(stage['task'])} {stage['steps']:,}"
            for stage in self.spec["stages"]
            if stage.get("steps") is not None
        ]
        words = f"Every method is trained on each task alike: {_training(self.spec['train'])}"
        words += f" (steps of single stages: {', '.join(own)})" if own else ""
        return f"{words}. A learning rate of its own is listed with the method."

    def seeds(self) -> str:
        seeds = {key: sorted({result.config.seed for result in group}) for key, group in self.groups.items()}
        if not seeds:
            return ""
        common = max(seeds.values(), key=list(seeds.values()).count)
        numbers = f"seed{'s' * (len(common) > 1)} {listed(map(str, common))}"
        other: dict[str, list[str]] = {}
        for (method, _), own in seeds.items():
            if own != common:
                other.setdefault(listed(map(str, own)), []).append(self.name(method))
        apart = "; ".join(f"{listed(dict.fromkeys(methods))}: {own}" for own, methods in other.items())
        return f"Each method ran with {numbers}" + (f" (others: {apart})." if apart else ".")

    def methods(self) -> str:
        families: dict[str, list[list[Result]]] = {}
        for (method, order), group in self.groups.items():
            if order == "given" or (method, "given") not in self.groups:
                families.setdefault(method.partition(":")[0], []).append(group)
        rows = [row for family, groups in families.items() for row in self._family(family, groups)]
        return "\n".join(filter(None, [self._bounds(), _itemized(rows)]))

    def _family(self, family: str, groups: Sequence[list[Result]]) -> list[str]:
        """What the variants of a method have in common, and below it what each has of its own."""
        settings = [_settings(group[0]) for group in groups]
        common = {
            key: value
            for key, value in settings[0].items()
            if all(key in own and own[key] == value for own in settings)
        }
        apart = [{key: value for key, value in own.items() if key not in common} for own in settings]
        cited = self.cite(family)
        if len(groups) == 1:
            return [
                f"{self.name(groups[0][0].config.method)}{cited}: {', '.join(_facts(groups[0], common))}."
            ]
        first = f"{escape(TITLES.get(family, family))}{cited}, {len(groups)} variants"
        rows = [f"{first}, all with {', '.join(_words(common))}." if common else f"{first}."]
        return rows + [
            f"{self.name(group[0].config.method)}: {', '.join(_facts(group, own))}."
            for group, own in zip(groups, apart, strict=True)
        ]

    def _bounds(self) -> str:
        found = [
            f"{words} by {self.name(method)}"
            for mode, words in (
                ("joint", "all tasks at once"),
                ("independent", "each task alone, from the base,"),
            )
            for method in dict.fromkeys(method for method, _ in grouped(self.experiment.of(mode)))
        ]
        return f"Upper bounds: {listed(found)}." if found else ""

    def sources(self) -> str:
        """Where the settings of the methods come from, as in the notes of the tables."""
        found = by_source(sources([self.experiment]))
        return " ".join(
            f"{escape(words.capitalize())}: {listed(self.name(method) for method in methods)}."
            for words, methods in found.items()
        )

    def unmatched(self) -> str:
        reference, found = reference_of(self.experiment), unmatched(self.experiment)
        if reference is None:
            return ""
        rows = [f"{COSTS[key].capitalize()}: {listed(map(self.name, own))}." for key, own in found.items()]
        if rows:
            words = f"These differ by more than {NEAR:.0%} from {self.name(reference[0])}:"
        else:
            words = f"Trained parameters, tokens and operations are within {NEAR:.0%} of each other."
        words = words.replace("%", r"\%")
        return "\n".join(filter(None, [words, _itemized([*rows, *self._given()])]))

    def _given(self) -> list[str]:
        given = [self.name(method) for (method, _), group in self.groups.items() if group[0].given]
        return [f"Given the task of every input: {listed(dict.fromkeys(given))}."] if given else []

    def scoring(self) -> str:
        limit = self.spec.get("scoring", {}).get("limit")
        scorers: dict[str, list[str]] = {}
        for result in self.results:
            for (_, task), cell in result.cells.items():
                known = scorers.setdefault(cell.scorer or "an unknown scorer", [])
                if task not in known and task not in result.text:
                    known.append(task)
        rules = [
            f"{self._rule(rule)} for {listed(map(self.name, tasks))}"
            for rule, tasks in scorers.items()
            if tasks
        ]
        words = "After every stage all tasks are scored, with greedy decoding"
        words += f" and at most {limit:,} items per task" if limit else ""
        if self.transfer:
            verb = "is" if len(self.transfer) == 1 else "are"
            words += f"; {listed(map(self.task, self.transfer))} {verb} scored and not learned"
        return f"{words}. Scorers: {'; '.join(rules)}." if rules else f"{words}."

    def _rule(self, scorer: str) -> str:
        """A scorer with its paper, and what its score is, where its name says otherwise."""
        cited = self.cite(f"scorer:{scorer}") if self.knows(f"scorer:{scorer}") else ""
        what = shows(scorer)
        return code(scorer) + cited + (f" ({escape(what)})" if what else "")

    def text_tasks(self) -> str:
        if not self.text:
            return ""
        shots = []
        for task in self.text:
            settings = self.tasks[task].get("lm_eval") or {}
            few = settings.get("num_fewshot")
            shots.append(
                f"{self.task(task)} ({escape(str(settings.get('metric', 'acc')))}"
                + (f", {few}-shot)" if few else ")")
            )
        return f"Text tasks, by lm-eval{self.cite('lm-eval')}: {listed(shots)}."

    def metrics(self) -> str:
        return (
            "ACC is the mean accuracy over the tasks after the last stage, LA that on each task right after it was "
            f"learned, BWT the mean of their difference over all tasks but the last{self.cite('metric:transfer')}, "
            "and FM the mean of the best accuracy before the last stage minus the final one"
            f"{self.cite('metric:forgetting')}. Differences are tested over seeds and items together, corrected by "
            f"Holm{self.cite('test:holm')}."
        )

    def software(self) -> str:
        found = [environment for result in self.results if (environment := _last_environment(result))]
        if not found:
            return ""
        versions = {"Python": [str(each.get("python", "?")) for each in found]}
        for package in PACKAGES:
            known = [str(version) for each in found if (version := each.get("packages", {}).get(package))]
            versions |= {package: known} if known else {}
        words = [
            f"{escape(name)} {escape(' or '.join(dict.fromkeys(known)))}" for name, known in versions.items()
        ]
        commits = dict.fromkeys(
            commit["commit"][:12] + (" with local changes" if commit.get("dirty") else "")
            for each in found
            if (commit := each.get("commit"))
        )
        words += [f"commit {escape(' or '.join(commits))} of moextend"] if commits else []
        return f"Software: {', '.join(words)}."

    def hardware(self) -> str:
        found = [environment for result in self.results if (environment := _last_environment(result))]
        machines = dict.fromkeys(
            ", ".join(
                filter(
                    None,
                    [
                        f"device {each['device']}" if each.get("device") else "",
                        str(each.get("gpu") or ""),
                        f"{each['cpus']} CPU cores" if each.get("cpus") else "",
                        counted(each["threads"], "thread") if each.get("threads") else "",
                        str(each.get("processor") or ""),
                        str(each.get("platform") or ""),
                    ],
                )
            )
            for each in found
        )
        return f"Hardware: {'; or '.join(map(escape, machines))}." if machines else ""


def _training(train: dict[str, Any]) -> str:
    """Steps, batch, learning rate and schedule in words."""
    parts = train.get("gradient_accumulation", 1)
    batch = f"batches of {train['batch_size'] * parts:,}" + (f" (in {parts} parts)" if parts > 1 else "")
    words = [f"{train['steps']:,} steps", batch, f"AdamW with learning rate {plain(train['learning_rate'])}"]
    words.append(
        f"{train.get('schedule', 'cosine')} schedule, warm-up over {100 * train.get('warmup', 0):g}\\% of the steps"
    )
    words += [f"weight decay {plain(train.get('weight_decay', 0.0))}"]
    words += [f"gradients cut to norm {plain(train['max_grad_norm'])}"] if train.get("max_grad_norm") else []
    words += ["in bfloat16"] if train.get("bf16") else []
    return ", ".join(words)


def _itemized(rows: Sequence[str]) -> str:
    items = "\n".join(f"\\item {row}" for row in rows)
    return f"\\begin{{itemize}}\\raggedright\n{items}\n\\end{{itemize}}" if rows else ""


def _words(settings: dict[str, Any]) -> list[str]:
    return [f"{escape(key)} {escape(setting(value))}" for key, value in settings.items()]


def _facts(group: Sequence[Result], settings: dict[str, Any]) -> list[str]:
    """Settings, trained parameters and task id of a method."""
    trained = trained_parameters(group)
    known = [f"{trained.text} trained parameters per stage"] if trained.number else []
    return [*_words(settings), *known, f"task id {escape(group[0].facts.task_identity or 'not recorded')}"]


def _settings(result: Result) -> dict[str, Any]:
    return {key: value for key, value in settings_of(result).items() if value is not None}


def _items(results: Sequence[Result]) -> dict[str, str]:
    """Task -> number of items that were scored."""
    counts: dict[str, set[int]] = {}
    for result in results:
        for (_, task), cell in result.cells.items():
            counts.setdefault(task, set()).add(cell.n)
    return {task: " or ".join(f"{n:,}" for n in sorted(known)) for task, known in counts.items()}


def _last_environment(result: Result) -> dict[str, Any]:
    known = result.run.environments
    return known[-1] if known else {}
