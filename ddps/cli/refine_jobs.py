"""The jobs of a folder, of which there may be millions: the names of their files, a few hundred bytes for each."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from .refine_item import Job


@dataclass(frozen=True)
class Folders:
    """Where the files of all jobs lie; None for what there is not."""

    images: Path
    predictions: Path | None
    masks: Path
    overlays: Path | None


class Jobs(Sequence[Job]):
    """Jobs that are made when they are asked for.

    Args:
        folders: of their files.
        stems: names of the jobs, in order.
        images, predictions: names of their files; no predictions where the folders have none.
        suffix: of the masks, ".png" or ".npz".
    """

    def __init__(
        self, folders: Folders, stems: Sequence[str], images: Sequence[str], predictions: Sequence[str], suffix: str
    ):
        self.folders, self.stems, self.suffix = folders, list(stems), suffix
        # Every `Path` interns its parts. Names that are interned already, once and for all, are found by it.
        self.images, self.predictions = list(map(sys.intern, images)), list(map(sys.intern, predictions))
        self.masks = [sys.intern(stem + suffix) for stem in stems]
        self.overlays = [] if folders.overlays is None else [sys.intern(f"{stem}.jpg") for stem in stems]

    def __len__(self) -> int:
        return len(self.stems)

    @overload
    def __getitem__(self, index: int) -> Job: ...

    @overload
    def __getitem__(self, index: slice) -> "Jobs": ...

    def __getitem__(self, index: int | slice) -> "Job | Jobs":
        if isinstance(index, slice):
            return self._of(range(len(self))[index])
        folders = self.folders
        return Job(
            folders.images / self.images[index],
            None if folders.predictions is None else folders.predictions / self.predictions[index],
            folders.masks / self.masks[index],
            None if folders.overlays is None else folders.overlays / self.overlays[index],
        )

    def __reduce__(self) -> tuple[type["Jobs"], tuple[object, ...]]:
        # What another process reads is interned there, too.
        return Jobs, (self.folders, self.stems, self.images, self.predictions, self.suffix)

    def without(self, done: Callable[[Job], bool]) -> "Jobs":
        """Those that are not done."""
        return self._of([index for index, job in enumerate(self) if not done(job)])

    def named(self, names: Iterable[str]) -> dict[str, Job]:
        """Name → job, of some of them."""
        wanted = set(names)
        return {stem: self[index] for index, stem in enumerate(self.stems) if stem in wanted}

    def _of(self, indices: Sequence[int]) -> "Jobs":
        stems, images = ([names[index] for index in indices] for names in (self.stems, self.images))
        predictions = [self.predictions[index] for index in indices] if self.predictions else []
        return Jobs(self.folders, stems, images, predictions, self.suffix)
