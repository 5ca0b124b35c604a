"""The app: a page in the browser, or one video from a request file on the terminal (`--headless`)."""

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script, Python searches beside this file only
    sys.path.insert(0, str(ROOT))
if shutil.disk_usage(ROOT).free < 50_000_000:  # a full disk takes half a file, which many Pythons then read
    sys.dont_write_bytecode = True

from scripts.torch_build import find_dlls  # noqa: E402
from webui.eichi_utils.command_line import parse_arguments  # noqa: E402
from webui.eichi_utils.text.translations import Translator, system_language  # noqa: E402

if TYPE_CHECKING:
    from webui.eichi_utils.engine_options import EngineOptions

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def main(arguments: list[str] | None = None) -> int:
    """Run the app; returns the exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # a service, and pythonw, have none
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    options = parse_arguments(arguments)
    _prepare_libraries(options.verbose)
    from webui.eichi_utils.support.log_file import log_to
    from webui.eichi_utils.terminal import stop_when_closed

    stop_when_closed()
    hidden = (*(os.environ.get(name, "") for name in TOKENS), *(options.login or ())[1:])
    with log_to(options.home, options, secrets=filter(None, hidden)):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Do what the command line asks for; a video without a page, for programs, is made in English."""
    from webui.eichi_utils.engine_options import DEMO, EngineOptions

    words, english = Translator(options.lang or system_language()), Translator("en")
    if options.demo:
        from webui.eichi_utils.terminal import report

        options.models = DEMO
        report((words if options.headless is None else english)("demo.models"))
    engine = EngineOptions(
        models=options.models,
        cache=options.cache or options.home / "cache",
        device=options.device,
        vram_gb=options.vram_gb,
        downloaded=(options.home / "hf_download").absolute(),
        eight_bit=options.eight_bit,
    )
    if options.check:
        from webui.eichi_utils.machine.check import run_check

        return run_check(engine, options.output or options.home / "outputs", words)
    if options.download:
        from webui.eichi_utils.download.command import run_download

        return run_download(engine.folders, words)
    if options.report:
        from webui.eichi_utils.report import run_report

        return run_report(options, engine, words)
    if options.headless is not None:
        from webui.eichi_utils.headless import run_headless

        return run_headless(options, engine, english)
    return _run_page(options, engine, words)


def _run_page(options: argparse.Namespace, engine: "EngineOptions", words: Translator) -> int:
    from webui.eichi_utils.app import PageOptions
    from webui.eichi_utils.server.server import run_page

    page = PageOptions(
        server=options.server,
        port=options.port,
        share=options.share,
        root_path=options.root_path,
        in_browser=options.inbrowser,
        language=options.lang,
        login=options.login,
        home=options.home.absolute(),
        output=options.output.absolute() if options.output is not None else None,
        engine=engine,
        demo=options.demo,
    )
    return run_page(page, words)


def _prepare_libraries(verbose: bool) -> None:
    """Keep libraries, before their import, from the network, the terminal and each other's cores."""
    find_dlls()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads take busy cores
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    level = logging.DEBUG if verbose else logging.ERROR
    terminal = logging.StreamHandler()
    terminal.setLevel(level)  # the log file gets more
    logging.basicConfig(level=level, handlers=[terminal], format="%(levelname)s %(name)s: %(message)s")
    if verbose:
        for name in ("PIL", "filelock"):
            logging.getLogger(name).setLevel(logging.INFO)
    else:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        logging.getLogger("xformers").setLevel(logging.ERROR)
        logging.getLogger("PIL").setLevel(logging.CRITICAL)  # we report damaged pictures ourselves


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before anybody listened, or when all was done
        from webui.eichi_utils.terminal import EXIT_STOPPED

        sys.exit(EXIT_STOPPED)
