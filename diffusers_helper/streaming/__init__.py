"""Running a model whose layers stay in their files: read ahead, copied over, used, overwritten."""
