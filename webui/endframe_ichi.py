"""The app: a page in the browser, or one video from a request file on the terminal (`--headless`)."""

import argparse
import importlib.util
import io
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script, Python searches beside this file only
    sys.path.insert(0, str(ROOT))

from scripts.torch_build import find_dlls  # noqa: E402
from webui.eichi_utils.text.translations import LANGUAGES, Translator, system_language  # noqa: E402

if TYPE_CHECKING:
    from webui.eichi_utils.engine_options import EngineOptions

MIN_PASSWORD = 8
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def main(arguments: list[str] | None = None) -> int:
    """Run the app; returns the exit status."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # a service, and pythonw, have none
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # `--help` may have letters that a terminal or file lacks
        sys.stdout.reconfigure(errors="backslashreplace")
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
        sage_attention=options.sage_attention,
    )
    if options.check:
        from webui.eichi_utils.machine.check import run_check

        return run_check(engine, options.output or options.home / "outputs", words)
    if options.download:
        from webui.eichi_utils.download.command import run_download

        return run_download(engine.folders, words)
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
        in_browser=options.inbrowser,
        language=options.lang,
        login=options.login,
        home=options.home.absolute(),
        output=options.output.absolute() if options.output is not None else None,
        engine=engine,
        demo=options.demo,
    )
    return run_page(page, words)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself answers a wrong one with exit status 2."""
    words = _words_of_help(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="endframe_ichi.py", description=words("cli.description"))
    add = parser.add_argument
    add("--server", default="127.0.0.1", help=words("cli.server"))
    add("--port", type=partial(_port, words), default=8001, help=words("cli.port"))
    add("--share", action="store_true", help=words("cli.share"))
    add("--login", metavar="NAME:PASSWORD", type=partial(_login, words), help=words("cli.login"))
    add("--inbrowser", action="store_true", help=words("cli.inbrowser"))
    add("--lang", choices=LANGUAGES, help=words("cli.lang"))
    add("--home", metavar="DIR", type=Path, default=ROOT / "webui", help=words("cli.home"))
    add("--check", action="store_true", help=words("cli.check"))
    add("--download", action="store_true", help=words("cli.download"))
    add("--headless", metavar="REQUEST", type=Path, help=words("cli.headless"))
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--models", metavar="DIR", type=Path, help=words("cli.models"))
    models.add_argument("--demo", action="store_true", help=words("cli.demo"))
    add("--output", metavar="DIR", type=Path, help=words("cli.output"))
    add("--name", help=words("cli.name"))
    add("--device", choices=("auto", "cuda", "cpu"), default="auto", help=words("cli.device"))
    add("--vram-gb", metavar="GB", type=partial(_gigabytes, words), help=words("cli.vram_gb"))
    add("--eight-bit", action="store_true", help=words("cli.eight_bit"))
    add("--sage-attention", action="store_true", help=words("cli.sage_attention"))
    add("--save-latents", action="store_true", help=words("cli.save_latents"))
    add("--cache", metavar="DIR", type=Path, help=words("cli.cache"))
    add("--verbose", action="store_true", help=words("cli.verbose"))
    options = parser.parse_args(arguments)
    if options.sage_attention and importlib.util.find_spec("sageattention") is None:
        parser.error(words("cli.sage_attention_missing"))
    return options


def _words_of_help(arguments: list[str]) -> Translator:
    """Return the texts of `--help` and of a wrong command line, before it is parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--lang", nargs="?")
    parser.add_argument("--headless", nargs="?", const="")
    known, _ = parser.parse_known_args(arguments)
    if known.headless is not None:
        return Translator("en")
    return Translator(known.lang if known.lang in LANGUAGES else system_language())


def _gigabytes(words: Translator, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(words("cli.vram_gb_wrong", value=text[:20]))
    return value


def _port(words: Translator, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(words("cli.port_wrong", value=text[:20]))
    return int(text)


def _login(words: Translator, text: str) -> tuple[str, str]:
    name, _, password = text.partition(":")
    if not name or len(password) < MIN_PASSWORD:
        raise argparse.ArgumentTypeError(words("cli.login_wrong"))
    return name, password


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
