"""Downloads of other libraries that cannot succeed end within seconds, not never or after a minute of retries."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

DOWNLOAD_TIMEOUT = 30
"""Seconds without a byte after which a download gives up; open_clip's and anomalib's own would wait for ever."""

ANSWER_TIMEOUT = 10
"""Seconds after which a hub that does not answer at all is taken for one that is not there."""


@contextmanager
def network_timeout() -> Iterator[None]:
    """Let network reads inside the block fail after `DOWNLOAD_TIMEOUT` seconds of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def require_hub(repository: str) -> None:
    """An OSError if the Hugging Face hub does not answer, before its client tries for a minute; not for what it has cached."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if constants.HF_HUB_OFFLINE:  # then the client does not try
        return
    try:
        snapshot_download(repository, local_files_only=True)
    except LocalEntryNotFoundError:
        try:
            urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=ANSWER_TIMEOUT).close()  # noqa: S310  (the hub's https)
        except HTTPError:
            return  # an answer, if not a friendly one: let the client see to it
