"""Opens the items of a task lazily from files, folders, the hub or the generated world."""

from moextend.bench.data.check import Checked, check_task
from moextend.bench.data.guess import guess_task
from moextend.bench.data.items import Item, prompt_text, target_text
from moextend.bench.data.open import Items, conversations, data_digest, hub_revision, open_items

__all__ = [
    "Checked",
    "Item",
    "Items",
    "check_task",
    "conversations",
    "data_digest",
    "guess_task",
    "hub_revision",
    "open_items",
    "prompt_text",
    "target_text",
]
