"""`moextend push` and `moextend pull`: extensions and exported folders on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from moextend.bench.exporting import stage as stages
from moextend.cli import options
from moextend.cli.inputs import check_out
from moextend.errors import at, counted
from moextend.extension.folder import INPUTS, parse
from moextend.util import files
from moextend.util.quiet import quiet_process

if TYPE_CHECKING:
    from moextend.sharing.hub import Pushed
    from moextend.sharing.model_card import RunFacts

Repository = Annotated[
    str, Argument(metavar="OWNER/NAME", help="On the hub, also OWNER/NAME@REVISION; a branch is created.")
]


def push(
    source: Annotated[
        str, Argument(metavar="SOURCE", help="Folder of an extension or of 'moextend export', or RUN:STAGE.")
    ],
    repository: Repository,
    private: Annotated[bool, Option("--private", help="Make the repository private.")] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show the files and the model card without contacting the hub.")
    ] = False,
    base: Annotated[
        str | None, Option(help="Name of the base in the card. Default: that of the training.")
    ] = None,
    licence: Annotated[
        str | None, Option("--licence", "--license", help="In the card. Default: that of extension.json.")
    ] = None,
    workspace: options.Workspace = Path(),
) -> None:
    """Push an extension, or an exported model, to the hub: its files and a model card, in one commit."""
    from moextend.sharing.hub import local_paths, pushed

    named = parse(repository, where="OWNER/NAME")
    folder, facts = _source(source, workspace / "runs")
    what = pushed(folder)
    card = _card(what, named.name, base=base or "", licence=licence or "", run=facts)
    for note in local_paths(folder, what.kind):
        options.echo(f"note: {note}, a path of this machine, which others see but cannot use.", err=True)
    for file in INPUTS:
        if file in what.names:
            why = "words of the training data can be recovered from it; only later extensions with scope all need it."
            options.echo(f"note: {file}: {why}", err=True)
    size = f"{counted(len(what.names) + 1, 'file')}, {what.bytes / 1e6:.2f} MB"
    if dry_run:
        options.echo(f"would push to {named}: {what.kind}, {size}")
        for name in what.names:
            options.echo(f"  {(what.folder / name).stat().st_size:>14,}  {name}")
        options.echo(f"  {len(card.encode()):>14,}  README.md")
        if what.left_out:
            options.echo(f"left out: {', '.join(what.left_out)}")
        options.echo(card)
        return
    from moextend.sharing.hub import push as pushes

    made = pushes(what, card, named, private=private)
    removed = f"; removed {', '.join(made.removed)}" if made.removed else ""
    options.echo(f"pushed {size}{removed}: {made.url}")


def pull(
    repository: Repository,
    out: Annotated[
        Path | None, Option("--out", "-o", file_okay=False, help="A new folder. Default: NAME.")
    ] = None,
) -> None:
    """Copy an extension, or an exported model, from the hub to a new folder, and check its hashes."""
    named = parse(repository, where="OWNER/NAME")
    place = out or Path(named.name.rpartition("/")[2])
    check_out(place)
    from moextend.sharing.hub import pull as pulls

    with at("--out"):
        files.check_new(place)
    found = pulls(named, place)
    options.echo(
        f"wrote {found.folder}: {counted(len(found.names), 'file')} of {named.name} at {found.commit}"
    )


def _source(source: str, runs: Path) -> tuple[Path, RunFacts | None]:
    """Folder to push, and what its run knows of it."""
    folder = Path(source)
    if folder.is_dir() and not (folder.parent.name == "stages" and (folder / "extension.json").is_file()):
        return folder, None
    from moextend.bench.exporting import evidence

    quiet_process()
    named = stages.find(source, runs)
    found = evidence.extension_of(named)
    return found, evidence.run_facts(named.run, found)


def _card(what: Pushed, repository: str, **facts: Any) -> str:
    """The model card: that of the folder if somebody wrote one, else a generated one."""
    from moextend.sharing.model_card import MARK, model_card

    own = what.folder / "README.md"
    if own.is_file() and not own.is_symlink() and MARK not in (text := own.read_text(encoding="utf-8")):
        return text
    return model_card(what, repository, **facts)
