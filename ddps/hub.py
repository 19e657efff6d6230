"""Refiners on disk and on the Hugging Face Hub: `config.json`, `model.safetensors` and a model card.

What is loaded may come from a stranger. So nothing is unpickled, no code of a repository runs, and the names and
shapes in the safetensors header are held against a model without memory before one weight is read.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from .atomic import atomic_write
from .card import model_card
from .config import DDPSConfig
from .errors import InputError, one_line
from .tensor_file import read_tensors, write_tensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
MAX_CONFIG_BYTES = 16 * 2**20

__all__ = ["embedded_names", "load_weights", "model_card", "push", "read_config", "save_weights"]

HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


def load_weights(
    source: str | Path,
    build_model: Callable[[DDPSConfig], nn.Module],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[DDPSConfig, dict[str, Tensor], Path]:
    """Loads a refiner's config and weights, strictly and without trust.

    Args:
        source: the name of embedded weights (`"universal"`), else an existing folder, else a Hub id `"org/name"`.
            A `Path` is always a folder.
        build_model: the network that a config describes. It is called under `torch.device("meta")`, to learn the
            names, shapes and dtypes that the file must have.
        revision: branch, tag or commit of the Hub repository.
        token: Hub token, `True` for the stored one, `False` for none.
        cache_dir: where Hub files are kept; None for the Hub's default.
        local_files_only: take Hub files from the cache and never touch the network.

    Returns:
        The config; the state dict in the model's own dtypes (weights stored as float16 come back as float32), in
        CPU memory of its own; the folder that holds the files.

    Raises:
        InputError: no such source; no or bad config; a file that is no safetensors; tensors that are missing,
            unexpected, of another shape or dtype, or not finite.
    """
    fetch = _locate(source, revision, token, cache_dir, local_files_only)
    config = read_config(fetch(CONFIG_FILE))
    expected = expected_tensors(build_model, config)
    path = fetch(WEIGHTS_FILE)
    return config, read_tensors(path, expected), path.parent


def read_config(path: Path) -> DDPSConfig:
    """Reads and checks a `config.json`.

    Raises:
        InputError: the file is missing, longer than `MAX_CONFIG_BYTES`, or no valid config.
    """
    if not path.is_file():
        raise InputError(str(path), "no such file", "a folder that ddps saved")
    with path.open("rb") as stream:
        data = stream.read(MAX_CONFIG_BYTES + 1)
    if len(data) > MAX_CONFIG_BYTES:
        raise InputError(f"{path} up to {MAX_CONFIG_BYTES} bytes", "a longer file", "a config.json that ddps wrote")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} as UTF-8 text", "other bytes", "downloading or saving the model again") from None
    return DDPSConfig.from_json(text)


def expected_tensors(build_model: Callable[[DDPSConfig], nn.Module], config: DDPSConfig) -> dict[str, Tensor]:
    """The state dict that a config asks for, as meta tensors: shapes and dtypes without memory.

    Raises:
        InputError: each value of the config is within its bounds, but no network can be built of them together.
    """
    try:
        with torch.device("meta"):
            return dict(build_model(config).state_dict())
    except InputError:
        raise
    except (ValueError, RuntimeError, ArithmeticError) as error:
        raise InputError("a config that makes a network", one_line(error), "correcting its network part") from error


def save_weights(
    directory: str | Path,
    config: DDPSConfig,
    state_dict: Mapping[str, Tensor],
    card: str | None = None,
    *,
    half: bool = False,
) -> Path:
    """Writes config, weights and model card to a folder, which is made if need be.

    All three are written under temporary names first and then renamed, so a run that is killed while it writes
    leaves what was there before.

    Args:
        directory: the folder.
        config: what goes to `config.json`.
        state_dict: name → tensor on any device.
        card: Markdown of the model card; None for `model_card(config)`.
        half: store floating tensors as float16, at half the size; they load as float32.

    Returns:
        The folder.

    Raises:
        InputError: the folder is a file, or a value is not finite (in float16, with `half`).
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise InputError("a folder to save into", f"the file {directory}", "another name")
    texts = {CARD_FILE: model_card(config) if card is None else card, CONFIG_FILE: config.to_json()}
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as renames:
        for name, text in texts.items():
            file = renames.enter_context(atomic_write(directory / name, overwrite=True))
            file.write(text.encode("utf-8", "replace"))
            file.flush()
        file = renames.enter_context(atomic_write(directory / WEIGHTS_FILE, overwrite=True))
        write_tensors(file, state_dict, half=half)
    return directory


