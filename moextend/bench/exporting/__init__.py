"""Stages of runs for other programs: the model of a stage, merged adapters, and adapters of peft."""
