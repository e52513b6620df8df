"""A language model with an image encoder: loading, prompts, generation, likelihoods."""
