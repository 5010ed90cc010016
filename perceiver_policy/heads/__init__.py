"""Heads: what becomes of the decoder's answers. One file per kind."""
