"""A server for extended models, with OpenAI's protocol: `moextend serve` (docs/serving.md)."""
