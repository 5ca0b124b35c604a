"""The numbers that the engine goes by and its callers may need beforehand. Imports nothing."""

GIB = 2**30
"""Bytes in a gibibyte."""
OLDEST_CAPABILITY = (7, 0)
"""The oldest compute capability that is supported: before Volta there are no matrix units, and a video would
take days. Triton's kernels need it, too."""
BFLOAT16_CAPABILITY = (8, 0)
"""The oldest compute capability that computes in bfloat16."""
