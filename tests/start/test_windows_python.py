"""The app under the real CPython for Windows, with the real wheels, in Wine: started by start.bat as it is.

Code page 932, and a folder whose name has letters and signs. What Wine cannot show stands in
`tests/support/wine/gaps.py`.
"""

import contextlib
import json
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file

from demo_models.judging.measure import video_psnr
from scripts.sentences import SENTENCES
from tests.support.app import free_port, wait_until
from tests.support.wine.gaps import EXCEPTIONS
from tests.support.wine.windows import SECONDS, Program, UnavailableError, Windows, path_on_z, windows
from webui.eichi_utils.text.translations import Translator

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "動画 アプリ (1) & ! ^"
PARTS = (
    *("diffusers_helper", "scripts", "locales", "tests", "benchmarks", "examples"),
    *("webui/eichi_utils", "webui/static"),
)
DEMO = ("demo_models/hunyuanvideo-community", "demo_models/lllyasviel")
FILES = (
    *("webui/__init__.py", "webui/endframe_ichi.py"),
    *("demo_models/__init__.py", "demo_models/random_models.py"),
)
SHORT = {"seconds": 1, "steps": 4}
LEAST_PSNR = 35.0
"""Decibels between the video from Windows and the one made here, with another PyTorch."""
WORDS = Translator("ja")
TESTS = (
    *(f"tests/engine/{room}" for room in ("files", "job", "media", "sampling", "streaming", "weights")),
    *(f"tests/engine/test_{name}.py" for name in ("buckets", "ram", "request", "sections")),
    *(f"tests/app/{room}" for room in ("settings", "support")),
    *(f"tests/start/test_{name}.py" for name in ("install_once", "lock", "steps", "torch_build")),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Windows]:
    failed = request.session.testsfailed
    with contextlib.ExitStack() as stack:
        try:
            machine = stack.enter_context(windows())
        except UnavailableError as reason:
            pytest.skip(f"did not run: {reason}")
        yield machine
        machine.is_trusted = request.session.testsfailed == failed


@pytest.fixture(scope="module")
def app(machine: Windows) -> Path:
    """The app as it is unpacked from a ZIP file, and the environment that an earlier run has made."""
    folder = machine.apps / FOLDER
    folder.mkdir(exist_ok=True)
    is_installed = (folder / "venv" / "installed-app").exists()
    for path in folder.iterdir():
        if not (path.name == "venv" and is_installed):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in (*PARTS, *DEMO):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*filter(Path.is_file, ROOT.iterdir()), *map(ROOT.joinpath, FILES)):
        shutil.copy(path, folder / path.relative_to(ROOT))
    for path in (*folder.glob("*.bat"), *folder.glob("scripts/*.bat")):  # as .gitattributes has them
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    hello = json.loads((folder / "examples" / "hello.json").read_text("utf-8"))
    (folder / "examples" / "short.json").write_text(json.dumps(hello | SHORT), "utf-8")
    if not is_installed:
        break_off_installing(machine, folder)
    return folder


def break_off_installing(machine: Windows, app: Path) -> None:
    """Start where no package can be had: the environment is made, and the reason is said."""
    started = double_click(machine, app, PIP_FIND_LINKS="")
    started.wait()
    assert started.status == 1, started.output
    for code in ("making", "installing", "not_installed"):
        sentence = SENTENCES[code][1].partition("{")[0].strip()
        assert sentence and sentence in started.output, (code, started.output)
    machine.unpack_large(app / "venv" / "Lib" / "site-packages")


def double_click(machine: Windows, app: Path, *options: str, **variables: str) -> Program:
    return machine.start(app / "start.bat", "--demo", "--device", "cpu", *options, folder=app, **variables)


def frames(video: Path) -> list[np.ndarray]:
    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_start_bat_installs_the_wheels_and_makes_the_video_that_linux_makes(machine, app, tmp_path):
    started = double_click(machine, app, "--headless", r"examples\short.json", "--name", "短い")
    started.wait(2 * SECONDS)
    assert started.status == 0, started.output[-4000:]
    assert (app / "venv" / "installed-app").exists()
    request, places = app / "examples" / "short.json", ["--home", tmp_path, "--name", "short"]
    command = [sys.executable, ROOT / "webui" / "endframe_ichi.py", "--demo", "--device", "cpu"]
    subprocess.run([*command, "--headless", request, *places], check=True, timeout=SECONDS)
    made = frames(app / "webui" / "outputs" / "短い.mp4")
    here = frames(tmp_path / "outputs" / "short.mp4")
    assert len(made) == len(here) == 37
    assert video_psnr(made, here) > LEAST_PSNR


def test_a_second_start_installs_nothing_and_the_check_speaks_the_systems_language(machine, app):
    checked = double_click(machine, app, "--check")
    checked.wait()
    lines = checked.output.splitlines()
    good = f"[{WORDS('check.mark.good')}] "
    assert good + WORDS("check.python.good", version="3.13") in lines, checked.output
    (torch,) = (app / "venv" / "Lib" / "site-packages").glob("torch-*.dist-info")
    version = torch.name.removeprefix("torch-").removesuffix(".dist-info")
    assert good + WORDS("check.torch.good", torch=f"{version}+cpu") in lines
    assert checked.status == 0
    assert "requirements.txt" not in checked.output


def test_the_page_makes_a_video_for_a_program_and_survives_broken_connections(machine, app, tmp_path):
    port = free_port()
    started = double_click(machine, app, "--port", str(port))
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: url in started.output or started.status is not None, "the page", SECONDS)
        assert started.status is None, started.output[-4000:]
        assert httpx.get(url, timeout=60, trust_env=False).status_code == 200
        for _ in range(20):
            reset_connection(port)
        client = Client(url, verbose=False, download_files=str(tmp_path), httpx_kwargs={"trust_env": False})
        settings = {"resolution": 64, "steps": 2, "section_seconds": 0.5, "seed": 7}
        picture = handle_file(str(ROOT / "examples" / "coffee.png"))
        job = client.submit(picture, "A cup.", 1, None, settings, api_name="/generate")
        assert len(frames(Path(job.result(timeout=SECONDS)))) > 20
        assert len(list((app / "webui" / "outputs").glob("*.mp4"))) == 2
        client.close()
    finally:
        machine.kill("python.exe")
        started.wait(60)


def reset_connection(port: int) -> None:
    """Connect and break off before anybody has accepted, as a scanner of ports does."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


PYTEST = "import os, pytest, sys; status = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(status)"
"""Pytest without Python's own end, at which PyTorch's libraries make Wine 8 fail and start its debugger."""

WINES_FAULT = "wine: Unhandled page fault"
"""Words of Wine's where a program has failed in native code: once in dozens of runs, in Wine 8's own heap.

They are run a second time then; with all checks of that heap (`GlobalFlag` 0x70) none was ever reported.
"""


def test_the_tests_of_the_engine_and_of_the_files_pass(machine, app):
    options = ["-q", "-p", "no:cacheprovider", "-k", f"not ({' or '.join(EXCEPTIONS)})"]
    python, variables = app / "venv" / "Scripts" / "python.exe", {"PYTHONPATH": path_on_z(machine.tools)}
    for _ in range(2):
        done = machine.run(python, "-c", PYTEST, *options, *TESTS, folder=app, **variables)
        if WINES_FAULT not in done.output:
            break
    assert done.status == 0, done.output[-6000:]
    assert " passed" in done.output
