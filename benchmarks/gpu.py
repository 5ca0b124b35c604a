"""The command line of scripts that measure a GPU."""

import argparse

import torch


def parse_gpu_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; without a GPU, exit with a sentence before 42 GB are written for one."""
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this measures a CUDA GPU, and PyTorch finds none on this machine")
    return options
