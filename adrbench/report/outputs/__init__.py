"""What reports compute from the outputs of models: calibration, consistency, and classes."""
