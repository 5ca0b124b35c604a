"""The seconds from the start of the process to the page's first answer, and those of libraries in it.

    python benchmarks/startup.py [--starts 5]

Everything is measured in one run, because times on shared machines mean little by themselves. The first start
(which may compile libraries) is left out.
"""

import argparse
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "webui" / "endframe_ichi.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    starts = parser.parse_args().starts
    python, gradio, page = [], [], []
    for _ in range(starts + 1):
        python.append(run_code("pass"))
        gradio.append(run_code("import gradio"))
        page.append(first_answer())
    print(f"python alone                 {statistics.median(python[1:]):5.2f} s")
    print(f"python and `import gradio`   {statistics.median(gradio[1:]):5.2f} s")
    print(f"the app's first page         {statistics.median(page[1:]):5.2f} s")


def run_code(code: str) -> float:
    """Seconds of a whole Python process that runs `code`."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def first_answer() -> float:
    """Seconds from starting the app until its page was answered in full."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        url = f"http://127.0.0.1:{port}/"
        begin = time.perf_counter()
        command = [sys.executable, str(APP), "--home", home, "--port", str(port), "--lang", "en"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(url) as answer:
                    answer.read()
                    return time.perf_counter() - begin
                time.sleep(0.02)
            raise RuntimeError("the app ended by itself")
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
