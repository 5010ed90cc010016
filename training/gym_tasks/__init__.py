"""Gymnasium tasks that a Perceiver torso and RLlib's own networks are trained on, alike in all else."""
