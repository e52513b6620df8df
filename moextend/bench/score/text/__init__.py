"""Text tasks: prompts, filters and metrics of lm-eval, with saved answers and standard errors."""

from moextend.bench.score.text.cell import (
    first_answers,
    sampled_answers,
    score_text,
    text_commits,
    text_content,
)

__all__ = ["first_answers", "sampled_answers", "score_text", "text_commits", "text_content"]
