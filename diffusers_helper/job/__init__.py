"""The files of one job: finished sections, fingerprint, results. Knows no model."""
