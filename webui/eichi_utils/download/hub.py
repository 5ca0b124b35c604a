"""The client of Hugging Face or a mirror of it: a repository's files, and a file's bytes from anywhere on.

Uses huggingface_hub's listing, session and token, but not its `http_get`: that writes in steps of 10 MiB,
which are lost with a connection, empties the file where a server ignores the range, and takes a log-in
page for a file's beginning. Where another try may help, `ConnectionLost` is raised.
"""

import contextlib
import os
import re
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from huggingface_hub import HfApi, get_session, get_token, hf_hub_url
from huggingface_hub.utils import build_hf_headers

from diffusers_helper.errors import InputError, MachineError

from .plan import RemoteFile

DEFAULT_ENDPOINT = "https://huggingface.co"
LIBRARY = "endframe-ichi"
"""The name that the server sees."""
TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as lost."""
LONGEST_PAUSE = 600.0
"""Seconds that a server can make us wait."""
MAX_REASON = 200
"""Characters of a reason in a sentence."""
_TRANSIENT = (408, 425, 429, *range(500, 600))
T = TypeVar("T")


@dataclass(eq=False)
class ConnectionLost(Exception):  # noqa: N818  (an ordinary event, not an error)
    """The network or the server failed, and another try may help.

    `reason` is for a sentence; `pause` is how many seconds the server asks to wait.
    """

    reason: str
    pause: float = 0.0


class Hub:
    """A client of the server `HF_ENDPOINT`, else of Hugging Face. Not for two threads at a time.

    Raises:
        InputError: `HF_ENDPOINT` is no address.
    """

    def __init__(self) -> None:
        address = os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
        if not _is_address(address):
            raise InputError("download_endpoint", value=address[:MAX_REASON])
        self.endpoint = address.rstrip("/")
        self.host = _host(self.endpoint)
        self._token: str | None = None

    def list_files(self, repository: str) -> list[RemoteFile]:
        """List a repository's files at its newest commit.

        Raises:
            ConnectionLost: another try may help.
            MachineError: the server refuses, doesn't know the repository, or is no hub.
        """

        def ask() -> list[RemoteFile]:
            api = HfApi(self.endpoint, token=self._token or False, library_name=LIBRARY)
            info = api.model_info(repository, files_metadata=True, timeout=TIMEOUT)
            return [_remote_file(repository, info.sha, entry) for entry in info.siblings or ()]

        return self._ask(repository, ask)

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """Yield a file's bytes from `offset` on as they come.

        Raises:
            ConnectionLost: another try may help.
            MachineError: the server refuses, or has another file under this name, or none.
        """
        with contextlib.closing(self._ask(file.repository, lambda: self._open(file, offset))) as response:
            position = offset if response.status_code == 206 else 0  # it cannot begin in the middle
            end = position + int(response.headers.get("Content-Length", file.size - position))
            if end != file.size:
                raise MachineError(
                    "download_wrong_size", file=file.name, host=self.host, size=end, expected=file.size
                )
            try:
                for data in response.iter_bytes():
                    new = data[max(offset - position, 0) :]
                    position += len(data)
                    if new:
                        yield new
            except Exception as error:  # a library's: the caller's are not raised in here
                raise ConnectionLost(_describe(error, "reason.ended_early")) from error
            if position < file.size:
                raise ConnectionLost("reason.ended_early")

    def _open(self, file: RemoteFile, offset: int) -> Any:
        """Ask for a file; returns the response, whose body is still to be read."""
        headers = build_hf_headers(token=self._token or False, library_name=LIBRARY)
        headers["Accept-Encoding"] = "identity"  # a range of packed bytes would be of no use
        if offset:
            headers["Range"] = f"bytes={offset}-"
        url = hf_hub_url(file.repository, file.path, revision=file.commit, endpoint=self.endpoint)
        request = get_session().build_request("GET", url, headers=headers, timeout=TIMEOUT)
        return get_session().send(request, stream=True).raise_for_status()

    def _ask(self, repository: str, ask: Callable[[], T]) -> T:
        """Ask without the token first: a public repository needs none, and refuses one that has expired."""
        try:
            return ask()
        except Exception as error:
            problem = self._problem(error, repository)
            is_refused = getattr(problem, "code", None) == "download_refused"
            if not is_refused or self._token is not None or (token := get_token()) is None:
                raise problem from error
        self._token = token
        return self._ask(repository, ask)

    def _problem(self, error: Exception, repository: str) -> Exception:
        """Return our error for a library's, of which the HTTP errors hold the response."""
        if (response := getattr(error, "response", None)) is not None:
            response.close()
            return self._status_problem(response, f"{self.endpoint}/{repository}")
        if isinstance(error, ValueError | LookupError | TypeError | AttributeError | RecursionError):
            return MachineError("download_strange_answer", url=f"{self.endpoint}/api/models/{repository}")
        root = _root_cause(error)
        if isinstance(root, ssl.SSLCertVerificationError):
            reason = getattr(root, "verify_message", "") or str(root)
            return MachineError("download_certificate", host=self.host, reason=reason)
        return ConnectionLost(_describe(error))

    def _status_problem(self, response: Any, page: str) -> Exception:
        code, status = response.status_code, f"{response.status_code} {response.reason_phrase}"
        host = _host(str(response.url))
        if code in _TRANSIENT:
            asked = response.headers.get("Retry-After", "")
            pause = float(asked) if asked.isdecimal() else 0.0  # instead of a date, our own pauses count
            return ConnectionLost(f"HTTP {status}", min(pause, LONGEST_PAUSE))
        if host != self.host:  # a store's link is good for an hour
            return ConnectionLost(f"HTTP {status}, {host}")
        if code in (401, 403):
            return MachineError("download_refused", page=page)
        if code in (404, 410):
            return MachineError("download_not_found", page=page)
        return MachineError("download_status", host=host, status=status)


def _remote_file(repository: str, commit: str | None, entry: Any) -> RemoteFile:
    """Return the file of a listing's entry; ValueError, TypeError or AttributeError for a broken one."""
    size, checksum = (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, entry.blob_id)
    if not isinstance(size, int) or size < 0 or not commit:
        raise ValueError(f"{size} bytes at {commit}")
    if checksum is not None and not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", checksum):
        raise ValueError(checksum)
    return RemoteFile(repository, entry.rfilename, size, commit, checksum)


def _is_address(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_web and text.split() == [text]


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2].lower()


def _root_cause(error: BaseException) -> BaseException:
    """The system's own error, around which the libraries put theirs."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _describe(error: Exception, otherwise: str = "") -> str:
    """The system's reason for a failure, or the key of our words for it; never empty."""
    root = _root_cause(error)
    if isinstance(root, TimeoutError):
        return "reason.timed_out"
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return " ".join((otherwise or str(error) or type(error).__name__).split())[:MAX_REASON]
