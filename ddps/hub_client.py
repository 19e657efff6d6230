"""What goes to the Hugging Face Hub and comes from it, by its own client; every failure is said in one line.

Where the client itself leaves off: files come from one commit, what lies in the cache is held against the hash that it
is named by, and a client that is handed nonsense by a server raises much more than its own errors.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import responses
from pathlib import Path

from .errors import InputError, one_line

TOKEN_HINT = "a token of huggingface.co/settings/tokens as token=, in HF_TOKEN, or by `hf auth login`"


@dataclass
class HubFiles:
    """Files of one commit of a Hub repository; calling it with a file's name gives its path in the cache.

    Attributes:
        repo_id: `"org/name"`.
        names: the files that make it complete, for a hint to what the cache does hold.
        revision: branch, tag or commit; None for the main branch. The first file fixes it to a commit.
        token, cache_dir: see `hub.load_weights`.
        local_files_only: never touch the network; HF_HUB_OFFLINE=1 in the environment means the same.
    """

    repo_id: str
    names: Sequence[str]
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool

    def __call__(self, name: str) -> Path:
        """The path of a file, downloaded if need be.

        Raises:
            InputError: it cannot be had, or holds other content than the Hub announced.
        """
        path = self._get(name)
        damaged = is_damaged(path)
        if damaged and not self._offline():
            path = self._get(name, again=True)
            damaged = is_damaged(path)
        if damaged:
            raise InputError(f"{path} as the Hub has it", "other content", "deleting it, and loading with a connection")
        # The cache keeps files under snapshots/COMMIT/: from the first file on, all come from that same commit.
        self.revision = path.parent.name
        return path

    def _offline(self) -> bool:
        from huggingface_hub import constants

        return self.local_files_only or constants.HF_HUB_OFFLINE

    def _get(self, name: str, again: bool = False) -> Path:
        try:
            return self._cached(name) if self._offline() else self._download(name, again)
        except Exception as error:
            raise explain(error, f"{self.repo_id}/{name}", self.revision, self._complete_commits()) from error

    def _cached(self, name: str) -> Path:
        # hf_hub_download(local_files_only=True) still asks the Hub for a list of user agents in some versions.
        from huggingface_hub import errors, try_to_load_from_cache

        path = try_to_load_from_cache(self.repo_id, name, cache_dir=self.cache_dir, revision=self.revision)
        if not isinstance(path, str):
            raise errors.LocalEntryNotFoundError(name)
        return Path(path)

    def _download(self, name: str, again: bool) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(
                self.repo_id,
                name,
                revision=self.revision,
                token=self.token,
                cache_dir=self.cache_dir,
                force_download=again,
                library_name="ddps",
            )
        )

    def _complete_commits(self) -> list[str]:
        """Commits of which the cache holds all files, the latest first."""
        from huggingface_hub import constants

        cache = Path(self.cache_dir or constants.HF_HUB_CACHE).expanduser()
        commits = cache / f"models--{self.repo_id.replace('/', '--')}" / "snapshots"
        complete = [path for path in commits.glob("*") if all((path / name).is_file() for name in self.names)]
        return [path.name for path in sorted(complete, key=lambda path: path.stat().st_mtime, reverse=True)]


def is_damaged(path: Path) -> bool:
    """Whether a cached file holds something else than the hash says which its blob in the cache is named by.

    Files that the Hub keeps as large ones are named by their SHA-256, others by git's SHA-1. Where the cache has no
    links, as on some Windows machines, there is no such name, and the answer is no.
    """
    if not path.is_symlink():
        return False
    blob = Path(os.readlink(path))
    if blob.parent.name != "blobs" or len(blob.name) not in (40, 64):
        return False
    digest = hashlib.sha256() if len(blob.name) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest() != blob.name


def upload(
    directory: Path,
    names: Sequence[str],
    repo_id: str,
    *,
    token: str | bool | None,
    private: bool | None,
    revision: str | None,
    commit_message: str,
) -> str:
    """Uploads files of a folder in one commit; repository and branch are made if need be.

    Args:
        directory: the folder.
        names: the files.
        repo_id, token, private, revision, commit_message: see `hub.push`.

    Returns:
        The repository's address.

    Raises:
        InputError: what the Hub refused.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="ddps")
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and revision != "main" and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            allow_patterns=list(names),
            revision=revision,
            commit_message=commit_message,
        )
    except Exception as error:
        raise explain(error, repo_id, revision) from error
    return str(url)


def explain(error: Exception, what: str, revision: str | None, cached: Sequence[str] = ()) -> InputError:
    """One line about what the Hub's client raised.

    Args:
        error: it.
        what: the repository, or a file in it.
        revision: that was asked for.
        cached: commits that could be loaded instead, without the Hub.
    """
    from huggingface_hub import constants, errors

    chain = list(_chain(error))

    def has(*kinds: type[Exception]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    at = f"{what} at revision {revision}" if revision else what
    instead = f", or revision={cached[0]!r}, which is in the cache" if cached else ""
    if has(errors.GatedRepoError):
        return InputError(f"access to {what}", "a gated model", f"accepting its terms on its page, and {TOKEN_HINT}")
    if has(errors.RepositoryNotFoundError):
        return InputError(
            f"{what} on the Hub", "no such model, or a private one", f"checking its name, or {TOKEN_HINT}"
        )
    if has(errors.RevisionNotFoundError):
        return InputError(f"{at} on the Hub", "no such revision", "a branch, tag or commit of that model")
    if has(errors.HFValidationError):
        return InputError("a Hub id 'org/name'", one_line(error), "another name")
    if has(errors.OfflineModeIsEnabled):
        return InputError(f"a connection for {what}", "HF_HUB_OFFLINE in the environment", "without it")
    hub = f"an answer from {constants.ENDPOINT} for {at}"
    if has(errors.FileMetadataError):
        return InputError(hub, "one that is not a Hub's", f"checking HF_ENDPOINT and proxies{instead}")
    if has(errors.EntryNotFoundError) and not has(errors.LocalEntryNotFoundError):
        return InputError(f"{at} on the Hub", "no such file", "a model that ddps saved")
    for link in chain:
        status = getattr(getattr(link, "response", None), "status_code", None)
        if isinstance(status, int) and status >= 400:
            said = " ".join(str(getattr(link, "server_message", None) or "").split())[:200]
            got = f"{status} {responses.get(status, '')}" + (f" ({said})" if said else "")
            if status in (401, 403):
                return InputError(f"a token with the right to {what}", got, TOKEN_HINT)
            return InputError(hub, got, f"again later, or a folder on disk{instead}")
    deepest = chain[-1]
    if isinstance(deepest, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "local_files_only is set"
        return InputError(f"{at} in the cache", f"no such file there, and {why}", f"once with a connection{instead}")
    if isinstance(deepest, OSError) and (deepest.filename is not None or deepest.errno == errno.ENOSPC):
        return InputError("a cache that can be written to", one_line(deepest), "another cache_dir=, or HF_HOME")
    if "xet-write-token" in str(deepest):
        return InputError(hub, one_line(deepest), "with HF_HUB_DISABLE_XET=1, for a Hub without xet storage")
    broken = isinstance(deepest, OSError | transport_error())
    got = one_line(deepest) if broken else f"what its client cannot read, {type(deepest).__name__}: {one_line(deepest)}"
    return InputError(hub, got, f"again; a part is never taken for the whole{instead}")


def transport_error() -> type[Exception]:
    """What all errors of the HTTP library derive from that huggingface_hub was built on: requests, httpx or httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """The error and what caused it, as far as the client says so."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__
