"""Every file that the package writes goes through `atomic_write`: held against the source."""

import ast
from pathlib import Path

import ddps

PACKAGE = Path(ddps.__file__).parent
# file → what is written there in another way, and why that is sound
OTHERS = {
    "atomic.py": {"open(temporary, 'xb')"},
    "review_rows.py": {"os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, 'O_BINARY', 0), 438)"},
    "training/journal.py": {  # rows: a line at a time, and what was cut of the last one is taken away
        "(self.folder / LOG_FILE).open('ab')",
        "path.open('r+b')",
    },
    # a folder that is made for this process
    "app/examples.py": {"Image.fromarray(example.labels).save(mask)", "copyfile(example.photo, photo)"},
    "cli/main.py": {"os.open(os.devnull, os.O_WRONLY)"},
    "cli/refine_stack.py": {"stack.save(target, args.overwrite)"},  # StackRefinement.save, which is atomic
    "export.py": {"torch.export.save(program, buffer, extra_files={METADATA_KEY: facts})"},  # into memory
}
METHODS = ("write_text", "write_bytes", "savefig", "tofile", "touch")
FUNCTIONS = ("imwrite", "save_file", "copyfile", "copy2", "copytree", "move", "memmap", "open_memmap")
SAVERS = ("save", "savez", "savez_compressed")
OPEN_FILES = ("file",)


def writes(call: ast.Call) -> bool:
    """Whether a call writes to a path; a `save` to an open file does not."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [ast.unparse(argument) for argument in call.args]
    if ast.unparse(call.func) == "os.open":
        return any(flag in given[1] for flag in ("O_WRONLY", "O_RDWR"))
    if name == "open":
        modes = [word.strip("'") for word in given] + [ast.unparse(k.value).strip("'") for k in call.keywords]
        return any(mode.strip("rbt+wax") == "" and set(mode) & set("wax+") for mode in modes)
    if name in SAVERS:
        of_a_path = isinstance(call.func, ast.Attribute) and bool(given) and given[0] not in OPEN_FILES
        return of_a_path and "refined" not in ast.unparse(call.func) and "self" not in ast.unparse(call.func)
    return name in FUNCTIONS or (name in METHODS and isinstance(call.func, ast.Attribute))


def test_no_file_is_written_in_place():
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and writes(node):
                found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(ast.unparse(node))
    assert found == OTHERS
