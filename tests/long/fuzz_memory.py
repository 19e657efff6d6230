"""How much memory a process takes at its highest, and how much reading images of every mode takes.

python tests/long/fuzz_memory.py

prints bytes per pixel of every mode as one JSON object. In a process of its own: memory that an earlier test has given
back, and the allocator has kept, would not be counted.
"""

import json
import sys
import tempfile
from pathlib import Path

SIDE = 3000
MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "LA", "rotated RGB")


class Peak:
    """Growth of the process's memory from here to its highest point; 0 where the system is not Linux."""

    def __init__(self) -> None:
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        self.before = self._read("VmRSS")

    def grown(self) -> int:
        return max(0, self._read("VmHWM") - self.before)

    @staticmethod
    def _read(name: str) -> int:
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))


def bytes_per_pixel(mode: str, folder: Path) -> float:
    from PIL import Image

    from ddps.inputs import load_image

    path = folder / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6 if mode.startswith("rotated") else 1
    mode = mode.split()[-1]
    with Image.new("I;16" if mode == "I;16" else "L", (SIDE, SIDE), 77) as flat:
        stored = flat if mode == "I;16" else flat.convert(mode)
        if mode == "CMYK":
            path = folder / "a.jpg"
        stored.save(path, exif=exif)
        del stored
    peak = Peak()
    assert load_image(path).shape == (3, SIDE, SIDE)
    return peak.grown() / SIDE**2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bytes_per_pixel("L", Path(folder))  # what is imported and allocated once
        json.dump({mode: round(bytes_per_pixel(mode, Path(folder)), 1) for mode in MODES}, sys.stdout)


if __name__ == "__main__":
    main()
