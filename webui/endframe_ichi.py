"""The app. For now it makes one video from a request file on the terminal (`--headless`)."""

import argparse
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script, Python looks beside this file only
    sys.path.insert(0, str(ROOT))

from webui.eichi_utils.headless import HeadlessOptions, run_headless  # noqa: E402
from webui.eichi_utils.translations import Translator  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Run the app; returns the exit status."""
    options = parse_arguments(arguments)
    _be_quiet_and_offline(options.verbose)
    return run_headless(
        HeadlessOptions(
            request=options.headless,
            models=options.models,
            output=options.output,
            name=options.name,
            cache=options.cache,
            device=options.device,
            vram_gb=options.vram_gb,
            save_latents=options.save_latents,
        ),
        Translator("en"),
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself answers a wrong one with exit status 2."""
    words = Translator("en")
    parser = argparse.ArgumentParser(prog="endframe_ichi.py", description=words("cli.description"))
    parser.add_argument("--headless", metavar="REQUEST", type=Path, required=True, help=words("cli.headless"))
    parser.add_argument("--models", metavar="DIR", type=Path, help=words("cli.models"))
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=ROOT / "webui" / "outputs", help=words("cli.output")
    )
    parser.add_argument("--name", help=words("cli.name"))
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help=words("cli.device"))
    parser.add_argument("--vram-gb", metavar="GB", type=_gigabytes, help=words("cli.vram_gb"))
    parser.add_argument("--save-latents", action="store_true", help=words("cli.save_latents"))
    parser.add_argument(
        "--cache", metavar="DIR", type=Path, default=ROOT / "webui" / "cache", help=words("cli.cache")
    )
    parser.add_argument("--verbose", action="store_true", help=words("cli.verbose"))
    return parser.parse_args(arguments)


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(Translator("en")("cli.vram_gb_wrong", value=text[:20]))
    return value


def _be_quiet_and_offline(verbose: bool) -> None:
    """Before any library is imported: none of them talks to the network, and only we talk to the user."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.ERROR, format="%(levelname)s %(name)s: %(message)s"
    )
    if verbose:
        logging.getLogger("PIL").setLevel(logging.INFO)
    else:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        logging.getLogger("xformers").setLevel(logging.ERROR)
        logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it says of damaged pictures, we say


if __name__ == "__main__":
    sys.exit(main())
