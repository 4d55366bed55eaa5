"""Downloads of other libraries that cannot succeed end within seconds, not never or after a minute of retries."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

DOWNLOAD_TIMEOUT = 30
"""Seconds without a byte after which a download gives up; open_clip's and anomalib's own would wait for ever."""


@contextmanager
def network_timeout(seconds: float = DOWNLOAD_TIMEOUT) -> Iterator[None]:
    """Let network reads inside the block fail after so many seconds of silence."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def require_hub(repository: str, seconds: float = 10) -> None:
    """Ask whether the Hugging Face hub answers at all, before its client tries for a minute; not for what is in its cache.

    Args:
        repository: Of the file that is wanted.
        seconds: To wait for an answer.

    Raises:
        OSError: If there is no answer.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if constants.HF_HUB_OFFLINE:  # then the client does not try
        return
    try:
        snapshot_download(repository, local_files_only=True)
    except LocalEntryNotFoundError:
        try:
            urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=seconds).close()  # noqa: S310  (the hub's https)
        except HTTPError:
            return  # an answer, if not a friendly one: let the client see to it
