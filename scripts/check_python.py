"""Exit status 0 if the Python that runs this can run the app, else 1; says nothing.

With the argument `venv`, it is the virtual environment's Python and needs pip; without, it must be able to
make a virtual environment. Any Python can read this file, however old, and then answers no.
"""

import sys

OLDEST = (3, 10)
NEWEST = (3, 13)


def can_run(in_environment):  # type: ignore[no-untyped-def]  # (Python 2 has no annotations)
    """Check that PyTorch is built for this Python, and that it has 64 bits and the modules to install."""
    if not OLDEST <= tuple(sys.version_info[:2]) <= NEWEST or sys.maxsize <= 2**32:
        return False
    try:
        if in_environment:
            import pip  # noqa: F401
        else:
            import ensurepip  # noqa: F401
            import venv  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(0 if can_run("venv" in sys.argv[1:]) else 1)
