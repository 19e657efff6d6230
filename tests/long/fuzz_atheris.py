"""Coverage-guided fuzzing of every reader with atheris (libFuzzer): it keeps what reaches new code, and changes that.

pip install atheris
python tests/long/fuzz_atheris.py image -max_total_time=60

The first argument is one of the readers in `fuzz_readers.py`, or "all" for one after another; the others are
libFuzzer's. The corpus is made anew in a temporary folder from the readers' few seeds; bytes that break a promise are
written to the current folder as crash-*.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ddps", "PIL", "zipfile", "json", "numpy.lib"]):
    from fuzz_readers import READERS, accepts


def main() -> None:
    name, *options = sys.argv[1:] or ["all"]
    if name == "all":
        for one in READERS:
            subprocess.run([sys.executable, __file__, one, *options], check=True)
        return
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        corpus, place = Path(folder, "corpus"), Path(folder, "place")
        corpus.mkdir()
        place.mkdir()
        for index, seed in enumerate(reader.seeds()):
            (corpus / str(index)).write_bytes(seed)

        def one_input(data: bytes) -> None:
            accepts(reader, data, place)

        limits = ["-timeout=60", "-rss_limit_mb=3072", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"]
        atheris.Setup([name, *limits, *options, str(corpus)], one_input)
        atheris.Fuzz()  # ends the process itself


if __name__ == "__main__":
    main()
