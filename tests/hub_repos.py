"""What the Hub on loopback keeps: files, and the commits, branches and tags of a repository."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Blob:
    """A file's content; large ones (`lfs`) are kept and named by their SHA-256, others as git does."""

    data: bytes
    lfs: bool

    @property
    def git_oid(self) -> str:
        data = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n".encode()
            if self.lfs
            else self.data
        )
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


@dataclass
class Repo:
    """A model repository: its commits, and the branches and tags that name some of them."""

    owner: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, Blob], message: str, branch: str = "main") -> str:
        parent = self.refs.get(branch, "")
        tree = {**self.commits.get(parent, {}), **files}
        names = "".join(f"{name}{blob.etag}" for name, blob in sorted(tree.items()))
        oid = hashlib.sha1(f"{parent}{message}{names}{len(self.commits)}".encode()).hexdigest()
        self.commits[oid], self.messages[oid], self.refs[branch] = tree, message, oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


def is_large(name: str, size: int) -> bool:
    return name.endswith(".safetensors") or size > 10 * 2**20
