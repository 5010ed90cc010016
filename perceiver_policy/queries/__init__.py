"""Queries: what the decoder is asked. One file per kind."""
