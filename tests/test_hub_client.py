"""What the Hub on loopback of test_hub_server.py cannot bring about."""

import errno
import hashlib
import os

import pytest
from huggingface_hub import errors

from ddps.hub_client import explain, is_damaged, transport_error


def link_to_blob(folder, name, data):
    """A file as the Hub's cache keeps it: a link to a blob that its hash names."""
    for part in ("blobs", "snapshots"):
        (folder / part).mkdir(exist_ok=True)
    (folder / "blobs" / name).write_bytes(data)
    (folder / "snapshots" / name).symlink_to(os.path.join("..", "blobs", name))
    return folder / "snapshots" / name


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_blob_is_what_its_name_says(tmp_path):
    data = b"of a config"
    git, large = hashlib.sha1(b"blob 11\0" + data).hexdigest(), hashlib.sha256(data).hexdigest()
    for name in (git, large):
        path = link_to_blob(tmp_path, name, data)
        assert not is_damaged(path)
        path.resolve().write_bytes(data[:-1])
        assert is_damaged(path)


def test_a_file_without_such_a_name_is_taken_as_it_is(tmp_path):
    (tmp_path / "config.json").write_bytes(b"any")
    assert not is_damaged(tmp_path / "config.json")
    if os.name == "posix":
        assert not is_damaged(link_to_blob(tmp_path, "an-etag-of-a-mirror", b"any"))


def test_errors_of_the_http_library_are_known():
    kind = transport_error()
    assert issubclass(errors.HfHubHTTPError, kind) and kind.__module__.split(".")[0] in ("requests", "httpx", "httpx2")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/cache"),
            "that can be written to; got [Errno 13]",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "a cache that can be written to; got [Errno 28] No space"),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            "Connection refused; try again",
        ),
        (RuntimeError("404 at /api/models/org/m/xet-write-token/main"), "try with HF_HUB_DISABLE_XET=1"),
        (KeyError("commitOid"), "got what its client cannot read, KeyError: 'commitOid'"),
        (AssertionError(), "got what its client cannot read, AssertionError: AssertionError"),
    ],
)
def test_other_failures_are_said_in_one_line(error, said):
    message = str(explain(error, "org/m", None))
    assert said in message and "\n" not in message


def test_the_cause_is_what_counts():
    try:
        try:
            raise errors.OfflineModeIsEnabled("offline")
        except OSError as cause:
            raise RuntimeError("while uploading") from cause
    except RuntimeError as error:
        assert "HF_HUB_OFFLINE in the environment" in str(explain(error, "org/m", None))
