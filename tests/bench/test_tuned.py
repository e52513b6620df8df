"""Settings that were tuned: which method has them, and the source that its runs record."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from moextend.bench.run.plan import Request, resolve
from moextend.bench.tuned import chosen_for
from moextend.errors import InputError, SpecError
from moextend.util import content

ENTRY = {"score": 70.0, "trials": 4, "seeds": [0, 1], "tasks": ["a"], "validation": 10, "date": "2026-01-31"}


def write(workspace: Path, **changes: Any) -> None:
    found = yaml.safe_load((content.package_folder("registry") / "tiny.yaml").read_text())
    path = workspace / "registry" / "mine.yaml"
    path.parent.mkdir(exist_ok=True)
    settings = {"moextend": {"layers": "all", "width": 1, "learning_rate": 0.005}}
    path.write_text(
        yaml.safe_dump({**found, "sequence": "mine", "settings": settings, "tuned_from": None, **changes})
    )


def config_of(workspace: Path, method: str) -> Any:
    return resolve(Request(workspace, "mine", (method,)))[0]


def rate_of(workspace: Path, method: str) -> float | None:
    rate: float | None = config_of(workspace, method).method_spec.config.learning_rate
    return rate


def test_tuned_settings_override_those_of_the_sequence_and_the_text_overrides_both(tmp_path: Path) -> None:
    write(tmp_path, tuned={"moextend:scope=all": {**ENTRY, "settings": {"learning_rate": 0.02}}})
    assert rate_of(tmp_path, "moextend:scope=all") == 0.02
    assert rate_of(tmp_path, "moextend:scope=own") == 0.005
    assert rate_of(tmp_path, "moextend:scope=all,learning_rate=0.3") == 0.3
    assert config_of(tmp_path, "moextend:scope=all").method_spec.config.width == 1


def test_a_score_above_100_is_read_as_cider_d_gives_it(tmp_path: Path) -> None:
    write(tmp_path, tuned={"lora": {**ENTRY, "score": 137.2, "settings": {"learning_rate": 0.02}}})
    assert rate_of(tmp_path, "lora") == 0.02


def test_a_bound_has_what_was_tuned_for_it_and_else_what_its_method_has(tmp_path: Path) -> None:
    entries = {"full-ft": 0.01, "joint": 0.02, "lora": 0.03, "joint:lora:rank=12": 0.04}
    tuned = {text: {**ENTRY, "settings": {"learning_rate": rate}} for text, rate in entries.items()}
    expected = {**entries, "individual": 0.01, "joint:lora:rank=8": 0.03, "individual:lora:rank=12": 0.03}
    expected |= {"joint:full-ft": 0.02}
    write(tmp_path, tuned=tuned)
    assert {text: rate_of(tmp_path, text) for text in expected} == expected
    assert config_of(tmp_path, "joint").tuned_on == "validation items"
    (tmp_path / "registry" / "mine.yaml").rename(tmp_path / "registry" / "other.yaml")
    other = tmp_path / "registry" / "other.yaml"
    other.write_text(other.read_text().replace("sequence: mine", "sequence: other"))
    write(tmp_path, tuned_from="other", settings={})
    assert {text: rate_of(tmp_path, text) for text in expected} == expected
    assert config_of(tmp_path, "joint").tuned_on == "validation items of other"
    write(tmp_path, tuned={"joint:lra": tuned["joint"]})
    with pytest.raises(InputError, match=r"tuned.joint:lra: .*Did you mean 'lora'"):
        config_of(tmp_path, "joint")
    for name in ("joint:full-ft", "joint:"):
        write(tmp_path, tuned={name: tuned["joint"]})
        with pytest.raises(InputError, match=rf"tuned.{name}: this bound is called 'joint'"):
            config_of(tmp_path, "joint")
    write(tmp_path, tuned={"jiont": tuned["joint"]})
    with pytest.raises(InputError, match="Did you mean 'joint'"):
        config_of(tmp_path, "joint")


@pytest.mark.parametrize(
    ("method", "stated", "source"),
    [
        ("lora", "test items", "validation items"),
        ("lora:rank=4", "test items", None),
        ("ewc", "test items", "test items"),
        ("ewc", "published", "published"),
        ("ewc:strength=3", "published", None),
        ("moextend:scope=all,layers=0,experts=4", "published", "published"),
        ("moextend:scope=all", "published", None),
        ("ewc", None, "default"),
        ("ewc:strength=3", None, None),
        ("moextend", None, None),
        ("zero-shot", "test items", "no settings"),
    ],
)
def test_a_run_records_the_source_of_its_settings(
    method: str, stated: str | None, source: str | None, tmp_path: Path
) -> None:
    write(tmp_path, tuned_on=stated, tuned={"lora": {**ENTRY, "settings": {"learning_rate": 0.02}}})
    assert config_of(tmp_path, method).tuned_on == source


def test_the_entry_with_the_most_settings_in_common_is_used() -> None:
    tuned = {"a": 1, "a:x=1": 2, "a:x=1,y=2": 3, "b:x=1": 4}
    assert chosen_for("a:y=2,x=1", tuned) == (3, True)
    assert chosen_for("a:x=1,z=3", tuned) == (2, False)
    assert chosen_for("a:x=5", tuned) == (1, False)
    assert chosen_for("c", tuned) == (None, False)


def test_settings_of_another_sequence_hold_where_a_sequence_has_none_of_its_own(tmp_path: Path) -> None:
    settings = {"lora:rank=4": 0.01, "ewc": 0.02, "moextend": 0.03}
    others = {name: {**ENTRY, "settings": {"learning_rate": rate}} for name, rate in settings.items()}
    write(tmp_path, tuned=others)
    (tmp_path / "registry" / "mine.yaml").rename(tmp_path / "registry" / "other.yaml")
    text = (tmp_path / "registry" / "other.yaml").read_text()
    (tmp_path / "registry" / "other.yaml").write_text(text.replace("mine", "other"))
    write(
        tmp_path,
        tuned={"lora": {**ENTRY, "settings": {"learning_rate": 0.5}}},
        tuned_from="other",
        tuned_on="test items",
    )
    found = {name: config_of(tmp_path, name) for name in ("lora:rank=4", "ewc", "moextend:scope=own", "lwf")}
    rates = {name: config.method_spec.config.learning_rate for name, config in found.items()}
    assert rates == {"lora:rank=4": 0.5, "ewc": 0.02, "moextend:scope=own": 0.03, "lwf": None}
    assert {name: config.tuned_on for name, config in found.items()} == {
        "lora:rank=4": None,
        "ewc": "validation items of other",
        "moextend:scope=own": None,
        "lwf": "test items",
    }
    write(tmp_path, settings={"ewc": {"learning_rate": 0.02}})
    assert config_of(tmp_path, "ewc").digest == found["ewc"].digest, (
        "a run is the same wherever its settings are"
    )


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("mine", "names the sequence itself"),
        ("tinny", "Did you mean 'tiny'"),
        ("tiny.yaml", "no such file"),
        ("coin", "no method was tuned on 'coin'.*moextend bench tune coin"),
        ("tiny-repeat", "no method was tuned on 'tiny-repeat'.*Name tiny-dev"),
    ],
)
def test_a_wrong_name_of_another_sequence_is_refused(other: str, says: str, tmp_path: Path) -> None:
    write(tmp_path, tuned_from=other)
    with pytest.raises((InputError, SpecError), match=says) as error:
        config_of(tmp_path, "lora")
    assert "mine.yaml: tuned_from" in str(error.value)


@pytest.mark.parametrize(
    ("tuned", "says"),
    [
        ({"lorra": {**ENTRY, "settings": {}}}, "lora"),
        ({"lora": {**ENTRY, "settings": {"rnk": 4}}}, "rank"),
        ({"lora": {"settings": {}}}, "is missing"),
        ({"lora": {**ENTRY, "settings": {}, "trials": 0}}, "trials"),
        ({"lora": {**ENTRY, "settings": {}, "seeds": []}}, "seeds"),
        (
            {"lora": {**ENTRY, "settings": {"rank": None}}},
            r"settings\.rank: Input should be a text, a number, true or false, or a list of texts \(found None\)",
        ),
    ],
)
def test_a_wrong_entry_is_refused(tuned: Any, says: str, tmp_path: Path) -> None:
    write(tmp_path, tuned=tuned)
    with pytest.raises((InputError, SpecError), match=says):
        config_of(tmp_path, "lora")
