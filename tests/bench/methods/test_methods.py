"""Every method over two short stages: it starts as the base, is restored bit for bit, and follows its paper."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import moextend
from moextend.bench import methods
from moextend.bench.methods import adapters
from moextend.data.conversations import Conversation
from moextend.errors import InputError
from tests.bench.methods.short import SPECS, TASKS, World, learn, loaded, logits, restored

VARIANTS = [
    spec for spec in SPECS if ":over=" in spec or ":routing=" in spec or spec in ("lora-per-task", "replay")
]
"""Methods that share all but a part with another one: long tests."""


@pytest.mark.parametrize(
    "spec", [pytest.param(spec, marks=[pytest.mark.long] if spec in VARIANTS else []) for spec in SPECS]
)
def test_a_method_starts_as_the_base_and_is_restored_bit_for_bit(world: World, spec: str) -> None:
    method = methods.parse(spec).make()
    text = [Conversation((("anna lives in", " oslo ."),))]
    fresh = loaded()
    sees = world.data[TASKS[0]].held_out[:4]
    base, base_text = logits(fresh, sees), logits(fresh, text)
    method.start(fresh, 0)
    assert torch.equal(logits(fresh, sees), base)
    model, _ = learn(world, spec)
    for index in (1, 2) if method.needs_earlier else (2,):
        method.restore(fresh, world.stage(index))
    for asked in (*TASKS, "tiny-facts"):
        named = [method.select(each, asked, TASKS) for each in (model, fresh)]
        assert named[0] == named[1]
        assert torch.equal(logits(model, sees), logits(fresh, sees)), asked
        assert torch.equal(logits(model, text), logits(fresh, text)), asked
    if method.task_identity == "given" or spec == "zero-shot":
        assert torch.equal(logits(model, text), base_text), "text is answered by the base"
        assert named[0] == model.base_fingerprint()
    method.select(model, TASKS[0], TASKS)
    if model.choose is None and spec != "zero-shot":
        assert not torch.equal(logits(model, sees), base), "what was learned has an effect"


@pytest.mark.parametrize("spec", ["lora-per-task", "moextend:scope=own"])
def test_methods_that_are_given_the_task_keep_it_bit_for_bit(world: World, spec: str) -> None:
    method = methods.parse(spec).make()
    sees = world.data[TASKS[0]].held_out[:4]
    model, _ = learn(world, spec)
    found = []
    for stages, each in ((1, restored(world, method, 1)), (2, model)):
        method.select(each, TASKS[0], TASKS[:stages])
        found.append(logits(each, sees))
    assert torch.equal(*found)


def test_the_task_is_inferred_from_the_input(world: World) -> None:
    method = methods.parse("lora-per-task:task=inferred").make()
    model, _ = learn(world, "lora-per-task:task=inferred", steps=12)
    method.select(model, TASKS[0], TASKS)
    own = methods.parse("lora-per-task").make()
    for task in TASKS:
        row = world.data[task].held_out[0]
        prompt = moextend.Prompt(row.turns[0][0], row.media)
        assert model.choose is not None
        assert model.choose([prompt]) == [(task,)]
        found = moextend.generate(model, [prompt], max_new_tokens=3, batch_size=1)
        choose, model.choose = model.choose, None
        own.select(model, task, TASKS)
        assert moextend.generate(model, [prompt], max_new_tokens=3, batch_size=1) == found
        own.select(model, "none", TASKS)
        model.choose = choose


def test_replay_learns_a_share_of_earlier_items_again(world: World) -> None:
    _, seen = learn(world, "replay:share=0.1", steps=1)
    first, second = (world.stage(index) for index in (1, 2))
    assert [row.turns for row in seen[0]["data"]] == [row.turns for row in first.data]
    new, old = len(second.data), seen[1]["data"][len(second.data) :]
    assert len(old) == new, "half of the training"
    earlier = {row.turns for row in first.data}
    often = Counter(row.turns for row in old)
    assert often.keys() <= earlier and len(often) == 5, "a tenth of 48"
    assert max(often.values()) - min(often.values()) <= 1
    _, seldom = learn(world, "replay:share=0.5,fraction=0.1", steps=1)
    assert len(seldom[1]["data"]) == new + round(new / 9)


def test_replay_rehearses_every_earlier_stage_and_the_text_alike(world: World) -> None:
    method: Any = methods.parse("replay:share=0.5,fraction=0.75,text=true").make()
    generic = [Conversation((("", f"a b {line}"),), closed=False) for line in range(3)]
    stages = [replace(world.stage(index), generic=generic) for index in (1, 2)]
    first, second = ([row.turns for row in method.data(stage)] for stage in stages)
    lines = [line.turns for line in generic]
    assert Counter(first[len(stages[0].data) :]) == dict.fromkeys(lines, len(stages[0].data))
    old = Counter(row in lines for row in second[len(stages[1].data) :])
    assert old[True] == old[False] == round(1.5 * len(stages[1].data))
    model = loaded()
    kept = [method.after_stage(model, stage)["raw_mb"] for stage in stages]
    without: Any = methods.parse("replay:share=0.5").make()
    less = [without.data(stage) and without.after_stage(model, stage)["raw_mb"] for stage in stages]
    assert 1e6 * (kept[0] - less[0]) == pytest.approx(sum(len(f"a b {line}") for line in range(3)))
    assert kept[1] == less[1], "the text is kept once"


def test_replay_keeps_as_many_bytes_of_each_stage_as_are_set(world: World) -> None:
    first, second = world.stage(1), world.stage(2)

    def kept(settings: str) -> list[Conversation]:
        method: Any = methods.parse(f"replay:{settings},repeat=1").make()
        return list(method.data(second)[len(second.data) :])

    def size(rows: Sequence[Conversation]) -> int:
        texts = "".join(part for row in rows for turn in row.turns for part in turn)
        return len(texts.encode()) + sum(len(ref.read()) for row in rows for ref in row.media)

    some = kept("mb=0.01")
    assert some == kept(f"share={len(some) / len(first.data)}") and 1 < len(some) < len(first.data)
    more = kept(f"share={(len(some) + 1) / len(first.data)}")
    assert size(some) <= 10_000 < size(more)
    assert len(kept("mb=0.000001")) == 1 and len(kept("mb=9")) == len(first.data), "at least one, at most all"
    both = methods.parse("replay:mb=1,share=0.5")
    with pytest.raises(InputError, match="setting 'share' has no effect"):
        both.refuse_unused("--method")
    assert "share" not in both.make().search_space and "share" in methods.parse("replay").make().search_space


def drift(world: World, spec: str) -> float:
    """How far the second stage moved what the first had trained."""
    learn(world, spec, steps=8)
    a, b = (load_file(world.folder / task / "extension.safetensors") for task in TASKS)
    return sum(float((a[name] - b[name]).square().sum()) for name in a)


def test_ewc_protects_important_weights(world: World) -> None:
    free, held = (
        drift(replace(world, folder=world.folder / name), f"ewc:strength={strength},items=4")
        for name, strength in (("free", 1e-9), ("held", 1e9))
    )
    assert held < 0.7 * free
    fisher = load_file(world.folder / "free" / TASKS[0] / "fisher.safetensors")
    assert min(float(f.min()) for f in fisher.values()) >= 0
    assert sum(float(f.sum()) for f in fisher.values()) > 0


@pytest.mark.long  # 9 s
def test_lwf_distils_the_previous_model(world: World) -> None:
    """Distance of the labelled positions' distributions before and after the second stage."""
    row = world.data[TASKS[1]].held_out[:16]
    moved = []
    for name, weight in (("free", 1e-9), ("held", 1e3)):
        part, spec = replace(world, folder=world.folder / name), f"lwf:weight={weight}"
        after, _ = learn(part, spec, steps=12)
        before = restored(part, methods.parse(spec).make(), 1)
        old, new = (logits(model, row).log_softmax(-1) for model in (before, after))
        moved.append(float((old.exp() * (old - new)).sum(-1).mean()))
    assert moved[1] < 0.3 * moved[0]


