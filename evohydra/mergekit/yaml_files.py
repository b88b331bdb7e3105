"""YAML from files of others: aliases may repeat a part, but not without bounds."""

import yaml

MOST_VALUES = 100_000  # in all, each as often as aliases repeat it


def load_documents(text: str) -> list[object]:
    """The documents of a YAML text; ValueError for what is none, is nested too deep, or grows beyond all bounds."""
    try:
        documents: list[object] = list(yaml.safe_load_all(text))
        size = _size(documents, {}, set())
    except RecursionError as error:
        raise ValueError("not a mergekit configuration: it is nested too deep") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"not a mergekit configuration: {error}") from error
    if size > MOST_VALUES:
        raise ValueError(f"not a mergekit configuration: expected at most {MOST_VALUES} values, got {size:.3g}")
    return documents


def _size(value: object, known: dict[int, int], open_: set[int]) -> int:
    """The number of values in `value`; what aliases repeat is looked at once and counted each time."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in open_:
        raise ValueError("a part of it contains itself")
    if id(value) not in known:
        open_.add(id(value))
        inner = list(value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(each, known, open_) for each in inner)
        open_.discard(id(value))
    return known[id(value)]
