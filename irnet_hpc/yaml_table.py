"""YAML that people write: mappings and lists of a known type, and one sentence for whatever is not."""

import json
from pathlib import Path

import yaml

from irnet_hpc.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise UserError(f"line {key.start_mark.line + 1}: key given twice: {key.value}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict:
    """A mapping from a YAML file. Raises UserError with the line where it does not parse."""
    try:
        table = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"line {mark.line + 1}, column {mark.column + 1}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(table, dict):
        raise UserError(f"must hold a mapping of keys, however: {table!r:.80}")
    return table


def mapping(value: object, what: str) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{what} must be a mapping, however: {value!r}")
    return value


def entries_of(table: dict, key: str, kinds: tuple, default: list | None = None, lists_only: bool = False) -> list:
    """The entries of a key, each once: a list, or one entry by itself unless that would read like a count (`seeds: 3`)."""
    value = table.get(key, default)
    entries = [value] if isinstance(value, kinds) and not lists_only else value
    names = " or ".join({str: "text", int: "whole number", dict: "mapping", type(None): "null"}[kind] for kind in kinds)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{key} must be a list with at least one {names}, however: {value!r}")
    for entry in entries:
        if not isinstance(entry, kinds) or isinstance(entry, bool):
            raise UserError(f"{key} must hold {names}, however: {entry!r}")
    return list({json.dumps(entry, sort_keys=True, default=str): entry for entry in entries}.values())


def row_counts(key: str, entries: object) -> list[int | None]:
    """Numbers of training rows, each once; None, written `all` or null, is all that there are."""
    said = f"{key} must be a list of whole numbers or `all`"
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{said}, however: {entries!r}")
    for entry in entries:
        if entry not in ("all", None) and type(entry) is not int:
            raise UserError(f"{said}, however: {entry!r}")
    return list(dict.fromkeys(None if entry == "all" else entry for entry in entries))
