"""What matters on a GPU, measured in minutes: steps, frozen gradients, AutoAttack, validation."""

import time

#: When the benchmark was started, before PyTorch is imported, which takes seconds.
BEGAN = time.perf_counter()
