"""Chooses the hyper-parameters of methods on validation items, with the same budget for each (`bench tune`)."""
