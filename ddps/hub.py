"""Refiners on disk and on the Hugging Face Hub: `config.json`, `model.safetensors` and a model card.

What is loaded may come from a stranger. So nothing is unpickled, no code of a repository runs, and the names and
shapes in the safetensors header are held against a model without memory before one weight is read.

Names that could lead elsewhere are refused: Hub ids and revisions with `..`, and the names of files are ours, never a
repository's. Links are followed when a folder is read, since the Hub's own cache and many disks are made of them:
they end in a plain file, which must be a config or safetensors, and nothing of it leaves the process. So they are not
followed when a folder is sent to the Hub, and a save takes their place instead of writing where they lead.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .atomic import atomic_write, leftovers, remove_leftovers
from .card import CardLike, model_card
from .config import DDPSConfig
from .errors import InputError, one_line
from .hub_client import HubFiles, upload
from .tensor_file import read_notes, read_tensors, write_tensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
MAX_CONFIG_BYTES = 2**20
CONFIG_NOTE = "config_sha256"
"""Note in the weights file: the SHA-256 of the config.json that was saved with it."""

__all__ = ["CardLike", "embedded_names", "load_weights", "model_card", "push", "read_config", "save_weights"]

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
            unexpected, of another shape or dtype, or not finite; weights and a config of two saves, of which a kill
            stopped one between its files.
    """
    fetch = _locate(source, revision, token, cache_dir, local_files_only)
    config = read_config(fetch(CONFIG_FILE))
    expected = expected_tensors(build_model, config)
    path = fetch(WEIGHTS_FILE)
    tensors = read_tensors(path, expected)
    _refuse_half_a_save(path.parent)
    return config, tensors, path.parent


def _refuse_half_a_save(folder: Path) -> None:
    """Three files cannot get their names at once. Where a save was killed in between, the weights are of another config
    and a temporary file is left; without one, somebody has edited the config, as everybody may.
    """
    if leftovers(folder, of=CONFIG_FILE):
        noted = read_notes(folder / WEIGHTS_FILE).get(CONFIG_NOTE)
        if noted not in (None, _digest((folder / CONFIG_FILE).read_bytes())):
            got = f"weights of another {CONFIG_FILE}, since a save was stopped halfway"
            raise InputError(f"{folder} as it was saved", got, "saving it again, or resuming the training")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
        with torch.device("meta"), _NoValues():
            return dict(build_model(config).state_dict())
    except InputError:
        raise
    except (ValueError, RuntimeError, ArithmeticError) as error:
        raise InputError("a config that makes a network", one_line(error), "correcting its network part") from error


class _NoValues(TorchFunctionMode):
    """Leaves out what gives a new layer its values: meta tensors have none, and for them torch would import its
    compiler, 70 MB and seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" and "tensor" in (kwargs or {}):
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def save_weights(
    directory: str | Path,
    config: DDPSConfig,
    state_dict: Mapping[str, Tensor],
    card: CardLike = None,
    *,
    half: bool = False,
    source: str = "path/or/org/name",
) -> Path:
    """Writes config, weights and model card to a folder, which is made if need be.

    All three are written under temporary names first and then renamed: a process that is killed while it writes leaves
    what was there before. One that is killed between the renames leaves weights that `load_weights` refuses, until
    they are saved again.

    Args:
        directory: the folder.
        config: what goes to `config.json`.
        state_dict: name → tensor on any device.
        card: Markdown of the model card, or what `model_card` is to say in it beyond what the config does.
        half: store floating tensors as float16, at half the size; they load as float32.
        source: what the card tells a user to load.

    Returns:
        The folder.

    Raises:
        InputError: the folder is a file, a value is not finite (in float16, with `half`), or the config is longer than
            `read_config` takes.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise InputError("a folder to save into", f"the file {directory}", "another name")
    card = card if isinstance(card, str) else model_card(config, card, source=source)
    texts = {
        name: text.encode("utf-8", "replace") for name, text in ((CARD_FILE, card), (CONFIG_FILE, config.to_json()))
    }
    if len(texts[CONFIG_FILE]) > MAX_CONFIG_BYTES:
        raise InputError(f"a config of up to {MAX_CONFIG_BYTES} bytes", "a longer one", "leaving labels.palette out")
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as renames:
        for name, text in texts.items():
            file = renames.enter_context(atomic_write(directory / name, overwrite=True))
            file.write(text)
            file.flush()
            # Now, so that there is next to nothing left to do between the three renames.
            os.fsync(file.fileno())
        file = renames.enter_context(atomic_write(directory / WEIGHTS_FILE, overwrite=True))
        write_tensors(file, state_dict, half=half, notes={CONFIG_NOTE: _digest(texts[CONFIG_FILE])})
    # Not before: they are what tells a save that was killed halfway, which this one may have followed.
    remove_leftovers(directory)
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
    """Uploads a saved refiner to the Hub in one commit; repository and branch are made if need be.

    Only the config, the weights and the card leave the folder, whatever else lies in it.

    Args:
        directory: a folder that `save_weights` wrote.
        repo_id: `"org/name"`.
        token: see `load_weights`; it must have the right to write.
        private: visibility of a repository that is made; None for the account's default.
        revision: branch to commit to; None for the main one.
        commit_message: the commit's message.

    Returns:
        The repository's address.

    Raises:
        InputError: a bad id, an incomplete folder, a link in it, or what the Hub refused.
    """
    directory = Path(directory)
    if not HUB_ID.fullmatch(repo_id) or ".." in repo_id:
        raise InputError("a Hub id 'org/name'", repr(repo_id)[:120], "your user name, a slash and a name")
    _check_revision(revision)
    read_config(directory / CONFIG_FILE)
    names = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)
    for name in names:
        if not (directory / name).is_file():
            raise InputError(str(directory / name), "no such file", "a folder that ddps saved")
        if (directory / name).is_symlink():
            raise InputError(f"{directory / name} itself", "a link to another file", "a copy of the folder")
    _refuse_half_a_save(directory)
    return upload(
        directory,
        names,
        repo_id,
        token=token,
        private=private,
        revision=revision,
        commit_message=commit_message,
    )


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
        return HubFiles(source, (CONFIG_FILE, WEIGHTS_FILE), revision, token, cache_dir, local_files_only)
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
