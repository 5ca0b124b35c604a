"""Log file, redaction and error reports. Knows no page."""
