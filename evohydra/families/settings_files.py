"""What a model's directory holds beside its weights: configuration, tokenizer, processors."""

import hashlib
from pathlib import Path

SUFFIXES = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm"}
INDEX = ".index.json"  # says how weights are cut into files, which changes no number
# What training leaves behind, and what no model is loaded from.
LEFT_OUT = {"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json", "LICENSE.txt"}


def settings_digest(directory: Path) -> str:
    """A SHA-256 over the names and bytes of such files in `directory` and in the folders directly in it."""
    state = hashlib.sha256()
    found = {path.relative_to(directory).as_posix(): path for each in ("*", "*/*") for path in directory.glob(each)}
    for name, path in sorted(found.items()):
        known = path.suffix in SUFFIXES and not path.name.endswith(INDEX) and path.name not in LEFT_OUT
        if known and not any(part.startswith(".") for part in name.split("/")) and path.is_file():
            state.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return state.hexdigest()
