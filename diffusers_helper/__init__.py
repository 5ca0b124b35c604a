"""The engine: from a request to a video. Knows torch; knows no page, no language and no global state."""

import os
import sys

if sys.platform == "win32":  # of PyPI's msvc-runtime, whose DLLs torch needs: all its imports pass here
    os.add_dll_directory(sys.prefix)
