"""Writes certificates, and checks written ones."""

from __future__ import annotations

import os
from pathlib import Path

from moextend.certificate.page import page
from moextend.certificate.record import FILE, PAGE, Certificate, claims_of, read_with_digest
from moextend.extension.folder import contents
from moextend.util import files


def write(certificate: Certificate, out: Path) -> Certificate:
    """Writes the record and the page of a scope; returns the certificate with the folder relative to `out`."""
    folder = Path(os.path.relpath(certificate.folder, out)).as_posix()
    final = certificate.model_copy(update={"folder": folder}).signed()
    final.write(out / FILE.format(final.scope))
    files.write_text(out / PAGE.format(final.scope), page(final))
    return final


def problems_of(path: Path, folder: Path | None = None) -> tuple[Certificate, list[str]]:
    """A written certificate, and what is wrong with it: what `check_record` finds, and failed claims.

    Raises:
        InputError: there is no certificate, or it has keys that a certificate does not have, or has once.
    """
    found, problems = check_record(path, folder)
    problems += [f"claim '{one.name}' failed: {one.reason}" for one in found.claims if one.status == "failed"]
    return found, problems


def check_record(path: Path, folder: Path | None = None) -> tuple[Certificate, list[str]]:
    """A written certificate, and why it is not that of the extension: SHA-256, files, missing claims.

    Args:
        path: the file. folder: of the extension; None: the one that the certificate names.

    Raises:
        InputError: there is no certificate, or it has keys that a certificate does not have, or has once.
    """
    found, digest = read_with_digest(path)
    folder = folder or path.parent / found.folder
    problems = []
    if digest != found.sha256:
        problems.append("its SHA-256 is not that of its content: it was changed after it was made.")
    if (made := claims_of(found.scope)) != [one.name for one in found.claims]:
        problems.append(
            f"its claims are not those that are always made: {', '.join(made) or 'no such scope'}."
        )
    present = contents(folder)
    here = set(present.own)
    for name, wanted in found.files.items():
        if name not in here:
            problems.append(f"{folder / name} is missing.")
        elif files.sha256(folder / name) != wanted:
            problems.append(f"{folder / name} is not the file that was certified.")
    problems += [f"{folder / name} was added." for name in sorted(here - set(found.files))]
    problems += [f"{folder / name} was added, and can hold code." for name in present.code(folder)]
    return found, problems
