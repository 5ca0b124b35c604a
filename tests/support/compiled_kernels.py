"""What our kernels need of a kind of GPU, by Triton's own compiler; as a script, for one compute capability.

Prints each kernel's registers a thread, bytes spilled and bytes of shared memory, as JSON. Needs no GPU.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffusers_helper.eight_bit import product_kernel, token_kernels

HIDDEN, MLP = 3072, 12288
TOKENS = {"numbers": "*i8", "token_scale": "*fp32"}
BOTH = {"first": "*bf16", "second": "*bf16"}
KERNELS: dict[str, tuple[Any, dict[str, str], dict[str, Any], dict[str, int]]] = {
    "quantize_normed": (
        token_kernels._quantize_rows,
        {**BOTH, "scale": "*bf16", "shift": "*bf16", **TOKENS, "first_count": "i32"},
        {"width": HIDDEN, "block": 4096, "is_normed": True},
        {"num_warps": token_kernels._warps(4096)},
    ),
    "quantize_activated": (
        token_kernels._quantize_activated,
        {"before": "*bf16", "hidden": "*bf16", **TOKENS},
        {"before_width": HIDDEN, "before_block": 4096, "hidden_width": MLP, "hidden_block": 16384},
        {"num_warps": token_kernels._warps(16384)},
    ),
    "norm_and_rotate": (
        token_kernels._norm_and_rotate,
        {**BOTH, "first_weight": "*bf16", "second_weight": "*bf16", "cosine": "*fp32", "sine": "*fp32"}
        | {"result": "*bf16", "first_count": "i32"},
        {"width": HIDDEN, "size": 128, "heads": token_kernels.HEADS},
        {"num_warps": 1},
    ),
}
for outputs, inputs in ((MLP, HIDDEN), (HIDDEN, HIDDEN + MLP)):
    KERNELS[f"int8_product of {outputs} x {inputs}"] = (
        product_kernel._int8_product,
        {
            "numbers": "*i8",
            "weight": "*i8",
            "result": "*bf16",
            "token_scale": "*fp32",
            "weight_scale": "*fp32",
        }
        | {"bias": "*bf16", "count": "i32"},
        {"outputs": outputs, "inputs": inputs, "has_bias": True},
        {},
    )


def main(capability: int) -> None:
    needs = {}
    for name, (kernel, signature, constants, options) in KERNELS.items():
        aligned = {
            (i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if "*" in kind
        }
        constant = dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, {**signature, **constant}, constexprs=constants, attrs=aligned)
        chosen = options or product_kernel.options(capability // 10)
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), chosen)
        needs[name] = (*_assemble(compiled.asm["ptx"], capability), compiled.metadata.shared)
    sys.stdout.write(json.dumps(needs))


def _assemble(code: str, capability: int) -> tuple[int, int]:
    """Return registers and bytes spilled, as NVIDIA's assembler says."""
    assembler = "ptxas" if capability < 90 else "ptxas-blackwell"
    folder = Path(nvidia.__file__).parent / "bin"
    target = re.search(r"\.target (\w+)", code)
    assert target is not None
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(code)
        file.flush()
        command = [folder / assembler, "-v", "--gpu-name", target[1], file.name, "-o", "/dev/null"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (registers,), (spilled,) = re.findall(r"Used (\d+) reg", said), re.findall(r"(\d+) bytes spill st", said)
    return int(registers), int(spilled)


if __name__ == "__main__":
    main(int(sys.argv[1]))
