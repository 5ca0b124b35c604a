"""The errors of the engine and of the app around it, as codes with values.

Neither speaks a language: whoever shows an error to a person looks its code up in `locales/`.
"""

from typing import Literal

ErrorCode = (
    Literal["request_missing", "request_not_a_file", "request_too_large", "request_not_utf8"]
    | Literal["request_not_json", "request_too_deep", "request_too_full", "request_not_an_object"]
    | Literal["unknown_key", "number_missing", "not_a_number", "not_a_number_above", "not_a_whole_number"]
    | Literal["out_of_range", "out_of_range_above"]
    | Literal["not_true_or_false", "not_a_text", "broken_text", "text_too_long"]
    | Literal["no_picture_name", "section_seconds"]
    | Literal["keyframes_not_a_list", "keyframe_not_an_object", "keyframe_without_section"]
    | Literal["keyframe_twice", "keyframe_out_of_range", "keyframe_empty", "close_after_too_late"]
    | Literal["no_start_image", "width_without_height", "size_not_multiple", "image_missing"]
    | Literal["image_not_a_file", "image_unreadable", "image_empty", "not_an_image", "image_broken"]
    | Literal["image_cut", "image_too_large", "image_too_small", "data_uri_broken"]
    | Literal["image_kind", "image_heic", "not_made_by_us", "settings_left_out", "video_broken"]
    | Literal["no_video_name", "previous_video_foreign", "previous_video_size"]
    | Literal["previous_video_overwritten"]
    | Literal["choose_start_image", "choose_preset", "no_result", "video_among_pictures"]
    | Literal["bad_preset_name", "preset_without_prompt", "preset_missing"]
    | Literal["bad_name", "bad_folder_name", "output_folder_empty", "output_folder_too_long"]
    | Literal["output_folder_outside", "output_folder_leads_out", "output_folder_of_app"]
    | Literal[
        "output_folder_network", "output_folder_not_whole", "folder_dialog_open", "folder_dialog_failed"
    ]
    | Literal["output_folder_is_file", "output_not_writable", "output_taken", "output_busy"]
    | Literal["unfinished_other", "unfinished_other_models", "no_paths_from_clients", "login_needed"]
    | Literal["models_folder_missing", "model_missing", "model_file_missing", "model_file_broken"]
    | Literal["model_file_cut_short", "model_file_changed", "model_file_unreadable", "model_foreign"]
    | Literal["model_config_refused", "model_config_value", "models_do_not_fit", "model_file_reduced"]
    | Literal["tokenizer_broken", "tokenizer_foreign", "tokenizer_differs"]
    | Literal["weights_missing", "weights_shape", "weights_not_finite", "weights_scaled"]
    | Literal["weights_adapter", "weights_blank", "weights_damaged", "weights_mixed", "weights_whole_numbers"]
    | Literal["eight_bit_not_ready", "eight_bit_written_wrong", "eight_bit_disk_too_small"]
    | Literal["eight_bit_busy", "eight_bit_damaged"]
    | Literal["no_cuda", "card_too_old", "card_not_supported", "card_computes_wrong", "out_of_memory"]
    | Literal["disk_full", "disk_too_small", "cannot_write", "file_in_the_way", "file_too_full"]
    | Literal["disk_quota", "disk_file_limit", "disk_read_only", "disk_away"]
    | Literal["no_permission", "path_gone", "path_too_long", "name_refused", "no_temporary_folder"]
    | Literal["jobs_stopped", "home_moved"]
    | Literal["not_a_number_in_latents", "not_a_number_in_pixels", "black_section", "unexpected"]
    | Literal["internal", "closing", "app_runs_already", "download_runs_already", "torch_dll"]
    | Literal["port_taken", "port_forbidden", "address_not_here", "address_unknown"]
    | Literal["download_no_connection", "download_certificate", "download_refused", "download_not_found"]
    | Literal["download_status", "download_strange_answer", "download_endpoint", "download_wrong_file"]
    | Literal["download_repository_changed", "download_wrong_size", "download_disk_too_small"]
)
"""The names of all errors. Each has a sentence in `locales/*.json` with the key `error.<code>`."""


class EngineError(Exception):
    """A failure that a person can act on; `values` fill the placeholders of the code's sentence."""

    def __init__(self, code: ErrorCode, /, **values: object) -> None:
        self.code = code
        self.values = values
        details = ", ".join(f"{key}={value!r}" for key, value in values.items())
        super().__init__(f"{code}: {details}" if details else code)


class InputError(EngineError):
    """The input cannot be used: a request, a picture, a models folder, an output folder."""


class MachineError(EngineError):
    """The input is fine but the machine fails: the disk is full, out of memory, numbers go wrong."""


class StopRequested(Exception):  # noqa: N818  (an ordinary outcome, not an error)
    """Ends the engine's work between two steps after the user has stopped it."""
