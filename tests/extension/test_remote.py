"""Names of repositories of the hub, and local folders, which go first."""

from __future__ import annotations

from pathlib import Path

import pytest

from moextend.errors import InputError
from moextend.extension import folder as remote
from moextend.extension.folder import HubId, hub_id, local_folder, parse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("me/skill", HubId("me/skill")),
        ("me/skill@v1", HubId("me/skill", "v1")),
        ("me/skill@refs/pr/1", HubId("me/skill", "refs/pr/1")),
        ("my-org/a.b_c@0123abc", HubId("my-org/a.b_c", "0123abc")),
        *((text, None) for text in ("skill", "a/b/c", "/me/skill", "./skill", "me/skill@", "me/../x", "me/s kill", "",
                                    "me/skill@-f", "me/skill.git")),
    ],
)  # fmt: skip
def test_names_of_repositories(text: str, found: HubId | None) -> None:
    assert hub_id(text) == found
    if found is None:
        with pytest.raises(InputError, match="not the name of a repository"):
            parse(text)
    else:
        assert str(parse(text)) == text


def test_a_local_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[HubId] = []

    def download(named: HubId, patterns: object, *, where: str | None = None) -> Path:
        asked.append(named)
        return tmp_path / "cached"

    monkeypatch.setattr(remote, "download", download)
    (tmp_path / "me" / "skill").mkdir(parents=True)
    for name in ("me/skill", "skill", "a/b/c", str(tmp_path / "x" / "y")):
        assert local_folder(name) == Path(name)
    assert asked == []
    with pytest.raises(InputError, match=r"the model 'me/other@v1' on the hub holds no extension"):
        local_folder("me/other@v1")
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "extension.json").touch()
    assert local_folder("me/other") == tmp_path / "cached" and asked == [
        HubId("me/other", "v1"),
        HubId("me/other"),
    ]
