"""The help of every command has a description and an example, and is fast."""

import subprocess
import sys

import pytest
import typer

from moextend.cli.main import app
from tests.cli.conftest import Cli

COMMANDS = dict(typer.main.get_group(app).commands)
BENCH = dict(COMMANDS.pop("bench").commands)  # type: ignore[attr-defined]
COMMANDS.pop("lm-eval")


@pytest.mark.parametrize("name", [*COMMANDS, *(f"bench {name}" for name in BENCH)])
def test_help_has_a_sentence_an_example_and_a_word_on_every_option(cli: Cli, name: str) -> None:
    command = {**COMMANDS, **{f"bench {each}": one for each, one in BENCH.items()}}[name]
    found = cli(*name.split(), "--help")
    assert found.code == 0 and command.help and f"Example: moextend {name}" in found.out
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name
        assert all(option in found.out for option in parameter.opts if option.startswith("--"))


def test_an_error_names_what_was_meant(cli: Cli) -> None:
    for words, meant in (
        (("bnch", "list"), "moextend: No such command 'bnch'. Did you mean 'bench'?"),
        (("bench", "lst"), "moextend bench: No such command 'lst'. Did you mean 'list'?"),
        (("--", "bench", "list", "--lst"), "moextend bench list: No such option: --lst."),
        (("bench", "list", "--KeyboardInterrupt"), "No such option: --KeyboardInterrupt."),
    ):
        found = cli(*words)
        assert found.code == 2
        assert meant in found.err


@pytest.mark.parametrize(("words", "found"), [("bench re", "report"), ("bench run --m", "--method")])
def test_a_shell_completes_commands_and_options(
    words: str, found: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MOEXTEND_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"moextend {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert found in cli().out.split()


@pytest.mark.parametrize("words", ["bench run", "extend"])
def test_help_does_not_import_the_heavy_ones(words: str) -> None:
    code = (
        f"import sys; sys.argv = 'moextend {words} --help'.split()\n"
        "from moextend.cli import main\n"
        "try: main.run()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'matplotlib', 'scipy'}\n"
        "sys.exit(f'imported {heavy}' if (heavy := heavy & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
