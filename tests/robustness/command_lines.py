"""Bad command lines: (command, its good arguments, option or argument, bad values of it).

They are run in the workspace of workspace.py, with files beside it: see test_command_lines.py. A value is a text, or
a list of arguments that stands in the place of option and value.
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
DEVICES = ["", "gpu", "cuda:99", "cuda:x", "tpu", "cpu cuda", LONG]
DATA = ["--data", "good.jsonl"]
EXTEND = [*DATA, "--name", "two", "--out", "out/two", "--steps", "1", "--layers", "0"]
ALIGN = ["--vision", "tiny", "--data", "captions.jsonl", "--out", "out/p", "--steps", "1"]

Row = tuple[str, list[str], str, list[str | list[str]]]

BENCH: list[Row] = [
    ("bench run", ["small"], "--method", [
        *WORDS, "lor", "lora:", "lora:rank", "lora:rank=", "lora:rank=x", "lora:rank=0", "lora:rank=-1", "lora:ranc=4",
        ",", "lora:rank=4,rank=5", "moextend:scope=everything", "moextend:share=2", "moextend:share=nan",
        "full-ft:learning_rate=nan", "full-ft:learning_rate=-1", "full-ft:learning_rate=inf", "full-ft:steps=3",
        "../lora", "all:rank=2", "lora;moextend", "zero-shot:a=b", "lora:rank=1e99",
    ]),
    ("bench run", ["small", "-m", "lora"], "--seed", [*WORDS, "-1", "x", ",", "1.5", "0,1,x", "9" * 30, "0-3", "1e3", "0x1"]),
    ("bench run", ["small", "-m", "lora"], "--order", [*WORDS, "rand", "random", "random:", "random:x", "random:-1", "reversed", "given:1"]),
    ("bench run", ["small", "-m", "lora"], "--match", [*WORDS, "step", "params=", "flops=", "flops= ", "params=nope", "flops=lor", "steps=lora"]),
    ("bench run", ["small", "-m", "lora"], "--limit", list(COUNTS)),
    ("bench run", ["small", "-m", "lora"], "--steps", [*COUNTS, "10000000000", "9" * 40]),
    ("bench run", ["small", "-m", "lora"], "--align-steps", [*COUNTS, "10000000000"]),
    ("bench run", ["small", "-m", "lora"], "--jobs", list(COUNTS)),
    ("bench run", ["small", "-m", "lora"], "--device", list(DEVICES)),
    ("bench run", ["small", "-m", "lora"], "--workspace", list(FOLDERS)),
    ("bench run", ["-m", "lora"], "", [
        *WORDS, "smal", "small.yaml", "registry/none.yaml", "registry", "../small", ".", "/", "note.txt", "image.png",
        ["small", "tiny"], ["small", "--stesp", "3"], ["small", "-Z"], ["small", "--seed"], ["small", "--steps="],
    ]),
    ("bench status", [], "", [*WORDS, "none", "../small", ["a", "b"], ["--workspace", "none"], ["--jsn"]]),
    ("bench report", [], "", [
        *WORDS, "none", "small/none", ["--workspace", "note.txt"], ["--format", "xml"], ["--format", ""],
        ["--baseline", "none"], ["--baseline", ""], ["--margin", "x"], ["--margin", "-1", "--baseline", "lora"],
        ["--margin", "nan", "--baseline", "lora"], ["--references", "none"], ["--references", ""], ["--out", "note.txt/below"],
        ["--out", ""], ["--fromat", "csv"], ["--style", "none.yaml"], ["--style", "note.txt"], ["--style", NUL], ["--style", LONG],
        ["--style", "."], ["tasks", "text"], ["ablations", "matrix"],
    ]),
    ("bench power", ["small"], "", [
        *WORDS, "none", "small/none", [], ["small", "--baseline", "none"], ["small", "--method", "none"],
        ["small", "--margin", "0"],
        ["small", "--margin", "nan"], ["small", "--margin", "101"], ["small", "--margin", "2", "--effect", "-2"],
        ["small", "--margin", "2", "--baseline", "lora"],
        ["small", "--sedes", "3"],
    ]),
    ("bench power", ["small"], "--effect", ["0", "-1", "nan", "inf", "101", "x", ""]),
    ("bench power", ["small"], "--power", ["0", "1", "80", "0.01", "nan", "x", ""]),
    ("bench power", ["small"], "--seeds", ["1", "0", "-1", "x", "", ",", "3,3", "1001", "9" * 30]),
    ("bench power", ["small"], "--items", [*COUNTS, "1", "9" * 20]),
    ("bench audit", ["--no-base"], "", [*WORDS, "smal", "registry", "note.txt", ["small", "tiny"], ["small", "--workspace", "none"], ["small", "--strcit"]]),
    ("bench audit", ["small", "--no-base"], "--effect", ["0", "-1", "nan", "inf", "101", "x", ""]),
    ("bench paper", ["--out", "out/paper"], "", [*WORDS, "none", "small/none", ["--style", "none.yaml"], ["--style", NUL]]),
    ("bench paper", [], "--out", ["note.txt", "note.txt/below", "/dev/null", NUL, LONG]),
    ("bench paper", [], "", [[], ["small"]]),
    ("bench list", ["--example"], "", [*WORDS, "none", "../colour", "tasks/colour", [], ["colour", "shade"], ["captions", "--exmaple"], ["colour", "--workspace", "none"]]),
    ("bench list", [], "", ["extra", ["--workspace", "none"], ["--workspace", "note.txt"], ["--json", "--x"]]),
    ("bench add-task", ["-s", "small"], "", [
        *[[word, *DATA] for word in WORDS], ["vqaa", *DATA], ["none"], ["colour"],
        ["lmms:"], ["lmms:none"], ["lmms:mme", "--include-path", "none"], ["text", "--data", "none-such-task"], ["text", "--data", "note.txt"],
    ]),
    ("bench add-task", ["qa", *DATA, "-s", "small"], "--name", [*WORDS, "../x", "a/b", ".x", "-x", "x" * 101, "colour", "a b", "small.yaml/x"]),
    ("bench add-task", ["qa", *DATA, "--name", "mine", "-s", "small"], "--columns", [*WORDS, "question", "question=", "question=none", "quastion=question", "=", "question=question,question=answer"]),
    ("bench add-task", ["qa", *DATA, "--name", "mine", "-s", "small"], "--scorer", [*WORDS, "exact", "exact@99", "exat@1", "exact@x", "letter@1"]),
    ("bench add-task", ["qa", *DATA, "--name", "mine"], "--sequence", [*WORDS, "../small"]),
    ("bench add-task", ["qa", "--name", "mine", "-s", "small"], "--data", [
        *WORDS, "none.jsonl", "note.txt", "image.png", "/dev/null", "/dev/zero", "fifo", "emptied", ".", "data/none.parquet", "http://localhost/x.json",
    ]),
    ("bench", [], "", ["", "runn", "--x", ["run", "--", "--x"]]),
    ("", [], "", ["", "benchh", "--verson", ["bench run", "small"], ["-h2"]]),
]  # fmt: skip

LIBRARY: list[Row] = [
    ("align", ["tiny", *ALIGN[2:]], "--vision", [*WORDS, "tinny", "good.jsonl", "emptied"]),
    ("align", ["tiny", *ALIGN], "--out", ["", "note.txt", "note.txt/below", "registry", "/dev/null", NUL, LONG]),
    ("align", ["tiny", *ALIGN], "--data", ["", "none.jsonl", "note.txt", "good.jsonl", "emptied", "/dev/null", NUL]),
    ("align", ["tiny", *ALIGN], "--images", ["none", "note.txt", ""]),
    ("align", ["tiny", *ALIGN], "--template", ["", "{none}", "no mark", "<image> <image>", "<image> {", "{% for %}"]),
    ("align", ["tiny", *ALIGN], "--steps", [*COUNTS, "10000000000"]),
    ("align", ["tiny", *ALIGN], "--batch-size", list(COUNTS)),
    ("align", ["tiny", *ALIGN], "--learning-rate", ["-1", "nan", "inf", "x", "", "1e400"]),
    ("align", ["tiny", *ALIGN], "--seed", ["-1", "x", "1.5", "9" * 30]),
    ("align", [*ALIGN], "", [*WORDS, "tinny", "note.txt", "emptied", "none.gguf", "garbage.gguf", []]),
    ("extend", ["tiny", *EXTEND], "--data", ["", "none.jsonl", "note.txt", "emptied", "captions.jsonl", "/dev/zero", NUL]),
    ("extend", ["tiny", *EXTEND], "--name", [*WORDS, "a/b", "../x", "a.b", "x" * 300]),
    ("extend", ["tiny", *EXTEND], "--out", ["", "note.txt", "note.txt/below", "registry", "/dev/null", NUL, LONG]),
    ("extend", ["tiny", *EXTEND], "--vision", ["", "tinny", "note.txt"]),
    ("extend", ["tiny", *EXTEND], "--projector", ["none", "note.txt", "emptied", "registry"]),
    ("extend", ["tiny", *EXTEND], "--columns", ["", "x", "answer=none", "anser=answer", "answer="]),
    ("extend", ["tiny", *EXTEND], "--template", ["{none}", "{question"]),
    ("extend", ["tiny", *EXTEND], "--layers", [*WORDS, "prob", "9", "-1", "0,x", "0,0", "1.5", "0;1"]),
    ("extend", ["tiny", *EXTEND, "--layers", "probe"], "--share", ["0", "-1", "2", "nan", "inf", "x", ""]),
    ("extend", ["tiny", *EXTEND], "--experts", list(COUNTS)),
    ("extend", ["tiny", *EXTEND], "--width", ["0", "-1", "2", "nan", "x", ""]),
    ("extend", ["tiny", *EXTEND], "--routing", [*WORDS, "exakt", "EXACT"]),
    ("extend", ["tiny", *EXTEND], "--scope", [*WORDS, "everything", "Auto"]),
    ("extend", ["tiny", *EXTEND], "--extension", ["none", "note.txt", "emptied", "registry", NUL]),
    ("extend", ["tiny", *EXTEND], "--steps", [*COUNTS, "10000000000"]),
    ("extend", ["tiny", *EXTEND], "--batch-size", list(COUNTS)),
    ("extend", ["tiny", *EXTEND], "--learning-rate", ["-1", "nan", "inf", "x", ""]),
    ("extend", ["tiny", *EXTEND], "--seed", ["-1", "x", "9" * 30]),
    ("extend", ["tiny", *EXTEND], "--dtype", [*WORDS, "float31", "int8"]),
    ("extend", ["tiny", *EXTEND], "--device", list(DEVICES)),
    ("extend", EXTEND, "", [*WORDS, "tinny", "note.txt", "emptied", "none.gguf", ["tiny", "small"], ["tiny", "--stesp", "3"]]),
    ("generate", ["tiny"], "--prompt", [["--prompt"], []]),
    ("generate", ["tiny", "-p", "Q"], "--image", ["none.png", "note.txt", "emptied", "/dev/zero", "fifo", "", NUL]),
    ("generate", ["tiny", "-p", "<image> Q", "--vision", "tiny"], "--image", ["none.png", "note.txt", "emptied", "/dev/zero", "fifo", ""]),
    ("generate", ["tiny", "-p", "Q"], "--max-new-tokens", [*COUNTS, "10000000"]),
    ("generate", ["tiny", "-p", "Q"], "--extension", ["none", "note.txt", "emptied", "registry", ""]),
    ("generate", ["tiny", "-p", "Q"], "--projector", ["none", "note.txt", "emptied"]),
    ("generate", ["tiny", "-p", "Q"], "--vision", ["", "tinny", "emptied"]),
    ("generate", ["tiny", "-p", "Q"], "--dtype", ["", "float31"]),
    ("generate", ["tiny", "-p", "Q"], "--device", list(DEVICES)),
    ("generate", ["-p", "Q"], "", [*WORDS, "tinny", "note.txt", "emptied", []]),
    ("serve", ["tiny"], "--port", ["-1", "65536", "x", "1.5", ""]),
    ("serve", ["tiny", "--port", "0"], "--host", ["", "none.invalid", "192.0.2.7", NUL, LONG, "0.0.0.0"]),
    ("serve", ["tiny", "--port", "0"], "--extension", ["none", "note.txt", "emptied", "registry", ""]),
    ("serve", ["tiny", "--port", "0"], "--extension", ["skill:2", "skill:-1", "skill:nan", "skill:x", "skill:", ":0.5"]),
    ("serve", ["tiny", "--port", "0"], "--max-batch", list(COUNTS)),
    ("serve", ["tiny", "--port", "0"], "--max-new-tokens", [*COUNTS, "10000000"]),
    ("serve", ["tiny", "--port", "0"], "--dtype", [*WORDS, "float31"]),
    ("serve", ["tiny", "--port", "0"], "--device", list(DEVICES)),
    ("serve", ["--port", "0"], "", [*WORDS, "tinny", "note.txt", "emptied", "skill", []]),
    ("certify", ["skill", "--base", "tiny"], "--items", [*COUNTS, "1"]),
    ("certify", ["skill", "--base", "tiny"], "--scope", [*WORDS, "everything", "Own"]),
    ("certify", ["skill", "--base", "tiny"], "--data", ["", "none.jsonl", "emptied", "/dev/null", "image.png", NUL]),
    ("certify", ["skill", "--base", "tiny"], "--near", ["", "none.jsonl", "emptied", "image.png"]),
    ("certify", ["skill", "--base", "tiny"], "--extension", ["none", "note.txt", "emptied", "registry", ""]),
    ("certify", ["skill", "--base", "tiny"], "--out", ["", "note.txt", "note.txt/below", "/dev/null", NUL, LONG]),
    ("certify", ["skill", "--base", "tiny"], "--run", [*WORDS, "none", "small/none"]),
    ("certify", ["skill", "--base", "tiny"], "--vision", ["", "tinny", "emptied"]),
    ("certify", ["skill", "--base", "tiny"], "--projector", ["none", "note.txt", "emptied"]),
    ("certify", ["skill", "--base", "tiny"], "--device", list(DEVICES)),
    ("certify", ["skill"], "--base", [*WORDS, "tinny", "note.txt", "emptied", "skill", []]),
    ("certify", ["--base", "tiny"], "", [*WORDS, "none", "note.txt", "emptied", "registry", []]),
    ("certify", [], "--check", [*WORDS, "none.json", "note.txt", "emptied", "skill", "/dev/null", "image.png"]),
    ("export", ["skill", "--base", "tiny", "--out", "out/e"], "--as", [*WORDS, "stok", "STOCK", []]),
    ("export", ["skill", "--base", "tiny", "--as", "stock"], "--out", ["", "note.txt", "note.txt/below", "registry", "/dev/null", NUL, LONG, []]),
    ("export", ["skill", "--as", "stock", "--out", "out/e"], "--base", [*WORDS, "tinny", "note.txt", "emptied"]),
    ("export", ["skill", "--base", "tiny", "--as", "stock", "--out", "out/e"], "--dtype", [*WORDS, "float31", "int8"]),
    ("export", ["skill", "--base", "tiny", "--as", "stock", "--out", "out/e"], "", [
        ["--with-base"], ["--active", "skill"], ["--task", "colour"], ["--dry-run", "--dtype", "half"], ["skill", "none"],
    ]),
    ("export", ["skill", "--base", "tiny", "--as", "moextend", "--out", "out/e"], "", [["--projector", "none"], ["--vision", "tinny"]]),
    ("export", ["--as", "stock", "--out", "out/e"], "", [*WORDS, "none", "note.txt", "emptied", "skill", "small:1", "small/lora-s0:9", []]),
    ("push", ["skill"], "", [["me/x@a b", "--dry-run"], ["me/x@../x", "--dry-run"], *[[word, "--dry-run"] for word in WORDS], ["me", "--dry-run"], ["a/b/c", "--dry-run"], ["me/x@", "--dry-run"], []]),
    ("push", ["skill", "me/skill", "--dry-run"], "--run", [*WORDS, "none"]),
    ("push", [], "", [["none", "me/skill"], ["note.txt", "me/skill"], ["emptied", "me/skill"], ["/dev/null", "me/skill"], ["images", "me/skill"]]),
    ("pull", ["me/skill"], "--out", ["", "note.txt", "note.txt/below", "registry", "skill", "/dev/null", NUL, LONG]),
    ("pull", ["--out", "out/pulled"], "", [*WORDS, "me/x@a b", "me/x@../x", "me", "a/b/c", "me/x@", "../x", []]),
    ("upcycle", ["--out", "out/u"], "", [*WORDS, "tiny", "tinny", "note.txt", "emptied", "garbage.gguf", []]),
    ("upcycle", ["smollm3", "--out", "out/u"], "--experts", [*COUNTS, "1"]),
    ("upcycle", ["emptied", "--out", "out/u"], "--top-k", [*COUNTS]),
    ("upcycle", ["emptied", "--out", "out/u"], "--rows", [*WORDS, "pair"]),
    ("upcycle", ["emptied", "--out", "out/u"], "--dtype", [*WORDS, "float31"]),
    ("upcycle", ["emptied"], "--out", ["", "note.txt", "registry", "/dev/null", NUL, LONG, []]),
]  # fmt: skip


def shown(line: list[str]) -> str:
    """A command line as one short text."""
    parts = [part if len(part) <= 40 else f"{part[:5]}...({len(part)})" for part in line]
    return " ".join(part if part.strip() else repr(part) for part in parts).encode("unicode_escape").decode()


def lines() -> list[list[str]]:
    """Every command line, as a list of arguments."""
    found = []
    for command, good, option, values in [*BENCH, *LIBRARY]:
        for value in values:
            bad = value if isinstance(value, list) else [option, value] if option else [value]
            found.append([*command.split(), *good, *bad])
    return found
