"""Talking to Hugging Face or a mirror of it: what a repository holds, and a file's bytes from anywhere on.

A client of its own: the app keeps its libraries offline, and huggingface_hub begins a killed download anew.
Honours `HF_ENDPOINT`, the system's proxy, and the user's token, which is only shown where a repository
refuses without it. Knows no disk. What may pass by itself (`LineBroken`) is told apart from what will not.
"""

import contextlib
import email.utils
import http.client
import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO, Any

from diffusers_helper.errors import InputError, MachineError

from .download.needed_files import Listing, RemoteFile

logger = logging.getLogger(__name__)

DEFAULT_ENDPOINT = "https://huggingface.co"
USER_AGENT = "endframe-ichi"
TIMEOUT = 20.0
"""Seconds without a byte after which a line counts as broken."""
CHUNK = 2**20
MAX_LISTING = 32 * 2**20
MAX_REASON = 200
LONGEST_PAUSE = 600.0
_MAY_PASS = (408, 425, 429, *range(500, 600))
_REFUSED = (401, 403)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class LineBroken(Exception):  # noqa: N818  (an ordinary event, not an error)
    """The line or the server failed in a way that may pass.

    `reason` is for a sentence; `pause` is how many seconds the server asks to wait, None where it doesn't.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        self.reason = " ".join(reason.split())[:MAX_REASON]
        self.pause = pause
        super().__init__(self.reason)


class WrongSize(Exception):  # noqa: N818
    """The server has another file under this name: so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(str(size))


class Body:
    """The bytes of an answer, from byte `start` of the file on."""

    def __init__(self, response: http.client.HTTPResponse, start: int) -> None:
        self.start = start
        self._response = response

    def read(self) -> bytes:
        """What has come, at most 1 MiB; nothing at the end, be it too early or not. Raises LineBroken."""
        try:
            return self._response.read1(CHUNK)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LineBroken(_describe(error)) from error


def user_token() -> str | None:
    """The user's token for Hugging Face: from HF_TOKEN, or of `hf auth login`."""
    from huggingface_hub import get_token

    try:
        return get_token()
    except Exception:  # it may ask servers, and must not end a download that needs no token
        logger.debug("no token", exc_info=True)
        return None


