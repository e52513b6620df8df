"""Bad command lines: (command, its good arguments, option or argument, bad values of it).

They are run in the workspace of workspace.py, with files beside it: see test_command_lines.py. A value is a text, or
a list of arguments that stands in the place of option and value. What several commands read by the same function is
tried through one of them.
"""

from __future__ import annotations

LONG = "x" * 5_000
NOT_UTF8 = "caf\udce9"
"""What Python makes of an argument in latin-1."""
NUL, ESCAPE, UNICODE = "a\0b", "\x1b[31mred\x1b[0m", "ü\u202e\u2028名"
WORDS = ["", " ", LONG, NUL, ESCAPE, UNICODE, NOT_UTF8]
"""Values that no name is."""
COUNTS = ["0", "-1", "x", "1.5", "", " ", "1e3", "nan", "²"]
"""Values that no count of at least one is."""
FOLDERS = ["none", "note.txt", "note.txt/below", "/dev/null", NUL, LONG]
"""Values that no folder is."""
NEW = ["", "note.txt", "note.txt/below", "registry", "/dev/null", NUL, LONG]
"""Values that no new folder is."""
LOADED = ["none", "note.txt", "emptied", "registry", NUL, ""]
"""Values that no folder of an extension is."""
DATA = ["--data", "good.jsonl"]
EXTEND = [*DATA, "--name", "two", "--out", "out/two", "--steps", "1", "--layers", "0"]
ALIGN = ["--vision", "tiny", "--data", "captions.jsonl", "--out", "out/p", "--steps", "1"]
RUN, EXPORT = ["small", "-m", "lora"], ["skill", "--base", "tiny", "--as", "stock", "--out", "out/e"]

Row = tuple[str, list[str], str, list[str | list[str]]]

