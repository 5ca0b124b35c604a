"""The steps that TeaCache skips, and the output in their place."""

import pytest
import torch

from diffusers_helper.transformer.teacache import POLYNOMIAL, TeaCache


def decisions(inputs, threshold):
    cache = TeaCache(threshold, len(inputs))
    return [cache.should_compute(torch.full((1, 4, 8), value)) for value in inputs]


@pytest.mark.parametrize(
    ("inputs", "threshold", "computed"),
    [
        ([1.0] * 4, 10, [0, 3]),  # the first and the last step always are
        ([1.0], 10, [0]),
        ([1.0] * 2, 10, [0, 1]),
        ([1.0, 1.1, 1.2, 1.3], 0, [0, 1, 2, 3]),
        # An unchanged input still counts as the polynomial's last coefficient, 0.0961: five make 0.48.
        ([1.0] * 9, 0.4, [0, 5, 8]),
    ],
)
def test_estimated_changes_add_up_to_the_threshold(inputs, threshold, computed):
    assert decisions(inputs, threshold) == [step in computed for step in range(len(inputs))]


def test_the_estimate_is_the_polynomial_of_the_relative_change():
    change = 0.3
    estimate = sum(c * change ** (4 - i) for i, c in enumerate(POLYNOMIAL))
    assert decisions([1.0, 1.0 + change, 1.3], threshold=estimate - 1e-3)[1] is True
    assert decisions([1.0, 1.0 + change, 1.3], threshold=estimate + 1e-3)[1] is False


def test_the_change_is_measured_from_step_to_step():
    # 1 % each step adds 0.071 a step; measured from the last computed step it would add less.
    step = sum(c * 0.01 ** (4 - i) for i, c in enumerate(POLYNOMIAL))
    values = [1.01**i for i in range(8)]
    expected = [i in (0, 7) or i % 4 == 0 for i in range(8)]
    assert decisions(values, threshold=step * 3.5) == expected


def test_a_skipped_step_adds_the_blocks_last_residual():
    cache = TeaCache(0.4, 3)
    before, after = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    cache.remember(before, after)
    assert torch.allclose(cache.apply(before), after, atol=1e-6)
