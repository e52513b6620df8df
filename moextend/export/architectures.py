"""Architectures that vLLM serves with extensions. Imports nothing: vLLM reads it in each of its processes."""

PREFIX = "Moextend"
"""Before the name of the base's architecture in the config of an exported folder."""
ARCHITECTURES = ("MixtralForCausalLM", "OlmoeForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM")
"""Those that are tested against moextend; others are refused by the export."""
