"""Answers of a server of the OpenAI protocol, and the proof that they are those of the model in this process."""
