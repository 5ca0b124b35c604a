"""Exit status 0 if the Python that runs this can run the app, 3 if it lacks but a module, else 1.

The first says "usable", too, because an empty file that is run as a program ends with 0 as well.

With the argument `venv`, it is the virtual environment's Python and needs pip; without, it must be able to
make a virtual environment. Any Python can read this file, however old, and then answers no.
"""

import sys

OLDEST = (3, 10)
NEWEST = (3, 14)
LACKS_MODULE = 3
"""The exit status of a Python that would do but for a module (1 and 2 are those of Python's own errors)."""


def check(in_environment):  # type: ignore[no-untyped-def]  # (Python 2 has no annotations)
    """Check that PyTorch is built for this Python, and that it has 64 bits and the modules to install."""
    if not OLDEST <= tuple(sys.version_info[:2]) <= NEWEST or sys.maxsize <= 2**32:
        return 1
    try:
        if in_environment:
            import pip  # noqa: F401
        else:
            import ensurepip  # noqa: F401
            import venv  # noqa: F401
    except ImportError:
        return LACKS_MODULE
    return 0


if __name__ == "__main__":
    status = check("venv" in sys.argv[1:])
    if status == 0:
        sys.stdout.write("usable\n")
    sys.exit(status)
