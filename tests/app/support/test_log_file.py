"""The log file: what is in it, what never is, and that nothing it suffers hurts the app."""

import contextlib
import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.command import SMALL
from webui.eichi_utils.support import log_file
from webui.eichi_utils.support.log_file import (
    MAX_BYTES,
    MAX_CHARACTERS,
    MAX_HIDDEN,
    OLD_FILES,
    LogFile,
    log_to,
)
from webui.endframe_ichi import ROOT, main

OURS = logging.getLogger("webui.test")
ENGINE = logging.getLogger("diffusers_helper.test")
FOREIGN = logging.getLogger("some.library")


def written(home: Path) -> str:
    return (home / "logs" / "endframe_ichi.log").read_text("utf-8")


@pytest.fixture
def home(tmp_path) -> Iterator[Path]:
    """A folder that is being logged to."""
    with log_to(tmp_path):
        yield tmp_path


# -- what is in it -----------------------------------------------------------------------------------


def test_the_app_and_its_engine_are_heard_and_of_others_only_what_is_wrong(home):
    for logger in (OURS, ENGINE, FOREIGN):
        logger.debug("%s debug", logger.name)
        logger.info("%s info", logger.name)
        logger.warning("%s warning", logger.name)
    said = written(home)
    assert "debug" not in said
    assert "INFO webui.test: webui.test info\n" in said
    assert "INFO diffusers_helper.test: diffusers_helper.test info\n" in said
    assert "some.library info" not in said
    assert "WARNING some.library: some.library warning\n" in said


def test_it_begins_with_the_versions_and_how_the_app_was_started(tmp_path, capsys):
    assert main(["--home", str(tmp_path), "--headless", str(tmp_path / "none.json"), "--vram-gb", "6.5"]) == 2
    said = written(tmp_path)
    for name in ("Python 3.", "torch ", "diffusers ", "gradio ", "vram_gb=6.5", "none.json"):
        assert name in said
    assert "request_missing" in said, "and why it failed"
    assert "Traceback" not in capsys.readouterr().err


def test_a_video_on_the_terminal_is_told_from_its_request_to_its_end(command):
    prompt = "A very private cat walks by."
    assert command({"prompt": prompt, "steps": 2, "seed": 77}).status == 0
    said = written(command.home)
    for text in (
        '"steps": 2',
        '"seed": 77',
        "planned: 21 frames, 64x64",
        "layers stay",
        "job video done after",
    ):
        assert text in said, text
    assert '"start_image": "[picture]"' in said
    assert f'"prompt": "[{len(prompt)} characters]"' in said
    assert "private cat" not in said
    assert Path(SMALL["start_image"]).name not in said.partition("options: ")[2].partition("\n")[2]


def test_a_failure_is_told_with_its_traceback_and_without_the_users_words(command, monkeypatch):
    prompt = "A very private cat walks by."

    def fail(*_: object, **__: object) -> None:
        raise LookupError(f"nothing known of {prompt!r} and data:image/png;base64,QUJD")

    monkeypatch.setattr("diffusers_helper.pipeline.make_plan", fail)
    assert command({"prompt": prompt}).status == 1
    said = written(command.home)
    assert "Traceback" in said
    assert "nothing known of '[text]' and [picture]" in said
    assert "job video failed (LookupError)" in said
    assert "private cat" not in said


def test_the_check_of_the_computer_is_told(command):
    assert command().status == 0
    assert "machine_check: good: Python 3." in written(command.home)


# -- what never is -----------------------------------------------------------------------------------


def test_secrets_of_the_command_line_and_of_the_environment_are_never_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-kind")
    arguments = ["--login", "mia:pass word:1", "--server", "0.0.0.0", "--port", "1"]
    monkeypatch.setattr("webui.eichi_utils.server.server.running_app", _tell_secrets)
    assert main(["--home", str(tmp_path), *arguments]) == 1
    said = written(tmp_path)
    assert "secrets: [text] [text]\n" in said
    assert "login=..." in said
    assert "pass word" not in said
    assert "pass word" not in capsys.readouterr().err


def _tell_secrets(*_: object) -> None:
    OURS.info("secrets: %s %s", "pass word:1", os.environ["HF_TOKEN"])
    raise OSError("the test ends here")


