"""The log file: what it holds, what it never holds, and that no trouble with it stops the app."""

import errno
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import SMALL
from webui.eichi_utils.support import log_file
from webui.eichi_utils.support.log_file import MAX_CHARACTERS, MAX_FILES, MAX_HIDDEN, LogFile, log_to
from webui.endframe_ichi import ROOT, main

OURS = logging.getLogger("webui.test")
ENGINE = logging.getLogger("diffusers_helper.test")
FOREIGN = logging.getLogger("some.library")


def written(home: Path) -> str:
    """All that was logged, oldest first."""
    return "".join(path.read_text("utf-8") for path in sorted((home / "logs").glob("*.log")))


@pytest.fixture
def home(tmp_path) -> Iterator[Path]:
    """A folder that is being logged to."""
    with log_to(tmp_path):
        yield tmp_path


# -- what it holds -----------------------------------------------------------------------------------


def test_it_holds_our_records_and_other_loggers_warnings(home):
    for logger in (OURS, ENGINE, FOREIGN):
        logger.debug("%s debug", logger.name)
        logger.info("%s info", logger.name)
        logger.warning("%s warning", logger.name)
    log = written(home)
    assert "debug" not in log
    assert "INFO webui.test: webui.test info\n" in log
    assert "INFO diffusers_helper.test: diffusers_helper.test info\n" in log
    assert "some.library info" not in log
    assert "WARNING some.library: some.library warning\n" in log


def test_a_headless_job_is_logged_from_its_request_to_its_end(command):
    prompt = "A very private cat walks by."
    assert command({"prompt": prompt, "steps": 2, "seed": 77}).status == 0
    log = written(command.home)
    shown = ['"steps": 2', '"seed": 77', "planned: 21 frames, 64x64", "layers stay", "job video done after"]
    for text in (*shown, "machine.check: good: Python 3."):
        assert text in log, text
    assert '"start_image": "[picture]"' in log
    assert f'"prompt": "[{len(prompt)} characters]"' in log
    assert "private cat" not in log
    assert Path(SMALL["start_image"]).name not in log.partition("options: ")[2].partition("\n")[2]


def test_a_failures_traceback_holds_no_text_of_the_user(home):
    prompt = "A private cat."
    try:
        raise LookupError(f"nothing known of {prompt!r} and data:image/png;base64,QUJD")
    except LookupError:
        OURS.warning("failed", exc_info=True, extra={"private": [prompt]})
    assert "LookupError: nothing known of '[text]' and [picture]\n" in written(home)


# -- what it never holds -----------------------------------------------------------------------------------


def test_secrets_of_command_line_and_environment_are_hidden(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-kind")
    arguments = ["--login", "mia:pass word:1", "--server", "0.0.0.0", "--vram-gb", "6.5"]
    monkeypatch.setattr("webui.eichi_utils.server.server.running_app", _log_secrets)
    assert main(["--home", str(tmp_path), *arguments]) == 1
    log = written(tmp_path)
    for text in ("Python 3.", "torch ", "gradio ", "login=...", "vram_gb=6.5", "secrets: [text] [text]\n"):
        assert text in log, text
    assert "pass word" not in log + capsys.readouterr().err


def _log_secrets(*_: object) -> None:
    OURS.info("secrets: %s %s", "pass word:1", os.environ["HF_TOKEN"])
    raise OSError("the test ends here")


@pytest.mark.parametrize(
    "job", [[f"Then {number} cats." for number in range(200)], [""] * 500, ["A dog."] * 500]
)
def test_many_empty_or_repeated_texts_push_no_private_text_out(home, job):
    OURS.info("A secret cat.", extra={"private": ["A secret cat.", "Nothing blurry.", *job]})
    for number in range(3):
        OURS.info("more", extra={"private": [f"Prompt {number}.", "", *(f"{text}{number}" for text in job)]})
    OURS.warning("again A secret cat. and Nothing blurry.")
    assert "again [text] and [text]" in written(home)
    assert "secret cat" not in written(home)


def test_the_oldest_private_texts_are_forgotten(home):
    OURS.info("first", extra={"private": ["An old cat.", "A used cat."]})
    for _ in range(2):
        new = [f"Then {number} cats." for number in range(MAX_HIDDEN - 1)]
        OURS.info("more", extra={"private": [*new, "A used cat."]})
    OURS.warning("An old cat. A used cat. Then 0 cats.")
    assert "An old cat. [text] [text]" in written(home)


@pytest.mark.parametrize(
    ("request_", "logged"),
    [
        ({"prompts": "SECRETWORDS", "SECRETWORDS": 1}, "unknown_key (prompt)"),
        ({"seconds": "SECRETWORDS"}, "not_a_number_above (seconds)"),
        (b'{"prompt": "SECRETWORDS" x', "request_not_json"),
        (Path("none.json"), "request_missing"),
    ],
)
def test_only_the_error_of_a_refused_request_is_logged(command, request_, logged):
    assert command(request_).status == 2
    assert f"failed: {logged}" in written(command.home)
    assert "SECRETWORDS" not in written(command.home)
    assert "Traceback" not in written(command.home)


def test_no_text_can_pass_for_a_record(home):
    OURS.warning("a name\n2026-01-01 00:00:00.000 1 INFO webui: forged\r\u2028\x85x")
    lines = written(home).splitlines()
    assert sum("WARNING webui.test" in line for line in lines) == 1
    assert all(line.startswith("    ") for line in lines if "forged" in line or line.endswith("x"))


def test_odd_letters_are_written_and_a_huge_record_loses_its_middle(home):
    OURS.warning("\u732b \ud800 \U0001f431 %s end", "x" * 10**6)
    assert "\u732b \\ud800 \U0001f431 x" in written(home)
    assert len(written(home)) < MAX_CHARACTERS + 2000
    assert written(home).rstrip().endswith("end")


# -- its files ---------------------------------------------------------------------------------------


def test_each_run_has_its_file_and_the_newest_ten_are_kept(tmp_path):
    for number in range(MAX_FILES + 3):
        with log_to(tmp_path):
            OURS.warning("run %d", number)
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) == MAX_FILES
    for number, file in enumerate(files, 3):
        assert re.fullmatch(rf"\d{{4}}(-\d\d){{2}}_(\d\d-){{3}}\d{{6}}_{os.getpid()}\.log", file.name)
        assert f"run {number}\n" in file.read_text("utf-8")


