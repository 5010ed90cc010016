"""Many training jobs as one: a queue of processes, :mod:`training.suite.runner`, and suites made of it."""
