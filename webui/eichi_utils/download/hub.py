"""The client of Hugging Face or a mirror of it: a repository's files, and a file's bytes from anywhere on.

Uses huggingface_hub's listing, session and token, but not its `http_get`: that writes in steps of 10 MiB,
which are lost with a connection, empties the file where a server ignores the range, and takes a log-in
page for a file's beginning.
"""

import contextlib
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, get_session, get_token, hf_hub_url
from huggingface_hub.utils import build_hf_headers

from diffusers_helper.errors import MachineError

from .download import find_endpoint, host_of
from .model_folders import RemoteFile

LIBRARY = "endframe-ichi"
"""The name that the server sees."""
TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as lost."""
LONGEST_PAUSE = 600.0
"""Seconds that a server can make us wait."""
MAX_REASON = 200
"""Characters of a reason in a sentence."""
TRANSIENT = (408, 425, 429, *range(500, 600))
T = TypeVar("T")


@dataclass(eq=False)
class ConnectionLost(Exception):  # noqa: N818  (an ordinary event, not an error)
    """The network or the server failed for a `reason`; another try may help after a `pause` in seconds."""

    reason: str
    pause: float = 0.0


class Hub:
    """A client of the server `HF_ENDPOINT`, else of Hugging Face. Not for two threads at a time.

    Raises:
        InputError: `HF_ENDPOINT` is no address.
        ConnectionLost: another try may help; from each method.
        MachineError: the server refuses, has no such thing, or another, or is no hub; from each method.
    """

    def __init__(self) -> None:
        self.endpoint = find_endpoint()
        self.host = host_of(self.endpoint)
        self._token: str | None = None
        for name, value in [*os.environ.items()]:  # of which the HTTP client would end every request
            if name.lower().endswith("_proxy"):  # "socks" is GNOME's name for it
                os.environ[name] = re.sub("^socks:", "socks5:", value.strip())
            elif name in ("SSL_CERT_FILE", "SSL_CERT_DIR") and not Path(value).exists():
                del os.environ[name]

    def list_files(self, repository: str) -> list[RemoteFile]:
        """List a repository's files at its newest commit."""

        def ask() -> list[RemoteFile]:
            api = HfApi(self.endpoint, token=self._token or False, library_name=LIBRARY)
            info = api.model_info(repository, files_metadata=True, timeout=TIMEOUT)
            return [_remote_file(repository, info.sha, entry) for entry in info.siblings or ()]

        return self._ask(repository, ask)

    def read(self, file: RemoteFile, offset: int, tries: int = 2) -> Iterator[bytes]:
        """Yield a file's bytes from `offset` on as they come; `tries` for one of another size."""
        with contextlib.closing(self._ask(file.repository, lambda: self._open(file, offset))) as response:
            position = offset if response.status_code == 206 else 0  # it cannot begin in the middle
            extent = response.headers.get("Content-Range") or response.headers.get("Content-Length", "")
            size = int(extent.rpartition("/")[2] or file.size)
            if size != file.size:
                if tries > 1:  # this may be a log-in page, and what is there right
                    return (yield from self.read(file, offset, tries - 1))
                values = {"file": file.name, "host": self.host, "size": size, "expected": file.size}
                raise MachineError("download_wrong_size", **values)
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
        response = get_session().send(request, stream=True)
        return response if response.status_code == 416 else response.raise_for_status()  # 416: too short

    def _ask(self, repository: str, ask: Callable[[], T]) -> T:
        """Ask without the token first: a public repository needs none, and refuses one that has expired."""
        try:
            return ask()
        except Exception as error:
            problem = self._problem(error, repository)
            if getattr(problem, "code", None) != "download_refused" or self._token is not None:
                raise problem from error
            with contextlib.suppress(Exception):  # which may ask servers
                self._token = get_token()
            if self._token is None:
                raise problem from error
        return self._ask(repository, ask)

    def _problem(self, error: Exception, repository: str) -> Exception:
        """Return our error for a library's, of which the HTTP errors hold the response."""
        root, response = _root_cause(error), getattr(error, "response", None)
        if isinstance(root, ssl.SSLCertVerificationError):
            reason = getattr(root, "verify_message", "") or str(root)
            return MachineError("download_certificate", host=self.host, reason=reason)
        if response is None:
            if isinstance(error, ValueError | LookupError | TypeError | AttributeError | RecursionError):
                return MachineError("download_strange_answer", url=f"{self.endpoint}/api/models/{repository}")
            return ConnectionLost(_describe(error))
        response.close()
        host, code, page = host_of(str(response.url)), response.status_code, f"{self.endpoint}/{repository}"
        status = f"{code} {response.reason_phrase}"
        if code in TRANSIENT:
            return ConnectionLost(f"HTTP {status}", _seconds_to_wait(response.headers.get("Retry-After", "")))
        if host != self.host:  # a store's link is good for an hour
            return ConnectionLost(f"HTTP {status}, {host}")
        if code in (401, 403, 404, 410):
            return MachineError("download_refused" if code < 404 else "download_not_found", page=page)
        return MachineError("download_status", host=host, status=status)


def _seconds_to_wait(text: str) -> float:
    """Return how long a server asks to wait, as a number of seconds or with a date; 0 where it doesn't."""
    with contextlib.suppress(ValueError):
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
        return min(max(seconds, 0.0), LONGEST_PAUSE)
    return 0.0


def _remote_file(repository: str, commit: str | None, entry: Any) -> RemoteFile:
    """Return the file of a listing's entry; ValueError, TypeError or AttributeError for a broken one."""
    size, checksum = (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, entry.blob_id)
    if type(size) is not int or size < 0 or not commit or not re.fullmatch(r"[\w.-]+", commit):
        raise ValueError(f"{size} bytes at {commit}")
    if checksum is not None and not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", checksum):
        raise ValueError(checksum)
    return RemoteFile(repository, entry.rfilename, size, commit, checksum)


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
