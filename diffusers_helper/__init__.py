"""The engine: from a request to a video. Knows torch; knows no page, no language and no global state."""
