"""YAML files of users: one line for what is wrong, with its place."""

from pathlib import Path

import pytest

from moextend.errors import SpecError
from moextend.util import bounded_yaml
from moextend.util.spec import read_yaml


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &a {b: *a}", r":1:11: .*an alias inside the value that it refers to"),
        ("a: " + "[" * 20_000, "holds a value that cannot be read"),
        ("a: " + "x" * 5_000_000, r"has 5,000,003 bytes, more than 524,288"),
        ("a: !!timestamp x", "holds a value that cannot be read"),
        ("a: !!int ''", "holds a value that cannot be read"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: " + "9" * 5000, "holds a value that cannot be read"),
        ("a: \0", "special characters are not allowed|unacceptable character"),
        ("a: 1\nb: {c: 1,\n  c: 2}", r":3:3: not valid YAML \(key 'c' occurs twice, also in line 2\)"),
        ("a: 1\na: 1", r":2:1: not valid YAML \(key 'a' occurs twice, also in line 1\)"),
    ],
)
def test_yaml_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=what) as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 900 and "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_usual_yaml_is_read_as_before_and_a_value_is_its_readers_own() -> None:
    text = "base: &base {a: 1, list: [1, 2]}\none: {<<: *base, a: 2}\ntwo: *base\n1: x\n'1': y\n"
    base = {"a": 1, "list": [1, 2]}
    wanted = {"base": base, "one": {**base, "a": 2}, "two": base, 1: "x", "1": "y"}
    for _ in range(2):
        found = bounded_yaml.load(text, where="x")
        assert found == wanted
        found["base"]["list"].append(3)
    assert bounded_yaml.load("", where="x") is None
