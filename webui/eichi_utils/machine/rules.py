"""What the facts of a machine mean for making videos on it: good, slow, or it will fail. Pure functions.

Each line is a code and values; `check.<code>.<level>` in `locales/` is its sentence, and with `.do` behind
it the one thing to do. Numbers are from `benchmarks/README.md` unless they say otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from diffusers_helper.limits import BFLOAT16_CAPABILITY, GIB, OLDEST_CAPABILITY
from diffusers_helper.ram import SystemMemory
from diffusers_helper.streaming.placement import COMFORT_BYTES, COMFORT_PART, HIDDEN

from .facts import Capability, CardFacts, FolderFacts, MachineFacts, TorchFacts

Level = Literal["good", "slow", "fails"]

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
VRAM_GOOD = 5 * GIB
VRAM_LEAST = 9 * GIB // 2
"""A step takes 4.2 GiB at 640x608, and CUDA itself about half of one (reported, not measured here)."""
VRAM_RESERVED = 25 * GIB // 4
"""What the engine leaves free before layers may stay: `streamed_models.VAE_BYTES` and `SPARE_BYTES`."""
BLOCK_BYTES = 169 * GIB // 10
"""The transformer's blocks, which pass by in every step."""
PROCESS_BYTES = 2 * GIB
"""The process holds 1.9 GiB during and after a job."""
COMMITTED_BYTES = 4 * GIB
"""What the process asks Windows for beside the card's memory: an estimate, CUDA's libraries included."""
LITTLE_RAM = 12 * GIB
"""Below this, memory was never measured, and Windows itself takes half of it."""
STEP_SECONDS = 30.0
"""A step on an RTX 4060 of a laptop, calculated from its arithmetic, not measured."""
MODEL_BYTES = 43_000_000_000
"""All models together, from the numbers of their parameters and what each is stored in."""
RESERVED_DISK = GIB
"""What a download leaves free."""
VIDEO_BYTES_PER_SECOND = 50_000_000
"""Raw frames of 640x608 with their overlaps and the MP4: what a job takes on the disk while it runs."""
LONGEST_SECONDS, SHORTEST_SECONDS = 120, 5
OLDEST_DRIVERS = {11: ((450, 80), (452, 39)), 12: ((525, 60), (528, 33)), 13: ((580, 65), (580,))}
"""By CUDA's major version, the oldest drivers on Linux and Windows: NVIDIA's table of minor version
compatibility, https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html."""


@dataclass(frozen=True)
class CheckLine:
    """One thing that was looked at. `values` fill the placeholders of the sentence and of what to do."""

    code: str
    level: Level
    values: dict[str, object]


def check_machine(facts: MachineFacts) -> list[CheckLine]:
    """A line for each thing that is known or that matters, in the order in which they should be mended."""
    rules: Sequence[Callable[[MachineFacts], CheckLine | None]] = (
        *(_python, _card, _vram, _driver, _torch, _attention),
        *(_ram, _page_file, _models, _room_for_models, _output),
    )
    return [line for rule in rules if (line := rule(facts)) is not None]


def good(code: str, /, **values: object) -> CheckLine:
    """A line about something that is as it should be."""
    return CheckLine(code, "good", values)


def slow(code: str, /, **values: object) -> CheckLine:
    """A line about something that works, but not well."""
    return CheckLine(code, "slow", values)


def fails(code: str, /, **values: object) -> CheckLine:
    """A line about something that will end a job, or make it useless."""
    return CheckLine(code, "fails", values)


def _python(facts: MachineFacts) -> CheckLine:
    version = _dotted(facts.python)
    if facts.python_bits < 64:
        return fails("python_32_bit", version=version)
    if facts.python < OLDEST_PYTHON:
        return fails("python_old", version=version)
    if facts.python > NEWEST_PYTHON:
        return slow("python_new", version=version)
    return good("python", version=version)


def _card(facts: MachineFacts) -> CheckLine:
    card = facts.card
    if facts.device == "cpu":
        return slow("card_unused")
    if card is None:
        return _no_card(facts)
    if card.capability is None:
        return slow("card_unknown", card=card.name)
    if card.capability < OLDEST_CAPABILITY:
        return fails("card_old", card=card.name)
    if card.capability < BFLOAT16_CAPABILITY:
        return slow("card_float16", card=card.name)
    return good("card", card=card.name)


def _no_card(facts: MachineFacts) -> CheckLine:
    if facts.card_without_driver:
        return fails("card_without_driver")
    return fails("no_card") if facts.device == "cuda" else slow("no_card")


def _used_card(facts: MachineFacts) -> CardFacts | None:
    return None if facts.device == "cpu" else facts.card


