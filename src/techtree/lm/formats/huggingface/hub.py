"""Downloading a model from the Hugging Face hub.

The library `huggingface_hub` speaks to the hub: names, access, retries, progress. Since its version 2 it
starts a file anew after an interruption, and weights are large; so the file that grows is ours, and stays
until it is whole.

Only the files that a model needs are asked for, by names that are known beforehand: nothing that could be
executed, and nothing outside of the folder, whatever the hub lists. Each is compared with the hub's checksum.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from techtree.atomic import write_text
from techtree.errors import InputError
from techtree.lm.formats.huggingface.folder import (
    CONFIG,
    INDEX,
    OF_A_SPLIT,
    OTHER_FILES,
    TOKENIZER,
    WEIGHTS,
    read_folder_config,
    read_object,
)
from techtree.lm.formats.huggingface.loading import load_model, load_tokenizer
from techtree.lm.model.language_model import LanguageModel

ORIGIN = "pulled.json"
"""Where the folder came from, so that the same command goes on, and another one does not overwrite it."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Repository:
    """A model on the hub, at one commit."""

    name: str
    commit: str
    sizes: dict[str, int]
    """The files that a model needs, and how many bytes they have."""
    endpoint: str | None

    @property
    def weights(self) -> list[str]:
        """The weight files; an index comes last, so that the folder counts as a model when all is there."""
        if WEIGHTS in self.sizes:
            return [WEIGHTS]
        shards = sorted(name for name in self.sizes if OF_A_SPLIT.fullmatch(name))
        return [*shards, INDEX] if shards and INDEX in self.sizes else []


def pull(
    name: str,
    folder: Path,
    revision: str | None = None,
    endpoint: str | None = None,
    say: Callable[[str], None] = print,
) -> LanguageModel:
    """Download a model, or what is missing of it, and check it.

    Configuration and tokenizer come first: a model that this program cannot read is refused before its
    weights are on the way.

    Parameters
    ----------
    name
        Of the repository, such as "Qwen/Qwen2.5-Coder-0.5B".
    folder
        Where to; made where it is missing.
    revision
        A branch, a tag or a commit; the main branch when left out.
    endpoint
        Of another hub.
    say
        Told of every file.

    Returns
    -------
    LanguageModel
        The model, whose weights are still in the files.

    Raises
    ------
    InputError
        When there is no such model, no access, no connection, no room, or no way to read it. What was
        downloaded is kept, and the next call goes on from there.
    """
    with _explained(name, revision, folder):
        repository = find(name, revision, endpoint)
        _claim(folder, repository)
        _check_room(folder, repository)
        weights = repository.weights
        for file in [file for file in (CONFIG, *TOKENIZER, *OTHER_FILES) if file in repository.sizes]:
            _fetch(repository, file, folder, say)
        _, config = read_folder_config(folder)
        load_tokenizer(folder, config)
        for file in weights:
            _fetch(repository, file, folder, say)
    return load_model(folder, dtype=None)


def find(name: str, revision: str | None = None, endpoint: str | None = None) -> Repository:
    """Ask the hub for a model.

    Raises
    ------
    InputError
        When it has no weights that may be opened, or the revision is no text.
    """
    if revision is not None:
        try:
            revision.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"a revision must be a branch, a tag or a commit; got {revision!r}: leave it out, or use main"
            ) from None
    api = HfApi(endpoint=endpoint, library_name="techtree")
    info = api.model_info(name, revision=revision, files_metadata=True)
    listed = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = {CONFIG, WEIGHTS, INDEX, *TOKENIZER, *OTHER_FILES}
    sizes = {file: size for file, size in listed.items() if file in wanted or OF_A_SPLIT.fullmatch(file)}
    repository = Repository(name, info.sha or revision or "main", sizes, endpoint)
    for file in (CONFIG, TOKENIZER[0]):
        if file not in sizes:
            raise InputError(f"{name} must hold a {file}, which is missing: choose another model")
    if not repository.weights:
        others = sorted(file for file in listed if file.endswith((".bin", ".pt", ".pth", ".gguf")))
        found = f"it has {', '.join(others[:3])}, which are not opened here" if others else "it has none"
        raise InputError(f"{name} must hold its weights as {WEIGHTS}; {found}: choose another model")
    return repository


