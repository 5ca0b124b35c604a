"""What happens when something on the page is used. Each handler reads the widgets' raw values, acts, and
says which widgets change; anything that goes wrong becomes a message on the page.
"""

import dataclasses
import functools
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from diffusers_helper.errors import EngineError, InputError
from diffusers_helper.files.atomic import atomic_write
from diffusers_helper.media.embedded_request import load_request
from diffusers_helper.media.video import read_last_frame
from diffusers_helper.request import GenerationRequest

from ..app import AppState
from ..form import EXTRAS, FIELDS, Values, copies_pictures, count_rows, from_request, to_requests
from ..output import open_in_file_manager
from ..text.durations import format_duration
from ..text.translations import Translator
from ..uploads.cleanup import delete_upload
from ..uploads.files import (
    MAX_UPLOAD,
    MB,
    carried_request,
    check_inner_pictures,
    checked_picture,
    is_video,
    refused,
    uploaded_path,
    uploaded_paths,
    with_new_seed,
)
from . import messages
from .estimate import UNKNOWN_PICTURE, Outlook, look_ahead, request_size
from .parts.keyframe_rows import RowPlan
from .parts.preset_box import PresetBox
from .parts.result import Result
from .widgets import Data, PageForm, as_updates, rows_of

logger = logging.getLogger(__name__)
Handler = Callable[["PageHandlers", Data], dict[Any, Any]]


def _reports(handler: Handler) -> Handler:
    """A failure becomes a message on the page, in the page's language."""

    @functools.wraps(handler)
    def reporting(self: "PageHandlers", data: Data) -> dict[Any, Any]:
        try:
            return handler(self, data) or gr.skip()
        except Exception as caught:
            error, written = caught, _written(self.form, data)
            if isinstance(error, EngineError):
                error = refused(error, self.app.uploads)
            else:
                logger.error("a handler of the page failed", exc_info=True, extra={"private": written})
            return {self.message: messages.problem(error, self.words(data), written)}

    return reporting


def _written(form: PageForm, data: Data) -> list[str]:
    """What the user wrote, and no report may hold."""
    rows, extras = data.get(form.keyframes.rows, {}), data.get(form.extras, {})
    texts = (data.get(form.inputs.prompt), extras.get("negative_prompt"), *(r.prompt for r in rows.values()))
    return [text for text in texts if isinstance(text, str)]


