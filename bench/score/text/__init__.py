"""Text tasks: prompts, filters and metrics of lm-eval, with saved answers and standard errors."""

from moextend.bench.score.text.cell import first_answers, score_text, text_commits

__all__ = ["first_answers", "score_text", "text_commits"]
