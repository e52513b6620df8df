"""Settings of all tests."""

import os

from hypothesis import settings

# Before torch is imported: a sum depends on the number of threads, and the tests compare across processes.
os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
