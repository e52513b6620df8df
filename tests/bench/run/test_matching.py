"""Numbers of trained parameters, counted without a model, and settings that match them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

import moextend
from moextend.bench.methods import adapters, parse
from moextend.bench.methods.weights import TrainedWeights
from moextend.bench.run import matching
from moextend.bench.run.matching import nearest, skeleton
from moextend.bench.run.plan import Request, resolve
from moextend.bench.sequence import Base
from moextend.errors import InputError

TINY = Base(model="tiny")
WHOLE = "moextend:layers=all,width=1"
EXPERT = 3 * 96 * 128
"""Of the tiny base: gate, up and down projection; 4 layers of 4 experts, of which 2 are chosen."""


def make() -> PreTrainedModel:
    lm: PreTrainedModel = skeleton(TINY, Path("nowhere"))
    return lm


def size(text: str, lm: PreTrainedModel) -> matching.Size:
    return matching.size(parse(text), lm)


def match(texts: Sequence[str], how: Any) -> Any:
    return matching.match([parse(text) for text in texts], how, make)


def params(text: str) -> int:
    return size(text, make()).params


def test_sizes_are_those_of_the_shapes() -> None:
    assert params("moextend:layers=all,width=1") == 4 * (EXPERT + 96 + 1)
    assert params("moextend:layers=all") == 4 * (EXPERT // 4 + 96 + 1), "a quarter of the width"
    assert params("moextend:layers=probe,width=1") == 2 * (EXPERT + 96 + 1), "half of the layers"
    assert params("moextend:layers=all,width=1,experts=2") == 4 * 2 * (EXPERT + 96 + 1)
    assert params("moextend:layers=all,routing=slot") == 4 * (EXPERT + 96 + 1)
    attention, experts = 4 * (96 + 96), 4 * (96 + 256 + 128 + 96)
    assert params("lora:rank=3") == 4 * 3 * (attention + experts)
    assert size("lora:rank=3", make()).flops == 2 * 4 * 3 * (attention + experts / 2)
    assert params("lora:rank=3,experts=false") == 4 * 3 * attention
    assert params("ewc:rank=3") == params("o-lora:rank=3") == params("lora-per-task:rank=3")
    assert params("zero-shot") == 0
    assert size("moextend:layers=all,width=1", make()).flops == 2 * params("moextend:layers=all,width=1")


def test_the_base_is_read_once_for_skeletons_that_share_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(base: Base, workspace: Path) -> PreTrainedModel:
        read.append(base)
        found: PreTrainedModel = skeleton(base, workspace)
        return found

    monkeypatch.setattr(matching, "skeleton", counted)
    make = matching.skeletons(TINY, tmp_path)
    assert not read, "nothing is read before it is needed"
    one, two = make(), make()
    moextend.attach(one, "new", {0: [0]})
    assert read == [TINY]
    assert [name for name, _ in make().named_parameters()] == [name for name, _ in two.named_parameters()]


@pytest.mark.parametrize(
    "text", ["lora:rank=5", "moe-lora:rank=2", "full-ft", "moextend:routing=paper,layers=all"]
)
def test_a_skeleton_has_the_parameter_count_of_the_model(text: str) -> None:
    model = moextend.load("tiny")
    method = parse(text).make()
    if text.startswith("moextend"):
        moextend.attach(model.lm, "first", {layer: [1] for layer in range(4)}, mode="paper")
        trained = moextend.new_parameters(model.lm, "first")
    else:
        method.start(model, 0)
        assert isinstance(method, TrainedWeights)
        trained = dict(method.parameters(model))
    assert params(text) == sum(parameter.numel() for parameter in trained.values())


def test_an_upcycled_base_is_counted_before_it_is_made(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "vocab_size": 50,
    }
    LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=2).save_pretrained(tmp_path / "dense")
    base = Base(model="dense", upcycle={"experts": 4, "top_k": 2})
    found = size("moextend:layers=all,width=1", skeleton(base, tmp_path))
    assert found.params == 3 * (3 * 32 * 48 + 32 + 1)


def test_the_nearest_whole_number() -> None:
    assert [nearest(10, 20, wanted) for wanted in (-5, 10, 14, 16, 100)] == [1, 1, 1, 2, 10]
    assert nearest(10, 10, 50) == 1


def test_ranks_are_set_and_what_cannot_be_matched_is_reported() -> None:
    texts = [
        "zero-shot",
        "full-ft",
        "lora",
        "moe-lora",
        "lora:rank=2",
        "ewc:over=full-ft",
        WHOLE,
    ]
    found = match(texts, "params")
    assert [each.method.text for each in found] == [
        "zero-shot", "full-ft", "lora:rank=12", "moe-lora:rank=9", "lora:rank=2", "ewc:over=full-ft",
        WHOLE,
    ]  # fmt: skip
    words = {each.method.text: each.note for each in found}
    assert words["lora:rank=12"] == "lora:rank=12: 147,456 trained parameters"
    assert "its rank is set; 24,576 trained parameters, NOT matched within 10%" in words["lora:rank=2"]
    assert "it has no rank; 0 trained" in words["zero-shot"]
    assert words[WHOLE].endswith("147,844 trained parameters, which the others are matched to")


def test_operations_are_matched_by_the_parameters_a_token_uses() -> None:
    found = match(["lora", WHOLE], "flops")
    assert found[0].method.text == "lora:rank=19"


@pytest.mark.parametrize(
    ("text", "rank", "chosen"),
    [
        ("moextend:layers=all", 24, "moextend:layers=all,width=1,experts=2"),
        ("moextend:layers=all", 8, "moextend:layers=all,width=0.68"),
        ("moextend:layers=all", 4, "moextend:layers=all,width=0.31"),
        ("moextend:layers=all", 1, "moextend:layers=all,width=0.06"),
        ("moextend:layers=all", 3, "moextend:layers=all"),
        ("moextend:layers=all,routing=slot", 24, "moextend:layers=all,routing=slot,experts=2"),
        ("moextend:layers=all,width=0.5", 24, "moextend:layers=all,width=0.5"),
    ],
)
def test_a_named_reference_sets_the_number_and_width_of_new_experts(
    text: str, rank: int, chosen: str
) -> None:
    found = match([text, "lora"], f"params=lora:rank={rank}")
    assert found[0].method.text == chosen
    near = "NOT matched" not in found[0].note
    assert near == (rank > 1 and (text != chosen or rank == 3))


def test_a_method_that_is_matched_already_keeps_its_name() -> None:
    assert match(["lora"], "params=o-lora")[0].method.text == "lora"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("tokens", "cannot match 'tokens'"),
        ("params", "no moextend among the methods"),
        ("params=zero-shot", "'zero-shot' trains nothing"),
        ("params=lara", "no method 'lara'"),
    ],
)
def test_wrong_requests(how: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        match(["lora"], how)


def test_matched_and_unmatched_runs_have_different_folders(tmp_path: Path) -> None:
    request = Request(tmp_path, methods=("lora", "moextend"), match="params")
    notes: list[str] = []
    assert [config.slug for config in resolve(request, notes.append)] == ["lora+rank-12-s0", "moextend-s0"]
    assert len(notes) == 2
    assert resolve(Request(tmp_path, methods=("lora",)))[0].slug == "lora-s0"


def test_matching_leaves_the_adapters_of_a_model_alone() -> None:
    lm = make()
    size("lora", lm)
    assert all(p.is_meta for n, p in lm.named_parameters() if adapters.LORA in n)
