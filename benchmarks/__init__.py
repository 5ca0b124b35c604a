"""Scripts that measure, and what they gave (`results/`)."""
