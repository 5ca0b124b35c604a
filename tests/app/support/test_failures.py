"""Failures as codes and details: nothing private in them, whatever is cut."""

import pytest

from diffusers_helper.version import VERSION
from webui.eichi_utils.support.failures import MAX_DETAILS, Failure, describe_failure, versions

PROMPT = " ".join(f"secret{number}" for number in range(200))


def described(message: str, *hide: str) -> Failure:
    with pytest.raises(LookupError) as caught:
        raise LookupError(message)
    return describe_failure(caught.value, hide)


def test_long_details_are_cut_in_their_middle():
    details = described("x" * 10 * MAX_DETAILS + " the end").details
    assert len(details) < MAX_DETAILS + 100
    assert details.startswith(f"Endframe Ichi {VERSION}, Python 3.")
    assert "\n[...]\n" in details
    assert details.endswith(" the end\n")


def test_a_dll_that_windows_lacks_has_a_sentence_of_its_own():
    (error := OSError("torch_cpu.dll")).winerror = 126  # type: ignore[attr-defined]
    assert describe_failure(error).code == "torch_dll"


@pytest.mark.parametrize("behind", range(MAX_DETAILS // 2 - 1500, MAX_DETAILS // 2 + 1500, 500))
def test_no_cut_leaves_half_of_a_private_text(behind):
    for message in (
        f"{'x' * behind}{PROMPT}{'y' * MAX_DETAILS}",
        f"{'x' * MAX_DETAILS}{PROMPT}{'y' * behind}",
    ):
        assert "secret" not in described(message, PROMPT).details


def test_versions_also_tell_what_is_not_installed(monkeypatch):
    monkeypatch.setattr("webui.eichi_utils.support.failures.LIBRARIES", ("numpy", "no-such-library"))
    versions.cache_clear()
    assert versions().startswith(f"Endframe Ichi {VERSION}, Python 3.")
    assert versions().endswith(", no-such-library is not installed")
    versions.cache_clear()
