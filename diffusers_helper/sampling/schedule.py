"""The noise levels of a section, and the solver UniPC: plain functions of tensors."""

import math
from collections.abc import Callable, Iterator

import torch

MU_BASE = (256, 0.5)
MU_MAX = (4096, 1.15)
"""The two points (tokens, mu) of Flux's line."""
MAX_SHIFT = 7.0
"""The largest exp(mu), as in FramePack."""


def flow_shift_mu(latent_shape: tuple[int, ...]) -> float:
    """The shift mu of the noise levels for latents `(b, c, t, h, w)`: more tokens, more noise.

    A line through two sequence lengths, as in Flux, with mu at most ln 7, as in FramePack.
    """
    _, _, frames, height, width = latent_shape
    length = frames * height * width // 4
    slope = (MU_MAX[1] - MU_BASE[1]) / (MU_MAX[0] - MU_BASE[0])
    return min(slope * (length - MU_BASE[0]) + MU_BASE[1], math.log(MAX_SHIFT))


def flow_sigmas(steps: int, mu: float) -> torch.Tensor:
    """The noise levels `(steps + 1,)` from 1 to 0, float32: t in even steps, shifted by mu.

    sigma = e^mu / (e^mu + 1/t - 1), the time shift of flow matching (arXiv 2403.03206).
    """
    times = torch.linspace(1, 0, steps + 1)
    return math.exp(mu) / (math.exp(mu) + (1 / times - 1))


def sample_unipc(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, sigmas: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Sample with UniPC (arXiv 2302.04867): multistep, data prediction, B1(h) = h.

    Yields the predicted clean data after each of the `steps` model evaluations; the last is the result. The
    order grows from 1 to `min(3, steps - 1)`.

    Args:
        predict: `(x, sigma) -> x0`, the clean data predicted from `x` at noise level `sigma` (0-d).
        noise: `x` at the first sigma, float32.
        sigmas: `steps + 1` descending noise levels; the last, 0, is not evaluated.
    """
    max_order = min(3, len(sigmas) - 2)
    x = noise
    predictions = [predict(x, sigmas[0])]
    yield predictions[-1]
    for i in range(1, len(sigmas) - 1):
        order = min(i, max_order)
        update = _UniPCUpdate(sigmas[i - order : i + 1], predictions[-order:], x)
        predicted = predict(update.solve(), sigmas[i])
        x = update.solve(predicted)
        predictions = [*predictions, predicted][-3:]
        yield predicted


class _UniPCUpdate:
    """One step of UniPC, from the second to last of `sigmas` to the last.

    With lambda = -ln(sigma), hence alpha = 1, as in FramePack, the first-order solution is
    `sigma_t / sigma_s * x - (e^-h - 1) * m_s`. UniP adds the differences D of earlier predictions, UniC
    those and the difference of the new one, weighted by the solution of the paper's R rho = b.

    The scalars are float32 as in FramePack: at small h they cancel, and other rounding would give another
    video for the same seed.
    """

    def __init__(self, sigmas: torch.Tensor, predictions: list[torch.Tensor], x: torch.Tensor) -> None:
        lambdas = -sigmas.log()
        self.h = lambdas[-1] - lambdas[-2]
        self.last = predictions[-1]
        past = lambdas[:-2].flip(0)
        self.ratios = torch.cat([(past - lambdas[-2]) / self.h, torch.ones(1)])
        earlier = reversed(predictions[:-1])
        pairs = zip(earlier, self.ratios[:-1].tolist(), strict=True)
        self.differences = [(prediction - self.last) / ratio for prediction, ratio in pairs]
        self.base = float(sigmas[-1] / sigmas[-2]) * x - float(torch.expm1(-self.h)) * self.last

    def solve(self, predicted: torch.Tensor | None = None) -> torch.Tensor:
        """Return `x` at the new sigma: by UniP, or by UniC with the prediction there (its ratio is 1)."""
        differences = [*self.differences, *([] if predicted is None else [predicted - self.last])]
        total = torch.zeros_like(self.base)
        for weight, difference in zip(self._weights(len(differences)), differences, strict=True):
            total = total + weight * difference
        return self.base + float(self.h) * total

    def _weights(self, count: int) -> list[float]:
        """The weights rho of the first `count` differences."""
        if count < 2:
            return [0.5] * count  # the paper's simplification: the exact value tends to 1/2
        powers = torch.stack([self.ratios[:count] ** k for k in range(count)])
        b, factorial = [], 1
        phi = torch.expm1(-self.h) / -self.h - 1
        for k in range(1, count + 1):
            b.append(phi * factorial / -self.h)
            factorial *= k + 1
            phi = phi / -self.h - 1 / factorial
        return torch.linalg.solve(powers, torch.stack(b)).tolist()
