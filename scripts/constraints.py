"""Makes and checks `constraints.txt`, the versions at which requirements.txt was tried.

    venv/bin/python scripts/constraints.py            make it anew
    venv/bin/python scripts/constraints.py --check    solve it for each system, Python and PyTorch
    venv/bin/python scripts/constraints.py --age      fail where it is too old

One file serves Windows and Linux and Python 3.10 to 3.14. What belongs to a build of PyTorch (CUDA's
libraries, Triton) is left to that. Uses uv, from PyPI, in a temporary environment.
"""

import argparse
import contextlib
import datetime
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS, CONSTRAINTS = ROOT / "requirements.txt", ROOT / "constraints.txt"
UV = "uv==0.13.9"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-pc-windows-msvc", "x86_64-manylinux_2_28")
TORCHES = ("2.10.0", "2.11.0", "2.12.1", "2.13.0")
"""The older versions that PyTorch's builds for older drivers end with (`torch_build.BUILDS`)."""
OF_TORCH = re.compile(r"(torch|triton|setuptools|nvidia-[\w-]+|cuda-[\w-]+)==")
"""The packages that each build of PyTorch asks for at versions of its own; setuptools below 82 in some."""
OLDEST_DAYS = 180
HEADER = """\
# The versions at which the packages of requirements.txt were tried together, for every system and Python.
# Made by scripts/constraints.py on {day}.
"""


def main(arguments: list[str]) -> int:
    """Do what the arguments ask for; returns the exit status, 1 where a check failed."""
    parser = argparse.ArgumentParser(prog="constraints.py", description="Makes constraints.txt anew.")
    parser.add_argument("--check", action="store_true", help="solve it for each system, Python and PyTorch")
    parser.add_argument("--age", action="store_true", help="fail where it is too old")
    options = parser.parse_args(arguments)
    if options.age:
        return check_age(CONSTRAINTS.read_text("utf-8"), datetime.date.today())
    with _uv() as uv:
        if options.check:
            return _check(uv)
        solved = _compile(uv, REQUIREMENTS, "--universal", "--python-version", PYTHONS[0])
        if solved.returncode == 0:
            CONSTRAINTS.write_text(make(solved.stdout, datetime.date.today()), "utf-8", newline="\n")
        return _report("constraints.txt", solved)


def make(solved: str, day: datetime.date) -> str:
    """Returns the file's text from uv's solution: without what belongs to a build of PyTorch, and dated.

    PyTorch's own line gets an upper bound, because its builds for older drivers end with older versions.
    """
    lines = [line for line in solved.splitlines() if not OF_TORCH.match(line)]
    lines += re.findall(r"^torch==[\d.]+", solved, re.MULTILINE)
    text = "\n".join(sorted(lines)).replace("\ntorch==", "\ntorch<=")
    return HEADER.format(day=day.isoformat()) + text + "\n"


def made_on(text: str) -> datetime.date:
    """Returns the day of the file's header."""
    return datetime.date.fromisoformat(re.findall(r"^# Made by .* on (\S+)\.$", text, re.MULTILINE)[0])


def check_age(text: str, today: datetime.date) -> int:
    """Returns 1, and says what to do, where the file is older than half a year, else 0."""
    days = (today - made_on(text)).days
    if days <= OLDEST_DAYS:
        return 0
    sys.stdout.write(
        f"constraints.txt is {days} days old: run scripts/constraints.py and try what it takes.\n"
    )
    return 1


def _check(uv: Path) -> int:
    """Solve requirements and constraints for each system with each Python, and with the older PyTorches."""
    cases = [(platform, python, "") for platform in PLATFORMS for python in PYTHONS]
    cases += [(platform, "3.13", torch) for platform in PLATFORMS for torch in TORCHES]
    failed = 0
    for platform, python, torch in cases:
        system = ["--no-build", "--python-platform", platform, "--python-version", python]
        given = f"-r {REQUIREMENTS}\n" + (f"torch=={torch}\n" if torch else "")
        solved = _compile(uv, Path("-"), *system, "--constraints", str(CONSTRAINTS), given=given)
        failed |= _report(f"{platform}, Python {python}, torch {torch or 'newest'}", solved)
    return failed


def _compile(uv: Path, source: Path, *options: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `uv pip compile` on requirements, those of a file or, for the path `-`, those given."""
    quiet = ["--quiet", "--no-config", "--no-header", "--no-annotate"]
    command = [str(uv), "pip", "compile", *quiet, *options, str(source)]
    return subprocess.run(command, input=given, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)


def _report(what: str, solved: "subprocess.CompletedProcess[str]") -> int:
    sys.stdout.write(f"{what}: {'no solution' if solved.returncode else 'ok'}\n{solved.stderr}")
    return int(solved.returncode != 0)


@contextlib.contextmanager
def _uv() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder, "Scripts" if sys.platform == "win32" else "bin")
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", UV], check=True)
        yield programs / "uv"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