def test_what_a_record_calls_private_is_hidden_in_it_and_later(home):
    OURS.info("begins: %s", "A secret cat.", extra={"private": ["A secret cat."]})
    OURS.warning("again A secret cat. and more")
    assert written(home).count("[text]") == 2
    assert "secret cat" not in written(home)


@pytest.mark.parametrize(
    "job", [[f"Then {number} cats." for number in range(200)], [""] * 500, ["A dog."] * 500]
)
def test_many_sections_empty_texts_and_repeated_ones_push_no_private_text_out(home, job):
    OURS.info("begins", extra={"private": ["A secret cat.", "Nothing blurry.", *job]})
    for number in range(3):
        OURS.info("more", extra={"private": [f"Prompt {number}.", "", *(f"{text}{number}" for text in job)]})
    OURS.warning("again A secret cat. and Nothing blurry.")
    assert "again [text] and [text]" in written(home)


def test_of_private_texts_the_oldest_are_forgotten_at_last(home):
    OURS.info("first", extra={"private": ["An old cat.", "A used cat."]})
    for _ in range(2):
        new = [f"Then {number} cats." for number in range(MAX_HIDDEN - 1)]
        OURS.info("more", extra={"private": [*new, "A used cat."]})
    OURS.warning("An old cat. A used cat. Then 0 cats.")
    assert "An old cat. [text] [text]" in written(home)


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"keyframes": "SECRETWORDS"}, "keyframes_not_a_list (keyframes)"),
        ({"keyframes": ["SECRETWORDS"]}, "keyframe_not_an_object"),
        ({"prompts": "SECRETWORDS", "SECRETWORDS": 1}, "unknown_key (prompt)"),
        ({"keyframes": [{"section": 0, "SECRETWORDS": 1}]}, "unknown_key ("),
        ({"seconds": "SECRETWORDS"}, "not_a_number (seconds)"),
        ({"start_image": "SECRETWORDS.png"}, "image_missing"),
        (b'{"prompt": "SECRETWORDS" x', "request_not_json"),
    ],
)
def test_of_a_request_that_is_refused_only_the_reason_is_told(command, request_, told):
    assert command(request_).status == 2
    assert f"failed: {told}" in written(command.home)
    assert "SECRETWORDS" not in written(command.home)
    assert "Traceback" not in written(command.home)


def test_no_text_can_pass_for_a_record_of_its_own(home):
    OURS.warning("a name\n2026-01-01 00:00:00.000 1 INFO webui: forged\r\u2028\x85x")
    lines = written(home).splitlines()
    assert sum("WARNING webui.test" in line for line in lines) == 1
    assert all(line.startswith("    ") for line in lines if "forged" in line or line.endswith("x"))


def test_odd_letters_and_lone_surrogates_are_written(home):
    OURS.warning("\u732b \ud800 \U0001f431")
    assert "\u732b \\ud800 \U0001f431" in written(home)


def test_a_huge_record_is_cut_in_its_middle(home):
    OURS.warning("begin %s end", "x" * 10**6)
    assert len(written(home)) < MAX_CHARACTERS + 2000
    assert written(home).rstrip().endswith("end")


# -- its size ----------------------------------------------------------------------------------------


def fill(records: int) -> None:
    for number in range(records):
        OURS.warning("%d %s", number, "x" * (MAX_CHARACTERS - 1000))


def test_old_files_are_few_and_none_is_large(home):
    records = (OLD_FILES + 3) * MAX_BYTES // MAX_CHARACTERS
    fill(records)
    files = sorted((home / "logs").glob("*.log"))
    names = [f"endframe_ichi.{number}.log" for number in range(1, OLD_FILES + 1)]
    assert [file.name for file in files] == [*names, "endframe_ichi.log"]
    assert all(file.stat().st_size <= MAX_BYTES for file in files)
    assert f": {records - 1} " in written(home)
    newest_old = (home / "logs" / "endframe_ichi.1.log").read_text("utf-8").splitlines()[-1]
    first = written(home).splitlines()[0]
    numbers = [int(line.partition("webui.test: ")[2].split()[0]) for line in (newest_old, first)]
    assert numbers[1] == numbers[0] + 1, "nothing is lost between two files"


