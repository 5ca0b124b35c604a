"""The report of `--report`: its file, the terminal, its ends. The figures have tests of their own."""

import getpass
import logging
import platform
import re
import shutil
import signal
from pathlib import Path

import pytest

from diffusers_helper import report as engine_report
from diffusers_helper.report import Figures, PartStarted, StageProgress, Step
from tests.support.tiny import MODELS
from webui import endframe_ichi
from webui.eichi_utils import engine_options, report
from webui.eichi_utils.download import model_folders
from webui.eichi_utils.instance import only_app
from webui.eichi_utils.terminal import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from webui.eichi_utils.text.translations import LANGUAGES, Translator

ENGLISH = Translator("en")
logger = logging.getLogger("diffusers_helper.somewhere")


def measured(config, options, _stop):
    """The progress of a short report."""
    yield PartStarted("machine", 1, 2)
    logger.info("attention backend: native")
    logger.info("attention backend: native")
    logger.info("8-bit weights in %s", config.models.transformer.folder)
    values = {"device": "GPU", "sizes": {"a": 1.23456789, "b": [1, 2.5]}, "work": str(options.work)}
    yield Figures("machine", values)
    yield PartStarted("exact_steps", 2, 2)
    yield Step()
    yield StageProgress(0.5)
    yield Figures("exact_steps", {"failed": "OutOfMemoryError"})


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `--report` with these measurements; returns the status, the terminal's lines and the texts."""
    monkeypatch.setattr(engine_report, "measure", measured)

    def run(*options: object, models: Path | None = MODELS) -> tuple[int, list[str], list[str]]:
        where = () if models is None else ("--models", models)
        arguments = ["--report", "--home", tmp_path / "home", "--device", "cpu", *where, *options]
        status = endframe_ichi.main([str(argument) for argument in ("--lang", "en", *arguments)])
        shown = capsys.readouterr()
        files = sorted((tmp_path / "home").glob("report-*.txt"))
        return status, (shown.err + shown.out).splitlines(), [path.read_text("utf-8") for path in files]

    return run


def test_a_report_is_one_file_that_the_last_line_names(run, tmp_path):
    status, lines, (text,) = run()
    assert status == EXIT_DONE
    (file,) = (tmp_path / "home").glob("report-*.txt")
    assert re.fullmatch(r"report-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", file.stem)
    assert lines == [
        ENGLISH("report.begins"),
        f"[1/2] {ENGLISH('report.part.machine')}",
        f"[2/2] {ENGLISH('report.part.exact_steps')}",
        ENGLISH("report.part_failed"),
        ENGLISH("report.done", path=file),
    ]
    assert ENGLISH("report.intro") in text
    assert "INCOMPLETE" not in text
    assert "== machine\ndevice: GPU\nsizes:\n  a: 1.23457\n  b: 1, 2.5\n" in text
    assert "== exact steps\nfailed: OutOfMemoryError\n" in text
    assert text.count("attention backend: native") == 1
    assert re.search(r"== check\n1 \(good\): Python 3\.\d+ is supported\.", text)
    assert re.search(r"GB free on the app's disk: [\d.]+\n", text)
    assert not list((tmp_path / "home" / "temp").glob("report*"))


def test_the_engine_measures_what_the_command_line_says(run, monkeypatch):
    seen = []
    monkeypatch.setattr(engine_report, "measure", lambda *given: seen.append(given) or iter(()))
    run("--eight-bit", "--vram-gb", "7.5")
    run()
    (config, options, _), (_, others, _) = seen
    assert (config.vram_gb, config.device, bool(config.eight_bit_roots)) == (7.5, "cpu", True)
    assert (options.makes_eight_bit, others.makes_eight_bit, options.resolution) == (True, False, 640)
    assert options.picture.is_file()


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_introduction_is_in_the_users_language(run, language):
    _, lines, (text,) = run("--lang", language)
    words = Translator(language)
    assert words("report.intro") in text
    assert lines[0] == words("report.begins")
    assert "== check" in text


