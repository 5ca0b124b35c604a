"""The report of `--report`: one text file with the figures of this machine, for its user to read and to send.

Nothing leaves the computer. The file is written anew after each part, so that a crash leaves what was
measured until then. Knows no tensor, and nothing of how figures are made.
"""

import argparse
import contextlib
import getpass
import logging
import platform
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from diffusers_helper.errors import EngineError, InputError, MachineError
from diffusers_helper.public import ModelFiles, new_file

from .download.model_folders import free_bytes, gigabytes
from .engine_options import DEMO_RESOLUTION, ROOT, EngineOptions
from .instance import only_app
from .machine.check import gather_facts, line_text
from .machine.rules import check_machine
from .support.failures import as_engine_error
from .support.keep_awake import keep_awake
from .support.redaction import redact
from .terminal import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, report, stop_on_ctrl_c, write_line
from .text.error_text import error_text
from .text.translations import Translator

if TYPE_CHECKING:
    from diffusers_helper.report import Progress

logger = logging.getLogger(__name__)

PICTURE = ROOT / "examples" / "coffee.png"
RESOLUTION = 640
"""Pixels: the resolution of the steps, for which the model was made."""
NEEDED_BYTES = 2**30
"""Bytes of disk room for the frames that are made meanwhile, and some more."""
WORK = "report-"
"""The beginning of the name of the folder for what is made meanwhile."""
SHORTEST_NAME = 3
"""The fewest characters of a name to hide."""
LEGEND = (
    'In "steps", x is a step that was computed and . one that TeaCache skipped.',
    "Sizes in GiB are 2^30 bytes, in GB 10^9 bytes. PSNR is in decibels.",
)


def run_report(options: argparse.Namespace, engine: EngineOptions, words: Translator) -> int:
    """Measure this machine and write the report into the app's folder; returns the exit status.

    The first Ctrl-C ends it after a step, the second at once; what is measured by then is in the file.
    """
    stop, home = threading.Event(), options.home.absolute()
    path = home / f"report-{datetime.now():%Y-%m-%d_%H-%M-%S}.txt"
    file = ReportFile(path, words, _folders(engine, home, options.output))
    try:
        if engine.uses_demo and not options.demo:
            report(words("report.no_models", path=engine.folders.target))
            return EXIT_BAD_INPUT
        _measure(file, engine, options, stop)
    except KeyboardInterrupt:
        stop.set()
    except Exception as caught:  # the edge of the app: no traceback reaches the user
        logger.warning("the report failed", exc_info=True)
        error = as_engine_error(caught)
        is_app_running = error.code == "app_runs_already"
        reason = words("report.app_runs") if is_app_running else error_text(error, words)
        report(words("failed", reason=reason))
        return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED
    if stop.is_set():
        report(words("report.stopped", path=path) if file.chapters else words("stopped.at_once"))
        return EXIT_STOPPED
    write_line(words("report.done", path=path), sys.stdout)
    return EXIT_DONE


@dataclass
class ReportFile:
    """The report and its text until now. `folders` are the paths that are named by what they hold."""

    path: Path
    words: Translator
    folders: dict[str, Path]
    is_complete: bool = False
    chapters: dict[str, dict[str, Any]] = field(default_factory=dict)
    heard: dict[str, None] = field(default_factory=dict)
    """The lines that the engine has logged, each once, in order."""

    def add(self, title: str, values: dict[str, Any]) -> None:
        """Add a chapter and write the file."""
        self.chapters[title] = values
        self.write()

    def write(self) -> None:
        """Write the whole text. Raises MachineError where that fails."""
        text = without_private("\n".join(self._lines()) + "\n", self.folders)
        with new_file(self.path) as part:
            part.write_text(text, "utf-8", "backslashreplace")

    @contextlib.contextmanager
    def hearing_the_engine(self) -> Iterator[None]:
        """Keep what the engine logs in the block: it says there what it has chosen, and why."""
        handler, ours = logging.Handler(logging.INFO), logging.getLogger("diffusers_helper")
        handler.emit = lambda record: self.heard.setdefault(record.getMessage())  # type: ignore[method-assign]
        before = ours.level
        ours.setLevel(min(ours.getEffectiveLevel(), logging.INFO))
        ours.addHandler(handler)
        try:
            yield
        finally:
            ours.removeHandler(handler)
            ours.setLevel(before)

    def _lines(self) -> Iterator[str]:
        yield f"Endframe Ichi, report of {datetime.now():%Y-%m-%d %H:%M}"
        if not self.is_complete:
            yield "INCOMPLETE: it was ended, or is still being written."
        yield from ("", self.words("report.intro"), "", *LEGEND)
        for title, values in self.chapters.items():
            yield from ("", f"== {title}", *lines_of(values))
        yield from ("", "== the engine's own words", *self.heard)


