"""The web server around the page: addresses, security, error responses. Knows no widget."""
