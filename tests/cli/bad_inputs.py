"""Bad inputs of the command line: the arguments, the workspace, and the expected words of the error.

To add one, write a line in a table. `test_preflight.py` runs them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

SEQUENCE = """\
sequence: mine
version: 1
base: {model: tiny, vision: tiny}
align: {task: tiny-captions, steps: 3, batch_size: 2, learning_rate: 3.0e-3}
stages: [{task: tiny-counting}]
retention: [tiny-facts]
memory: tiny-generic.txt
train: {steps: 2, batch_size: 2, learning_rate: 3.0e-3}
scoring: {batch_size: 8, limit: 4}
methods: [lora]
settings: {lora: {rank: 4}}
"""
"""A sequence that is right; cases replace a part of it."""

ALIGN = "align: {task: tiny-captions, steps: 3, batch_size: 2, learning_rate: 3.0e-3}\n"
TASK = """\
task: own
version: 1
kind: vqa
data: {path: own.json, train: "all[:50%]", test: "all[50%:]"}
columns: {image: null, question: question, answer: answer}
prompt: "{question}"
scorer: exact@1
"""
"""A task that is right."""

LONG = "a" * 300
"""A name that no file can have."""
DATA = json.dumps([{"question": f"what is {i}", "answer": str(i)} for i in range(40)])


@dataclass(frozen=True)
class Case:
    """One bad input."""

    arguments: tuple[str, ...]
    names: tuple[str, ...]
    """What the answer holds: the option, file or key, and what was found there."""
    files: dict[str, str] = field(default_factory=dict)
    """Path in the workspace -> content; beside registry/mine.yaml, tasks/own.yaml and own.json."""
    long: bool = False
    """Whether the answer may hold a list of known names."""

    @property
    def id(self) -> str:
        """The command as it is typed, and what was changed in a file."""
        return " ".join(
            [*(word or "''" for word in self.arguments), *(f"({name})" for name in self.names[-1:])]
        )[:150]


def option(command: str, *names: str, long: bool = False) -> Case:
    """A command line, its words separated by blanks; '' is an empty word."""
    words = tuple("" if word == "''" else word for word in command.split())
    return Case(words, names, long=long)


def sequence(old: str, new: str, *names: str, long: bool = False) -> Case:
    """The sequence with one part replaced, as `bench run mine` finds it."""
    assert old in SEQUENCE, old
    return Case(("bench", "run", "mine"), names, {"registry/mine.yaml": SEQUENCE.replace(old, new, 1)}, long)


def task(old: str, new: str, *names: str, long: bool = False) -> Case:
    """The task with one part replaced, in a sequence that learns it."""
    assert old in TASK, old
    files = {
        "tasks/own.yaml": TASK.replace(old, new, 1),
        "registry/mine.yaml": SEQUENCE.replace("tiny-counting", "own"),
    }
    return Case(("bench", "run", "mine"), names, files, long)


TUNE = [
    option("bench tune nothing", "sequence 'nothing'", "tiny"),
    option("bench tune mine --method lroa", "--method", "'lroa'", "'lora'"),
    option("bench tune mine --method joint", "--method", "joint", "full-ft"),
    option("bench tune mine --method zero-shot", "--method", "no setting"),
    option("bench tune mine --method lora:rank=4,learning_rate=0.1", "--method", "no setting"),
    option("bench tune mine --budget 0", "--budget", "0"),
    option("bench tune mine --budget 1001", "--budget", "1001", "1000"),
    option("bench tune mine --budget x", "--budget"),
    option("bench tune mine --tasks 0", "--tasks", "0"),
    option("bench tune mine --validation 0", "--validation", "0"),
    option("bench tune mine --validation 51", "--validation", "51", "50"),
    option("bench tune mine --seed 0", "--seed", "at least two", "--seed 0,1"),
    option("bench tune mine --seed 0,0", "--seed", "twice"),
    option("bench tune mine --seed -1", "--seed"),
    option("bench tune mine --search-seed -1", "--search-seed"),
    option("bench tune mine --to ''", "--to", "empty"),
    option("bench tune mine --to a/b", "--to", "a/b"),
    option("bench tune mine --to fair.yaml", "--to", "fair.yaml"),
    option("bench tune mine --to tiny", "--to", "tiny", "already"),
    option("bench tune mine --limit 0", "--limit"),
    option("bench tune mine --steps 0", "--steps"),
    option("bench tune mine --device tpu", "--device", "tpu"),
    option("bench tune mine --jobs 0", "--jobs"),
    option("bench tune mine --executor pbs", "--executor", "pbs"),
]
"""Searches."""

RUN = [
    # What is to be run
    option("bench run ''", "NAME", "empty"),
    option("bench run nothing", "sequence 'nothing'", "tiny"),
    option("bench run mine.yml", "mine.yml", "no such file"),
    option("bench run nothing.yaml", "nothing.yaml", "no such file"),
    option("bench run registry/mine", "registry/mine", "mine"),
    option("bench run registry", "registry"),
    option("bench run ../mine", "../mine"),
    option("bench run own.json", "own.json"),
    option("bench run mine mine", "mine"),
    option(f"bench run {LONG}", "NAME", "300 characters"),
    option(f"bench run {LONG}.yaml", "NAME", "305 characters"),
    option("bench run mine --no-sequence", "--no-sequence", "--joint"),
    option("bench run mine --no-such", "--no-such"),
    # Methods
    option("bench run mine --method ''", "--method", "empty"),
    option("bench run mine --method ,", "--method"),
    option("bench run mine --method lroa", "--method", "'lroa'", "'lora'"),
    option("bench run mine --method lora --method lroa", "'lroa'"),
    option("bench run mine --method lora --method lora", "--method", "twice"),
    option("bench run mine --method lora,lora", "--method", "twice"),
    option("bench run mine --method LORA", "'LORA'", "lora"),
    option("bench run mine --method lora:", "--method", "lora:"),
    option("bench run mine --method lora:rank", "rank"),
    option("bench run mine --method lora:rank=", "rank"),
    option("bench run mine --method lora:rank=0", "rank"),
    option("bench run mine --method lora:rank=x", "rank", "'x'"),
    option("bench run mine --method lora:rank=4,rank=5", "rank", "twice"),
    option("bench run mine --method lora:rank=10000000000", "rank"),
    option("bench run mine --method lora:ranks=4", "ranks", "'rank'"),
    option("bench run mine --method lora:learning_rate=0", "learning_rate"),
    option("bench run mine --method lora:learning_rate=-1", "learning_rate"),
    option("bench run mine --method lora:learning_rate=nan", "learning_rate"),
    option("bench run mine --method lora:learning_rate=inf", "learning_rate"),
    option("bench run mine --method full-ft:learning_rate=0", "learning_rate"),
    option("bench run mine --method moextend:learning_rate=-1", "learning_rate"),
    option("bench run mine --method lora:alpha=0", "alpha"),
    option("bench run mine --method lora:alpha=-2", "alpha"),
    option("bench run mine --method moe-lora:alpha=-2", "alpha"),
    option("bench run mine --method moextend:scope=some", "scope", "own"),
    option("bench run mine --method moextend:share=0", "share"),
    option("bench run mine --method moextend:share=1.5", "share"),
    option("bench run mine --method moextend:layers=some", "layers"),
    option("bench run mine --method moextend:layers=-1", "layers"),
    option("bench run mine --method moextend:routing=slot,width=0.5", "width"),
    option("bench run mine --method moextend:margin=-1", "margin"),
    option("bench run mine --method moextend:memory_weight=-1", "memory_weight"),
    option("bench run mine --method moextend:experts=10000000000", "experts"),
    option("bench run mine --method moextend:probe_steps=10000000000", "probe_steps"),
    option("bench run mine --method replay:share=2", "share"),
    option("bench run mine --method ewc:strength=0", "strength"),
    option("bench run mine --method zero-shot:rank=1", "rank"),
    option("bench run mine --match size", "--match", "size", "params"),
    option("bench run mine --match params", "--match", "moextend"),
    option("bench run mine --match params=lroa", "--match", "lroa"),
    option("bench run mine --match ''", "--match", "empty"),
    # Seeds, orders
    option("bench run mine --seed ''", "--seed", "empty"),
    option("bench run mine --seed ,", "--seed"),
    option("bench run mine --seed -1", "--seed", "-1"),
    option("bench run mine --seed 1-3", "--seed", "'1-3'", "0,1,2"),
    option("bench run mine --seed 0,0", "--seed", "twice"),
    option("bench run mine --seed 0 --seed 00", "--seed", "twice"),
    option("bench run mine --seed 0.5", "--seed", "'0.5'"),
    option("bench run mine --seed 1e3", "--seed", "'1e3'"),
    option("bench run mine --seed 4294967296", "--seed", "4294967295"),
    option("bench run mine --seed " + "9" * 200, "--seed", "4294967295"),
    option("bench run mine --seed " + "9" * 5000, "--seed", "5,000 characters"),
    option("bench run mine --order ''", "--order", "empty"),
    option("bench run mine --order random", "--order", "random:N"),
    option("bench run mine --order random:", "--order", "random:N"),
    option("bench run mine --order random:x", "--order", "random:N"),
    option("bench run mine --order random:4294967296", "--order", "4294967295"),
    option("bench run mine --order random:" + "9" * 200, "--order", "4294967295"),
    option("bench run mine --order backwards", "--order", "'backwards'", "reverse"),
    option("bench run mine --order given,given", "--order", "twice"),
    # Numbers
    option("bench run mine --steps 0", "--steps", "1"),
    option("bench run mine --steps -5", "--steps"),
    option("bench run mine --steps 10000000000", "--steps", "1000000"),
    option("bench run mine --steps many", "--steps", "integer"),
    option("bench run mine --steps 1.5", "--steps"),
    option("bench run mine --steps 1 --steps 2", "--steps", "twice"),
    option("bench run mine --limit 0", "--limit", "1"),
    option("bench run mine --limit -1", "--limit"),
    option("bench run mine --limit nan", "--limit"),
    option("bench run mine --jobs 0", "--jobs", "1"),
    option("bench run mine --jobs -1", "--jobs"),
    option("bench run mine --jobs two", "--jobs", "integer"),
    option("bench run mine --jobs 10000000000", "--jobs"),
    # Device
    option("bench run mine --device ''", "--device", "empty"),
    option("bench run mine --device gpu", "--device", "'gpu'", "cuda"),
    option("bench run mine --device CUDA", "--device", "'CUDA'", "cuda"),
    option("bench run mine --device cuda", "--device", "'cuda'", "accelerators: none"),
    option("bench run mine --device cuda:7", "--device", "'cuda:7'", "accelerators: none"),
    option("bench run mine --device cuda:x", "--device", "'cuda:x'"),
    option("bench run mine --device mps", "--device", "'mps'"),
    option("bench run mine --device cpu --device cuda", "--device", "twice"),
    # Places
    option("bench run mine --workspace nothing", "--workspace", "nothing"),
    option("bench run mine --workspace own.json", "--workspace", "own.json"),
    option("bench run mine --workspace ''", "--workspace", "empty"),
    option("bench run mine --runs own.json", "--runs", "own.json"),
    option("bench run mine --runs own.json/below", "own.json"),
    option("bench run mine --runs ''", "--runs", "empty"),
    option(f"bench run mine --runs {LONG}", "--runs"),
    option(f"bench run mine --workspace {LONG}", "--workspace"),
    option("bench run mine --runs /proc/moextend", "/proc/moextend"),
]  # fmt: skip

SEQUENCES = [
    sequence("model: tiny", "model: tinny", "base.model", "'tinny'", "tiny"),
    sequence("model: tiny", "model: no such model", "base.model", "'no such model'"),
    sequence("model: tiny", "model: a/b/c", "base.model", "'a/b/c'"),
    sequence("model: tiny", "model: ''", "base.model"),
    sequence("model: tiny", "model: tasks", "base.model", "config.json"),
    sequence("model: tiny", f"model: {LONG}", "base.model", "aaa"),
    sequence("memory: tiny-generic.txt", f"memory: {LONG}", "memory", long=True),
    sequence("vision: tiny", f"vision: {LONG}", "base.vision", long=True),
    sequence("{task: tiny-counting}", f"{{task: {LONG}}}", "stages[0].task", "aaa", long=True),
    sequence("model: tiny", "model: ./nothing", "base.model", "./nothing"),
    sequence("model: tiny", "model: /nothing/at/all", "base.model", "/nothing/at/all"),
    sequence("model: tiny", "model: /dev/zero", "base.model", "/dev/zero"),
    sequence("model: tiny", "model: own.json", "base.model", "own.json"),
    sequence("model: tiny", "model: nothing.gguf", "base.model", "nothing.gguf"),
    sequence("vision: tiny", "vision: tinny", "base.vision", "'tinny'", long=True),
    sequence("vision: tiny", "vision: ViT-B-32/nothing", "base.vision", "ViT-B-32/nothing", long=True),
    sequence("vision: tiny", "vision: tasks", "base.vision", "tasks"),
    sequence("vision: tiny", "vision: null", "base.vision", "align"),
    sequence(f"vision: tiny}}\n{ALIGN}", "vision: null}\n", "base.vision", "'tiny-counting'", "image encoder"),
    sequence("vision: tiny", "vision: tiny, dtype: float61", "base.dtype", "float61", "float16"),
    sequence("vision: tiny", "vision: tiny, dtype: bf16", "base.dtype", "bf16"),
    sequence("vision: tiny", "vision: tiny, resize: stretch", "base.resize", "stretch"),
    sequence("vision: tiny", "vision: tiny, attn_implementation: flash", "base.attn_implementation", "flash"),
    sequence("vision: tiny", "vision: tiny, attn_implementation: flash_attention_2", "attn_implementation"),
    sequence("vision: tiny", "vision: tiny, upcycle: {experts: 1}", "base.upcycle.experts"),
    sequence("vision: tiny", "vision: tiny, upcycle: {experts: 2, top_k: 3}", "base.upcycle", "top_k"),
    sequence("vision: tiny", "vision: tiny, upcycle: {experts: 2, seed: -1}", "base.upcycle.seed"),
    sequence("memory: tiny-generic.txt", "memory: /dev/zero", "memory", "/dev/zero"),
    sequence("memory: tiny-generic.txt", "memory: nothing.txt", "memory", "nothing.txt"),
    sequence("memory: tiny-generic.txt", "memory: ../tasks", "memory", "tasks"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: 3.0e-3, report_to: wandbb}\nscoring",
             "train.report_to", "wandbb", "wandb"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: 3.0e-3, report_to: neptune}\nscoring",
             "train.report_to", "neptune", "not installed"),
    sequence("learning_rate: 3.0e-3}\nstages", "learning_rate: 3.0e-3, report_to: neptune}\nstages",
             "align.report_to", "neptune", "not installed"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: 3.0e-3, cache_prefix: true, compile: true}\nscoring",
             "train", "cache_prefix"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: 0}\nscoring", "train.learning_rate"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: -1}\nscoring", "train.learning_rate"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: .nan}\nscoring", "train.learning_rate"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: .inf}\nscoring", "train.learning_rate"),
    sequence("learning_rate: 3.0e-3}\nscoring", "learning_rate: high}\nscoring", "train.learning_rate", "high"),
    sequence("steps: 2", "steps: 0", "train.steps"),
    sequence("steps: 2", "steps: -2", "train.steps"),
    sequence("steps: 2", "steps: 10000000000", "train.steps", "1000000"),
    sequence("steps: 2", "steps: .inf", "train.steps"),
    sequence("steps: 2", "steps: 1000000, gradient_accumulation: 1000000", "train.gradient_accumulation"),
    sequence("steps: 2", "steps: 2, schedule: cosin", "train.schedule", "cosin"),
    sequence("steps: 2", "steps: 2, warmup: 2", "train.warmup"),
    sequence("steps: 2", "steps: 2, checkpoint_steps: 0", "train.checkpoint_steps"),
    sequence("batch_size: 2, learning_rate: 3.0e-3}\nscoring", "learning_rate: 3.0e-3}\nscoring", "train.batch_size"),
    sequence("batch_size: 2, learning_rate: 3.0e-3}\nscoring", "batch_size: 10000000000, learning_rate: 1}\nscoring",
             "train.batch_size"),
    sequence("{task: tiny-counting}", "{task: tiny-facts}", "stages[0].task", "text"),
    sequence("{task: tiny-counting}", "{task: tiny-countin}", "stages[0].task", "'tiny-counting'", long=True),
    sequence("{task: tiny-counting}", "{task: mmmu}", "stages[0].task", "mmmu"),
    sequence("{task: tiny-counting}", "{task: tiny-counting, steps: 0}", "stages[0].steps"),
    sequence("{task: tiny-counting}", "{task: tiny-counting, steps: 10000000000}", "stages[0].steps"),
    sequence("{task: tiny-counting}", "{task: tiny-counting}, {task: tiny-counting}", "stages", "twice"),
    sequence("{task: tiny-counting}", "tiny-counting", "stages[0]"),
    sequence("[{task: tiny-counting}]", "[]", "stages"),
    sequence("[{task: tiny-counting}]", "tiny-counting", "stages"),
    sequence("task: tiny-captions", "task: tiny-facts", "align.task", "text"),
    sequence("task: tiny-captions", "task: nothing", "align.task", "nothing", long=True),
    sequence("task: tiny-captions", "task: mmmu", "align.task", "mmmu"),
    sequence("[tiny-facts]", "[tiny-counting]", "retention[0]", "vqa"),
    sequence("[tiny-facts]", "[tiny-attributes]", "retention[0]", "vqa"),
    sequence("[tiny-facts]", "[tiny-facts, tiny-facts]", "retention", "twice"),
    sequence("[tiny-facts]", "[nothing]", "retention[0]", "nothing", long=True),
    sequence("retention: [tiny-facts]", "transfer: [tiny-facts]", "transfer[0]", "text"),
    sequence("retention: [tiny-facts]", "transfer: [tiny-counting]", "transfer", "tiny-counting"),
    sequence("limit: 4", "limit: 0", "scoring.limit"),
    sequence("batch_size: 8", "batch_size: 0", "scoring.batch_size"),
    sequence("[lora]", "[]", "methods"),
    sequence("[lora]", "[lroa]", "methods", "'lroa'", "'lora'"),
    sequence("[lora]", "['']", "methods"),
    sequence("[lora]", "lora", "methods"),
    sequence("{lora: {rank: 4}}", "{lroa: {rank: 4}}", "settings", "'lroa'"),
    sequence("{lora: {rank: 4}}", "{lora: {rnk: 4}}", "settings", "rnk"),
    sequence("{lora: {rank: 4}}", "{lora: {rank: 0}}", "rank"),
    sequence("{lora: {rank: 4}}", "{full-ft: {learning_rate: -1}}", "full-ft", "learning_rate"),
    sequence("version: 1", "version: 1\nversion: 2", "mine.yaml:3", "version"),
    sequence("version: 1", "vresion: 1", "vresion", "Did you mean"),
    sequence("version: 1\n", "", "version"),
    sequence("sequence: mine", "sequence: ''", "sequence"),
    sequence("sequence: mine", "sequence: ../mine", "sequence", "../mine"),
    sequence("sequence: mine", "sequence: a/b", "sequence", "a/b"),
    sequence("sequence: mine", "sequence: [mine", "mine.yaml"),
    sequence(SEQUENCE, "", "mine.yaml"),
    sequence(SEQUENCE, "- one\n", "mine.yaml"),
    sequence(SEQUENCE, "\x00", "mine.yaml"),
]  # fmt: skip

TASKS = [
    task("kind: vqa", "kind: vqaa", "kind", "vqaa"),
    task("kind: vqa", "kind: text", "lm_eval"),
    task("task: own", "task: other", "task", "'other'"),
    task("task: own", "task: ../own", "task"),
    task("version: 1", "version: 1\nversion: 1", "own.yaml:3", "version"),
    task("scorer: exact@1", "scorer: exact@9", "scorer", "exact@9", long=True),
    task("scorer: exact@1", "scorer: exakt", "scorer", "exakt", long=True),
    task("scorer: exact@1", "max_new_tokens: 0", "max_new_tokens"),
    task("scorer: exact@1", "max_new_tokens: 10000000000", "max_new_tokens"),
    task("path: own.json", "path: nothing.json", "data.path", "nothing.json"),
    task("path: own.json", "path: ./", "data.train"),
    task("path: own.json", f"path: {LONG}", "data.path", long=True),
    task("path: own.json", "path: 'world:nothing'", "data.path", "nothing"),
    task("path: own.json", "path: 'data:nothing'", "data.path", "nothing"),
    task('train: "all[:50%]"', "train: null", "data.train"),
    task('train: "all[:50%]"', 'train: "all[:500%]"', "data.train"),
    task('train: "all[:50%]"', 'train: "all[50%:50%]"', "data.train"),
    task("answer: answer", "answer: anwser", "columns.answer", "'answer'"),
    task("answer: answer", "answr: answer", "columns.answr", "'answer'"),
    task('prompt: "{question}"', 'prompt: "{qestion}"', "prompt", "qestion"),
    task('prompt: "{question}"', 'prompt: "{question"', "prompt"),
    task('prompt: "{question}"', 'prompt: ""', "prompt"),
]  # fmt: skip

OTHERS = [
    option("bench status ''", "RUN", "empty"),
    option("bench status nothing", "nothing"),
    option("bench status a b", "b"),
    option("bench status --runs own.json", "--runs", "own.json"),
    option("bench status --workspace own.json", "--workspace", "own.json"),
    option(f"bench status {LONG}", "RUN", "300 characters"),
    option(f"bench report {LONG}", "RUN", "300 characters"),
    option(f"bench report --references coin --out {LONG}", "--out"),
    option("bench report ''", "RUN", "empty"),
    option("bench report nothing", "nothing"),
    option("bench report", "no run is done", "moextend bench run"),
    option("bench report --format pdf", "--format", "'pdf'", "latex"),
    option("bench report --format ''", "--format", "empty"),
    option("bench report --margin nan", "--margin", "nan"),
    option("bench report --margin inf", "--margin", "inf"),
    option("bench report --margin -1", "--margin", "-1"),
    option("bench report --margin x", "--margin", "x"),
    option("bench report --margin 2", "--margin", "--baseline"),
    option("bench report --matrix --costs", "--matrix", "Choose one"),
    option("bench report --baseline ''", "--baseline", "empty"),
    option("bench report --references nothing", "--references", "'nothing'"),
    option("bench report --references ''", "--references", "empty"),
    option("bench report --out ''", "--out", "empty"),
    option("bench report --references coin --out /proc/moextend/tables", "--out", "/proc/moextend"),
    option("bench report --references coin --out own.json/tables", "own.json"),
    option("bench list extra", "extra"),
    option("bench list --workspace nothing", "--workspace", "nothing"),
    option("bench show nothing", "nothing", long=True),
    option("bench show ''", "NAME", "empty"),
    option("bench add-task nothing", "'nothing'", long=True),
    option("bench add-task ''", "TASK", "empty"),
    option("bench add-task own.yaml", "own.yaml"),
    option("bench add-task vqa --data nothing.json", "nothing.json"),
    option(f"bench add-task vqa --name b --data {LONG}", "--data", "300 characters"),
    option("bench add-task vqa --data ''", "--data", "empty"),
    option("bench add-task qa --data own.json --name ''", "--name", "empty"),
    option("bench add-task qa --data own.json --name foo.yaml", "--name", "--name foo"),
    option("bench add-task qa --data own.json --name foo.yml", "--name", "--name foo"),
    option("bench add-task qa --data own.json --name foo.json", "--name", "--name foo"),
    option("bench add-task qa --data own.json --name a/b", "--name", "a/b"),
    option("bench add-task qa --data own.json --name ../b", "--name", "../b"),
    option("bench add-task qa --data own.json --name -b", "--name"),
    option("bench add-task qa --data own.json --name " + "a" * 300, "--name"),
    option("bench add-task qa --data own.json --name own", "--name", "own"),
    option("bench add-task qa --data own.json --name b --columns answer", "--columns", "'answer'"),
    option("bench add-task qa --data own.json --name b --columns answr=answer", "columns", "'answr'", "'answer'"),
    option("bench add-task qa --data own.json --name b --columns answer=anwser", "column", "'anwser'"),
    option("bench add-task qa --data own.json --name b --columns answer=answer,answer=question", "--columns", "twice"),
    option("bench add-task qa --data own.json --name b --scorer exakt", "--scorer", "exakt", long=True),
    option("bench add-task qa --data own.json --name b --to 0", "--to"),
    option("bench add-task qa --data own.json --name b --to 9", "no place 9"),
    option("bench add-task qa --data own.json --name b --sequence .nothing", "--sequence", ".nothing"),
    option("bench add-task qa --data own.json --name b --sequence ''", "--sequence", "empty"),
    option("bench add-task qa --data own.json --name b --sequence ../b", "--sequence", "../b"),
    option("bench add-task caption --data own.json --name b", "own.json"),
    option("bench add-task lmms:nothing", "lmms"),
    option("bench add-task lmms:", "lmms:"),
    option("bench move-task nothing --to 1 --sequence mine", "nothing"),
    option("bench move-task tiny-counting --to 1", "registry/sequence.yaml", "--sequence"),
    option("bench move-task tiny-counting --to 0 --sequence mine", "--to"),
    option("bench move-task tiny-counting --to 9 --sequence mine", "9"),
    option("bench move-task tiny-counting --sequence mine", "--to"),
    option("bench remove-task nothing --sequence mine", "nothing"),
    option("bench remove-task '' --sequence mine", "TASK", "empty"),
    option("bench rnu", "rnu"),
    option("benhc", "benhc"),
]  # fmt: skip

OWN = "--data own.json --name new --out out --template {question}"
LIBRARY = [
    option(f"extend {LONG} {OWN}", "BASE", "aaa"),
    option(f"extend tiny --data own.json --name new --out {LONG}", "--out"),
    option(f"extend tiny --data own.json --name {LONG} --out out", "--name"),
    option(f"extend tiny {OWN} --vision {LONG}", "--vision", long=True),
    option(f"extend tiny {OWN} --extension {LONG}", "--extension"),
    option(f"generate tiny --vision tiny --prompt a --image {LONG}", "--image"),
    option(f"extend tinny {OWN}", "BASE", "'tinny'", "tiny"),
    option(f"extend '' {OWN}", "BASE", "empty"),
    option(f"extend tasks {OWN}", "tasks", "config.json"),
    option(f"extend ./nothing {OWN}", "./nothing"),
    option(f"extend nothing.gguf {OWN}", "nothing.gguf"),
    option(f"extend a/b/c {OWN}", "a/b/c"),
    option(f"extend tiny {OWN} --device gpu", "--device", "'gpu'"),
    option(f"extend tiny {OWN} --device cuda:7", "device", "'cuda:7'"),
    option(f"extend tiny {OWN} --dtype float61", "--dtype", "'float61'"),
    option(f"extend tiny {OWN} --attention flash", "--attention", "'flash'"),
    option(f"extend tiny {OWN} --vision tinny", "--vision", "'tinny'", long=True),
    option(f"extend tiny {OWN} --projector nothing", "--projector"),
    option(f"extend tiny {OWN} --vision tiny --projector nothing", "nothing"),
    option(f"extend tiny {OWN} --steps 0", "--steps"),
    option(f"extend tiny {OWN} --steps 10000000000", "--steps"),
    option(f"extend tiny {OWN} --batch-size 0", "--batch-size"),
    option(f"extend tiny {OWN} --batch-size 10000000000", "--batch-size"),
    option(f"extend tiny {OWN} --learning-rate 0", "--learning-rate"),
    option(f"extend tiny {OWN} --learning-rate -1", "--learning-rate"),
    option(f"extend tiny {OWN} --learning-rate nan", "--learning-rate"),
    option(f"extend tiny {OWN} --learning-rate inf", "--learning-rate"),
    option(f"extend tiny {OWN} --seed -1", "--seed"),
    option(f"extend tiny {OWN} --seed 4294967296", "--seed"),
    option(f"extend tiny {OWN} --share 0", "share"),
    option(f"extend tiny {OWN} --share nan", "share"),
    option(f"extend tiny {OWN} --experts 0", "--experts"),
    option(f"extend tiny {OWN} --experts 10000000000", "experts"),
    option(f"extend tiny {OWN} --width 0", "width"),
    option(f"extend tiny {OWN} --width nan", "width"),
    option(f"extend tiny {OWN} --routing fast", "routing", "fast"),
    option(f"extend tiny {OWN} --scope some", "scope", "some"),
    option(f"extend tiny {OWN} --layers some", "layers", "some"),
    option(f"extend tiny {OWN} --layers 0,x", "--layers", "'x'"),
    option(f"extend tiny {OWN} --layers 0,0", "--layers", "twice"),
    option(f"extend tiny {OWN} --layers ''", "--layers", "empty"),
    option(f"extend tiny {OWN} --extension nothing", "nothing"),
    option(f"extend tiny {OWN} --images nothing", "--images", "nothing"),
    option(f"extend tiny {OWN} --columns a", "--columns", "'a'"),
    option(f"extend tiny {OWN} --workspace own.json", "--workspace"),
    option("extend tiny --data nothing.json --name new --out out", "data nothing.json", "'own.json'"),
    option("extend tiny --data own.json --name ../new --out out", "name", "../new"),
    option("extend tiny --data own.json --name new.yaml --out out", "name", "new.yaml"),
    option("extend tiny --data own.json --name '' --out out", "--name", "empty"),
    option("extend tiny --data own.json --name new --out own.json", "--out", "own.json"),
    option("extend tiny --data own.json --name new --out own.json/a", "own.json"),
    option("extend tiny --data own.json --name new --out /proc/moextend", "/proc/moextend"),
    option("extend tiny --data own.json --name new", "--out"),
    option("align tiny --vision tinny --data own.json --out out", "--vision", "'tinny'", long=True),
    option("align tiny --vision '' --data own.json --out out", "--vision", "empty"),
    option("align tiny --data own.json --out out", "--vision"),
    option("align tiny --vision tiny --data nothing.json --out out", "nothing.json"),
    option("align tiny --vision tiny --data own.json --out out --learning-rate nan", "--learning-rate"),
    option("align tiny --vision tiny --data own.json --out out --seed -1", "--seed"),
    option("align tinny --vision tiny --data own.json --out out", "tinny"),
    option("probe tiny --data own.json --share 0", "share"),
    option("probe tiny --data own.json --probe-steps 10000000000", "--probe-steps"),
    option("probe tiny --data own.json --learning-rate 0", "--learning-rate"),
    option("generate tinny --prompt a", "'tinny'"),
    option("generate tiny", "--prompt"),
    option("generate tiny --prompt ''", "--prompt", "empty"),
    option("generate tiny --prompt a --extension nothing", "nothing"),
    option("generate tiny --vision tiny --prompt a --image nothing.png", "--image", "nothing.png"),
    option("generate tiny --prompt a --image own.json", "--vision"),
    option("generate tiny --vision tiny --prompt a --image own.json", "own.json"),
    option("generate tiny --prompt a --max-new-tokens 0", "--max-new-tokens"),
    option("generate tiny --prompt a --max-new-tokens 10000000000", "--max-new-tokens"),
    option("generate tiny --prompt a --auto", "--auto", "--extension"),
    option("generate tiny --prompt <image>", "<image>"),
    option("extensions", "FOLDER"),
    option("extensions nothing", "nothing"),
    option("extensions ''", "FOLDER", "empty"),
    option("extensions own.json", "own.json"),
    option("extensions tasks", "tasks"),
    option("upcycle tinny --out out", "SOURCE", "'tinny'"),
    option("upcycle '' --out out", "SOURCE", "empty"),
    option("upcycle tasks --out out", "tasks", "config.json"),
    option("upcycle smollm2 --out tasks", "tasks"),
    option("upcycle smollm2 --out ''", "--out", "empty"),
    option("upcycle smollm2 --out own.json", "own.json"),
    option("upcycle smollm2 --out /proc/moextend", "/proc/moextend"),
    option("upcycle smollm2 --out out --experts 1", "--experts"),
    option("upcycle smollm2 --out out --experts 2 --top-k 3", "top_k"),
    option("upcycle smollm2 --out out --top-k 0", "--top-k"),
    option("upcycle smollm2 --out out --rows some", "rows", "some"),
    option("upcycle smollm2 --out out --dtype float61", "--dtype", "'float61'"),
    option("upcycle smollm2 --out out --seed -1", "--seed"),
    option("upcycle smollm2 --out out --seed 4294967296", "--seed"),
    option("upcycle smollm2", "--out"),
    option("lm-eval --model_args pretrained=tiny", "--tasks"),
    option("lm-eval --tasks arc_easy --model_args run=nothing", "nothing"),
    option("lm-eval --tasks arc_easy --model_args pretrained=tinny", "tinny"),
    option("lm-eval --tasks arc_easy", "model_args"),
]  # fmt: skip

SLOW = [  # lm-eval makes an index of its 14,683 tasks
    option("bench add-task text --data nothing", "nothing"),
    option("lm-eval --tasks nothing --model_args pretrained=tiny", "--tasks", "nothing"),
    option("lm-eval --tasks arc_esay --model_args pretrained=tiny", "--tasks", "arc_easy"),
]  # fmt: skip

QUICK = [*RUN, *TUNE, *SEQUENCES, *TASKS, *OTHERS, *LIBRARY]
ALL = [*QUICK, *SLOW]


def fill(workspace: Path, files: dict[str, str]) -> None:
    """Makes the workspace that a case is typed in."""
    own = {"registry/mine.yaml": SEQUENCE, "tasks/own.yaml": TASK, "tasks/own.json": DATA, "own.json": DATA}
    for name, text in (own | files).items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