@pytest.mark.long  # 7 s
def test_o_lora_keeps_adapters_orthogonal(world: World) -> None:
    from moextend.bench.methods import adapters

    overlap = []
    for name, weight in (("free", 0.0), ("held", 0.5)):
        part = replace(world, folder=world.folder / name)
        model, _ = learn(part, f"o-lora:orthogonality={weight}", steps=12)
        total = 0.0
        for layer in adapters.layers(model):
            blocks = getattr(layer, "num_experts", 1)
            a, b = (layer.lora_A[task].weight.detach().unflatten(0, (blocks, -1)) for task in TASKS)
            total += float((a @ b.transpose(1, 2)).abs().sum())
        overlap.append(total)
    assert overlap[1] < 0.8 * overlap[0]


def test_moe_lora_is_the_sum_of_its_experts() -> None:
    from moextend.bench.methods.mixture import Mixture

    torch.manual_seed(0)
    mixture = Mixture(6, 5, experts=3, rank=2, scale=2.0)
    x = torch.randn(4, 6)
    assert torch.equal(mixture(x), torch.zeros(4, 5))
    torch.nn.init.normal_(mixture.b)
    for row, out in zip(x, mixture(x), strict=True):
        gates = (mixture.router.weight @ row).softmax(0)
        wanted = sum(gates[e] * (mixture.b[e] @ (mixture.a[e] @ row)) for e in range(3)) * 2.0
        assert torch.allclose(out, wanted, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_what_a_method_knows_of_the_task(spec: str) -> None:
    given = {"lora-per-task": "given", "moextend": "given"}
    inferred = dict.fromkeys(["lora-per-task:task=inferred", "moextend:scope=auto"], "inferred")
    method = methods.parse(spec).make()
    assert method.task_identity == {**given, **inferred}.get(spec, "none")
    oracle = method.with_given_task()
    known = oracle is not None
    assert known == (spec in inferred or "scope=all" in spec or spec.startswith("merge")), "chooses by itself"
    assert oracle is None or oracle.task_identity == "given"


def test_each_role_has_one_method() -> None:
    roles = {name: methods.role_of(name) for name in methods.OWN}
    assert {role: name for name, role in roles.items() if role} == {
        "base": "zero-shot", "bound": "full-ft", "reference": "moextend",
    }  # fmt: skip
    assert methods.role_of("moextend:scope=all") == "reference"
    assert methods.role_of("somebodys") is None


def test_only_the_methods_package_contains_names_of_methods() -> None:
    """No text of the code is a method's name, but default lists of sequences and speed tables.

    "moextend" is the package's name, too.
    """
    root = Path(methods.__file__).parents[1]
    files = [
        path
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] not in ("methods", "perf", "sequence.py")
    ]
    names = set(methods.OWN) - {"moextend"}
    found = []
    commands = list((root.parent / "cli").rglob("*.py"))
    assert commands
    for path in [*files, *commands]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            compared = node.comparators if isinstance(node, ast.Compare) else []
            texts = [part for part in (node, *compared) if isinstance(part, ast.Constant)]
            asked = names | ({"moextend"} if compared else set())
            found += [f"{path.name}:{text.lineno} {text.value}" for text in texts if text.value in asked]
    assert not found


