"""Task inference: which extension an input belongs to (`scope: auto`).

Each extension keeps task statistics: the mean and the scatter of frozen features of its own inputs. The features are
the mean embedding of the text tokens, and mean, median, maximum and minimum of the encoder's features over the tokens
of each modality (statistics over places carry the style of an image: Huang and Belongie 2017, arXiv 1703.06868). An
input goes to the extension with the highest Gaussian density, among those whose inputs have the same modalities. The
covariances are mostly shared, and a little the extension's own (regularised discriminant analysis: Friedman 1989; in
continual learning: Goswami et al. 2023, arXiv 2309.14062). It goes to none if its text, or its media of one modality,
are farther from that mean than those of the extension's own held-out inputs. A later extension never changes the mean
of an earlier one, and no raw data is kept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from moextend.data.conversations import Conversation
from moextend.data.media import MediaRef
from moextend.errors import InputError
from moextend.extension import tensor_files
from moextend.extension.folder import STATISTICS
from moextend.extension.task_rule import FEWEST, KEPT, Kind, Rule
from moextend.model.fingerprint import tensors_digest
from moextend.model.generation import Prompt
from moextend.model.messages import BETWEEN, without_marks
from moextend.model.modality import Sources
from moextend.model.multimodal import MultimodalLM
from moextend.moe import attach
from moextend.util import files

log = logging.getLogger(__name__)

FILE = STATISTICS
TESTED = 256
"""Prompts of an extension at most that only set the thresholds."""
INPUTS = 3584
"""Prompts of an extension at most; the others than `TESTED` determine mean and scatter."""
RULE = "rda1"
"""Version of the decision rule; part of every fingerprint."""
CHUNK = 64
"""Prompts in a batch of the encoders."""


@dataclass(frozen=True, eq=False)
class TaskStatistics:
    """Statistics of the inputs of one extension; two objects are equal only if they are the same object."""

    mean: Tensor
    """[D]"""
    scatter: Tensor
    """[D, D]: sum of outer products of deviations from the mean."""
    count: int
    sample: Tensor
    """[n, D]: features of held-out inputs, which mean and scatter do not include; they set the thresholds."""
    kind: Kind
    """Modalities of the inputs."""


def kind_of(prompt: Prompt) -> Kind:
    """Modalities of a prompt."""
    return tuple(sorted({medium.modality for medium in prompt.media}))


@torch.no_grad()
def features(
    model: MultimodalLM, prompts: Sequence[Prompt], kind: Kind, sources: Sources | None = None
) -> Tensor:
    """Features [prompts, D] of prompts of one kind: mean embedding of the text tokens, statistics of each modality.

    `sources`: sources of features; None: the model's.
    """
    sources = sources or model.modalities.sources()
    names = [name for name in kind if name in model.modalities]
    found = []
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        seen = [_seen(model, name, chunk, sources) for name in names]
        found.append(torch.cat([_words(model, chunk), *seen], 1))
    return torch.cat(found)


def _words(model: MultimodalLM, prompts: Sequence[Prompt]) -> Tensor:
    """Mean embedding [prompts, H] of the text tokens."""
    texts = [
        BETWEEN.join(filter(None, (prompt.system, without_marks(prompt.text, prompt.media))))
        for prompt in prompts
    ]
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] or [0] for text in texts]
    flat = torch.tensor([token for row in ids for token in row], device=model.device)
    words = model.lm.get_input_embeddings()(flat).float().split([len(row) for row in ids])
    return torch.stack([row.mean(0) for row in words]).cpu()


def _seen(model: MultimodalLM, name: str, prompts: Sequence[Prompt], sources: Sources) -> Tensor:
    """Statistics [prompts, KEPT x width] of the features of a modality over its tokens; 0 without media."""
    found = torch.zeros(len(prompts), KEPT * model.modalities[name].encoder.width)
    media = [[medium for medium in prompt.media if medium.modality == name] for prompt in prompts]
    unique: dict[str, MediaRef] = {medium.digest: medium for own in media for medium in own}
    if unique:
        known = dict(zip(unique, sources[name](list(unique.values())), strict=True))
        for i, own in enumerate(media):
            if own:
                tokens = torch.cat([known[medium.digest] for medium in own]).float()
                found[i] = torch.cat(
                    [tokens.mean(0), tokens.median(0).values, tokens.amax(0), tokens.amin(0)]
                )
    return found


def collect(model: MultimodalLM, prompts: Sequence[Prompt], *, tested: int = TESTED) -> TaskStatistics:
    """Statistics of an extension's training prompts, of those with the most common modalities.

    `tested` of them (half of all at most) only set the thresholds. They are drawn at random, with the same draw every
    time: a threshold holds only for inputs that are distributed as these, and data may be sorted.
    """
    kinds = [kind_of(prompt) for prompt in prompts]
    kind = Counter(kinds).most_common(1)[0][0]
    x = features(model, [prompt for prompt, own in zip(prompts, kinds, strict=True) if own == kind], kind)
    tested = min(tested, len(x) // 2)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    sample, x = x[:tested], x[tested:].double()
    deviation = x - x.mean(0)
    scatter = (deviation.T @ deviation).float()
    return TaskStatistics(x.mean(0).float(), scatter, len(x), sample, kind)


def prompts_of(conversations: Sequence[Conversation]) -> list[Prompt]:
    """First questions (of plain text, the text) as prompts for `collect`.

    Of conversations with media if there are any, else of all.
    """
    prompts = [
        Prompt.first(row) if text else Prompt(answer)
        for row in conversations
        for text, answer in row.turns[:1]
    ]
    return [prompt for prompt in prompts if prompt.media] or prompts


def inputs_of(held_out: Sequence[Conversation], data: Sequence[Conversation]) -> list[Prompt]:
    """At most `INPUTS` prompts for `collect`: of held-out conversations, then of training data, at even distances."""
    first = [held_out[place] for place in evenly(min(INPUTS, len(held_out)), len(held_out))]
    return prompts_of([*first, *(data[place] for place in places(len(held_out), len(data)))])


def places(held_out: int, data: int) -> list[int]:
    """Places of the conversations that `inputs_of` takes from training data, of this many conversations."""
    return evenly(min(INPUTS - min(held_out, INPUTS), data), data)


def evenly(count: int, total: int) -> list[int]:
    """`count` of `total` places, at even distances."""
    return [i * total // count for i in range(count)]


def accuracy(known: Mapping[str, TaskStatistics]) -> dict[str, float]:
    """Name -> share of the held-out inputs with their own extension as the nearest, 0..1; no thresholds.

    An extension without held-out inputs (it has one input) is left out.
    """
    rule = Rule(known)
    nearest = {name: rule.nearest(task.sample, task.kind) for name, task in known.items()}
    return {name: found.count(name) / len(found) for name, found in nearest.items() if found}


class TaskInference:
    """Chooses the extension of each prompt; see `generation.generate`."""

    def __init__(
        self,
        model: MultimodalLM,
        statistics: Mapping[str, TaskStatistics],
        reaching: Callable[[Sequence[str]], AbstractContextManager[None]] | None = None,
        *,
        warned: Container[str] = (),
    ) -> None:
        """Args: warned: extensions whose lack of held-out inputs was logged before."""
        self.model, self.statistics = model, dict(statistics)
        self._reaching = reaching or partial(attach.reaching, model.lm)
        self._made_of: dict[str, TaskStatistics] = {}
        self._rule = Rule({})
        for name, task in statistics.items():
            if len(task.sample) < FEWEST and name not in warned:
                log.warning(
                    "Extension '%s' has %d held-out inputs, too few for a threshold (%d): it accepts "
                        "every input that is nearest to it, at any distance.", name, len(task.sample), FEWEST,
                )  # fmt: skip

    @property
    def rule(self) -> Rule:
        """Decision rule for the current statistics; computed again only after an extension was added or removed."""
        if self._made_of != self.statistics:
            words = self.model.lm.get_input_embeddings().weight.shape[1]
            widths = {name: modality.encoder.width for name, modality in self.model.modalities.items()}
            self._rule, self._made_of = Rule(self.statistics, words, widths), dict(self.statistics)
        return self._rule

    def reaching(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Context in which only these extensions compute, or what the argument `reaching` does with the names."""
        return self._reaching(names)

    def fingerprint(self) -> str:
        """Identifies the rule and the statistics."""
        known = {
            f"{name}.{part}": getattr(task, part)
            for name, task in self.statistics.items()
            for part in ("mean", "scatter", "sample")
        }
        kinds = {name: task.kind for name, task in self.statistics.items()}
        return "-".join([RULE, tensors_digest(known), files.digest(kinds)])

    def __call__(self, prompts: Sequence[Prompt], sources: Sources | None = None) -> list[tuple[str, ...]]:
        """Extensions that each prompt reaches: one or none. `sources`: sources of features."""
        found: list[tuple[str, ...]] = [()] * len(prompts)
        kinds = [kind_of(prompt) for prompt in prompts]
        for kind in sorted({task.kind for task in self.statistics.values()} & set(kinds)):
            places = [i for i, own in enumerate(kinds) if own == kind]
            x = features(self.model, [prompts[i] for i in places], kind, sources)
            for i, name in zip(places, self.rule.choose(x, kind), strict=True):
                found[i] = (name,) if name else ()
        return found

    def shares(self, prompts: Sequence[Prompt]) -> dict[str, float]:
        """Extension ("": none, only the base computes) -> share of the prompts that reach it, 0..1."""
        counts = Counter(names[0] if names else "" for names in self(prompts))
        return {name: counts[name] / len(prompts) for name in ("", *self.statistics)}


