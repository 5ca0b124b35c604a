"""Model folders and the tensors in their files. Knows no device policy."""
