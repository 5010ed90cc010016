"""Measurements of the project's own parts, as rows that ``perceiver-policy benchmark`` prints and writes.

A module a subject, each with ``measure(command) -> list[Row]``.
"""