ROWS: list[Row] = [
    ("bench run", ["small"], "--method", [
        *WORDS, "lora:", "lora:rank=", "lora:rank=x", "lora:rank=-1", ",", "moextend:share=nan", "full-ft:learning_rate=inf",
        "full-ft:steps=3", "../lora", "all:rank=2", "lora;moextend", "lora:rank=1e99",
    ]),
    ("bench run", RUN, "--seed", ["x", "1.5", "0,1,x", "9" * 30, "0-3", "0x1"]),
    ("bench run", RUN, "--order", ["rand", "random:", "random:x", "random:-1", "given:1"]),
    ("bench run", RUN, "--match", [*WORDS, "params=", "params=nope", "steps=lora"]),
    ("bench run", RUN, "--steps", [*COUNTS, "10000000000", "9" * 40]),
    ("bench run", RUN, "--device", ["gpu", "cuda:99", "cuda:x", "cpu cuda", LONG]),
    ("bench run", RUN, "--workspace", list(FOLDERS)),
    ("bench run", ["-m", "lora"], "", [
        *WORDS, "registry/none.yaml", "registry", ".", "/", "note.txt", "image.png", ["small", "-Z"], ["small", "--seed"], ["small", "--steps="],
    ]),
    ("bench status", [], "", [*WORDS, "../small", ["a", "b"], ["--jsn"]]),
    ("bench report", [], "", [
        "small/none", ["--baseline", "none"], ["--margin", "nan", "--baseline", "lora"], ["--references", "none"], ["--out", "note.txt/below"],
        ["--style", "none.yaml"], ["--style", "note.txt"], ["--style", NUL], ["--style", LONG], ["--style", "."], ["ablations", "matrix"],
    ]),
    ("bench power", ["small"], "", [[], ["small", "--method", "none"], ["small", "--margin", "nan"], ["small", "--margin", "2", "--effect", "-2"], ["small", "--margin", "2", "--baseline", "lora"]]),
    ("bench power", ["small"], "--effect", ["0", "-1", "nan", "inf", "101", "x", ""]),
    ("bench power", ["small"], "--power", ["0", "1", "nan", "x"]),
    ("bench power", ["small"], "--seeds", ["1", "-1", "x", "3,3", "1001", "9" * 30]),
    ("bench audit", ["--no-base"], "", ["smal", "registry", ["small", "--effect", "nan"]]),
    ("bench paper", [], "--out", ["note.txt", "note.txt/below", "/dev/null", NUL, LONG]),
    ("bench list", ["--example"], "", [*WORDS, "../colour", "tasks/colour", [], ["colour", "shade"]]),
    ("bench add-task", ["-s", "small"], "", [*[[word, *DATA] for word in WORDS], ["none"], ["colour"], ["vqa"], ["text", "--data", "none-such-task"], ["text", "--data", "note.txt"]]),
    ("bench add-task", ["qa", *DATA, "-s", "small"], "--name", [*WORDS, "../x", "a/b", ".x", "-x", "x" * 101, "colour", "a b"]),
    ("bench add-task", ["qa", *DATA, "--name", "mine", "-s", "small"], "--columns", ["question=", "question=none", "quastion=question", "=", "question=question,question=answer"]),
    ("bench add-task", ["qa", *DATA, "--name", "mine", "-s", "small"], "--scorer", [*WORDS, "exact", "exact@99", "exact@x", "letter@1"]),
    ("bench add-task", ["qa", *DATA, "--name", "mine"], "--sequence", [*WORDS, "../small"]),
    ("bench add-task", ["qa", "--name", "mine", "-s", "small"], "--data", [*WORDS, "note.txt", "image.png", "/dev/null", "/dev/zero", "fifo", "emptied", ".", "http://localhost/x.json"]),
    ("", [], "", ["", "--verson", ["bench", "--x"], ["bench", "run", "--", "--x"], ["bench run", "small"], ["-h2"]]),
    ("align", ["tiny", *ALIGN], "--out", list(NEW)),
    ("align", ["tiny", *ALIGN], "--data", ["none.jsonl", "note.txt", "good.jsonl", "emptied", "/dev/null", NUL]),
    ("align", ["tiny", *ALIGN], "--template", ["", "{none}", "no mark", "<image> <image>", "<image> {", "{% for %}"]),
    ("align", ["tiny", *ALIGN], "--batch-size", ["0", "1.5"]),
    ("align", ["tiny", *ALIGN], "--learning-rate", ["-1", "nan", "inf", "x", "1e400"]),
    ("align", ["tiny", *ALIGN], "--seed", ["-1", "x", "9" * 30]),
    ("align", [*ALIGN], "", [*WORDS, "note.txt", "emptied", "none.gguf", "garbage.gguf", []]),
    ("extend", ["tiny", *EXTEND], "--name", [*WORDS, "a/b", "../x", "a.b"]),
    ("extend", ["tiny", *EXTEND], "--vision", [*WORDS, "note.txt", "emptied"]),
    ("extend", ["tiny", *EXTEND], "--projector", ["none", "note.txt", "emptied", "registry"]),
    ("extend", ["tiny", *EXTEND], "--layers", [*WORDS, "prob", "9", "-1", "0,x", "0,0", "1.5", "0;1"]),
    ("extend", ["tiny", *EXTEND, "--layers", "probe"], "--share", ["0", "nan", "x"]),
    ("extend", ["tiny", *EXTEND], "--width", ["0", "2", "nan", "x"]),
    ("extend", ["tiny", *EXTEND], "--routing", [*WORDS, "EXACT"]),
    ("extend", ["tiny", *EXTEND], "--scope", ["everything", "Auto"]),
    ("extend", ["tiny", *EXTEND], "--extension", list(LOADED)),
    ("extend", ["tiny", *EXTEND], "--dtype", [*WORDS, "float31", "int8"]),
    ("generate", ["tiny"], "--prompt", [["--prompt"], []]),
    ("generate", ["tiny", "-p", "<image> Q", "--vision", "tiny"], "--image", ["none.png", "note.txt", "emptied", "/dev/zero", "fifo", "", NUL]),
    ("generate", ["tiny", "-p", "Q"], "--image", ["image.png"]),
    ("generate", ["tiny", "-p", "Q"], "--max-new-tokens", ["0", "10000000"]),
    ("serve", ["tiny"], "--port", ["-1", "65536", "x"]),
    ("serve", ["tiny", "--port", "0"], "--host", ["", "none.invalid", "192.0.2.7", NUL, LONG, "0.0.0.0"]),
    ("serve", ["tiny", "--port", "0"], "--extension", ["emptied", "skill:2", "skill:-1", "skill:nan", "skill:x", "skill:", ":0.5"]),
    ("certify", ["skill", "--base", "tiny"], "--items", ["1", "x"]),
    ("certify", ["skill", "--base", "tiny"], "--scope", ["everything", "Own"]),
    ("certify", ["skill", "--base", "tiny"], "--near", ["none.jsonl", "emptied", "image.png"]),
    ("certify", ["skill", "--base", "tiny"], "--extension", ["registry"]),
    ("certify", ["skill"], "--base", ["tinny", "note.txt", "skill", []]),
    ("certify", ["--base", "tiny"], "", [*LOADED, []]),
    ("certify", [], "--check", [*WORDS, "none.json", "note.txt", "emptied", "skill", "/dev/null", "image.png"]),
    ("export", ["skill", "--base", "tiny", "--out", "out/e"], "--as", [*WORDS, "STOCK", []]),
    ("export", EXPORT, "", [["--with-base"], ["--active", "skill"], ["--task", "colour"], ["skill", "none"]]),
    ("export", ["--as", "stock", "--out", "out/e"], "", ["none", "note.txt", "emptied", "skill", "small:1", "small/lora-s0:9", []]),
    ("push", ["skill"], "", [["me/x@a b", "--dry-run"], ["me/x@../x", "--dry-run"], *[[word, "--dry-run"] for word in WORDS], ["me", "--dry-run"], ["a/b/c", "--dry-run"], ["me/x@", "--dry-run"], []]),
    ("push", [], "", [["none", "me/skill"], ["note.txt", "me/skill"], ["/dev/null", "me/skill"], ["images", "me/skill"]]),
    ("pull", ["me/skill"], "--out", ["skill", "/dev/null"]),
    ("pull", ["--out", "out/pulled"], "", ["../x", []]),
    ("upcycle", ["--out", "out/u"], "", ["tiny", "tinny", "note.txt", "garbage.gguf", []]),
    ("upcycle", ["emptied", "--out", "out/u"], "--top-k", ["0", "9"]),
]  # fmt: skip


def shown(line: list[str]) -> str:
    """A command line as one short text."""
    parts = [part if len(part) <= 40 else f"{part[:5]}...({len(part)})" for part in line]
    return " ".join(part if part.strip() else repr(part) for part in parts).encode("unicode_escape").decode()


def lines() -> list[list[str]]:
    """Every command line, as a list of arguments."""
    found = []
    for command, good, option, values in ROWS:
        for value in values:
            bad = value if isinstance(value, list) else [option, value] if option else [value]
            found.append([*command.split(), *good, *bad])
    return found