def write(statistics: TaskStatistics, folder: Path) -> None:
    """Writes task statistics to the folder of an extension."""
    tensors = {name: getattr(statistics, name) for name in ("mean", "sample")}
    tensors["triangle"] = statistics.scatter[tuple(torch.triu_indices(*statistics.scatter.shape))]
    tensors["count"] = torch.tensor(statistics.count)
    tensor_files.write_tensors(folder / FILE, tensors, ",".join(statistics.kind))


def find(folder: Path) -> Path | None:
    """File of task statistics in the folder of an extension; None if there is none."""
    return folder / FILE if (folder / FILE).is_file() else None


def read(folder: Path) -> TaskStatistics:
    """Task statistics from the folder of an extension. Raises InputError if the file is damaged."""
    kept, kind = tensor_files.read_noted(folder / FILE)
    if "triangle" not in kept:
        raise InputError(
            "is of another rule of task inference.", where=str(folder / FILE), hint=tensor_files.AGAIN
        )
    scatter = torch.zeros(len(kept["mean"]), len(kept["mean"]))
    scatter[tuple(torch.triu_indices(*scatter.shape))] = kept["triangle"]
    return TaskStatistics(
        kept["mean"],
        scatter + scatter.triu(1).T,
        int(kept["count"]),
        kept["sample"],
        tuple(filter(None, kind.split(","))),
    )
