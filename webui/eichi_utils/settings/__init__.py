"""The settings and presets that are remembered between two starts, as JSON. Knows no widget."""
