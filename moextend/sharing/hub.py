"""Folders on the Hugging Face Hub: what of a folder is pushed, in one commit, and pulled to a new folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moextend.errors import InputError, MoextendError, RunFailed
from moextend.extension import tensor_files
from moextend.extension.folder import HubId, download, files_in, is_about, is_own, is_plain
from moextend.util import files, foreign, hub_errors
from moextend.util.quiet import quiet_loggers

Kind = Literal["extension", "moextend", "stock", "peft"]
_EXPORTED = re.compile(
    r"(?:[A-Za-z0-9][\w-]*/){0,3}(?:[\w.-]+\.safetensors(?:\.index\.json)?|(?:config|generation_config|tokenizer|"
    r"tokenizer_config|vocab|special_tokens_map|added_tokens|adapter_config|moextend_export|extension|projector|"
    r"preprocessor_config|chat_template|modality-[a-z][a-z0-9]*)\.json|merges\.txt|vocab\.txt|tokenizer\.model|"
    r"[\w-]+\.jinja|log\.jsonl)"
)
"""Files that `moextend export` writes."""
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{20,}")
_TEXTS = (".json", ".jsonl", ".md", ".txt", ".jinja")
_HINT = "Name a folder of 'moextend extend' or 'moextend export', or a stage of a run."


@dataclass(frozen=True)
class Pushed:
    """A folder to push."""

    folder: Path
    kind: Kind
    """extension: of `extend`. Others: the form of an export."""
    names: tuple[str, ...]
    """Files that are pushed, relative to the folder; without the model card."""
    left_out: tuple[str, ...]
    """Files that are not."""

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum((self.folder / name).stat().st_size for name in self.names)


def pushed(folder: Path) -> Pushed:
    """What of a folder is pushed.

    Raises:
        InputError: it holds no extension and no exported model, or a file holds an access token.
    """
    if not folder.is_dir():
        raise InputError(f"no folder '{folder}'.", where="SOURCE", hint=_HINT)
    paths = {name: path for name, path in files_in(folder) if name != "README.md"}
    kind = kind_of_names(paths)
    if kind is None:
        raise InputError("holds no extension and no exported model.", where=str(folder), hint=_HINT)
    names = tuple(name for name, path in paths.items() if is_shared(name, kind) and is_plain(path))
    for name in names:
        if name.endswith(_TEXTS) and _TOKEN.search(paths[name].read_bytes()):
            raise InputError(
                "holds an access token of the hub, and is not shared.", where=str(paths[name]),
                hint="Remove the token from the file.",
            )  # fmt: skip
    return Pushed(folder, kind, names, tuple(name for name in paths if name not in names))


def kind_of_names(names: Collection[str]) -> Kind | None:
    """Kind of a folder by the names of its files; None: nothing of this package."""
    if {"extension.json", "extension.safetensors"} <= {*names}:
        return "extension"
    if "adapter_config.json" in names:
        return "peft"
    if "moextend_export.json" in names:
        return "stock"
    linked = "config.json" in names and any(name.startswith("extensions/") for name in names)
    return "moextend" if linked else None


def is_shared(name: str, kind: Kind) -> bool:
    """Whether a file of a repository belongs to what was pushed."""
    if is_about(name):
        return True
    return is_own(name) if kind == "extension" else _EXPORTED.fullmatch(name) is not None


def local_paths(folder: Path, kind: Kind) -> list[str]:
    """Absolute paths of this machine that the card of an extension or an export names, and others cannot use."""
    if kind not in ("extension", "moextend"):
        return []
    name = "extension.json" if kind == "extension" else "config.json"
    values = json.loads((folder / name).read_bytes())
    values = values.get("made") or {} if kind == "extension" else values
    named = [] if values.get("base_copied") else [str(values.get(key, "")) for key in ("base", "data")]
    named += [value for each in (values.get("options") or {}).values() for value in each]
    return [f"{name} names {value}" for value in named if value.startswith(("/", "~"))]


_REFUSALS = {
    401: ("the hub refuses the token.", "Log in again with hf auth login, or correct HF_TOKEN."),
    403: (
        "this account or its token may not write there.",
        "Use a token with write access, and your own name.",
    ),
    404: (
        "the hub has no such owner, repository or branch, or this account may not see it.",
        "Check the names.",
    ),
}
AGAIN = "Nothing was committed. Run the same command again: files that the hub has are not sent again."


@dataclass(frozen=True)
class Commit:
    """A commit on the hub."""

    id: str
    url: str
    removed: tuple[str, ...]
    """Files of an earlier push that this one does not have."""


@dataclass(frozen=True)
class Pulled:
    """A folder that was pulled."""

    folder: Path
    kind: Kind
    commit: str
    names: tuple[str, ...]


def push(what: Pushed, card: str, named: HubId, *, private: bool = False) -> Commit:
    """Pushes the files and the model card in one commit: all of them, or none.

    Args:
        named: the repository, which is made if it is not there, and the branch (None: the default one; made if it is
            not there). private: makes a private repository.

    Raises:
        InputError: there is no token, or it may not write; the repository is public and `private` is asked for.
        RunFailed: the hub cannot be reached or fails. Nothing was committed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    _check_token(named)
    api = HfApi()
    with _explained(named, pushing=True), quiet_loggers("huggingface_hub"):
        api.create_repo(named.name, private=private or None, exist_ok=True)
        if private and not api.model_info(named.name).private:
            raise InputError(
                f"'{named.name}' exists and is public.", where="--private",
                hint="Make it private on its page first, or name another repository.",
            )  # fmt: skip
        if named.revision:
            api.create_branch(named.name, branch=named.revision, exist_ok=True)
        there = api.list_repo_files(named.name, revision=named.revision)
        names = {*what.names, "README.md"}
        old = [one for one in there if one not in names and is_shared(one, what.kind)]
        adds = [CommitOperationAdd(name, what.folder / name) for name in what.names]
        adds.append(CommitOperationAdd("README.md", card.encode()))
        made = api.create_commit(
            named.name, [*adds, *(CommitOperationDelete(one) for one in old)], revision=named.revision,
            commit_message=f"Push {what.kind} with moextend",
        )  # fmt: skip
    return Commit(made.oid, str(made.commit_url), tuple(old))


