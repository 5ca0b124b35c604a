"""Serving the page: one app on one port, its shared things made and put away."""

import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from diffusers_helper.errors import InputError, MachineError

from ..app import AppState, PageOptions, open_app
from ..instance import end_running_app, is_loopback, remember_address, running_app, wait_for_app
from ..page.routes import STATIC, make_routes
from ..support.failures import as_engine_error
from ..terminal import ask, report
from ..text.browser_language import BrowserLanguage
from ..text.error_text import error_text
from ..text.translations import Translator
from ..uploads.cleanup import UploadCleaner, uploads_folder
from ..uploads.files import MAX_UPLOAD
from .body_limit import BodyLimit
from .error_response import ErrorResponse
from .gradio_patches import import_gradio_fast, patch_gradio
from .security import make_guards

logger = logging.getLogger(__name__)

FONTS = ("system-ui", "Segoe UI", "Yu Gothic UI", "Hiragino Sans", "Noto Sans CJK JP", "Microsoft JhengHei")
SCRIPTS = ("stream", "toast", "stage", "page", "files", "typed", "form", "strip", "names")
MAX_TABS = 1000
"""Tabs whose section rows are kept, each in some 50 KB: no browser reports that one was closed."""
CLOSE_SECONDS = 30
NETWORK_VARIABLES = ("NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
"""The variables that an HTTP client reads, and may stumble over; `NO_PROXY=*` makes it ignore every proxy."""


def run_page(options: PageOptions, words: Translator) -> int:
    """Serve the page until Ctrl-C; returns the exit status. Failures are one sentence on the error stream."""
    try:
        _check_login(options, words)
        running = running_app(options.server, options.port)
        if running is None:
            _check_port(options.server, options.port)
            running = _serve(options, words)
        if running is not None:
            _show("page.already_running", running, options, words)
        return 0
    except Exception as caught:  # the edge of the app: no traceback reaches the user
        logger.warning("the page cannot be served", exc_info=True)
        error = as_engine_error(caught)
        report(words("failed", reason=error_text(error, words)))
        return 2 if isinstance(error, InputError) else 1


def _serve(options: PageOptions, words: Translator) -> str | None:
    """Serve until the end; returns the address of another app that has this folder already."""
    try:
        with serving(options) as (app, url):
            for notice in app.queue.notices:
                report(words(f"notice.{notice.code}", **notice.values))
            _show("page.ready", url, options, words)
            _wait_for_end()
            report(words("page.closing"))
        return None
    except MachineError as error:
        if error.code != "app_runs_already":
            raise
        if (other := wait_for_app(options.home)) is not None:
            return other
        if not (ask(words("page.end_other")) and end_running_app(options.home)):
            raise
    return _serve(options, words)


def _show(key: str, url: str, options: PageOptions, words: Translator) -> None:
    report(words(key, url=url))
    if options.in_browser:
        webbrowser.open(url)


@contextlib.contextmanager
def serving(options: PageOptions) -> Iterator[tuple[AppState, str]]:
    """Yield the running app and its address; leaving the block ends it.

    Raises:
        MachineError: another app works in the same folder, or the port is taken.
    """
    _prepare_environment(options.home)
    with _without_network_variables():
        import_gradio_fast()
    patch_gradio(Translator("en"))
    with open_app(options) as app:
        from ..page.page import build_page

        page = build_page(app)
        try:
            page.queue(default_concurrency_limit=None, max_size=None)
            with _without_network_variables(options.share):
                url = _launch(page, app)
            remember_address(options.home, url)
            app.queue.resume()
            yield app, url
        finally:
            app.closing.set()
            app.queue.close(CLOSE_SECONDS)
            page.close(verbose=False)


def _launch(page: Any, app: AppState) -> str:
    """Start the server, whose reports of strange requests go to the log; returns its address."""
    import gradio as gr

    options = app.options
    scripts = [(STATIC / f"{name}.js").read_text("utf-8") for name in SCRIPTS]
    style = (STATIC / "page.css").read_text("utf-8")
    fonts = {"font": (*FONTS, "sans-serif"), "font_mono": ("monospace",)}
    try:
        _, url, _ = page.launch(
            server_name=f"[{options.server}]" if ":" in options.server else options.server,
            server_port=options.port,
            share=options.share,
            root_path="/" + options.root_path.strip("/") if options.root_path.strip("/") else None,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            pwa=True,
            mcp_server=False,
            show_error=True,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=MAX_UPLOAD,
            state_session_capacity=MAX_TABS,
            favicon_path=str(STATIC / "favicon.svg"),
            theme=gr.themes.Default(primary_hue="indigo", **fonts),
            # not as gradio's own css, which reaches no further than its container
            head=f"<style>{style}</style>" + "".join(f"<script>{script}</script>" for script in scripts),
            app_kwargs={"routes": make_routes(app), "middleware": _middleware(app)},
        )
    except OSError as error:
        raise MachineError("port_taken", port=options.port) from error
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    return str(url)


def _check_login(options: PageOptions, words: Translator) -> None:
    """Refuse a server that others reach without a password, and warn about one with it."""
    if (options.share or not is_loopback(options.server)) and options.login is None:
        raise InputError("login_needed")
    if options.share:
        report(words("page.warning_share"))
    elif not is_loopback(options.server):
        report(words("page.warning_network", server=options.server))


def _check_port(server: str, port: int) -> None:
    """Refuse an address that cannot be had before anything is loaded."""
    with contextlib.suppress(ValueError):  # a name
        if ipaddress.ip_address(server).is_multicast or server == "255.255.255.255":  # nobody's own
            raise MachineError("address_not_here", server=server)
    try:
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET) as probe:
            if sys.platform != "win32":  # there, this would let two programs share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((server, port))
    except (OSError, UnicodeError) as error:
        if isinstance(error, (socket.gaierror, UnicodeError)):
            raise MachineError("address_unknown", server=server) from error
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):  # fe80::1 alone
            raise MachineError("address_not_here", server=server) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise MachineError("port_forbidden", port=port) from error
        if error.errno != errno.EADDRINUSE:
            raise
        raise MachineError("port_taken", port=port) from error


def _prepare_environment(home: Path) -> None:
    """Set gradio up before its import: no call out, uploads in our folder, nothing else from outside."""
    for name in [name for name in os.environ if name.startswith(("GRADIO_", "WEB_CONCURRENCY"))]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads_folder(home))
    logging.getLogger("httpx").setLevel(logging.WARNING)


@contextlib.contextmanager
def _without_network_variables(share: bool = False) -> Iterator[None]:
    """Hide proxies and certificates, whatever they are: the page needs no way out, but to be shared."""
    names = NETWORK_VARIABLES[: 2 if share else None]
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ["NO_PROXY"] = ",".join((*hidden.values(), "127.0.0.1,localhost,::1")) if share else "*"
    try:
        yield
    finally:  # a download and a browser need them
        del os.environ["NO_PROXY"]
        os.environ.update(hidden)


def _middleware(app: AppState) -> list[Middleware]:
    """Return what every request passes, the outermost first."""
    options, cleaner = app.options, UploadCleaner(app.uploads)
    cleaner.start(app.closing)
    return [
        Middleware(BrowserLanguage),
        *make_guards(options.server, options.share, options.login, app.uploads, app.translator(None)),
        Middleware(ErrorResponse, translator=app.translator, uploads=app.uploads),
        Middleware(BodyLimit, cleaner=cleaner, translator=app.translator),
    ]


def _wait_for_end() -> None:
    """Wait until Ctrl-C, or until the system asks this process to end."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        while True:
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
