"""Handlers of the output folder: it is kept once somebody has typed or chosen it, and it takes files."""

from functools import partial

import gradio as gr

from ..desktop import ask_folder
from ..output import portable_path, try_folder
from . import messages
from .handlers import refresh_estimate
from .widgets import Data, Page, Updates, text_of


def wire_output(page: Page) -> None:
    options, app = page.options, page.app
    if app.options.output is not None:
        return
    shown = [options.output_folder, page.message]
    typed = partial(gr.on, [options.output_folder.blur, options.output_folder.submit])
    chosen = [page.on(typed, keep_output, shown)]
    if app.is_private:
        chosen.append(page.on(options.browse.click, browse_output, shown))
    for event in chosen:
        page.on(event.then, refresh_estimate, [page.inputs.estimate, options.eight_bit_note])


def keep_output(page: Page, data: Data) -> Updates:
    """Keep the typed output folder, or raise why it cannot be used."""
    name = text_of(data, page.options.output_folder)
    return {} if name == page.app.settings.load()["output_folder"] else _keep(page, name)


def browse_output(page: Page, data: Data) -> Updates:
    """Ask for the output folder in the system's dialog, and keep it."""
    app, title = page.app, page.words(data)("page.output_folder")
    folder = ask_folder(title, app.checked_output, app.closing)
    return {} if folder is None else _keep(page, str(folder))


def _keep(page: Page, name: str) -> Updates:
    """Keep a folder by its name in the app's folder where it lies there, because that may be moved."""
    app = page.app
    folder = app.output_folder(name)
    try_folder(folder)
    known = portable_path(folder, app.home)
    app.remember(output_folder=known)
    app.preflight.check_again()
    return {page.options.output_folder: known, page.message: messages.NOTHING}
