"""For scripts that measure a card."""

import argparse

import torch


def parse_where_a_card_is(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; where there is no card, a sentence, before 42 GB are written for it."""
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this measures a CUDA card, and PyTorch finds none on this machine")
    return options
