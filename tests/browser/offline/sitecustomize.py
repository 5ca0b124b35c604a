"""Python imports this at its start where the folder is on PYTHONPATH: this process may talk to itself only.

What it asks of anybody else is refused, and written to the file that ASKED_OF_THE_NETWORK names.
"""

import os
import sys

OWN = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", None)
"""The last: any address of this computer, to listen on."""


def _refuse(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a file, which is no network
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in OWN:
        with open(os.environ["ASKED_OF_THE_NETWORK"], "a", encoding="utf-8") as asked:  # noqa: PTH123
            asked.write(f"{event} {arguments}\n")
        raise OSError(101, f"{event}: no network in this test")


sys.addaudithook(_refuse)
