"""The models of one set, each built and freed by a `with` block. Knows no request."""
