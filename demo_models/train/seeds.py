"""Random numbers that depend on nothing but a seed and the name of what they are for."""

import hashlib

import torch


def generator(device: torch.device, *names: object) -> torch.Generator:
    """A generator on `device` for what `names` name, as `(seed, "vae", step)`: the same ones, the same
    numbers.

    The numbers of a CPU and a GPU differ.
    """
    digest = hashlib.sha256("/".join(str(name) for name in names).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


class Dice:
    """Draws tensors with one generator: what is drawn depends on the order of the calls."""

    def __init__(self, device: torch.device, *names: object) -> None:
        self.device = device
        self._generator = generator(device, *names)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)

    def integers(self, top: int, *shape: int) -> torch.Tensor:
        """Whole numbers from 0 to `top - 1`."""
        return torch.randint(0, top, shape, generator=self._generator, device=self.device)

    def chance(self, part: float, *shape: int) -> torch.Tensor:
        """True in that part of the cases."""
        return self.uniform(*shape) < part

    def pick(self, weights: "list[float] | tuple[float, ...]") -> int:
        """The number of one of the weights, the heavier the likelier."""
        total, place = sum(weights), float(self.uniform(1))
        for number, weight in enumerate(weights):
            place -= weight / total
            if place < 0:
                return number
        return len(weights) - 1