def lines_of(values: dict[str, Any], indent: str = "") -> Iterator[str]:
    """Yield a line for each figure; those of a dictionary are indented below its name."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from lines_of(value, f"{indent}  ")
        else:
            shown = ", ".join(map(_shown, value)) if isinstance(value, list) else _shown(value)
            yield f"{indent}{name}: {shown}"


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def without_private(text: str, folders: dict[str, Path]) -> str:
    """Return the text with folders named by what they hold, and no names of the user and the machine."""
    named = [(name, path) for name, folder in folders.items() for path in (folder, folder.absolute())]
    for name, path in sorted(named, key=lambda item: len(str(item[1])), reverse=True):
        if path.name:  # a root, and the current folder, are nobody's name
            for form in (str(path), repr(str(path))[1:-1], path.as_posix()):
                text = text.replace(form, f"[{name}]")
    text = redact(text)
    for private in _names():
        text = re.sub(rf"(?<![^\W_]){re.escape(private)}(?![^\W_])", "[name]", text, flags=re.IGNORECASE)
    return text


def _names() -> Iterable[str]:
    names = [platform.node()]
    with contextlib.suppress(OSError, KeyError, ImportError):  # a service may have none
        names.append(getpass.getuser())
    with contextlib.suppress(RuntimeError):
        names.append(Path.home().name)
    return [name for name in names if len(name) >= SHORTEST_NAME]


def _folders(engine: EngineOptions, home: Path, output: Path | None) -> dict[str, Path]:
    roots = {f"models {number}": path for number, path in enumerate(engine.folders.roots, start=1)}
    given = {"output": output} if output is not None else {}
    return roots | {"app": ROOT, "home": home, "cache": engine.cache} | given


def _find_models(engine: EngineOptions) -> ModelFiles:
    finding = engine.find_models()
    while True:
        try:
            next(finding)
        except StopIteration as found:
            return found.value


def _check_room(home: Path) -> None:
    """Raise MachineError where the app's disk has too little room for what is made meanwhile."""
    if (free := free_bytes(home)) < NEEDED_BYTES:
        sizes = {"needed": f"{gigabytes(NEEDED_BYTES)} GB", "free": f"{gigabytes(free)} GB"}
        raise MachineError("disk_too_small", path=str(home), **sizes)


def _measure(
    file: ReportFile, engine: EngineOptions, options: argparse.Namespace, stop: threading.Event
) -> None:
    """Write chapter after chapter, while no app takes this folder's memory and time."""
    models, home = _find_models(engine), file.path.parent
    _check_room(home)
    report(file.words("report.begins"))
    with (
        only_app(home),
        stop_on_ctrl_c(stop, file.words("stopping")),
        keep_awake(),
        file.hearing_the_engine(),
        _work_folder(home) as work,
    ):
        file.folders["work"] = work
        file.add("check", _check(engine, options.output or home / "outputs", home))
        from diffusers_helper.report import ReportOptions, measure

        config = engine.config_of(models, eight_bit=True)
        resolution = DEMO_RESOLUTION // 2 if engine.uses_demo else RESOLUTION  # for a CPU, less than a minute
        case = ReportOptions(PICTURE, resolution, work, engine.eight_bit or engine.uses_demo)
        _follow(file, measure(config, case, stop))
    file.is_complete = not stop.is_set()
    file.write()


@contextlib.contextmanager
def _work_folder(home: Path) -> Iterator[Path]:
    """Make a folder for what is made meanwhile, and delete those of reports that were killed."""
    temp = home / "temp"
    for left in temp.glob(f"{WORK}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=WORK, dir=temp, ignore_cleanup_errors=True) as work:
        yield Path(work)


def _follow(file: ReportFile, progress: Iterable["Progress"]) -> None:
    """Show the progress on the terminal, and take the figures over."""
    from diffusers_helper.report import Figures, PartStarted, StageProgress, Step

    with tqdm(disable=None, unit=file.words("progress.unit"), file=sys.stderr) as bar:
        for event in progress:
            match event:
                case PartStarted(part=part, number=number, parts=parts):
                    report(f"[{number}/{parts}] {file.words(f'report.part.{part}')}")
                case Step():
                    bar.update()
                case StageProgress(fraction=fraction):
                    bar.set_postfix_str(f"{round(100 * fraction)} %")
                case Figures(part=part, values=values):
                    file.add(part.replace("_", " "), values)
                    if "failed" in values or "not measured" in values:
                        report(file.words("report.part_failed"))


def _check(engine: EngineOptions, output: Path, home: Path) -> dict[str, Any]:
    """Return what `--check` finds, in English, and the figures behind it."""
    facts, words = gather_facts(engine, output), Translator("en")
    values: dict[str, Any] = {
        f"{number} ({line.level})": line_text(line, words)[0]
        for number, line in enumerate(check_machine(facts), start=1)
    }
    if facts.gpu is not None and facts.gpu.driver is not None:
        values["GPU driver"] = ".".join(map(str, facts.gpu.driver))
    if facts.models is not None and facts.models.bytes_per_second is not None:
        values["GB/s of samples of the weights"] = facts.models.bytes_per_second / 1e9
    for name, folder in (("app's", home), ("models'", engine.folders.target)):
        with contextlib.suppress(EngineError):
            values[f"GB free on the {name} disk"] = free_bytes(folder) / 1e9
    return values
