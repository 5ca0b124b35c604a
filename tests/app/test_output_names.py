"""Names of output files. What is refused as a name is tested with the command, in test_bad_input.py."""

import re

import pytest

from webui.eichi_utils.output_names import MAX_BYTES, check_name, new_name


@pytest.mark.parametrize(
    "name", ["video", "a.b-c_d (1)", "猫の動画", "Zoë's video", "a" * 100, "com10", "console"]
)
def test_a_plain_name_is_taken_as_it_is(name):
    assert check_name(name) == name


def test_the_longest_name_leaves_room_for_every_ending():
    longest = "猫" * (MAX_BYTES // 3)
    assert len(f"{check_name(longest)}_section_001.mp4.part".encode()) <= 255


def test_a_new_name_is_the_date_and_time(tmp_path):
    assert re.fullmatch(r"\d{6}_\d{6}_\d{3}", new_name(tmp_path))
    assert check_name(new_name(tmp_path))


@pytest.mark.parametrize("ending", [".mp4", ".png", ".job"])
def test_a_new_name_is_not_taken_yet(tmp_path, monkeypatch, ending):
    monkeypatch.setattr("webui.eichi_utils.output_names.datetime", FrozenClock)
    first = new_name(tmp_path)
    (tmp_path / f"{first}{ending}").write_text("")
    second = new_name(tmp_path)
    (tmp_path / f"{second}{ending}").symlink_to("nowhere")
    assert [first, second, new_name(tmp_path)] == [first, f"{first}_2", f"{first}_3"]


def test_a_folder_that_cannot_be_looked_into_is_left_to_the_work_to_refuse(tmp_path):
    assert new_name(tmp_path / ("a" * 300))


class FrozenClock:
    """A clock that stands still."""

    @staticmethod
    def now() -> "FrozenClock":
        return FrozenClock()

    def strftime(self, _: str) -> str:
        return "250102_030405_678901"
