"""What is remembered between two starts: settings and presets, as JSON. Knows no widget."""
