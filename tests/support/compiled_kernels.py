"""The needs of our kernels on a kind of GPU, by Triton's own compiler; as a script, for one capability.

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
TYPES = {"numbers": "*i8", "weight": "*i8", "token_scale": "*fp32", "weight_scale": "*fp32"}
TYPES |= {"cosine": "*fp32", "sine": "*fp32", "first_count": "i32", "count": "i32"}
"""The types of arguments that are no bfloat16 tensors."""
ROW = {"width": HIDDEN, "block": 4096, "is_normed": True}
TWO_ROWS = {"before_width": HIDDEN, "before_block": 4096, "hidden_width": MLP, "hidden_block": 16384}
HEADS = {"width": HIDDEN, "size": 128, "heads": token_kernels.HEADS}
KERNELS: list[tuple[Any, dict[str, Any], int | None]] = [
    (token_kernels._quantize_rows, ROW, token_kernels._warps(4096)),
    (token_kernels._quantize_activated, TWO_ROWS, token_kernels._warps(16384)),
    (token_kernels._norm_and_rotate, HEADS, 1),
]
for shape in ({"outputs": MLP, "inputs": HIDDEN}, {"outputs": HIDDEN, "inputs": HIDDEN + MLP}):
    KERNELS.append((product_kernel._int8_product, shape | {"has_bias": True}, None))


def main(capability: int) -> None:
    needs = []
    for kernel, constants, warps in KERNELS:
        kinds = {name: TYPES.get(name, "*bf16") for name in kernel.arg_names if name not in constants}
        aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(kinds.values()) if "*" in kind}
        signature = kinds | dict.fromkeys(constants, "constexpr")
        source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
        options = product_kernel.options(capability // 10) if warps is None else {"num_warps": warps}
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), options)
        needs.append((*_assemble(compiled.asm["ptx"], capability), compiled.metadata.shared))
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
