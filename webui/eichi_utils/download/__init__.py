"""The download of the models: which files, from where, how far. Knows no page."""
