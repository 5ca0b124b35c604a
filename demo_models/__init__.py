"""Tiny models in the folder layout of the real ones, for a machine with no GPU and no download."""
