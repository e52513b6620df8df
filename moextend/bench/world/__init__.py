"""The generated world: scenes and texts with exact truth, and the tiny base model trained on them."""
