"""`moextend certify` of extensions in folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_export import extension


def test_a_certificate_is_made_and_checked(cli: Cli, tmp_path: Path) -> None:
    extension("skill")
    made = cli("certify", "skill", "--base", "tiny", "--items", "2")
    assert made.code == 0, made.err
    assert "proved       text, task given  (2 compared)" in made.out
    assert "not checked  forgetting: no run is named" in made.out
    record = json.loads(Path("skill/certificate-own.json").read_text())
    assert record["command"] == "moextend certify skill --base tiny --items 2"
    assert record["base"]["name"] == "tiny" and record["folder"] == "."
    checked = cli("certify", "--check", "skill/certificate-own.json")
    assert checked.code == 0 and record["sha256"] in checked.out
    pickle = tmp_path / "skill" / "pytorch_model.bin"
    pickle.write_bytes(b"\x80\x02")
    added = cli("certify", "--check", "skill")
    assert added.code == 1 and "pytorch_model.bin was added" in added.out and "right:" not in added.out
    pickle.unlink()
    always = cli(
        "certify", "skill", "--base", "tiny", "--items", "2", "--scope", "all", "--out", "all", "--json"
    )
    assert always.code == 1, "text changes, and that is no proof"
    assert [one["status"] for one in always.json()["claims"] if one["name"] == "text, always active"] == [
        "failed"
    ]
    assert always.json()["folder"] == "../skill" and (tmp_path / "all" / "certificate-all.md").is_file()
    weights = tmp_path / "skill" / "extension.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert cli("certify", "--check", "skill").code == 1
    broken = cli("certify", "skill", "--base", "tiny", "--items", "2", "--out", "broken")
    assert broken.code == 1 and "failed       files" in broken.out and "not checked  unload" in broken.out


@pytest.mark.long  # two certificates
def test_scopes_lie_side_by_side_and_the_card_lists_them(cli: Cli, tmp_path: Path) -> None:
    extension("skill")
    seen: dict[str, bytes] = {}
    warned = "made for scope own, and is certified for scope"
    for scope, code in (("all", 1), ("own", 0)):
        made = cli("certify", "skill", "--base", "tiny", "--items", "2", "--scope", scope)
        assert made.code == code and f"certificate-{scope}.json" in made.out
        kept = {path.name: path.read_bytes() for path in (tmp_path / "skill").glob("certificate-*")}
        assert kept.keys() - seen.keys() == {f"certificate-{scope}.json", f"certificate-{scope}.md"}
        assert seen.items() <= kept.items(), "the former certificates are as they were"
        seen = kept
        card = cli("push", "skill", "me/skill", "--dry-run").out
        assert ("Scope all: 9 claims" in card, "Scope own: 9 claims" in card) == (True, scope == "own")
        assert (warned in card) == (scope == "all")
    both = cli("certify", "--check", "skill")
    assert both.code == 1 and "right: scope own" in both.out and "wrong: scope all" in both.out
    assert cli("certify", "--check", "skill/certificate-own.json").code == 0
    (tmp_path / "skill" / "certificate-all.json").unlink()
    assert cli("certify", "--check", "skill").code == 0
