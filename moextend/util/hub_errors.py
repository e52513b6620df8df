"""Asks the Hugging Face Hub what it has; and errors of its downloads as one line each: what fails, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from moextend.errors import InputError, MoextendError, RunFailed
from moextend.util import foreign
from moextend.util.quiet import quiet_loggers

Kind = Literal["model", "dataset"]
LOGIN = "log in with hf auth login, or set HF_TOKEN"
AGAIN = "Run the same command again: files that are complete are not downloaded again."
_NOUN = {"model": "model", "dataset": "data set"}
_CUT = re.compile(
    r"Consistency check failed: file should be of size (\d+) but has size (\d+) \((?:\(…\))?(.+?)\)"
)
_OFFLINE = "OfflineModeIsEnabled"
_UNREACHABLE = (
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "ReadError",
    "RemoteProtocolError",
    "ProxyError",
)
"""Names of the errors of HTTP libraries; huggingface_hub changed its library twice."""
WAIT = 5.0
"""Seconds that the hub has to state what it has."""


def of_hub(
    error: BaseException,
    name: str | None,
    kind: Kind = "model",
    *,
    revision: str | None = None,
    where: str | None = None,
) -> MoextendError | None:
    """The error of a download, read from `error` and its causes; None if it is of another kind.

    Args:
        error: what a library raised.
        name: the repository; None: the one that the error names.
        revision: what was asked for; None: the default branch.
        where: the option or key that names the repository.
    """
    causes: list[Any] = list(foreign.causes(error))
    name = name or next((str(each.repo_id) for each in causes if getattr(each, "repo_id", None)), "?")
    where = where or f"{_NOUN[kind]} '{name}'"
    found = [_refused(cause, name, kind, revision, where) for cause in causes]
    found += [_failed(cause, name, kind, where) for cause in causes]
    return next((each for each in found if each is not None), None)


@contextmanager
def explained(
    what: str, *, where: str, hint: str, repository: str | None = None, revision: str | None = None
) -> Iterator[None]:
    """Context in which an error of a library for a checkpoint becomes one that says `what` cannot be done with it.

    Of a repository it says what the download says, and of a full disk that. `repository`: None for local files.
    """
    try:
        yield
    except MoextendError:
        raise
    except Exception as error:  # of several libraries and their downloads
        if (known := of_hub(error, repository, revision=revision, where=where)) is not None:
            raise known from error
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")
        if isinstance(error, KeyError):
            first = f"its files lack the entry {first}"
        elif isinstance(error, AttributeError | TypeError):
            first = "an entry of its files has another type than it should"
        elif isinstance(error, OSError) and error.strerror:
            first = ": ".join(str(part) for part in (error.strerror, error.filename) if part)
        raise InputError(f"{what} ({first}).", where=where, hint=hint) from error


def _refused(error: Any, name: str, kind: Kind, revision: str | None, where: str) -> MoextendError | None:
    """The hub's answer that a repository or revision is not there, or not for this user."""
    from huggingface_hub import errors

    what, page = _NOUN[kind], page_of(name, kind)
    status = status_of(error)
    if isinstance(error, errors.GatedRepoError):
        if status == 403:
            return InputError(
                f"the {what} '{name}' is gated, and this account has no access to it.",
                where=where,
                hint=f"Ask for access at {page}, then run the same command again.",
            )
        return InputError(
            f"the {what} '{name}' is gated: it is for users who asked for access.",
            where=where,
            hint=f"Ask for access at {page}, then {LOGIN}.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(
            f"there is no file or folder '{name}', and the hub has no such {what}, or it is private.",
            where=where,
            hint=f"Check the path or the id. If it is private: {LOGIN}.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(
            f"the {what} '{name}' has no revision '{revision or 'main'}'.",
            where=where,
            hint=f"Name a branch, a tag or a commit of {page}/commits/main.",
        )
    if status == 401:
        return InputError(
            "the hub refuses the token.",
            where=where,
            hint="Log in again with hf auth login, or correct HF_TOKEN.",
        )
    return None


def _failed(error: Any, name: str, kind: Kind, where: str) -> MoextendError | None:
    """A download that could not be made or was cut short."""
    what, status = _NOUN[kind], status_of(error)
    if type(error).__name__ == _OFFLINE:
        return InputError(
            f"the {what} '{name}' is not (completely) in the cache, and offline mode prevents a download.",
            where=where,
            hint="Unset HF_HUB_OFFLINE and run the same command once, or set HF_HOME to the folder that holds it.",
        )
    if status == 429:
        return RunFailed(
            "the hub answers 429: too many requests.",
            where=where,
            hint=f"Wait a few minutes. Logged-in users have a higher limit: {LOGIN}. {AGAIN}",
        )
    if status is not None and status >= 500:
        return RunFailed(f"the hub answers {status} (server error).", where=where, hint=f"Wait. {AGAIN}")
    if cut := _CUT.search(" ".join(str(error).split())):
        return RunFailed(
            f"the download of {cut[3]} ended after {int(cut[2]):,} of {int(cut[1]):,} bytes.",
            where=where,
            hint=AGAIN,
        )
    if type(error).__name__ in _UNREACHABLE:
        return RunFailed(
            f"the hub cannot be reached or breaks connections ({_endpoint()}: {type(error).__name__}).",
            where=where,
            hint=f"Check the network, the proxy and HF_ENDPOINT. {AGAIN}",
        )
    if (
        isinstance(error, OSError)
        and (full := foreign.of_disk(error, Path(error.filename or cache()))) is not None
    ):
        return full
    return None


def is_unreachable(error: BaseException) -> bool:
    """Whether the hub could not be connected to, by the name of the error or of a cause."""
    return any(
        type(each).__name__ in ("ConnectError", "ConnectTimeout", "ProxyError")
        for each in foreign.causes(error)
    )


def is_name(text: str) -> bool:
    """Whether a text can be the name of a repository, with an owner or without."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def page_of(name: str, kind: Kind) -> str:
    """Address of a repository's page."""
    return f"{_endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"


def cache() -> str:
    """Folder of the downloads of this user."""
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def status_of(error: Any) -> int | None:
    """Status of the answer of an HTTP error."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def ask(name: str, kind: Kind, *, revision: str | None = None, sizes: bool = False) -> Any:
    """What the hub states of a repository: ModelInfo or DatasetInfo of huggingface_hub, whose errors it raises.

    The hub is asked once and has `WAIT` seconds to answer; downloads try for more than a minute.

    Args:
        sizes: also those of the files.
    """
    from huggingface_hub import HfApi

    with quiet_loggers("huggingface_hub"):
        return HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=WAIT, files_metadata=sizes)


def folder_of(name: str, kind: Kind) -> Path:
    """Folder of the downloads of a repository, whether there are any or not."""
    return Path(cache()) / f"{kind}s--{name.replace('/', '--')}"
