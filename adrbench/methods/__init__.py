"""Methods: an objective, targets, a perturbation of the weights, an averaging of the weights."""
