"""Panels of the help: the options of a long command in groups, each with columns of its own widths."""

from __future__ import annotations

from collections import Counter
from typing import Any

LONG = 12
"""A command with more parameters has panels."""
PANELS = {
    "Data": "data columns images template",
    "Model": "vision audio projector extension dtype attention max_new_tokens",
    "New experts": "layers share experts width routing scope retention",
    "Training": "steps align_steps batch_size learning_rate gradient_accumulation checkpoint_steps "
    "probe_steps report_to",
    "Scoring": "oracle rewind subsets allow_code limit backend server serve backend_option",
    "Limits": "max_batch queue threads timeout grace max_body",
    "Execution": "device deterministic dry_run throughput prepare",
    "Executor": "jobs executor executor_option wait",
    "Files and output": "out to form style bundle quiet as_json workspace runs",
}
"""Title -> names of parameters."""
VIEWS = {
    "report": "tasks text transfer ablations matrix costs routing readings rewind subsets budgets items",
}
"""Command -> its parameters that choose a view."""


def put_in_panels(command: Any) -> None:
    """Gives the options of a long command their panels; what is in no group, or alone in one, stays under Options."""
    if len(command.params) <= LONG:
        return
    options = [each for each in command.params if each.param_type_name == "option"]
    titles = {name: title for title, names in PANELS.items() for name in names.split()}
    titles |= dict.fromkeys(VIEWS.get(command.name, "").split(), "Views")
    sizes = Counter(titles.get(each.name) for each in options)
    for option in options:
        title = titles.get(option.name)
        option.rich_help_panel = title if sizes[title] > 1 else None
