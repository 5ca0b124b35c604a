"""Words for people: translations, durations, error messages. Knows no page."""
