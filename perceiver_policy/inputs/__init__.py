"""Input adapters: one file per kind of input, each turning it into tokens for the encoder."""
