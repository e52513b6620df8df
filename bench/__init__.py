"""The harness: sequences of stages, learnt by several methods and scored after every stage."""
