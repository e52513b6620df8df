"""Compares rules of task inference on a finished run of `moextend:scope=own`, without training.

    python examples/open_problem/inference_rules.py runs/tiny-worlds-conflict/moextend+scope-own-s0

Every expert set answers the test items of every task once; the accuracy of a rule that assigns each input to one set is
then a look-up. Rules differ in the statistics of the image features (the package keeps mean, median, maximum and
minimum), in the number of inputs that they are computed from, and in the classifier. The last rows mix the sets by a
calibrated posterior.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import moextend
from moextend.bench.data.items import prompt_text
from moextend.bench.data.open import conversations, open_items
from moextend.bench.run import models
from moextend.bench.run.context import RunContext
from moextend.bench.run.rundir import RunDir
from moextend.bench.scorers import own_answer
from moextend.extension.task_inference import prompts_of
from moextend.model.generation import Prompt
from moextend.moe import attach

SIZES = (256, 1500)
"""Inputs of each task that a rule is computed from; the package takes 3,328, and 256 more for its thresholds."""
HELD = 250
"""Further inputs of each task, for the temperature of the posterior."""
STATISTICS = {"mean": 1, "mean, std": 2, "mean, std, max, min": 4}
SHRINKAGE = 0.01
TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


@torch.no_grad()
def features(model: moextend.MultimodalLM, prompts: Sequence[Prompt]) -> Tensor:
    """[n, H + 4 W]: mean embedding of the words; mean, standard deviation, maximum, minimum of the image tokens."""
    table, tokenizer = model.lm.get_input_embeddings(), model.tokenizer
    texts = [prompt.text.replace("<image>", "") for prompt in prompts]
    words = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    text = torch.stack([table(torch.tensor(ids)).mean(0) for ids in words])
    seen = model.modalities.sources()["image"]([prompt.media[0] for prompt in prompts])
    image = torch.stack([torch.as_tensor(each).float().cpu() for each in seen])
    parts = [text.float(), image.mean(1), image.std(1), image.amax(1), image.amin(1)]
    return torch.cat(parts, 1).double()


def lda() -> Pipeline:
    """Linear discriminant analysis; scope auto's rule also has covariances of each task (task_rule.py)."""
    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE))


def logistic() -> Pipeline:
    """Multinomial logistic regression."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))


def log_posterior(rule: Pipeline, x: Tensor) -> Tensor:
    """[n, tasks] for features [n, D]."""
    return torch.as_tensor(rule.predict_log_proba(x))


RULES: dict[str, Callable[[], Pipeline]] = {"LDA": lda, "logistic": logistic}


class Run:
    """The test items of a run's tasks, and which of them each expert set answers correctly when it is alone."""

    def __init__(self, folder: Path) -> None:
        context = RunContext(RunDir(folder))
        self.names = [stage.task for stage in context.sequence.stages]
        self.model = models.restored(context.run, task=self.names[-1])
        self.tasks = context.tasks
        self.prompts: dict[str, list[Prompt]] = {}
        self.answers: dict[str, list[str]] = {}
        self.train: dict[str, Tensor] = {}
        for name in self.names:
            task = context.tasks[name]
            items = list(
                open_items(task, "test", context.workspace)[: context.sequence.scoring.limit or None]
            )
            self.prompts[name] = [Prompt(prompt_text(task, item), item.media) for item in items]
            self.answers[name] = [own_answer(task.scorer, item) for item in items]
            every = conversations(task, context.workspace)
            step = max(1, len(every) // (SIZES[-1] + HELD))
            drawn = [every[at] for at in range(0, len(every), step)][: SIZES[-1] + HELD]
            self.train[name] = features(self.model, prompts_of(drawn))
        self.test = {name: features(self.model, prompts) for name, prompts in self.prompts.items()}

    def right(self, name: str, places: Sequence[int], strengths: dict[str, float]) -> Tensor:
        """[places]: whether test items of a task are answered correctly with these expert sets."""
        attach.activate(self.model.lm, {one: share for one, share in strengths.items() if share})
        tokens = self.tasks[name].max_new_tokens
        asked = [self.prompts[name][at] for at in places]
        found = moextend.generate(self.model, asked, max_new_tokens=tokens, batch_size=125)
        return torch.tensor([a == self.answers[name][at] for a, at in zip(found, places, strict=True)])


def data(run: Run, statistics: str, size: int) -> tuple[int, Tensor, Tensor]:
    """Number of features, features [n, D] and task numbers [n] that a rule is computed from."""
    text = run.model.width
    width = text + STATISTICS[statistics] * (next(iter(run.train.values())).shape[1] - text) // 4
    x = torch.cat([run.train[name][:size, :width] for name in run.names])
    return width, x, torch.arange(len(run.names)).repeat_interleave(size)


def hard(run: Run) -> Iterator[str]:
    """A row for each rule that assigns an input to one expert set."""
    alone = {
        name: torch.stack([run.right(name, range(len(run.prompts[name])), {one: 1.0}) for one in run.names])
        for name in run.names
    }
    diagonal = [float(alone[name][k].double().mean()) for k, name in enumerate(run.names)]
    yield f"| given task | - | - | 100.0 | {100 * sum(diagonal) / len(diagonal):.1f} |"
    for statistics in STATISTICS:
        for size in SIZES:
            width, x, y = data(run, statistics, size)
            for name, rule in RULES.items():
                fitted, own, accuracy = rule().fit(x, y), 0.0, 0.0
                for k, task in enumerate(run.names):
                    chosen = torch.as_tensor(fitted.predict(run.test[task][:, :width]))
                    own += float((chosen == k).double().mean()) / len(run.names)
                    hits = alone[task][chosen, torch.arange(len(chosen))]
                    accuracy += float(hits.double().mean()) / len(run.names)
                yield f"| {name} | {statistics} | {size} | {100 * own:.1f} | {100 * accuracy:.1f} |"


def soft(run: Run) -> Iterator[str]:
    """Rows of mixtures: strengths are the posterior of LDA, rounded to quarters."""
    for statistics, size in (("mean", SIZES[0]), ("mean, std", SIZES[1])):
        width, x, y = data(run, statistics, size)
        fitted = lda().fit(x, y)
        held = log_posterior(fitted, torch.cat([run.train[name][-HELD:, :width] for name in run.names]))
        truth = torch.arange(len(run.names)).repeat_interleave(HELD)
        best = min(TEMPERATURES, key=lambda t: float(F.cross_entropy(held / t, truth)))
        accuracy = 0.0
        for task in run.names:
            shares = ((log_posterior(fitted, run.test[task][:, :width]) / best).softmax(1) * 4).round()
            mixed, hits = dict[tuple[float, ...], list[int]](), 0
            for at, row in enumerate((shares / shares.sum(1, keepdim=True)).tolist()):
                mixed.setdefault(tuple(round(share, 2) for share in row), []).append(at)
            for row, places in mixed.items():
                hits += int(run.right(task, places, dict(zip(run.names, row, strict=True))).sum())
            accuracy += hits / len(shares) / len(run.names)
        yield f"| mixture by LDA | {statistics} | {size} | - | {100 * accuracy:.1f} |"


def main(folder: str) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    run = Run(Path(folder))
    print("| rule | statistics of the image | inputs | own set % | ACC |")
    print("| :--- | :--- | ---: | ---: | ---: |")
    for row in (*hard(run), *soft(run)):
        print(row)


if __name__ == "__main__":
    main(sys.argv[1])
