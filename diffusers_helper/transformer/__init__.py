"""The transformer's blocks and how they run: attention, compilation, TeaCache. Knows no checkpoint."""
