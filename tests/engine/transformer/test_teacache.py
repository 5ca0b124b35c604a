"""When steps are left out, and what stands in for them."""

import pytest
import torch

from diffusers_helper.transformer.teacache import POLYNOMIAL, TeaCache


def decisions(inputs, threshold):
    cache = TeaCache(threshold, len(inputs))
    return [cache.should_compute(torch.full((1, 4, 8), value)) for value in inputs]


def test_first_and_last_step_are_always_computed():
    assert decisions([1.0, 1.0, 1.0, 1.0], threshold=10) == [True, False, False, True]


def test_a_threshold_of_zero_computes_every_step():
    assert decisions([1.0, 1.1, 1.2, 1.3], threshold=0) == [True] * 4


def test_changes_add_up_until_the_threshold_and_start_again():
    # An unchanged input still counts as the polynomial's last coefficient, 0.0961: five make 0.48.
    assert decisions([1.0] * 9, threshold=0.40) == [
        True,
        False,
        False,
        False,
        False,
        True,
        False,
        False,
        True,
    ]


def test_the_estimate_is_the_polynomial_of_the_relative_change():
    change = 0.3
    estimate = sum(c * change ** (4 - i) for i, c in enumerate(POLYNOMIAL))
    assert decisions([1.0, 1.0 + change, 1.3], threshold=estimate - 1e-3)[1] is True
    assert decisions([1.0, 1.0 + change, 1.3], threshold=estimate + 1e-3)[1] is False


def test_the_change_is_measured_from_step_to_step_also_over_skipped_ones():
    # 1 % each step adds 0.071 a step; measured from the last computed step it would add less.
    step = sum(c * 0.01 ** (4 - i) for i, c in enumerate(POLYNOMIAL))
    values = [1.01**i for i in range(8)]
    expected = [i in (0, 7) or i % 4 == 0 for i in range(8)]
    assert decisions(values, threshold=step * 3.5) == expected


def test_a_skipped_step_adds_what_the_blocks_added_last():
    cache = TeaCache(0.4, 3)
    before, after = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    cache.remember(before, after)
    assert torch.allclose(cache.apply(before), after, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_very_few_steps_are_all_computed(steps):
    assert decisions([1.0] * steps, threshold=10) == [True] * steps
