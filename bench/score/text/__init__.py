"""Text tasks: prompts, filters and metrics are lm-eval's; what is kept, keyed and counted is ours."""

from moextend.bench.score.text.cell import score_text

__all__ = ["score_text"]
