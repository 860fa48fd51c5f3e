"""YAML that people write: mappings and lists of a known type, and one sentence for whatever is not."""

import json
from pathlib import Path

import yaml

from irnet_hpc.errors import UserError

LARGEST_FILE = 2**20  # bytes; a matrix of a million cells takes a thousand
LARGEST_TREE = 100_000  # nodes, those that aliases repeat counted each time: ten lines of aliases can stand for a billion
LARGEST_WHOLE = 2**64


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which PyYAML silently takes the last, and what no file of ours holds: keys that
    are no text, numbers without end, and aliases that stand for more than fits in memory."""

    def compose_document(self) -> yaml.Node:
        node = super().compose_document()
        _count(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag not in TEXT_TAGS:
                found = repr(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise UserError(f"{where}: a key must be text, however: {found:.50}")
            if key.value in seen:
                raise UserError(f"{where}: key given twice: {key.value}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        number = self.construct_yaml_int(node) if len(node.value) < 100 else LARGEST_WHOLE
        if abs(number) >= LARGEST_WHOLE:
            raise UserError(
                f"line {node.start_mark.line + 1}: a whole number must have at most 64 bits"
            )
        return number

    def refuse_kind(self, node: yaml.Node) -> None:
        kind = node.tag.rpartition(":")[2]
        raise UserError(
            f"line {node.start_mark.line + 1}: must be text, a number, a list or a mapping, however: a {kind}"
        )


TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
_Loader.add_constructor(
    "tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str
)  # a name may look like a date
for _kind in (
    "set",
    "binary",
    "omap",
    "pairs",
):  # none of which JSON has, as which parts are handed on
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.refuse_kind)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Nodes of a tree, an alias as often as it stands there. Raises UserError above LARGEST_TREE, or for one within itself."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = LARGEST_TREE  # until it is counted: one that holds itself has no end
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    total = 1 + sum(
        _count(one, known)
        for child in children
        for one in (child if isinstance(child, tuple) else (child,))
    )
    if total > LARGEST_TREE:
        raise UserError(
            f"line {node.start_mark.line + 1}: must hold at most {LARGEST_TREE:,} entries, what aliases repeat included"
        )
    known[id(node)] = total
    return total


def load_yaml(path: Path) -> dict:
    """A mapping from a YAML file. Raises UserError with the line where it does not parse."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(
                f"must have at most {LARGEST_FILE:,} bytes, however: {path.stat().st_size:,}"
            )
        table = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(
            f"line {mark.line + 1}, column {mark.column + 1}: not YAML: {error.problem}"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"not YAML: {' '.join(str(error).split())}") from None
    except (AttributeError, LookupError, TypeError):  # of PyYAML's own: `!!timestamp x`, `!!bool x`
        raise UserError("not YAML: a value does not fit the tag before it") from None
    if not isinstance(table, dict):
        raise UserError(f"must hold a mapping of keys, however: {table!r:.80}")
    return table


def mapping(value: object, what: str) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{what} must be a mapping, however: {value!r}")
    return value


def entries_of(
    table: dict, key: str, kinds: tuple, default: list | None = None, lists_only: bool = False
) -> list:
    """The entries of a key, each once: a list, or one entry by itself unless that would read like a count (`seeds: 3`)."""
    value = table.get(key, default)
    entries = [value] if isinstance(value, kinds) and not lists_only else value
    names = " or ".join(
        {str: "text", int: "whole number", dict: "mapping", type(None): "null"}[kind]
        for kind in kinds
    )
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{key} must be a list with at least one {names}, however: {value!r}")
    for entry in entries:
        if not isinstance(entry, kinds) or isinstance(entry, bool):
            raise UserError(f"{key} must hold {names}, however: {entry!r}")
    return list(
        {json.dumps(entry, sort_keys=True, default=str): entry for entry in entries}.values()
    )


def row_counts(key: str, entries: object) -> list[int | None]:
    """Numbers of training rows, each once; None, written `all` or null, is all that there are."""
    said = f"{key} must be a list of whole numbers or `all`"
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{said}, however: {entries!r}")
    for entry in entries:
        if entry not in ("all", None) and type(entry) is not int:
            raise UserError(f"{said}, however: {entry!r}")
    return list(dict.fromkeys(None if entry == "all" else entry for entry in entries))
