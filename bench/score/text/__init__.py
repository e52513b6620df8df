"""Text tasks: prompts, filters and metrics of lm-eval, with saved answers and standard errors."""

from moextend.bench.score.text.cell import first_answers, score_text, text_commits, text_content
from moextend.bench.score.text.sample import sampled_answers

__all__ = ["first_answers", "sampled_answers", "score_text", "text_commits", "text_content"]
