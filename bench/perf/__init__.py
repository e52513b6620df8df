"""Measures a step of training and answers: time, peak memory and operations, against a step of transformers alone."""
