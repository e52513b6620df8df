"""Inputs that are not answered as they should be yet: a test of each is expected to fail."""

from __future__ import annotations

LINES = frozenset(
    {
        "bench run small --method ''",
        "bench run small --method ' '",
        "bench run small --method lora:",
        "bench run small --method ,",
        "bench run small --method lora:rank=4,rank=5",
        "bench run small --method full-ft:learning_rate=-1",
        "bench run small -m lora --seed ''",
        "bench run small -m lora --seed ' '",
        "bench run small -m lora --seed ,",
        "bench run small -m lora --seed 999999999999999999999999999999",
        "bench run small -m lora --order ''",
        "bench run small -m lora --order ' '",
        "bench run small -m lora --order random:0",
        "bench run small -m lora --steps 10000000000",
        "bench run small -m lora --steps 9999999999999999999999999999999999999999",
        "bench run small -m lora --device cuda:99",
        "bench run small -m lora --runs note.txt/below",
        "bench run small -m lora --runs /dev/null",
        "bench run small -m lora --runs xxxxx...(5000)",
        "bench run -m lora ''",
        "bench status ''",
        "bench status xxxxx...(5000)",
        "bench report xxxxx...(5000)",
        "bench remove-task colour --sequence xxxxx...(5000)",
        "bench add-task qa --data good.jsonl -s small --name ''",
        "bench add-task qa --data good.jsonl -s small --name xxxxx...(5000)",
        "bench add-task qa --data good.jsonl -s small --name xxxxx...(101)",
        "bench add-task qa --data good.jsonl --name mine -s small --columns ''",
        "bench add-task qa --data good.jsonl --name mine -s small --columns ' '",
        "bench add-task qa --data good.jsonl --name mine -s small --scorer ''",
        "bench add-task qa --data good.jsonl --name mine --sequence xxxxx...(5000)",
        "bench add-task qa --name mine -s small --data xxxxx...(5000)",
        "align tiny --data captions.jsonl --out out/p --steps 1 --vision xxxxx...(5000)",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --out ''",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --out note.txt/below",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --out registry",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --out /dev/null",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --out xxxxx...(5000)",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --data good.jsonl",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --images ''",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --template ''",
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --seed 999999999999999999999999999999",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --data captions.jsonl",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --name xxxxx...(5000)",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --name xxxxx...(300)",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --out ''",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --out note.txt/below",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --out registry",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --out /dev/null",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --out xxxxx...(5000)",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --vision ''",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --columns ''",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --template <image> {question}",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --seed 999999999999999999999999999999",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --workspace /dev/null",
        "generate tiny -p Q --vision ''",
        "extensions xxxxx...(5000)",
        "upcycle emptied --out xxxxx...(5000)",
    }
)
"""Command lines, as command_lines.shown tells them."""
HANGING = frozenset(
    {
        "align tiny --vision tiny --data captions.jsonl --out out/p --steps 1 --steps 10000000000",
        "extend tiny --data good.jsonl --name two --out out/two --steps 1 --layers 0 --steps 10000000000",
    }
)
"""Command lines that begin to work for hours; they are not run."""
SEQUENCES = frozenset(
    {
        "sequence=",
        "sequence=../small",
        "sequence=other",
        "base.model=",
        "base.model=tinny",
        "base.model=/dev/null",
        "base.vision=tinny",
        "base.vision=",
        "base.chat=True",
        "align.task=words",
        "align.steps=True",
        "stages=[{'task': 'words'}]",
        "retention=['words', 'words']",
        "memory=none.txt",
        "memory=/etc/passwd",
        "memory=../../x.txt",
        "memory=.",
        "train.steps=1000000000000",
        "methods=['lor']",
        "methods=['lora:ranc=3']",
    }
)
"""Changes of a sequence, as yaml_inputs.shown tells them."""
TASKS = frozenset(
    {
        "max_new_tokens=1000000000",
        "answer_as=letter",
        "lm_eval={'task': 'x'}",
    }
)
"""Changes of a task."""
