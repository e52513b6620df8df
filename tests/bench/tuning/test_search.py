"""The trials of a search: which settings are tried, and how many."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from moextend.bench.methods import parse
from moextend.bench.run.plan import Request
from moextend.bench.sequence import find_sequence
from moextend.bench.tuning import results
from moextend.bench.tuning.results import Tried, best
from moextend.bench.tuning.trials import Planned, Search, Trial, draw, plan
from moextend.errors import InputError
from moextend.util import content
from moextend.util.search_space import Choices, LogRange, SearchSpace

PLUGIN = '''
from typing import Annotated

from pydantic import Field

from moextend.bench.methods import OneAdapter
from moextend.util.search_space import LogRange


class Mine(OneAdapter):
    """LoRA with a penalty."""

    class Config(OneAdapter.Config):
        """What can be set."""

        decay: Annotated[float, LogRange(0.1, 10)] = Field(default=1.0, gt=0)
'''


def planned(workspace: Path, *methods: str, budget: int = 4, **changes: object) -> Planned:
    request = Request(workspace, "tiny", methods, seeds=(0, 1))
    return plan(Search(request, budget, **changes))  # type: ignore[arg-type]


def copy_tiny(workspace: Path, **changes: object) -> None:
    """A copy of `tiny` with changes in a workspace."""
    copied = yaml.safe_load((content.package_folder("registry") / "tiny.yaml").read_text())
    (workspace / "registry").mkdir()
    path = workspace / "registry" / "tiny.yaml"
    path.write_text(yaml.safe_dump({**copied, **changes}))


def test_a_search_draws_the_same_trials_and_a_larger_budget_adds_some() -> None:
    space: SearchSpace = {"learning_rate": LogRange(0.1, 10, relative=True), "rank": Choices((4, 8, 16, 32))}
    own = {"learning_rate": 1.0}
    four = draw(space, 4, own)
    assert draw(space, 4, own) == four == draw(space, 9, own)[:4]
    # Evenly: each quarter of the range has one of four rates.
    quarters = [int(2 * (math.log10(one["learning_rate"]) + 1)) for one in four]
    assert sorted(quarters) == [0, 1, 2, 3]
    assert len(draw({"rank": Choices((4, 8))}, 5, {})) == 2


def test_every_method_searches_the_same_learning_rates_and_as_often(tmp_path: Path) -> None:
    found = planned(tmp_path, "full-ft", "lora", "ewc", "moextend:scope=all", "moextend:scope=own").trials
    drawn = [
        one["learning_rate"]
        for one in draw({"learning_rate": LogRange(0.1, 10, relative=True)}, 4, {"learning_rate": 0.003})
    ]
    for method, trials in found.items():
        now = parse(method, find_sequence("tiny", tmp_path).settings_for(method)).config
        first, *others = [trial.settings["learning_rate"] for trial in trials]
        assert first == (now.model_dump()["learning_rate"] or 0.003), method
        # Settings that are drawn again are left out; with one setting these are a rate.
        one_setting = len(trials[0].settings) == 1
        assert others == [rate for rate in drawn if not one_setting or rate != first][:3], method
    assert [*found["ewc"][0].settings] == ["learning_rate", "rank", "strength"]
    assert [*found["moextend:scope=own"][0].settings] == ["learning_rate"]
    assert [*found["moextend:scope=all"][0].settings] == ["learning_rate", "gate_rate", "memory_weight"]


def test_a_plugin_declares_its_own_range(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text(PLUGIN)
    trials = planned(tmp_path, "mine").trials["mine"]
    assert [*trials[0].settings] == ["learning_rate", "rank", "decay"]


def test_trials_learn_the_first_tasks_and_score_no_other(tmp_path: Path) -> None:
    found = planned(tmp_path, "lora")
    configs = [config for trial in found.trials["lora"] for config in trial.configs]
    for config in configs:
        assert config.stages == ["tiny-attributes", "tiny-counting"]
        assert config.retention == config.transfer == []
        assert {config.tasks[name]["data"]["test"] for name in config.stages} == {"train[90%:100%]"}
        assert config.tasks["tiny-captions"]["data"]["test"] == "test"
    assert [config.seed for config in configs] == [0, 1] * 4
    (folder,) = found.folders.values()
    assert [*planned(tmp_path, "ewc", budget=9).folders.values()] == [folder]
    assert [*planned(tmp_path, "lora", tasks=1).folders.values()] != [folder]


def test_a_bound_is_searched_as_it_is_trained(tmp_path: Path) -> None:
    copy_tiny(tmp_path, tuned_from=None)
    found = planned(tmp_path, "joint", "individual", "full-ft", "joint:lora:rank=12")
    assert {*found.trials} == {"full-ft", "joint", "individual", "joint:lora:rank=12"}
    modes = {
        text: {config.mode for one in trials for config in one.configs}
        for text, trials in found.trials.items()
    }
    assert modes == {
        "full-ft": {"sequence"}, "joint": {"joint"}, "individual": {"independent"}, "joint:lora:rank=12": {"joint"},
    }  # fmt: skip
    rates = {text: [one.settings["learning_rate"] for one in trials] for text, trials in found.trials.items()}
    assert rates["joint"] == rates["individual"] == rates["full-ft"]
    runs = [run for text, trials in found.trials.items() for one in trials for run in found.runs(text, one)]
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize(
    ("mode", "score"),
    [("sequence", (6 + 8) / 2), ("joint", (3 + 4) / 2), ("independent", (3 + 8) / 2)],
)
def test_the_score_of_a_trial_is_of_the_tasks_as_they_were_learned(mode: str, score: float) -> None:
    values = {(0, "a"): 1.0, (0, "b"): 2.0, (1, "a"): 3.0, (1, "b"): 4.0, (2, "a"): 6.0, (2, "b"): 8.0}
    cells = {key: SimpleNamespace(value=value) for key, value in values.items()}
    run = SimpleNamespace(cells=lambda: cells, config=SimpleNamespace(stages=["a", "b"], mode=mode))
    assert results.score_of(run) == score  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peak", "added"),
    [
        (3e-3, []),
        (1e-4, [3e-4, 9.49e-5, 3e-5]),  # the end of the range, and from there in steps
        (1e-9, [3e-4, 9.49e-5, 3e-5]),
        (1.0, [0.03, 0.0949, 0.3]),
    ],
)
def test_a_search_goes_on_until_the_best_is_inside_or_far_beyond_the_range(
    peak: float, added: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(trial: Trial, runs: object) -> Tried:
        score = 50 - abs(math.log10(trial.settings["learning_rate"] / peak))
        return Tried(trial, ("done", "done"), (score, score))

    monkeypatch.setattr(results, "_tried", scored)
    search = planned(tmp_path, "full-ft")
    drawn = search.trials["full-ft"]
    while (more := results.extended(search)) is not None:
        search = more
    found = search.trials["full-ft"]
    assert found[: len(drawn)] == drawn and [one.number for one in found] == [*range(1, len(found) + 1)]
    assert [one.settings["learning_rate"] for one in found[len(drawn) :]] == added
    chosen = best(results.tried(search)["full-ft"])
    assert chosen is not None
    warned = any(
        "at the edge" in one for one in results.warnings("full-ft", results.tried(search)["full-ft"], chosen)
    )
    assert warned == (peak in (1e-9, 1.0))


def test_a_search_that_is_not_done_waits(tmp_path: Path) -> None:
    assert results.extended(planned(tmp_path, "full-ft", "lora")) is None


def tried(number: int, *scores: float | None, failed: bool = False) -> Tried:
    states = tuple("done" if score is not None else "failed" if failed else "waiting" for score in scores)
    return Tried(Trial(number, {"rank": number}, ()), states, scores)  # type: ignore[arg-type]


def test_the_best_trial_has_the_highest_mean_and_is_the_first_of_equal_ones() -> None:
    trials = [tried(1, 50.0, 60.0), tried(2, 70.0, 60.0), tried(3, 60.0, 70.0), tried(4, 90.0, 10.0)]
    found = best(trials)
    assert found and found.trial.number == 2 and found.score == 65.0


def test_nothing_is_chosen_before_all_trials_are_done_or_failed() -> None:
    waiting, failed = tried(2, 80.0, None), tried(2, 80.0, None, failed=True)
    assert best([tried(1, 50.0, 60.0), waiting]) is None
    found = best([tried(1, 50.0, 60.0), failed])
    assert found and found.trial.number == 1
    assert best([failed]) is None


@pytest.mark.parametrize(
    ("methods", "changes", "says"),
    [
        (("joint:zero-shot",), {}, "no setting"),
        (("zero-shot",), {}, "no setting"),
        (("lora:rank=8,learning_rate=0.1",), {}, "no setting"),
        (("lora",), {"budget": 0}, "--budget"),
        (("lora",), {"tasks": 9}, "--tasks"),
        (("lora",), {"tasks": 0}, "--tasks"),
    ],
)
def test_a_wrong_search_is_refused(
    methods: tuple[str, ...], changes: dict[str, int], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        planned(tmp_path, *methods, **changes)


def test_a_repeated_search_has_the_same_trials_after_its_choice_was_written(tmp_path: Path) -> None:
    before = [trial.settings for trial in planned(tmp_path, "lora").trials["lora"]]
    entry = {
        "settings": before[2], "score": 1.0, "trials": 4, "seeds": [0, 1], "tasks": ["tiny-attributes"],
        "validation": 10, "date": "2026-01-31",
    }  # fmt: skip
    copy_tiny(tmp_path, tuned={"lora": entry})
    assert [trial.settings for trial in planned(tmp_path, "lora").trials["lora"]] == before