def push(
    directory: str | Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a ddps refiner",
) -> str:
    """Uploads a saved refiner to the Hub in one commit; the repository is made if need be.

    Only the config, the weights and the card leave the folder, whatever else lies in it.

    Args:
        directory: a folder that `save_weights` wrote.
        repo_id: `"org/name"`.
        token: see `load_weights`.
        private: visibility of a repository that is made; None for the account's default.
        revision: branch to commit to; None for the main one.
        commit_message: the commit's message.

    Returns:
        The repository's address.

    Raises:
        InputError: a bad id, an incomplete folder, or what the Hub refused.
    """
    directory = Path(directory)
    if not HUB_ID.fullmatch(repo_id) or ".." in repo_id:
        raise InputError("a Hub id 'org/name'", repr(repo_id)[:120], "your user name, a slash and a name")
    _check_revision(revision)
    read_config(directory / CONFIG_FILE)
    for name in (WEIGHTS_FILE, CARD_FILE):
        if not (directory / name).is_file():
            raise InputError(str(directory / name), "no such file", "a folder that ddps saved")

    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="ddps")
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE],
            revision=revision,
            commit_message=commit_message,
        )
    except _hub_errors() as error:
        raise _explain(error, repo_id, revision) from error
    return str(url)


def embedded_names() -> tuple[str, ...]:
    """Names of the weights that come with the package."""
    return tuple(sorted(path.parent.name for path in _embedded_folder().glob(f"*/{CONFIG_FILE}")))


def _embedded_folder() -> Path:
    return Path(str(resources.files("ddps") / "weights"))


def _locate(
    source: str | Path,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> Callable[[str], Path]:
    """How to get a file of the source by its name."""
    _check_revision(revision)
    embedded = embedded_names()
    folder = _embedded_folder() / source if source in embedded else Path(source)
    if str(source) and os.path.isdir(folder):
        if revision is not None:
            raise InputError("a Hub id together with revision", repr(str(source))[:120], "leaving revision out")
        return lambda name: folder / name
    if isinstance(source, str) and HUB_ID.fullmatch(source) and ".." not in source:
        return _HubFiles(source, revision, token, cache_dir, local_files_only)
    names = ", ".join(map(repr, embedded)) or "none in this installation"
    raise InputError(
        f"embedded weights ({names}), an existing folder, or a Hub id 'org/name'",
        repr(str(source))[:120],
        "one of these three",
    )


def _check_revision(revision: str | None) -> None:
    # The Hub's cache keeps a revision as a path below refs/, which must not lead out of it.
    if revision is not None and (not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", revision, re.ASCII) or ".." in revision):
        raise InputError("a branch, tag or commit as revision", repr(revision)[:120], "a name such as 'main' or 'v1.0'")


@dataclass
class _HubFiles:
    """Files of one commit of a Hub repository."""

    repo_id: str
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool

    def __call__(self, name: str) -> Path:
        try:
            path = self.cached(name) if self.local_files_only else self.download(name)
        except _hub_errors() as error:
            raise _explain(error, f"{self.repo_id}/{name}", self.revision) from error
        # The cache keeps files under snapshots/COMMIT/: from the first file on, all come from that same commit.
        self.revision = path.parent.name
        return path

    def cached(self, name: str) -> Path:
        # hf_hub_download(local_files_only=True) still asks the Hub for a list of user agents in some versions.
        from huggingface_hub import errors, try_to_load_from_cache

        path = try_to_load_from_cache(self.repo_id, name, cache_dir=self.cache_dir, revision=self.revision)
        if not isinstance(path, str):
            raise errors.LocalEntryNotFoundError(name)
        return Path(path)

    def download(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(
                self.repo_id,
                name,
                revision=self.revision,
                token=self.token,
                cache_dir=self.cache_dir,
                library_name="ddps",
            )
        )


def _hub_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    return (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError)


def _explain(error: Exception, what: str, revision: str | None) -> InputError:
    from huggingface_hub import errors

    at = f"{what} at revision {revision}" if revision else what
    if isinstance(error, errors.GatedRepoError):
        return InputError(f"access to {what}", "a gated model", "accepting its terms on its page and passing token=")
    if isinstance(error, errors.RepositoryNotFoundError):
        return InputError(f"{what} on the Hub", "no such model, or a private one", "checking its name or token=")
    if isinstance(error, errors.RevisionNotFoundError):
        return InputError(f"{at} on the Hub", "no such revision", "a branch, tag or commit of that model")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return InputError(f"{at} in the cache", "no such file there", "with a connection and local_files_only=False")
    if isinstance(error, errors.EntryNotFoundError):
        return InputError(f"{at} on the Hub", "no such file", "a model that ddps saved")
    return InputError(f"an answer from the Hub for {at}", one_line(error), "again later, or a folder on disk")
