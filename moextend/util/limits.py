"""What options may be: names that are known, the largest numbers that are taken, and what is taken if none is named."""

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
"""Of a base's weights; auto: the checkpoint's own."""
ATTENTION = ("eager", "sdpa", "flash_attention_2")
"""Implementations of attention that a base can be loaded with."""
MOST_SEED = 2**32 - 1
"""The largest seed that numpy takes."""
MOST_STEPS = 1_000_000
MOST_BATCH = 100_000
MOST_TOKENS = 100_000
"""Of one answer."""
MOST_SEEN = 10**8
"""Conversations of one training, repetitions counted: their order is drawn before the first step."""
BATCH = 16
"""Conversations a step of a training for which no batch size is named: a start, not tuned to any model."""
RATE = 1e-3
"""Learning rate of a training for which none is named: likewise."""