def _claim(folder: Path, repository: Repository) -> None:
    """Note whose folder it is, unless it is somebody else's."""
    origin = folder / ORIGIN
    if folder.exists() and any(folder.iterdir()):
        owner = read_object(origin).get("repository") if origin.exists() else None
        if owner != repository.name:
            raise InputError(f"{folder} holds something else: choose another --out, or move it away")
    values = {"repository": repository.name, "commit": repository.commit}
    write_text(origin, json.dumps(values, indent=2) + "\n")


def _check_room(folder: Path, repository: Repository) -> None:
    have = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    needed, free = sum(repository.sizes.values()) - have, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{repository.name} needs {needed / 1e9:.2f} GB more in {folder}, where {free / 1e9:.2f} GB are "
            "free: make room or choose another --out"
        )


def _fetch(repository: Repository, name: str, folder: Path, say: Callable[[str], None]) -> None:
    """Bring one file, from where an earlier call stopped."""
    headers = build_hf_headers(library_name="techtree")
    url = hf_hub_url(repository.name, name, revision=repository.commit, endpoint=repository.endpoint)
    remote = get_hf_file_metadata(url, endpoint=repository.endpoint)
    if (folder / name).exists() and _is_whole(folder / name, remote.size, remote.etag):
        return
    if urlsplit(remote.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # which is for the hub, not for those who store its files
    part = folder / f".{name}.{(remote.etag or repository.commit)[:16]}.part"
    for other in folder.glob(f".{name}.*.part"):
        if other != part:  # of a file that the hub no longer has
            other.unlink()
    have = part.stat().st_size if part.exists() else 0
    if remote.size is not None and have > remote.size:
        part.unlink()
        have = 0
    say(f"{name}  {_shown(remote.size or 0)}" + (f", {_shown(have)} of it here" if have else ""))
    with part.open("ab") as file:
        http_get(
            remote.location,
            file,
            resume_size=have,
            headers=headers,
            expected_size=remote.size,
            displayed_filename=name,
        )
    if not _is_whole(part, remote.size, remote.etag):
        part.unlink()
        raise InputError(f"{name} was damaged on its way: start the same command again")
    os.replace(part, folder / name)


def _shown(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 100_000 else f"{n_bytes / 1e3:.1f} kB"


def _is_whole(path: Path, size: int | None, etag: str | None) -> bool:
    """Compare a file with the hub's checksum: SHA-256 for large files, else Git's own."""
    if size is not None and path.stat().st_size != size:
        return False
    if etag is None:
        return size is not None
    is_large = etag is not None and _SHA256.fullmatch(etag) is not None
    checksum = hashlib.sha256() if is_large else hashlib.sha1(usedforsecurity=False)
    if not is_large:
        checksum.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            checksum.update(piece)
    return checksum.hexdigest() == etag


@contextlib.contextmanager
def _explained(name: str, revision: str | None, folder: Path) -> Iterator[None]:
    """Turn what may go wrong on the way into one sentence."""
    try:
        yield
    except InputError:
        raise
    except HFValidationError as error:
        raise InputError(f"a model's name must be OWNER/NAME, as on the hub; got {name!r}") from error
    except GatedRepoError as error:
        raise InputError(
            f"{name} is for those who accepted its terms: do so at https://huggingface.co/{name}, then sign "
            "in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the hub has no model {name!r}, or keeps it private: check the name, or sign in with "
            "`hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{name} has no revision {revision!r}: use a branch, a tag or a commit of it"
        ) from error
    except OfflineModeIsEnabled as error:
        raise InputError("HF_HUB_OFFLINE forbids every connection: unset it to pull a model") from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise InputError(
                f"{folder} cannot be written ({error.strerror}): make room or choose another --out; what was "
                "downloaded is kept"
            ) from error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"the hub cannot be reached, or the connection broke ({reason}): check it and start the same "
            "command again; it goes on where it stopped"
        ) from error
