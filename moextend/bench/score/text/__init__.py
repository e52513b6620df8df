"""Text tasks: prompts, filters and metrics of lm-eval, with saved answers and standard errors."""

from moextend.bench.score.text.cell import (
    Again,
    first_answers,
    items_here,
    load_task,
    sampled_answers,
    score_text,
    text_commits,
    text_content,
)

__all__ = [
    "Again",
    "first_answers",
    "items_here",
    "load_task",
    "sampled_answers",
    "score_text",
    "text_commits",
    "text_content",
]