class PageHandlers:
    """The handlers of one page, which all share its widgets and the app."""

    def __init__(self, app: AppState, form: PageForm, presets: PresetBox, result: Result) -> None:
        self.app = app
        self.form = form
        self.preset_box = presets
        self.result = result
        self.message = form.inputs.message

    def words(self, data: Data) -> Translator:
        return self.app.translator(data[self.form.language])

    def _text(self, data: Data, widget: Any) -> str:
        """What a text field holds; nothing where somebody sent what is no text."""
        return data[widget] if isinstance(data[widget], str) else ""

    # -- filling in ----------------------------------------------------------------------------------

    @_reports
    def fields_changed(self, data: Data) -> dict[Any, Any]:
        """Remember the fields, and say what will come out of them."""
        values = self.form.values(data)
        self.app.remember(**values)
        if self.app.given_output is None:
            self.app.remember(output_folder=data[self.form.options.output_folder])
        plan = self._row_plan(data)
        return {
            self.form.inputs.outlook: self._outlook_html(data),
            self.form.keyframes.plan: plan,
            **as_updates(self.form.switched(values)),
        }

    @_reports
    def looked_again(self, data: Data) -> dict[Any, Any]:
        """A job has ended, and how long the next one takes is better known; or other models make it."""
        return {self.form.inputs.outlook: self._outlook_html(data)}

    @_reports
    def upload_refused(self, data: Data) -> dict[Any, Any]:
        """Somebody chose more than the server takes: the page's script has sent nothing."""
        said = self.words(data)("page.upload_too_large", megabytes=MAX_UPLOAD // MB)
        return {self.message: messages.note(said)}

    def _row_plan(self, data: Data) -> RowPlan:
        values, old = self.form.values(data), data[self.form.keyframes.plan]
        count = count_rows(values) if values["use_keyframes"] else 0
        language = self.words(data).language
        section_seconds = 0.5 if values["section_seconds"] == 0.5 else 1.0
        return RowPlan(count, section_seconds, copies_pictures(values), language, old.drawn)

    def _outlook_html(self, data: Data) -> str:
        words = self.words(data)
        try:
            self.app.output_folder(self._text(data, self.form.options.output_folder))
            requests = self._requests_so_far(data)
            outlook = look_ahead(requests[0], self.app.speed, self.app.machine_key)
            return _outlook_html(outlook, requests, words)
        except EngineError as error:
            return messages.hint(error, words)

    def _asked(self, data: Data) -> Values:
        """The fields, as far as the models that are there can do what they ask for."""
        resolution = self.app.forced_resolution
        own = {} if resolution is None else {"resolution": resolution}
        return self.form.values(data) | own

    def _requests_so_far(self, data: Data) -> list[GenerationRequest]:
        """What Start would make; where nothing says yet how the video begins, with a picture unknown."""
        values, pictures, extras = self._asked(data), self.form.pictures(data), data[self.form.extras]
        try:
            return to_requests(values, pictures, extras)
        except InputError as error:
            if error.code != "choose_start_image":
                raise
        return to_requests(values, dataclasses.replace(pictures, start=(UNKNOWN_PICTURE,)), extras)

    @_reports
    def picture_chosen(self, data: Data) -> dict[Any, Any]:
        """Look whether an uploaded start or end image can be used, and say if it carries settings."""
        changes: dict[Any, Any] = {self.message: messages.NOTHING}
        for widget in (self.form.inputs.start, self.form.inputs.end):
            try:
                path = uploaded_path(data[widget], self.app.uploads)
                if path is None:
                    continue
                shown = checked_picture(path)
            except EngineError as error:
                return {widget: None, self.message: messages.problem(error, self.words(data))}
            if shown != path:
                changes[widget] = shown
        start = uploaded_path(data[self.form.inputs.start], self.app.uploads)
        if start is not None and _carries_request(start):
            changes[self.message] = messages.note(self.words(data)("page.picture_carries_settings"))
        return changes

    @_reports
    def several_changed(self, data: Data) -> dict[Any, Any]:
        """An emptied collection gives its place back to the single start image."""
        paths = uploaded_paths(data[self.form.inputs.several], self.app.uploads)
        return {} if paths else as_updates(self.form.with_start(None))

    @_reports
    def files_opened(self, data: Data) -> dict[Any, Any]:
        """Whatever was dropped or opened: a video or picture with settings, a picture, or several."""
        paths = uploaded_paths(data[self.form.inputs.inbox], self.app.uploads)
        if len(paths) == 1 and (is_video(paths[0]) or _carries_request(paths[0])):
            return self._restore_file(paths[0], data)
        if any(is_video(path) for path in paths):
            for path in filter(is_video, paths):
                delete_upload(path)
            raise InputError("video_among_pictures")
        shown = [checked_picture(path) for path in paths]
        if len(shown) == 1:
            return {self.message: messages.NOTHING, **as_updates(self.form.with_start(shown[0]))}
        if not shown:
            return {}
        said = self.words(data)("page.several_chosen", count=len(shown))
        return {self.message: messages.note(said), **as_updates(self.form.with_several(shown))}

    def _restore_file(self, path: str, data: Data) -> dict[Any, Any]:
        """A video or picture brings its settings; one without any does not stay."""
        try:
            return self._restore(carried_request(path), data)
        except EngineError:
            delete_upload(path)
            raise

    @_reports
    def settings_taken(self, data: Data) -> dict[Any, Any]:
        """The settings of the video that is shown."""
        return self._restore(self._shown_request(data), data)

    def _restore(self, request: GenerationRequest, data: Data) -> dict[Any, Any]:
        words = self.words(data)
        check_inner_pictures(request)
        restored = from_request(request, self.app.uploads / "restored", request_size)
        changes = as_updates(self.form.restored(restored))
        plan: RowPlan = data[self.form.keyframes.plan]
        return changes | {
            self.form.keyframes.rows: rows_of(restored),
            self.form.keyframes.plan: dataclasses.replace(plan, drawn=plan.drawn + 1),
            self.message: messages.note(words("page.restored")),
            **self._extras(restored.extras, words),
        }

    def notes_in_language(self, data: Data, words: Translator) -> dict[Any, Any]:
        """After a switch of the language: what stands there is said anew, what has passed is not."""
        note = self.form.options.extras_note
        return {note: self._extras(data[self.form.extras], words)[note], self.message: messages.NOTHING}

    def _extras(self, extras: dict[str, Any], words: Translator) -> dict[Any, Any]:
        options = self.form.options
        lines = [
            words("page.extra", name=words(f"field.{key}"), value=extras[key])
            for key in EXTRAS
            if key in extras
        ]
        text = messages.note(words("page.extras", list=" / ".join(lines))) if lines else ""
        return {
            self.form.extras: extras,
            options.extras_note: gr.update(value=text, visible=bool(lines)),
            options.forget_extras: gr.update(visible=bool(lines)),
        }

    @_reports
    def extras_forgotten(self, data: Data) -> dict[Any, Any]:
        return self._extras({}, self.words(data))

    # -- jobs ----------------------------------------------------------------------------------------

    @_reports
    def started(self, data: Data) -> dict[Any, Any]:
        """Queue a job for each start image."""
        values, words = self._asked(data), self.words(data)
        folder = self.app.output_folder(self._text(data, self.form.options.output_folder))
        requests = to_requests(values, self.form.pictures(data), data[self.form.extras])
        waits = self.app.queue.view().running is not None
        ids = self._add_all(requests, folder)
        job = self.app.queue.find(ids[-1])
        waiting = len(self.app.queue.view().waiting)
        said = messages.note(words("page.queued", count=waiting)) if waits and waiting else messages.NOTHING
        seed = {self.form.options.fields["seed"]: str(job.seed)} if job and values["random_seed"] else {}
        return {self.message: said, **seed}

    def _add_all(self, requests: list[GenerationRequest], folder: Path) -> list[str]:
        """Queue all of them or, where one cannot be queued, none."""
        ids: list[str] = []
        try:
            for request in requests:
                ids.append(self.app.queue.add(request, folder))
        except EngineError:
            for job in ids:
                self.app.queue.remove(job)
            raise
        return ids

    @_reports
    def stopped(self, data: Data) -> dict[Any, Any]:
        self.app.queue.stop(str(data[self.result.running] or ""))
        return {}

    @_reports
    def again(self, data: Data) -> dict[Any, Any]:
        """The shown video once more, with another seed."""
        request = with_new_seed(self._shown_request(data))
        folder = self.app.output_folder(self._text(data, self.form.options.output_folder))
        self.app.queue.add(request, folder)
        return {self.message: messages.note(self.words(data)("page.again_queued"))}

    @_reports
    def proceeded(self, data: Data) -> dict[Any, Any]:
        """The shown video's last frame becomes the start image."""
        frame = read_last_frame(self._shown_video(data))
        path = self.app.uploads / "continued" / f"{secrets.token_hex(8)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, flush=False) as part:
            Image.fromarray(frame).save(part, "PNG")
        changes = self.form.with_start(str(path)) | {self.form.inputs.end: {"value": None}}
        said = messages.note(self.words(data)("page.continued"))
        return {self.message: said, **as_updates(changes)}

    def _shown_video(self, data: Data) -> Path:
        job = self.app.queue.find(str(data[self.result.shown] or ""))
        if job is None or job.state != "done" or job.video is None:
            raise InputError("no_result")
        return job.video

    def _shown_request(self, data: Data) -> GenerationRequest:
        return load_request(self._shown_video(data))

    @_reports
    def folder_opened(self, data: Data) -> dict[Any, Any]:
        folder = self.app.output_folder(self._text(data, self.form.options.output_folder))
        if open_in_file_manager(folder):
            return {self.message: messages.NOTHING}
        return {self.message: messages.note(self.words(data)("page.folder_is", path=folder))}

    # -- presets -------------------------------------------------------------------------------------

    def preset_changes(self, name: str | None) -> dict[Any, Any]:
        """The preset widgets as the store has them, `name` chosen."""
        names = self.app.presets.names()
        chosen = name if name in names else None
        box = self.preset_box
        return {
            box.choice: {"choices": names, "value": chosen},
            box.startup: {
                "value": chosen is not None and chosen == self.app.presets.startup_name(),
                "interactive": chosen is not None,
            },
        }

    @_reports
    def preset_chosen(self, data: Data) -> dict[Any, Any]:
        name = self._text(data, self.preset_box.choice)
        changes = self.preset_changes(name)
        del changes[self.preset_box.choice]
        return {self.preset_box.name: name, **as_updates(changes)}

    @_reports
    def preset_applied(self, data: Data) -> dict[Any, Any]:
        prompt = self.app.presets.prompt_of(self._chosen_preset(data))
        return {self.form.inputs.prompt: prompt, self.message: messages.NOTHING}

    @_reports
    def preset_saved(self, data: Data) -> dict[Any, Any]:
        name = self._text(data, self.preset_box.name).strip()
        replaced = self.app.presets.save(name, self._text(data, self.form.inputs.prompt))
        key = "page.preset_replaced" if replaced else "page.preset_saved"
        said = messages.note(self.words(data)(key, name=name))
        return {self.message: said, **as_updates(self.preset_changes(name))}

    @_reports
    def preset_deleted(self, data: Data) -> dict[Any, Any]:
        name = self._chosen_preset(data)
        self.app.presets.delete(name)
        said = messages.note(self.words(data)("page.preset_deleted", name=name))
        return {self.message: said, self.preset_box.name: "", **as_updates(self.preset_changes(None))}

    @_reports
    def preset_marked(self, data: Data) -> dict[Any, Any]:
        name, marked = self._chosen_preset(data), bool(data[self.preset_box.startup])
        if marked != (self.app.presets.startup_name() == name):
            self.app.presets.mark_startup(name if marked else None)
        key = "page.preset_marked" if marked else "page.preset_unmarked"
        return {self.message: messages.note(self.words(data)(key, name=name))}

    def _chosen_preset(self, data: Data) -> str:
        name = self._text(data, self.preset_box.choice)
        if not name:
            raise InputError("choose_preset")
        return name

    # -- the page itself -----------------------------------------------------------------------------

    def sound_changed(self, data: Data) -> dict[Any, Any]:
        self.app.remember(sound=bool(data[self.form.options.sound]))
        return {}

    def remembered(self) -> dict[Any, dict[str, Any]]:
        """Changes that fill a page that was just opened."""
        known = self.app.settings.load()
        changes = self.form.filled({key: known[key] for key in FIELDS})
        changes[self.form.options.sound] = {"value": known["sound"]}
        if self.app.given_output is None:
            changes[self.form.options.output_folder] = {"value": known["output_folder"]}
        changes |= self.preset_changes(self.app.presets.startup_name())
        return changes

    def notices(self, words: Translator) -> str:
        """What has to be said once about files that could not be read."""
        told = [words(f"notice.{notice.code}", **notice.values) for notice in self.app.take_notices()]
        return messages.note("\n".join(told)) if told else messages.NOTHING


def take_picture(uploads: Path, file: Any, words: Translator) -> tuple[str | None, str]:
    """Check an uploaded picture; gives its path (None: there is none, or it was refused) and a message."""
    try:
        path = uploaded_path(file, uploads)
        return (None if path is None else checked_picture(path)), messages.NOTHING
    except EngineError as error:
        return None, messages.problem(error, words)


def _carries_request(path: str) -> bool:
    try:
        carried_request(path)
    except InputError:
        return False
    return True


def _outlook_html(outlook: Outlook, requests: list[GenerationRequest], words: Translator) -> str:
    text = words("page.outlook", frames=outlook.frames, seconds=f"{outlook.seconds:.2f}")
    if outlook.width is not None:
        text += words("page.outlook_size", width=outlook.width, height=outlook.height)
    text += words("page.outlook_sections", sections=outlook.sections)
    if outlook.duration is not None:
        text += words("page.outlook_duration", time=format_duration(outlook.duration, words))
    if len(requests) > 1:
        text += words("page.outlook_videos", count=len(requests))
    if requests[0].loop:
        own_end = requests[0].end_image is not None
        text += words("page.outlook_loop_own_end" if own_end else "page.outlook_loop")
    return messages.plain(text)
