"""The rooms of the app around the engine."""