def _vram(facts: MachineFacts) -> CheckLine | None:
    card = _used_card(facts)
    if card is None or card.free is None:
        return None
    limit = facts.memory_limit
    if limit is not None and limit < min(VRAM_GOOD, card.free):
        shown = {"limit": _gb(limit), "needed": _gb(VRAM_GOOD)}
        return fails("vram_limit", **shown) if limit < VRAM_LEAST else slow("vram_limit", **shown)
    if card.free >= VRAM_GOOD:
        return good("vram", free=_gb(card.free))
    level = fails if card.free < VRAM_LEAST else slow
    if card.memory is not None and card.memory < VRAM_GOOD:
        return level("vram_small", memory=_gb(card.memory), needed=_gb(VRAM_GOOD))
    return level("vram_taken", free=_gb(card.free), needed=_gb(VRAM_GOOD))


def _driver(facts: MachineFacts) -> CheckLine | None:
    card, torch = _used_card(facts), facts.torch
    if card is None or card.driver is None or torch is None or torch.cuda is None:
        return None
    driver, cuda = _dotted(card.driver), _dotted(torch.cuda)
    if torch.answer is not None and torch.answer.card is not None:
        return good("driver", driver=driver, cuda=cuda)
    oldest = OLDEST_DRIVERS.get(torch.cuda[0])
    if oldest is None:
        return None
    needed = oldest[facts.on_windows]
    if card.driver < needed:
        return fails("driver", driver=driver, cuda=cuda, needed=_dotted(needed))
    return good("driver", driver=driver, cuda=cuda)


def _torch(facts: MachineFacts) -> CheckLine | None:
    torch, card = facts.torch, _used_card(facts)
    if torch is None:
        return None
    if torch.version is None:
        return fails("torch_missing")
    if torch.answer is not None and torch.answer.failure is not None:
        return _broken_torch(torch.answer.failure, facts.on_windows)
    if card is None:
        return good("torch", torch=torch.version)
    lines = (_card(facts), _driver(facts))
    # what else PyTorch says would come from that
    if any(line is not None and line.level == "fails" for line in lines):
        return good("torch", torch=torch.version)
    return _torch_with_card(torch, card)


def _broken_torch(failure: str, on_windows: bool) -> CheckLine:
    if on_windows and ("WinError 126" in failure or "DLL" in failure):
        return fails("torch_dll", reason=failure)
    return fails("torch_broken", reason=failure)


def _torch_with_card(torch: TorchFacts, card: CardFacts) -> CheckLine:
    version, answer = torch.version, torch.answer
    if answer is not None and answer.card is not None and answer.error is None:
        return good("torch", torch=version)
    if torch.cuda is None:
        return fails("torch_cpu_only", torch=version, card=card.name)
    if not _has_kernels(torch, card):
        return fails("torch_no_kernels", torch=version, card=card.name)
    if answer is not None and answer.error is not None:
        return fails("torch_refuses", torch=version, reason=answer.error)
    if answer is not None and answer.card is None:
        return fails("torch_blind", torch=version, card=card.name, reason=answer.blindness or "?")
    return good("torch", torch=version)


def _has_kernels(torch: TorchFacts, card: CardFacts) -> bool:
    """Whether this build computes on the card; by its CUDA where PyTorch was not asked what is in it."""
    capability = card.capability
    if capability is None:
        return True
    if torch.answer is not None and torch.answer.kernels is not None:
        return any(_runs_on(kernel, capability) for kernel in torch.answer.kernels)
    if torch.cuda is None:
        return False
    if capability[0] >= 10:  # RTX 50 and its generation
        return torch.cuda >= (12, 8)
    is_old = capability < (7, 5)  # for which later builds of PyTorch have nothing
    return torch.cuda < (12, 8) or not is_old


def _runs_on(kernel: str, capability: Capability) -> bool:
    """Machine code (`sm_86`) runs on its generation from that card on, `compute_86` on all cards from there.

    A letter behind it limits that: `sm_90a` runs on this card only, `sm_120f` on its family.
    """
    kind, _, number = kernel.partition("_")
    digits = number.rstrip("af")
    if not digits.isdecimal():
        return False
    built = int(digits[:-1]), int(digits[-1])
    if number.endswith("a"):
        return built == capability
    if kind == "compute" and number == digits:
        return built <= capability
    return built[0] == capability[0] and built <= capability


def _attention(facts: MachineFacts) -> CheckLine | None:
    answer = facts.torch.answer if facts.torch is not None else None
    if answer is None or answer.attention is None or _used_card(facts) is None:
        return None
    if answer.attention == "flash":
        return good("attention_flash")
    if answer.attention == "xformers":
        return good("attention_xformers")
    return slow("attention_xformers_broken") if answer.xformers_broken else good("attention_plain")


