"""What the notes of tables report of the servers that scored runs."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.report.collect import Result
from moextend.errors import counted


def backend_notes(results: Sequence[Result]) -> list[str]:
    """The runs that a server scored, with what shows that it answers as transformers do; one note for each."""
    return [_backend_note(result) for result in results if result.parities]


def _backend_note(result: Result) -> str:
    served = [cell for cell in result.cells.values() if cell.backend]
    shown = [found for cell in served if (found := result.parities.get(cell.parity or "")) is not None]
    engines = ", ".join(dict.fromkeys(one.engine or "a server" for one in shown))
    distinct = list({(one.weights_id, one.task): one for one in shown}.values())
    differences = [one.difference for one in distinct if one.difference is not None]
    part = "" if len(served) == len(result.cells) else f" in {len(served)} of {len(result.cells)} cells"
    likelihoods = f", log-likelihoods within {max(differences):.1g} nats per token" if differences else ""
    answers = sum(one.answers for one in distinct)
    return (
        f"{result.name} is scored by {engines}{part}: weights proved, {counted(answers, 'sampled answer')} equal to "
        f"those of transformers{likelihoods}."
    )
