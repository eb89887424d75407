"""The machine under the work: devices, CUDA graphs, process groups, signals, files, seeds."""
