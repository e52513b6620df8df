"""The harness: sequences of stages, learned by several methods and scored after every stage."""