@pytest.mark.parametrize("second", ["0", "mlp", "lm"])
def test_the_adapter_of_a_task_has_only_its_own_parameters(second: str) -> None:
    """Its name may also be that of a part of the model."""
    model, config = moextend.load("tiny"), adapters.Adapter(rank=2)
    for name in ("first", second):
        adapters.inject(model, config, 0, name)
    first, other = (adapters.parameters(model, name) for name in ("first", second))
    assert len(first) == len(other) > 0 and not first.keys() & other.keys()


@pytest.mark.parametrize(
    ("method", "stage", "says"),
    [
        ("lora-per-task", "v1.5", "an adapter cannot be called 'v1.5'"),
        ("o-lora", "keys", "an adapter cannot be called 'keys'"),
        ("moextend", "v1.5", "extension 'v1.5': cannot be the name of an extension"),
        ("moextend", "auto", "extension 'auto': cannot be the name of an extension"),
    ],
)
def test_names_that_a_stage_cannot_have_are_refused_before_anything_runs(
    method: str, stage: str, says: str
) -> None:
    with pytest.raises(InputError, match=f"stages: method '{method}': {says}"):
        methods.parse(method).refuse_stages(["tiny-attributes", stage], "stages")
    methods.parse("lora").refuse_stages([stage], "stages")


@pytest.mark.parametrize("spec", ["osf", "sdft:rank=4,rate=0.5", "esft"])
def test_interrupted_training_continues_bit_for_bit(world: World, spec: str) -> None:
    def run(name: str, stop: int | None) -> dict[str, Tensor]:
        method: Any = methods.parse(spec).make()
        model, part = loaded(), replace(world, folder=world.folder / name)
        method.start(model, 0)
        stage = part.stage(1)

        def loop(**given: Any) -> Any:
            def on_step(done: int, total: int) -> None:
                if done == stop:
                    raise KeyboardInterrupt

            settings = moextend.Settings(steps=5, batch_size=4, learning_rate=1e-2, checkpoint_steps=2)
            given.pop("learning_rate")
            return moextend.train(
                model, given.pop("data"), settings, folder=stage.folder / "t", on_step=on_step, **given
            )

        method.learn(model, stage, loop)
        return {key: weight.detach().clone() for key, weight in method.parameters(model).items()}

    whole = run("whole", None)
    with pytest.raises(KeyboardInterrupt):
        run("broken", 3)
    again = run("broken", None)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
