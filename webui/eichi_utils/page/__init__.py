"""The page: widgets, handlers, live state and routes. Knows no model."""
