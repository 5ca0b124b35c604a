"""TeaCache (arXiv 2411.19108): skips the blocks at steps at which their input hardly changes."""

import numpy as np
import torch

POLYNOMIAL = (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896)
"""The fit for HunyuanVideo of the output's relative change to the input's, highest power first."""


class TeaCache:
    """Decides for each step of one pass whether the blocks run, and keeps what they added last time.

    One object serves one pass (positive or negative) of one section.
    """

    def __init__(self, threshold: float, steps: int) -> None:
        self.threshold = threshold
        self.steps = steps
        self._step = 0
        self._accumulated = 0.0
        self._previous_input: torch.Tensor | None = None
        self._residual: torch.Tensor | None = None

    def should_compute(self, modulated_input: torch.Tensor) -> bool:
        """Return whether the blocks must run, by the first block's modulated input; call it once a step."""
        is_edge = self._step in (0, self.steps - 1)
        if not is_edge and self._previous_input is not None:
            change = (modulated_input - self._previous_input).abs().mean() / self._previous_input.abs().mean()
            self._accumulated += float(np.polyval(POLYNOMIAL, change.item()))
        compute = is_edge or self._accumulated >= self.threshold
        if compute:
            self._accumulated = 0.0
        self._previous_input = modulated_input
        self._step += 1
        return compute

    def remember(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Keep what the blocks added to the hidden states."""
        self._residual = after - before

    def apply(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the blocks' output as if they added the same as last time."""
        assert self._residual is not None, "the first step is always computed"
        return hidden_states + self._residual
