"""The gaps of Wine 8 that CPython and packages fall into, and the way round each. The app stays as it is."""

import re
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent
TOOLS = "x86_64-w64-mingw32-"
MARK = slice(0x40, 0x50)
"""The bytes in which a library says that it is Wine's own, and then may bear no other name."""
VARIABLES = {
    # Wine's own of these come second; the first is made here, the others are not needed: its debugger would
    # keep a program that has failed for ever.
    "WINEDLLOVERRIDES": "ucrtbase=n,b;mscoree,mshtml,winedbg.exe=",
    "WINEDEBUG": "-all",
    # Wine's kernel32 lacks GetNumaNodeProcessorMaskEx, with which Intel's OpenMP looks for the cores.
    "KMP_AFFINITY": "disabled",
}
CUSTOMIZE = """\
# Wine's kernel32 lacks CopyFile2, which shutil.copy2 calls from Python 3.12 on.
import _winapi
vars(_winapi).pop("CopyFile2", None)
"""
NO_LINKS = "Wine makes no symbolic links, and says nothing"
MAPPED = "it overwrites a file of weights that is still mapped, which Windows refuses"
LONG_NAME = "Windows calls a name that is too long a missing one"
FOLDER_AS_FILE = "Windows refuses a folder in the place of a file as if there were no permission"
EXCEPTIONS = {
    "test_a_file_system_without_locks": "it replaces a function of fcntl, which Windows does not have",
    "test_a_container_has_what_its_limit_leaves": "containers have a limit on Linux only",
    "test_the_folder_goes_away_when_it_is_done": "it deletes an open lock, which Windows refuses",
    "test_a_file_changed_behind_its_time": "Windows keeps no time at which a file's own times were changed",
    "test_a_moved_and_renamed_file": "it renames a file over another one",
    "test_change_that_cannot_be_written_is_undone": FOLDER_AS_FILE,
    "test_unwritable_change_holds": FOLDER_AS_FILE,
    "test_a_folder_without_models_is_refused": LONG_NAME,
    "test_unusable_pictures_are_rejected": LONG_NAME,
    "test_float16_is_near_float32": MAPPED,
    "test_eight_bit_weights_of_another_program": MAPPED,
    "test_weights_of_few_bits": MAPPED,
    "test_tensors_that_no_model_has": MAPPED,
    "test_a_lora_is_refused": MAPPED,
    "test_whole_numbers_are_no_weights": MAPPED,
    "test_8_bits_that_we_did_not_make": MAPPED,
    "test_extras_of_published_files": MAPPED,
    "test_copied_models_are_the_same": MAPPED,
    "test_a_sibling_of_the_transformer": NO_LINKS,
    "test_a_cache_is_found_from_its_root": NO_LINKS,
    "test_the_snapshot_of_main_comes_first": NO_LINKS,
    "test_a_complete_older_snapshot": NO_LINKS,
    "test_of_incomplete_snapshots": NO_LINKS,
    "test_plain_folders_and_a_cache": NO_LINKS,
    "test_the_models_of_a_repository": NO_LINKS,
}
"""The tests that cannot pass there, by a part of their names, with the reason."""


def close_gaps(system: Path, python: Path) -> None:
    """Close the gaps in Wine's folder system32 and in the folder of an unpacked CPython."""
    _complete_ucrtbase(system)
    compile_c("random.c", system / "bcryptprimitives.dll", "-shared", "-ladvapi32")
    (python / "DLLs" / "_wmi.pyd").unlink()  # it calls propsys.VariantToString; `platform` does without it
    (python / "Lib" / "sitecustomize.py").write_text(CUSTOMIZE)


def compile_c(source: str, program: Path, *options: str | Path) -> None:
    """Compile a C file of this folder for Windows."""
    command = [
        f"{TOOLS}gcc",
        "-O2",
        "-s",
        "-static",
        "-Wall",
        "-Werror",
        SOURCES / source,
        "-o",
        program,
        *options,
    ]
    subprocess.run(command, check=True, timeout=120)


def _complete_ucrtbase(system: Path) -> None:
    """Put in a ucrtbase.dll with complex functions, which numpy and PyTorch call, and Wine's own."""
    library, wines = system / "ucrtbase.dll", system / "ucrtwine.dll"
    content = bytearray(library.read_bytes())
    assert content[MARK] == b"Wine builtin DLL"
    content[MARK] = bytes(16)
    wines.write_bytes(content)
    listed = subprocess.run([f"{TOOLS}objdump", "-p", library], capture_output=True, text=True, check=True)
    names = re.findall(r"^\t\[ *\d+\] (\w+)$", listed.stdout.partition("[Ordinal/Name")[2], re.MULTILINE)
    own = _complex_functions()
    exports = [f"{name} = {f'own_{name}' if name in own else f'ucrtwine.{name}'}" for name in names]
    definition = system / "ucrtbase.def"
    definition.write_text("\n".join(["LIBRARY ucrtbase.dll", "EXPORTS", *exports, ""]))
    compile_c("complex.c", library, "-shared", definition)


def _complex_functions() -> set[str]:
    text = (SOURCES / "complex.c").read_text("utf-8")
    written = set(re.findall(r"\bown_(c\w+)\(", text))
    return written | {
        name + ending for name in re.findall(r"(?:COMPLEX|REAL)\((c\w+)", text) for ending in ("", "f", "l")
    }


def copy_launcher(folder: Path) -> None:
    """Put the python.exe of virtual environments where each version of `venv` looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    compile_c("launcher.c", folder / "python.exe", "-municode")
    for name in ("pythonw", "venvlauncher", "venvwlauncher"):
        shutil.copy(folder / "python.exe", folder / f"{name}.exe")
