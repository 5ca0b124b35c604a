"""The check of this computer: GPU, memory, disk, PyTorch. Knows no page."""
