"""Answers to scores: VQA suites and text tasks of lm-eval."""
