"""Makes the app's virtual environment, in place of one that is missing or broken. Knows no packages.

Run by a Python that `check_python.py` found good; the standard library only.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script, Python looks beside this file only
    sys.path.insert(0, str(ROOT))

from scripts.lock import one_at_a_time  # noqa: E402
from scripts.sentences import say  # noqa: E402


def main() -> int:
    """Exit status 0 when there is a working environment; says what it does and what failed."""
    environment = ROOT / "venv"
    with one_at_a_time(ROOT, lambda: say("waiting")):
        if works(environment):  # another window has made it meanwhile
            return 0
        say("making", folder=environment)
        # Emptied first: of one that broke off, or whose Python is gone, nothing can be kept.
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=False)
        if made.returncode == 0 and works(environment):
            return 0
        say("not_made")
        return 1


def works(environment: Path) -> bool:
    """Check that the environment's Python starts, is supported and has pip."""
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [str(python), str(ROOT / "scripts" / "check_python.py"), "venv"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    sys.exit(main())
