"""Pictures and videos as files. Knows no torch."""
