"""Layers that stay in their files: read ahead, copied over, used, overwritten. Knows no model."""
