"""The page: its parts in their order, and which handler each widget calls."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr

from ..app import AppState
from ..form import DEFAULTS
from ..text.translations import LANGUAGES, Translator
from .api import add_api
from .handlers import PageHandlers, take_picture
from .labels import Texts
from .parts.inputs import Inputs, build_inputs
from .parts.keyframe_rows import KeyframeRows, build_keyframe_rows
from .parts.options import Options, build_options
from .parts.preset_box import PresetBox, build_preset_box
from .parts.result import Result, build_result, build_setup
from .widgets import Data, PageForm, as_updates

RAW: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""Handlers take what the browser sends as it is: requests check every value, in the page's language."""
SHOWN_JOB = "() => ichi.shownJob()"
RUNNING_JOB = "() => ichi.runningJob()"


def build_page(app: AppState) -> gr.Blocks:
    """The whole page, ready to be served."""
    words = app.translator(None)
    texts = Texts(words)
    with gr.Blocks(title=words("live.page_title"), analytics_enabled=False, fill_width=True) as page:
        language = _build_header(texts, app)
        build_setup()
        with gr.Row(elem_id="halves"):
            with gr.Column(elem_id="left", min_width=320):
                inputs = build_inputs(texts)
                options, keyframes, presets = _build_panel(texts, app, inputs.message)
            with gr.Column(elem_id="right", min_width=320):
                result = build_result(texts, app.language)
        form = PageForm(inputs, options, keyframes, gr.State({}), language, app.uploads)
        handlers = PageHandlers(app, form, presets, result)
        _wire_inputs(form, handlers)
        _wire_jobs(inputs, options, result, form, handlers)
        _wire_presets(presets, form, handlers)
        _wire_page(page, texts, handlers, language)
        add_api(app)
    return page


def _build_header(texts: Texts, app: AppState) -> Any:
    with gr.Row(elem_id="header"):
        texts.add(gr.HTML(elem_id="title", padding=False), value="page.title_html")
        if app.demo:
            texts.add(gr.HTML(elem_id="demo", padding=False), value="page.demo")
        return texts.add(
            gr.Radio(
                [(Translator(code)("page.language_name"), code) for code in LANGUAGES],
                value=app.language,
                container=False,
                elem_id="language",
            ),
            label="page.language",
        )


def _build_panel(texts: Texts, app: AppState, message: Any) -> tuple[Options, KeyframeRows, PresetBox]:
    given = str(app.given_output) if app.given_output is not None else None
    with texts.add(gr.Accordion(open=False, elem_id="panel"), label="page.panel"):
        options = build_options(texts, output_given=given)
        with texts.add(gr.Accordion(open=False, elem_id="presets"), label="page.presets"):
            presets = build_preset_box(texts)
        keyframes = build_keyframe_rows(texts, app.translator, partial(take_picture, app.uploads), message)
    return options, keyframes, presets


def _wire_inputs(form: PageForm, handlers: PageHandlers) -> None:
    inputs, options = form.inputs, form.options
    switches = [*form.switched(DEFAULTS)]
    watched = [
        *form.fields.values(),
        options.output_folder,
        inputs.start,
        inputs.several,
        inputs.end,
        form.extras,
    ]
    gr.on(
        [widget.change for widget in [*watched, form.language]],
        handlers.fields_changed,
        form.widgets,
        [inputs.outlook, inputs.message, form.keyframes.plan, *switches],
        trigger_mode="always_last",
        **RAW,
    )
    inputs.look_again.click(handlers.looked_again, form.widgets, [inputs.outlook], **RAW)
    inputs.too_large.click(handlers.upload_refused, {form.language}, [inputs.message], **RAW)
    pictures = [inputs.start, inputs.several, inputs.end]
    gr.on(
        [inputs.start.upload, inputs.end.upload],
        handlers.picture_chosen,
        form.widgets,
        [*pictures, inputs.message],
        **RAW,
    )
    inputs.several.change(handlers.several_changed, form.widgets, [*pictures, inputs.message], **RAW)
    everything = restored_widgets(form)
    inputs.inbox.upload(handlers.files_opened, {*form.widgets, inputs.inbox}, everything, **RAW)
    options.forget_extras.click(handlers.extras_forgotten, form.widgets, everything, **RAW)


