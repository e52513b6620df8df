"""The items of a task: opened lazily from files, folders, the hub or the generated world."""

from moextend.bench.data.check import Checked, check_task, unknown_notes
from moextend.bench.data.digests import data_digest, hub_revision
from moextend.bench.data.open import Items, open_items
from moextend.data.guess import guess_task
from moextend.data.prompts import Item, prompt_text, render_prompt, target_text, turns

__all__ = [
    "Checked",
    "Item",
    "Items",
    "check_task",
    "data_digest",
    "guess_task",
    "hub_revision",
    "open_items",
    "prompt_text",
    "render_prompt",
    "target_text",
    "turns",
    "unknown_notes",
]