def pull(named: HubId, out: Path) -> Pulled:
    """Copies what was pushed to a new folder, after its hashes were checked.

    Raises:
        InputError: the hub has no such repository or revision, not for this user, or it holds nothing of this
            package; or the folder is not new.
        RunFailed: the hub cannot be reached or fails, or what was downloaded is damaged.
    """
    from huggingface_hub import HfApi

    files.check_new(out)
    with _explained(named), quiet_loggers("huggingface_hub"):
        info: Any = HfApi().model_info(named.name, revision=named.revision)
    commit, names = str(info.sha), [str(each.rfilename) for each in info.siblings or []]
    kind = kind_of_names(names)
    if kind is None:
        raise InputError(
            f"the model '{named}' holds no extension and no exported model.", where="OWNER/NAME",
            hint="Other models are downloaded by the programs that use them.",
        )  # fmt: skip
    wanted = [name for name in names if is_shared(name, kind)]
    folder = download(HubId(named.name, commit), wanted)
    with files.new_folder(out) as made:
        for name in wanted:
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, made / name)
        if kind == "extension":
            tensor_files.check_sum(made, tensor_files.read_card(made))
    return Pulled(out, kind, commit, tuple(wanted))


def _check_token(named: HubId) -> None:
    """Raises InputError if this user has no token, before anything is asked of the hub."""
    from huggingface_hub import constants, get_token

    if get_token() is None:
        raise InputError(
            "the hub accepts files only from users with a token.", where=str(named), hint=f"First, {hub_errors.LOGIN}."
        )  # fmt: skip
    if constants.HF_HUB_OFFLINE:
        raise InputError("HF_HUB_OFFLINE is set.", where=str(named), hint="Unset it to push.")


@contextmanager
def _explained(named: HubId, *, pushing: bool = False) -> Iterator[None]:
    """Context that raises what the hub refuses or fails at as one of this package's errors."""
    try:
        yield
    except MoextendError:
        raise
    except Exception as error:
        found = _refused(error, named) if pushing else None
        found = found or hub_errors.of_hub(error, named.name, revision=named.revision)
        if found is None:
            found = foreign.explained(error, where=str(named))
        if pushing and isinstance(found, RunFailed):
            found = RunFailed(found.what, where=found.where, hint=AGAIN)
        raise found from error


def _refused(error: BaseException, named: HubId) -> MoextendError | None:
    """The hub's answer that this user may not write."""
    statuses = {hub_errors.status_of(cause) for cause in foreign.causes(error)}
    for status in (401, 403, 404):
        if status in statuses:
            what, hint = _REFUSALS[status]
            return InputError(what, where=str(named), hint=hint)
    if statuses & {409, 412}:
        return RunFailed("another commit was pushed at the same time.", where=str(named), hint=AGAIN)
    return None