def test_a_file_that_cannot_be_renamed_does_not_grow_for_ever(home, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "in use")  # as on Windows, while somebody reads it

    monkeypatch.setattr(Path, "replace", refuse)
    fill(4 * MAX_BYTES // MAX_CHARACTERS)
    assert MAX_BYTES < len(written(home)) < 2 * MAX_BYTES + MAX_CHARACTERS
    monkeypatch.undo()
    OURS.warning("readable again")
    assert "readable again" in written(home)
    assert len(written(home)) < MAX_BYTES


WRITER = """
import logging, sys
from pathlib import Path
from webui.eichi_utils import log_file
log_file.MAX_BYTES = 20_000
log_file.OLD_FILES = 1000
log_file.LOCK_SECONDS = 60
with log_file.log_to(Path(sys.argv[1])):
    for number in range(300):
        logging.getLogger("webui").info("<%s %d %s>", sys.argv[2], number, "x" * 300)
"""


def test_processes_that_write_at_once_lose_and_mix_nothing(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], cwd=ROOT) for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    files = [*(tmp_path / "logs").glob("*.log")]
    assert len(files) > 5
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    found = sorted(line.partition("<")[2] for line in lines if "<" in line)
    assert found == sorted(f"{name} {number} {'x' * 300}>" for name in "ab" for number in range(300))


# -- what it suffers ---------------------------------------------------------------------------------


def log_and_end(home: Path) -> None:
    with log_to(home):
        OURS.warning("hello")


def test_a_folder_that_cannot_be_made_hurts_nobody(tmp_path, capsys):
    (tmp_path / "logs").write_text("a file", "utf-8")
    log_and_end(tmp_path)
    assert capsys.readouterr().err == ""
    assert (tmp_path / "logs").read_text("utf-8") == "a file"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_refuses_hurts_nobody(tmp_path, monkeypatch, capsys, number):
    real = Path.open

    def refuse(path: Path, *arguments: object, **options: object) -> object:
        if path.suffix == ".log":
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    log_and_end(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_deleted_while_the_app_runs_is_made_anew(home):
    OURS.warning("before")
    for file in (home / "logs").iterdir():
        with contextlib.suppress(OSError):  # the lock, on Windows
            file.unlink()
    OURS.warning("after")
    assert "after" in written(home)
    assert "before" not in written(home)


def test_a_lock_that_is_never_let_go_costs_one_wait_and_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "LOCK_SECONDS", 0.2)
    (tmp_path / "logs").mkdir()
    with FileLock(tmp_path / "logs" / "endframe_ichi.lock"), log_to(tmp_path):
        begun = time.monotonic()
        for number in range(20):
            OURS.warning("record %d", number)
        assert time.monotonic() - begun < 2
    assert all(f"record {number}\n" in written(tmp_path) for number in range(20))


def test_a_wrong_call_of_the_logger_says_so_and_goes_on(tmp_path, capsys):
    handler = LogFile(tmp_path / "logs")
    handler.handle(OURS.makeRecord("webui", logging.INFO, "x.py", 1, "%d", ("no number",), None))
    assert "Logging error" in capsys.readouterr().err
    handler.handle(OURS.makeRecord("webui", logging.INFO, "x.py", 1, "next", (), None))
    assert "next" in written(tmp_path)


def test_afterwards_loggers_are_as_before(tmp_path):
    names = ("", "webui", "diffusers_helper")
    before = [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]
    log_and_end(tmp_path)
    after = [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names]
    assert after == before
    OURS.warning("nobody hears this")
    assert "nobody hears this" not in written(tmp_path)


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
def test_the_terminal_hears_what_it_heard_before(tmp_path, options, lines):
    command = [sys.executable, "-c", QUIET, "--home", str(tmp_path), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    heard = [line for line in done.stderr.splitlines() if ".x: " in line or "library: " in line]
    assert len(heard) == lines, done.stderr
    if not options:
        assert done.stderr.splitlines() == heard
    assert "INFO webui.x" in written(tmp_path)


def test_importing_it_does_nothing(tmp_path):
    script = "import logging, webui.eichi_utils.support.log_file; print(logging.getLogger().handlers)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    )
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
