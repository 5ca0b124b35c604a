"""Noise levels and the solver, against closed forms."""

import math

import pytest
import torch

from diffusers_helper.sampling.schedule import flow_shift_mu, flow_sigmas, sample_unipc


def test_mu_follows_the_line_and_is_capped():
    assert flow_shift_mu((1, 16, 4, 16, 16)) == pytest.approx(0.5)  # 256 tokens
    assert flow_shift_mu((1, 16, 16, 32, 32)) == pytest.approx(1.15)  # 4096 tokens
    assert flow_shift_mu((1, 16, 9, 200, 200)) == math.log(7)


def test_sigmas_fall_from_one_to_zero_and_are_shifted_towards_noise():
    sigmas = flow_sigmas(4, mu=math.log(3))
    assert sigmas.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 16, 100])
def test_the_model_is_evaluated_once_at_each_sigma_but_zero(steps):
    evaluated = []

    def predict(x, sigma):
        evaluated.append(float(sigma))
        return torch.zeros_like(x)

    sigmas = flow_sigmas(steps, 1.0)
    results = list(sample_unipc(predict, torch.ones(1, 1, 1, 2, 2), sigmas))
    assert len(results) == steps
    assert evaluated == sigmas[:-1].tolist()


def test_a_constant_prediction_is_the_result():
    data = torch.randn(1, 16, 3, 4, 4)
    *_, result = sample_unipc(lambda *_: data, torch.randn(1, 16, 3, 4, 4), flow_sigmas(8, 1.0))
    assert torch.equal(result, data)


def _gaussian_error(steps: int) -> float:
    """Distance from the exact solution at sigma = e^-3 for data distributed as N(1, 1/4).

    In equal steps of lambda. The optimal prediction is known there, and so is the path: it keeps each
    point's quantile.
    """
    spread = 0.5

    def predict(x, sigma):
        sigma = sigma.double()
        gain = (1 - sigma) * spread**2 / ((1 - sigma) ** 2 * spread**2 + sigma**2)
        return 1 + gain * (x - (1 - sigma))

    seen = []

    def watch(x, sigma):
        seen.append((x, float(sigma)))
        return predict(x, sigma)

    noise = torch.tensor([2.0], dtype=torch.float64).reshape(1, 1, 1, 1, 1)
    sigmas = torch.cat([torch.exp(-torch.linspace(0, 3, steps + 1)), torch.zeros(1)])
    for _ in sample_unipc(watch, noise, sigmas):
        pass
    x, sigma = seen[-1]
    exact = (1 - sigma) * 1 + math.sqrt((1 - sigma) ** 2 * spread**2 + sigma**2) * 2.0
    return abs(float(x) - exact)


def test_error_shrinks_faster_than_second_order():
    assert _gaussian_error(40) < _gaussian_error(10) / 4**2
    assert _gaussian_error(40) < 1e-3