def test_the_file_of_a_long_run_that_is_still_written_stays(home):
    first = min((home / "logs").iterdir())
    for number in range(MAX_FILES):
        (home / "logs" / f"{number}.log").touch()
    OURS.warning("goes on")
    with log_to(home):
        pass
    assert first.exists()
    assert len([*(home / "logs").iterdir()]) == MAX_FILES


def test_a_run_that_logs_much_goes_on_in_another_file(home, monkeypatch):
    monkeypatch.setattr(log_file, "MAX_BYTES", 1000)
    for number in range(10):
        OURS.warning("<%d %s>", number, "x" * 400)
    sizes = [path.stat().st_size for path in (home / "logs").iterdir()]
    assert len(sizes) > 4
    assert max(sizes) <= 1000
    assert re.findall(r"<(\d) x{400}>", written(home)) == [str(number) for number in range(10)]


# -- trouble with it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [None, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_is_ignored(tmp_path, monkeypatch, capsys, number):
    real = Path.open

    def refuse(path: Path, *arguments: object, **options: object) -> object:
        if path.suffix == ".log":
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    if number is None:
        (tmp_path / "logs").write_text("a file", "utf-8")
    else:
        monkeypatch.setattr(Path, "open", refuse)
    with log_to(tmp_path):
        OURS.warning("hello")
    assert capsys.readouterr().err == ""
    assert number is not None or (tmp_path / "logs").read_text("utf-8") == "a file"


def test_a_folder_deleted_meanwhile_is_made_again(home):
    shutil.rmtree(home / "logs")
    OURS.warning("after")
    assert "WARNING webui.test: after" in written(home)


def test_a_wrong_call_of_the_logger_is_reported(tmp_path, capsys):
    handler = LogFile(tmp_path / "logs")
    handler.handle(OURS.makeRecord("webui", logging.INFO, "x.py", 1, "%d", ("no number",), None))
    assert "Logging error" in capsys.readouterr().err
    handler.handle(OURS.makeRecord("webui", logging.INFO, "x.py", 1, "next", (), None))
    assert "next" in written(tmp_path)


def test_loggers_are_restored_afterwards(tmp_path):
    loggers = [logging.getLogger(name) for name in ("", "webui", "diffusers_helper")]
    before = [(logger.level, [*logger.handlers]) for logger in loggers]
    with log_to(tmp_path):
        OURS.warning("hello")
    assert [(logger.level, [*logger.handlers]) for logger in loggers] == before
    OURS.warning("logged nowhere")
    assert "logged nowhere" not in written(tmp_path)


# -- the terminal ------------------------------------------------------------------------------------

QUIET = """
import logging, sys
import webui.endframe_ichi as app
def run(options):
    for name in ("webui.x", "diffusers_helper.x", "library"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "%s %d", name, level)
    return 0
app._run = run
sys.exit(app.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("options", "lines"), [((), 3), (("--verbose",), 12)])
def test_the_terminal_shows_no_more_than_without_the_log(tmp_path, options, lines):
    command = [sys.executable, "-c", QUIET, "--home", str(tmp_path), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    shown = [line for line in done.stderr.splitlines() if ".x: " in line or "library: " in line]
    assert len(shown) == lines, done.stderr
    if not options:
        assert done.stderr.splitlines() == shown
    assert "INFO webui.x" in written(tmp_path)
