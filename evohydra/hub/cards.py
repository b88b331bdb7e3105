"""The cards of models, beside their weights or on the hub: README.md, which names licences and languages."""

from pathlib import Path


def card_beside(place: Path) -> str | None:
    """The README.md in a directory, or beside a file; None where there is none."""
    card = (place if place.is_dir() else place.parent) / "README.md"
    try:
        return card.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def card_of(path: str, revision: str | None) -> str | None:
    """The card of OWNER/NAME, or of a file there; None of other places, and where the hub does not give it."""
    import huggingface_hub

    from evohydra.hub.messages import hub_errors

    if path.startswith((".", "~", "/")) or "://" in path or path.count("/") < 1 or Path(path).expanduser().exists():
        return None
    repository = "/".join(path.split("/")[:2])
    try:
        file = huggingface_hub.hf_hub_download(repository, "README.md", revision=revision)
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except hub_errors():
        return None