def _ram(facts: MachineFacts) -> CheckLine:
    memory = facts.memory
    if memory is None:
        return slow("ram_unknown")
    shown = {"total": _whole_gb(memory.total), "free": _gb(memory.available)}
    if memory.committable < PROCESS_BYTES:
        return fails("ram_short", **shown, needed=_gb(PROCESS_BYTES))
    if memory.total < LITTLE_RAM:
        return slow("ram_small", **shown)
    if memory.available < PROCESS_BYTES + GIB:
        return slow("ram_taken", **shown)
    return _ram_for_models(facts, memory, shown)


def _ram_for_models(facts: MachineFacts, memory: SystemMemory, shown: dict[str, str]) -> CheckLine:
    """Whether what passes by in each step stays in the file cache, and if not, what reading it costs."""
    card = _used_card(facts)
    if card is None:
        return good("ram", **shown)
    streamed = _streamed_bytes(card, facts)
    room = memory.available - PROCESS_BYTES - max(COMFORT_BYTES, int(COMFORT_PART * memory.total))
    if room >= streamed:
        return good("ram", **shown)
    speed = facts.models.bytes_per_second if facts.models is not None else None
    shown = shown | {"streamed": _whole_gb(streamed)}
    if speed is None or streamed / speed <= HIDDEN * STEP_SECONDS:
        return good("ram_and_disk", **shown)
    return slow("ram_and_disk", **shown, seconds=f"{streamed / speed:.0f}")


def _streamed_bytes(card: CardFacts, facts: MachineFacts) -> int:
    free = card.free if card.free is not None else VRAM_GOOD
    free = free if facts.memory_limit is None else min(free, facts.memory_limit)
    return max(_block_bytes(facts) - max(free - VRAM_RESERVED, 0), 0)


def _block_bytes(facts: MachineFacts) -> int:
    return BLOCK_BYTES // 2 if facts.eight_bit else BLOCK_BYTES


def _page_file(facts: MachineFacts) -> CheckLine | None:
    """Windows counts a program's share of the card against RAM and page file, too (reported, unmeasured)."""
    memory, card = facts.memory, _used_card(facts)
    if memory is None or memory.page_file is None:
        return None
    free_vram = card.free or 0 if card is not None else 0
    resident = _block_bytes(facts) + VRAM_RESERVED
    needed = COMMITTED_BYTES + min(free_vram, resident, facts.memory_limit or free_vram)
    if memory.page_file < GIB // 4:
        shown = {"promised": _gb(memory.committable), "needed": _gb(needed)}
        return (good if memory.committable >= needed else fails)("page_file_off", **shown)
    if memory.committable < COMMITTED_BYTES:  # else Windows makes it larger itself
        return slow("page_file", promised=_gb(memory.committable), needed=_gb(COMMITTED_BYTES))
    return good("page_file", size=_gb(memory.page_file))


def _models(facts: MachineFacts) -> CheckLine | None:
    models = facts.models
    if models is None:
        return None
    path = str(models.folder.path)
    if models.state == "partly":
        return fails("models_partly", path=path, reason=models.error)
    if models.state == "demo":
        return slow("models_demo", path=path)
    if models.state == "complete":
        return good("models", path=path, size=_disk_gb(models.num_bytes))
    shown = {"path": path, "size": _disk_gb(MODEL_BYTES)}
    return slow("models_missing_without_card") if _lacks_card(facts) else fails("models_missing", **shown)


def _lacks_card(facts: MachineFacts) -> bool:
    """Where the real models would be of no use, nobody is told to download them."""
    return _used_card(facts) is None and not facts.card_without_driver


def _room_for_models(facts: MachineFacts) -> CheckLine | None:
    models = facts.models
    if models is None or models.state in ("complete", "demo") or models.folder.free is None:
        return None
    if _lacks_card(facts):
        return None
    free, needed = models.folder.free, max(MODEL_BYTES - models.num_bytes, 0) + RESERVED_DISK
    shown = {"path": str(models.folder.path), "free": _disk_gb(free), "needed": _disk_gb(needed)}
    return fails("models_disk", **shown) if free < needed else good("models_disk", **shown)


def _output(facts: MachineFacts) -> CheckLine | None:
    output: FolderFacts | None = facts.output
    if output is None:
        return None
    path = str(output.path)
    if not output.writable:
        return fails("output_not_writable", path=path)
    if output.free is None:
        return slow("output_unknown", path=path)
    shown = {"path": path, "free": _disk_gb(output.free)}
    seconds = output.free // VIDEO_BYTES_PER_SECOND
    if seconds < SHORTEST_SECONDS:
        return fails("output", **shown)
    return slow("output", **shown, seconds=seconds) if seconds < LONGEST_SECONDS else good("output", **shown)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f}"


def _whole_gb(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.0f}"


def _disk_gb(num_bytes: int) -> str:
    """Decimal, as disks and downloads are counted; memory is not."""
    return f"{num_bytes / 1e9:.1f}"
