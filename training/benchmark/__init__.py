"""Measurements of the project's own parts, as rows that ``perceiver-policy benchmark`` prints and writes.

A module a subject (``engine``, ``core``, ``rollout``), each with ``measure(command)``, an iterable of
:class:`~training.benchmark.rows.Row`.
"""
