"""A user's own data in every form, as conversations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from moextend.data.conversations import Conversation, Lazy
from moextend.data.own import own_data
from moextend.errors import InputError, SpecError, UnknownName
from tests.data.small import wav

Own = Callable[..., Lazy]
Rows = list[Mapping[str, Any]]
ROWS = [
    {
        "image": f"img{i // 2}.png",
        "question": f"what is {i}",
        "answer": ["red", "blue"][i % 2],
        "image_id": i // 2,
    }
    for i in range(8)
]
SHORT = "Answer the question using a single word or phrase."


@pytest.fixture
def own(tmp_path: Path) -> Own:
    def read(path: Path | str, columns: Mapping[str, str] | None = None, **more: Any) -> Lazy:
        return own_data(str(path), tmp_path / "cache", columns=columns or {}, **more)

    return read


def written(path: Path, rows: Any) -> Path:
    """The rows in the format that the name says."""
    table = pd.DataFrame(rows)
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("name", ["a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_all_formats_say_the_same(name: str, own: Own, pictures: Path, make_png: Any) -> None:
    rows = own(written(pictures / name, ROWS))
    assert [len(row.turns) for row in rows] == [2] * 4, "questions about one image are turns"
    assert rows[1].turns == ((f"<image>\nwhat is 2\n{SHORT}", "red"), (f"what is 3\n{SHORT}", "blue"))
    assert [row.media[0].read() for row in rows] == [make_png(i) for i in range(4)]


def test_a_folder_of_images_with_metadata(own: Own, pictures: Path) -> None:
    folder = pictures.parent / "set"
    folder.mkdir()
    pictures.rename(folder / "train")
    captions = [{"file_name": f"img{i}.png", "caption": f"thing {i}"} for i in range(6)]
    written(folder / "train" / "metadata.csv", captions)
    rows = own(folder)
    assert len(rows) == 6 and rows[5].turns == (("<image>\nDescribe the image in one sentence.", "thing 5"),)
    assert rows[5].media[0].path == folder / "train" / "img5.png"


def test_data_of_the_hub(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    table = datasets.Dataset.from_list([{"question": "what?", "answer": "this"}] * 3)
    asked: list[Any] = []

    def load(*names: Any, **how: Any) -> Any:
        asked.append((names, how))
        return table

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["train", "test"])
    rows = own("someone/somewhat", template="Q {question} A:")
    assert [*rows] == [Conversation((("Q what? A:", "this"),))] * 3
    assert asked[0][0][0] == "someone/somewhat" and asked[0][1]["split"] == "train"


def test_turns_of_a_conversation_stay_together(own: Own, tmp_path: Path) -> None:
    messages = [
        ("system", "Be short."),
        ("user", "hi"),
        ("assistant", "yo"),
        ("user", "bye"),
        ("assistant", "ciao"),
    ]
    talk = [{"role": role, "content": content} for role, content in messages]
    rows = own(written(tmp_path / "a.jsonl", [{"messages": talk}, {"messages": talk[1:]}]))
    turns = (("hi", "yo"), ("bye", "ciao"))
    assert [*rows] == [Conversation(turns, system="Be short."), Conversation(turns)]


def test_a_column_of_text_is_learned_as_it_is(own: Own, tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", [{"id": i, "text": text} for i, text in enumerate(["one", "", "three"])]
    )
    rows = own(path)
    assert [*rows] == [Conversation((("", "one"),)), Conversation((("", "three"),))], (
        "empty rows are left out"
    )
    assert rows[0].is_text and [*own(path, {"text": "text"})] == [*rows]
    with pytest.raises(InputError, match=r"text=text: plain text has no prompt and no other columns\."):
        own(path, {"text": "text"}, template="{text}")
    with pytest.raises(UnknownName, match=r"no column 'txt'\. Did you mean 'text'\?"):
        own(path, {"text": "txt"})
    with pytest.raises(InputError, match=r"column 'text': holds no text\."):
        own(written(tmp_path / f"none{path.suffix}", [{"id": 0, "text": " "}]))


def test_a_text_file_of_a_folder_is_no_split(own: Own, tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [{"question": "a", "answer": "b"}] * 2)
    (tmp_path / "licence.txt").write_text("Free.\n")
    assert len(own(tmp_path)) == 2
    assert [*own(tmp_path / "licence.txt")] == [Conversation((("", "Free."),))]


def test_wrong_names_say_what_there_is(own: Own, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(pictures / "own.csv", ROWS)
    with pytest.raises(InputError, match=r"no such file or folder\. Name a file, a folder or"):
        own(pictures / "own.cvs")
    with pytest.raises(UnknownName, match=r"no key of columns 'answr'\. Did you mean 'answer'\?"):
        own(path, {"answr": "answer"})
    with pytest.raises(SpecError, match=r"own\.csv: prompt \{kind\}: no column 'kind' in "):
        own(path, template="{question} {kind}")
    written(pictures / "more.csv", ROWS)
    with pytest.raises(
        InputError, match=r"has the splits more, own\. Name one of its files, or name the training split"
    ):
        own(pictures)


def test_media_are_read_only_if_they_are_wanted(own: Own, make_png: Any, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(make_png(0))
    (tmp_path / "0.wav").write_bytes(wav(0))
    row = {
        "picture": "0.png",
        "sound": "0.wav",
        "caption": "a red tone",
        "answer": "red",
        "question": "what?",
    }
    path = written(tmp_path / "both.json", [row] * 2)

    def modalities(*columns: str, template: str | None = None) -> list[str]:
        named = dict(column.split("=") for column in columns)
        return [medium.modality for medium in own(path, named, template=template)[0].media]

    assert modalities() == ["image", "audio"]
    assert modalities("audio=sound", "answer=caption", template="<audio>") == ["audio"]
    assert modalities("answer=caption", template="<audio>") == ["audio"]
    assert modalities("answer=caption", template="<image> {question}") == ["image"]
    assert modalities("answer=caption", template="Q {question}") == []
    assert modalities("audio=sound") == ["audio"] and modalities("image=picture") == ["image"]
    assert modalities("image=null") == ["audio"] and modalities("audio=null") == ["image"]
    assert modalities("image=null", "audio=null") == []
    captions = written(tmp_path / "captions.json", [{key: row[key] for key in ("picture", "caption")}] * 2)
    assert own(captions, template="Say it:")[0].turns == (("Say it:", "a red tone"),)
    assert modalities("answer=caption", "question=null", template="Say it:") == []
    with pytest.raises(InputError, match=r"leaves out the questions \(column 'question'\)"):
        modalities("answer=caption", template="Say it:")
    with pytest.raises(InputError, match="has <video>, but the data has no videos"):
        modalities("answer=caption", template="<image> <video> {question}")
    with pytest.raises(UnknownName, match="no column 'nil'"):
        modalities("image=nil")
    with pytest.raises(InputError, match=r"which column holds the answer\?"):
        modalities("answer=null")