def test_no_private_text_is_in_it(run, monkeypatch, tmp_path):
    models = tmp_path / "Taro's models"
    shutil.copytree(MODELS, models)
    monkeypatch.setattr(getpass, "getuser", lambda: "yamada")
    monkeypatch.setattr(platform, "node", lambda: "TARO-PC")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "users" / "hanako")
    told = f"yamada, Hanako, yamadas, {tmp_path / 'users' / 'hanako' / 'a.txt'} on taro-pc, {str(models)!r}"

    def measure(*given):
        yield from measured(*given)
        yield Figures("memory", {"told": told, "prompt": "data:image/png;base64,AAAA"})

    monkeypatch.setattr(engine_report, "measure", measure)
    monkeypatch.chdir(tmp_path)
    _, _, (text,) = run("--output", tmp_path / "Jiro's videos", models=Path("Taro's models"))
    assert "told: [name], [name], yamadas, ~/a.txt on [name], " in text
    assert "8-bit weights in [models 1]" in text
    assert "work: [work]" in text
    assert "prompt: [picture]" in text
    for private in ("Taro", "Jiro", "hanako", str(tmp_path)):
        assert private not in text


def test_ctrl_c_ends_it_with_what_is_measured(run, monkeypatch):
    def measure(_config, _options, stop):
        yield PartStarted("machine", 1, 2)
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        yield Figures("machine", {"device": "GPU"})

    monkeypatch.setattr(engine_report, "measure", measure)
    status, lines, (text,) = run()
    assert status == EXIT_STOPPED
    assert lines[-2] == ENGLISH("stopping")
    assert lines[-1].startswith("Stopped. The results so far are in ")
    assert "INCOMPLETE" in text
    assert "device: GPU" in text


def test_a_second_ctrl_c_ends_it_at_once_with_the_parts_before(run, monkeypatch, tmp_path):
    def measure(*_):
        yield Figures("machine", {"device": "GPU"})
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(engine_report, "measure", measure)
    status, lines, (text,) = run()
    assert status == EXIT_STOPPED
    assert lines[-1].startswith("Stopped. The results so far are in ")
    assert "INCOMPLETE" in text
    assert "device: GPU" in text
    assert not list((tmp_path / "home" / "temp").glob("report*"))


def test_an_unknown_failure_leaves_what_was_measured(run, monkeypatch):
    def measure(*_):
        yield Figures("machine", {"device": "GPU"})
        raise SystemError("nobody knows why")

    monkeypatch.setattr(engine_report, "measure", measure)
    status, lines, (text,) = run()
    assert (status, len(lines)) == (EXIT_FAILED, 2)
    assert "INCOMPLETE" in text
    assert "device: GPU" in text


def test_missing_models_are_one_sentence(run, monkeypatch, tmp_path):
    empty = model_folders.ModelFolders(None, tmp_path / "none")
    monkeypatch.setattr(engine_options.ModelFolders, "of_user", lambda *_: empty)
    assert run(models=None) == (EXIT_BAD_INPUT, [ENGLISH("report.no_models", path=tmp_path / "none")], [])
    (tmp_path / "part").mkdir()
    status, lines, texts = run(models=tmp_path / "part")
    assert (status, texts) == (EXIT_BAD_INPUT, [])
    assert re.fullmatch(r"Error: The model file|Error: The model .* is not in .*", lines[0])


def test_it_waits_for_no_app_that_is_running(run, tmp_path):
    with only_app(tmp_path / "home"):
        status, lines, texts = run()
    assert (status, texts) == (EXIT_FAILED, [])
    assert lines[-1] == ENGLISH("failed", reason=ENGLISH("report.app_runs"))
    assert run()[0] == EXIT_DONE


def test_what_a_killed_report_has_left_is_deleted(run, tmp_path):
    left = tmp_path / "home" / "temp" / "report-abc"
    left.mkdir(parents=True)
    (left / "section_000.frames").touch()
    run()
    assert not left.exists()


def test_a_full_disk_is_one_sentence(run, monkeypatch):
    monkeypatch.setattr(report, "free_bytes", lambda _: 10**8)
    status, lines, texts = run()
    assert (status, texts, len(lines)) == (EXIT_FAILED, [], 1)
    assert "0.1 GB" in lines[0]


@pytest.mark.slow
def test_the_demo_is_measured_on_a_processor(tmp_path, capsys):
    status = endframe_ichi.main(
        ["--report", "--demo", "--device", "cpu", "--home", str(tmp_path), "--lang", "ja"]
    )
    assert status == EXIT_DONE, capsys.readouterr().err
    (file,) = tmp_path.glob("report-*.txt")
    text = file.read_text("utf-8")
    assert "failed" not in text
    assert re.search(r"TeaCache 0\.40:\n  steps: x[x.]{14}x\n", text)
    decibels = [float(value) for value in re.findall(r"PSNR to the exact video: ([\d.]+)", text)]
    assert len(decibels) == 3
    assert decibels[-1] > max(decibels[:2]), "8-bit weights are nearer than TeaCache"
