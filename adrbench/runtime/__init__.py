"""The machine: devices, CUDA graphs, process groups, signals, files and locks, seeds, hashes."""
