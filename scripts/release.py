"""Makes the ZIP of a release, for people who have no git.

    python scripts/release.py [FOLDER]            (dist, unless another is named)

It holds the files of the last commit that people need to use the app: the app, the demo's models, the
documents; no tests, nothing that trains or measures. The same commit gives the same bytes on every computer.
There is no Python in it: where none is installed, start.bat gets one with the uv that `scripts/uv.txt` pins.
The standard library only.
"""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # started as a script, Python looks beside this file only
    sys.path.insert(0, str(ROOT))

from diffusers_helper.version import VERSION  # noqa: E402

FOLDER = "EndframeIchi"
"""The folder in the ZIP: short, because Windows' paths are."""
KEPT = (
    *("webui/", "diffusers_helper/", "locales/", "scripts/", "examples/", "docs/"),
    *("demo_models/README.md", "demo_models/hunyuanvideo-community/", "demo_models/lllyasviel/"),
    *("start.bat", "start.sh", "environment2.bat", "requirements.txt", "constraints.txt"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "benchmarks/log.md"),
)
"""The files, and the folders with all that is in them."""
LEFT = ("scripts/release.py", "scripts/constraints.py", "docs/screenshots.py", "docs/demo_gif.py")
"""The files in those folders that only developers need."""
FIRST = "scripts/start_here.txt"
"""The text for people before the first start; it stands at the top of the ZIP, as START_HERE.txt."""


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist"
    print(make_zip(folder))  # noqa: T201


def make_zip(folder: Path) -> Path:
    """Make the ZIP in a folder; returns its path. Fails where something is not committed."""
    names = release_files()
    if changed := _changed():
        sys.exit(f"Commit these first:\n{changed}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"EndframeIchi-{VERSION}.zip"
    date = _git("log", "-1", "--format=%cd", "--date=format-local:%Y %m %d %H %M %S").split()
    with zipfile.ZipFile(path, "w") as file, tarfile.open(fileobj=io.BytesIO(_archive(names))) as tar:
        for member in tar.getmembers():
            if (content := tar.extractfile(member)) is not None:
                _add(file, member, content.read(), tuple(map(int, date)))
    return path


def release_files() -> list[str]:
    """Return the files of the release, by their paths in the repository, in order."""
    files = _git("ls-tree", "-r", "-z", "--name-only", "HEAD").decode().split("\0")
    return [name for name in files if name.startswith(KEPT) and name not in LEFT]


def _changed() -> str:
    return _git("status", "--porcelain", "--untracked-files=no").decode()


def _archive(names: list[str]) -> bytes:
    """Return the committed files as tar, with the line ends that `.gitattributes` names."""
    return _git("-c", "core.autocrlf=false", "archive", "--format=tar", "HEAD", "--", *names)


def _add(file: zipfile.ZipFile, member: tarfile.TarInfo, content: bytes, date: tuple[int, ...]) -> None:
    name = "START_HERE.txt" if member.name == FIRST else member.name
    if member.name == FIRST:  # for the oldest Notepad
        content = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")
    entry = zipfile.ZipInfo(f"{FOLDER}/{name}", (*date[:6],))  # type: ignore[arg-type]
    entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3  # 3: Unix, which has executable bits
    entry.external_attr = (0o100755 if member.mode & 0o100 else 0o100644) << 16
    file.writestr(entry, content, compresslevel=9)


def _git(*arguments: str) -> bytes:
    variables = os.environ | {"TZ": "UTC"}  # the same dates everywhere
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