def restored_widgets(form: PageForm) -> list[Any]:
    """All that changes when a request comes back."""
    inputs, options, keyframes = form.inputs, form.options, form.keyframes
    states = [keyframes.rows, keyframes.plan, form.extras]
    notes = [inputs.message, options.extras_note, options.forget_extras]
    return [*form.fields.values(), inputs.start, inputs.several, inputs.end, *states, *notes]


def _wire_jobs(
    inputs: Inputs, options: Options, result: Result, form: PageForm, handlers: PageHandlers
) -> None:
    seed, everything = options.fields["seed"], restored_widgets(form)
    inputs.start_button.click(handlers.started, form.widgets, [inputs.message, seed], **RAW)
    _click(inputs.stop_button, handlers.stopped, form, result.running, [inputs.message], RUNNING_JOB)
    _click(result.again, handlers.again, form, result.shown, [inputs.message], SHOWN_JOB)
    _click(result.proceed, handlers.proceeded, form, result.shown, everything, SHOWN_JOB)
    _click(result.take_settings, handlers.settings_taken, form, result.shown, everything, SHOWN_JOB)
    options.open_folder.click(handlers.folder_opened, form.widgets, inputs.message, **RAW)
    options.sound.change(handlers.sound_changed, {options.sound}, [inputs.message], **RAW)


def _click(
    button: Any,
    handler: Callable,
    form: PageForm,
    job: Any,
    outputs: Sequence[Any],
    job_script: str,
) -> None:
    """A button that acts on a job: the page's script says on which, then the handler acts."""
    button.click(None, None, job, js=job_script).then(handler, {*form.widgets, job}, outputs, **RAW)


def _wire_presets(box: PresetBox, form: PageForm, handlers: PageHandlers) -> None:
    widgets = {*form.widgets, box.choice, box.name, box.startup}
    outputs = [form.inputs.message, form.inputs.prompt, box.choice, box.name, box.startup]
    box.choice.input(handlers.preset_chosen, widgets, outputs, **RAW)
    box.apply.click(handlers.preset_applied, widgets, outputs, **RAW)
    box.save.click(handlers.preset_saved, widgets, outputs, **RAW)
    box.delete.click(handlers.preset_deleted, widgets, outputs, **RAW)
    box.startup.input(handlers.preset_marked, widgets, outputs, **RAW)


def _wire_page(page: gr.Blocks, texts: Texts, handlers: PageHandlers, language: Any) -> None:
    app, message = handlers.app, handlers.message
    remembered = [*handlers.remembered()]
    outputs = list(dict.fromkeys([*remembered, *texts.widgets, language, message]))

    def open_page() -> dict[Any, Any]:
        words = app.translator(app.settings.load()["language"])
        changes = texts.in_language(words)
        for widget, properties in handlers.remembered().items():
            changes[widget] = changes.get(widget, {}) | properties
        changes[language] = changes.get(language, {}) | {"value": words.language}
        return as_updates(changes) | {message: handlers.notices(words)}

    def change_language(data: Data) -> dict[Any, Any]:
        app.remember(language=data[language])
        words = app.translator(data[language])
        return as_updates(texts.in_language(words)) | handlers.notes_in_language(data, words)

    page.load(open_page, None, outputs, **RAW)
    notes = [message, handlers.form.options.extras_note]
    said_in = {language, handlers.form.extras}
    language.change(change_language, said_in, [*texts.widgets, *notes], **RAW)
    language.change(None, language, None, js="(code) => { ichi.connect(code); return []; }")
