"""Adapters on the Hugging Face hub: fetched by name, pinned by revision, never as a pickle; and pushed with their card."""

import logging
import re
from pathlib import Path
from typing import NamedTuple

from anomalib_dpclip.files.downloads import require_hub

logger = logging.getLogger(__name__)

DEFAULT_NAME = "adapters.safetensors"
"""File of a repository that is taken where none is named, and that `push` writes."""

CARD_NAME = "README.md"

# A path made of such a name has one slash at its beginning.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<name>.+))?")

# How `torch.save` begins its files, and pickle its own.
_PICKLES = (b"PK\x03\x04", b"\x80")


class HubFile(NamedTuple):
    """A file of a repository ``owner/name``, of a commit, branch or tag, or of the newest revision."""

    repository: str
    revision: str | None
    name: str

    def __str__(self) -> str:
        """Its address."""
        return f"hf://{self.repository}{f'@{self.revision}' if self.revision else ''}/{self.name}"


def hub_file(path: str | Path) -> HubFile | None:
    """What ``hf://owner/name[@revision][/file.safetensors]`` names; ``None`` for a path of this machine.

    Example:
        >>> hub_file("hf://someone/adapters@v1")
        HubFile(repository='someone/adapters', revision='v1', name='adapters.safetensors')
    """
    text = str(path)
    if not text.startswith("hf:/"):
        return None
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text} names nothing on the Hugging Face hub: write hf://owner/name[@revision][/file.safetensors]")
    wanted = HubFile(found["repository"], found["revision"], found["name"] or DEFAULT_NAME)
    if Path(wanted.name).suffix != ".safetensors":
        raise ValueError(
            f"{wanted}: only .safetensors files are taken from the hub, others are pickles, which may hold code. If you trust "
            f"it, fetch it and convert it with `dpclip adapters FILE --to {DEFAULT_NAME}`"
        )
    return wanted


def local_file(path: str | Path) -> Path:
    """A file of this machine; one on the hub in the hub's cache, fetched if it is not there.

    One that is not to be had is a FileNotFoundError, a name of the hub that is none, or a pickle's, a ValueError.
    """
    wanted = hub_file(path)
    if wanted is None:
        file = Path(path)
        if file.is_dir():
            raise FileNotFoundError(f"{file} is a folder: give the adapter file in it, .safetensors, .ckpt or .pth")
        if not file.is_file():
            raise FileNotFoundError(f"there is no adapter file {file}")
        return file
    file = _fetched(wanted)
    with file.open("rb") as stream:
        if stream.read(4).startswith(_PICKLES):
            raise ValueError(f"{wanted} is a pickle, whatever it is called: it may hold code and is not read")
    commit = file.parts[file.parts.index("snapshots") + 1]
    if wanted.revision != commit:
        logger.info("%s is that of today, name it hf://%s@%s to get the same again", wanted, wanted.repository, commit)
    return file


def _fetched(wanted: HubFile) -> Path:
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    try:
        if not isinstance(try_to_load_from_cache(wanted.repository, wanted.name, revision=wanted.revision), str):
            require_hub(wanted.repository)
        return Path(hf_hub_download(wanted.repository, wanted.name, revision=wanted.revision))
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, OSError) as error:
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        absent = f"it is not on this machine and cannot be fetched ({cause}). Fetch it elsewhere, and give the file"
        private = f"there is no model {wanted.repository} on the Hugging Face hub, or it is private: `hf auth login`"
        reasons = {  # the first that fits: some are kinds of others
            errors.GatedRepoError: "its owner gives access on request: ask on its page, then `hf auth login`",
            errors.RepositoryNotFoundError: private,
            errors.RevisionNotFoundError: f"{wanted.repository} has no revision {wanted.revision}",
            errors.LocalEntryNotFoundError: absent,
            errors.EntryNotFoundError: f"{wanted.repository} has no file {wanted.name}",
        }
        reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), absent)
        raise FileNotFoundError(f"{wanted}: {reason}") from error


def push(file: Path, card: str, repository: str) -> str:
    """Put a ``.safetensors`` file and its card in Markdown on the hub, in one commit; gives its address from now on.

    A repository ``owner/name`` that is not there yet is made, a private one: publishing it is up to its owner. An OSError says
    what to do where the hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is no repository of the Hugging Face hub: write owner/name")
    hub = HfApi()
    try:
        require_hub(repository)
        hub.create_repo(repository, private=True, exist_ok=True)
        operations = [CommitOperationAdd(DEFAULT_NAME, file), CommitOperationAdd(CARD_NAME, card.encode())]
        commit = hub.create_commit(repository, operations, commit_message="Adapters and their card")
    except LocalTokenNotFoundError as error:
        raise OSError(f"the Hugging Face hub asks who you are: `hf auth login` first ({error})") from error
    except HfHubHTTPError as error:
        known = {401: "`hf auth login` first", 403: f"your token may not write to {repository}"}
        status = error.response.status_code if error.response is not None else None
        raise OSError(f"the Hugging Face hub does not take {repository}: {known.get(status, error)}") from error
    return f"hf://{repository}@{commit.oid}"