class Hub:
    """One server. Not for two threads at a time.

    Args:
        endpoint: its address; None: `HF_ENDPOINT`, else Hugging Face's.
        find_token: gives the user's token, or None; asked only where a repository refuses.
        timeout: seconds without a byte after which a line counts as broken.

    Raises:
        InputError: the endpoint is no address.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        find_token: Callable[[], str | None] = user_token,
        timeout: float = TIMEOUT,
    ) -> None:
        address = endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
        self.endpoint = _checked_endpoint(address)
        self._find_token = find_token
        self._token: str | None = None
        self._timeout = timeout
        self._opener = urllib.request.build_opener(
            _Redirects(), urllib.request.HTTPSHandler(context=_tls_context())
        )

    @property
    def host(self) -> str:
        """The name of the server, for sentences."""
        return urllib.parse.urlsplit(self.endpoint).netloc.rpartition("@")[2]

    def page(self, repository: str) -> str:
        """The address where a person sees a repository."""
        return f"{self.endpoint}/{repository}"

    def listing(self, repository: str) -> Listing:
        """What the repository holds at its newest commit: names, sizes and checksums.

        Raises:
            LineBroken: worth another try.
            MachineError: the server refuses, doesn't know it, or is none of Hugging Face's kind.
        """
        url = f"{self.endpoint}/api/models/{repository}?blobs=true"
        with self._open(url, repository, {}) as response:
            try:
                data = _read_all(response)
            except (OSError, http.client.HTTPException) as error:
                raise LineBroken(_describe(error)) from error
        try:
            return _parse_listing(repository, json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            logger.debug("%s answered %r", url, data[:MAX_REASON], exc_info=True)
            raise MachineError("download_strange_answer", url=url) from error

    @contextlib.contextmanager
    def open(self, file: RemoteFile, commit: str, offset: int) -> Iterator[Body]:
        """A file's bytes from `offset` on; a server that cannot do that begins at its start.

        Raises:
            LineBroken: worth another try.
            WrongSize: there is another file under this name.
            MachineError: the server refuses, or doesn't have it.
        """
        path = urllib.parse.quote(f"{file.repository}/resolve/{commit}/{file.path}")
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._open(f"{self.endpoint}/{path}", file.repository, headers) as response:
            start, total = _extent(response)
            if total is not None and total != file.size:
                raise WrongSize(total)
            if start > offset:
                raise LineBroken("reason.wrong_place")
            yield Body(response, start)

    def _open(self, url: str, repository: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Ask without the token first: a public repository needs none, and refuses one that has expired."""
        if self._token is not None:
            headers = headers | _authorization(self._token)
        try:
            return self._ask(url, repository, headers)
        except _Refused as refused:
            token = self._find_token() if self._token is None else None
            if token is None:
                raise MachineError("download_refused", page=self.page(repository)) from refused
        try:
            response = self._ask(url, repository, headers | _authorization(token))
        except _Refused as refused:
            raise MachineError("download_refused", page=self.page(repository)) from refused
        self._token = token
        return response

    def _ask(self, url: str, repository: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, **headers})
        logger.debug("asking for %s %s", url, headers.get("Range", ""))
        try:
            return self._opener.open(request, timeout=self._timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise self._status_error(error, repository) from error
        except urllib.error.URLError as error:
            reason = error.reason if isinstance(error.reason, Exception) else error
            raise self._line_error(reason) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._line_error(error) from error

    def _status_error(self, error: urllib.error.HTTPError, repository: str) -> Exception:
        """What an answer other than success means."""
        is_ours = _origin(error.url) == _origin(self.endpoint)
        if error.code == 416:  # the file there ends before what is asked for
            size = str(error.headers.get("Content-Range") or "").rpartition("/")[2]
            return WrongSize(int(size) if size.isdigit() else 0)
        if error.code in _MAY_PASS:
            return LineBroken(f"HTTP {error.code} {error.reason}", _retry_after(error.headers))
        if not is_ours:  # a store's link is good for an hour only: another one will do
            return LineBroken(f"HTTP {error.code} {error.reason}, {_host(error.url)}")
        if error.code in _REFUSED:
            return _Refused()
        if error.code in (404, 410):
            return MachineError("download_not_found", page=self.page(repository))
        return MachineError("download_status", host=self.host, status=f"{error.code} {error.reason}")

    def _line_error(self, error: Exception) -> Exception:
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = error.verify_message or "?"
            return MachineError("download_certificate", host=self.host, reason=reason)
        return LineBroken(_describe(error))


class _Refused(Exception):  # noqa: N818
    """The server wants to know who asks."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, to another host without the token; Python 3.10 knows no 308."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(req.full_url, code, msg, headers, fp)
        dropped = {"proxy-authorization"}  # put in again where the new address goes through the proxy, too
        if _origin(newurl) != _origin(req.full_url):
            dropped.add("authorization")
        kept = {name: value for name, value in req.headers.items() if name.lower() not in dropped}
        return urllib.request.Request(newurl, headers=kept, origin_req_host=req.origin_req_host)

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def _tls_context() -> ssl.SSLContext:
    """Trusts what the system trusts (a company's own proxy), and certifi's list where there is one."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _checked_endpoint(address: str) -> str:
    try:
        parts = urllib.parse.urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or any(character.isspace() for character in address):
        raise InputError("download_endpoint", value=address[:MAX_REASON])
    return address.rstrip("/")


def _parse_listing(repository: str, answer: Any) -> Listing:
    """Raises ValueError, LookupError, TypeError or AttributeError where it is none."""
    commit = answer["sha"]
    if not re.fullmatch(r"[0-9a-zA-Z._-]+", commit):
        raise ValueError(commit)
    return Listing(repository, commit, tuple(_parse_file(repository, entry) for entry in answer["siblings"]))


def _parse_file(repository: str, entry: Any) -> RemoteFile:
    lfs = entry.get("lfs") or {}
    sha256 = lfs.get("sha256") or lfs.get("oid")
    size = entry.get("size") if lfs.get("size") is None else lfs["size"]
    blob = entry.get("blobId")
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(sha256)
    if blob is not None and not re.fullmatch(r"[0-9a-f]{40}", blob):
        raise ValueError(blob)
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(size)
    return RemoteFile(repository, entry["rfilename"], size, sha256, None if sha256 else blob)


def _read_all(response: http.client.HTTPResponse) -> bytes:
    data = response.read(MAX_LISTING)
    told = response.headers.get("Content-Length", "")
    if told.isdigit() and len(data) < min(int(told), MAX_LISTING):
        raise http.client.IncompleteRead(b"")
    return data


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where an answer's bytes begin in the file, and how long the whole file is, where that is told."""
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None:
            raise LineBroken("reason.wrong_place")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    told = response.headers.get("Content-Length", "")
    return 0, int(told) if told.isdigit() else None


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, told as a number or as a date."""
    text = str(headers.get("Retry-After") or "")
    if text.strip().isdigit():
        return min(float(text), LONGEST_PAUSE)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return min(max(date.timestamp() - time.time(), 0.0), LONGEST_PAUSE)


def _authorization(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or "?"


def _describe(error: Exception) -> str:
    """What a system or library says of a failure, or the key of our words for it; never empty."""
    if isinstance(error, TimeoutError):
        return "reason.timed_out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
