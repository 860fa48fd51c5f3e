"""Read YAML that users write. What PyYAML would silently change is refused with one sentence."""

import re
from pathlib import Path
from typing import Any

import yaml

from irnet_hpc.errors import UserError
from irnet_hpc.files import at_home

# The limit in bytes; a matrix of a million cells takes a thousand bytes.
MAX_FILE_BYTES = 2**20
# The limit of nodes, counted each time that an alias repeats them: ten lines of aliases can stand
# for a billion nodes.
MAX_NODES = 100_000
MAX_WHOLE = 2**64


class _Loader(yaml.SafeLoader):
    """Load YAML, but refuse content that is dangerous or that PyYAML would silently change.

    It refuses a key that is given twice, since PyYAML would keep only the last value; a key that is
    not text; a number of more than 64 bits; a type that JSON does not have; and aliases that expand
    to more than fits in memory.
    """

    def compose_document(self) -> yaml.Node | None:
        node = super().compose_document()
        if node is not None:
            _count(node, {})
        return node

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        number = self.construct_yaml_int(node) if len(node.value) < 100 else MAX_WHOLE
        if abs(number) >= MAX_WHOLE:
            line = node.start_mark.line + 1
            raise UserError(f"line {line}: a whole number must have at most 64 bits")
        return number

    def construct_text(self, node: yaml.ScalarNode) -> str:
        return at_home(self.construct_yaml_str(node))

    def refuse_kind(self, node: yaml.Node) -> None:
        line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
        rule = "must be text, a number, a list or a mapping"
        raise UserError(f"line {line}: {rule}, got a {kind}")


# PyYAML 6.0 follows YAML 1.1: 12:30:00 is 45000 (base 60), 010 is 8, 0x10 is 16, 0b11 is 3 and
# 1_0 is 10. To those who type them they are a time, a name or a slip, so here they are text, which
# a key that takes a number refuses. Only decimal numbers, infinities and NaN are numbers.
NUMBERS = {
    "int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"),
    "float": re.compile(
        r"(?:[-+]?(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?(?:0|[1-9][0-9]*)\."
        r"(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}
_TAGS = {f"tag:yaml.org,2002:{name}" for name in NUMBERS}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _pattern in NUMBERS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list("-+.0123456789"))
TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_text)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
# A name may look like a date.
_Loader.add_constructor(
    "tag:yaml.org,2002:timestamp",
    _Loader.construct_yaml_str,  # type: ignore[type-var]  # a method of a base class
)
# Parts of a matrix are handed on as JSON, which has none of these types.
for _kind in ("set", "binary", "omap", "pairs"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.refuse_kind)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the nodes of a tree; an alias counts each time it is used.

    Raises UserError if there are more than MAX_NODES, or if a node contains itself.
    """
    if id(node) in known:
        return known[id(node)]
    # This value stands until the node is counted, since a node that contains itself has no end.
    known[id(node)] = MAX_NODES
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    total = 1
    for child in children:
        total += sum(_count(n, known) for n in (child if isinstance(child, tuple) else (child,)))
    if total > MAX_NODES:
        line = node.start_mark.line + 1
        rule = f"must hold at most {MAX_NODES:,} entries, counting each use of an alias"
        raise UserError(f"line {line}: {rule}")
    known[id(node)] = total
    return total


def _check_keys(node: yaml.MappingNode) -> None:
    """Raise UserError for keys of a mapping in the file that are not text or occur twice.

    When PyYAML 6.0 constructs a mapping that merges another one (`<<: *base`), it copies the merged
    keys into its node. A key that replaces a merged one then occurs twice in the node, so keys are
    checked before that.
    """
    seen = set()
    for key, _ in node.value:
        where = f"line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or key.tag not in TEXT_TAGS:
            value = repr(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
            raise UserError(f"{where}: a key must be text, got {value:.50}")
        if key.value in seen:
            raise UserError(f"{where}: key given twice: {key.value}")
        seen.add(key.value)


def load_yaml(path: Path) -> dict:
    """Read a mapping from a YAML file.

    Raises:
        UserError: The file is too large, is not YAML (the message has the line) or not a mapping.
    """
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UserError(f"must have at most {MAX_FILE_BYTES:,} bytes, got {size:,}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None
    except ValueError as error:
        raise UserError(f"not YAML: {error}") from None
    table = parse_yaml(text)
    if not isinstance(table, dict):
        raise UserError(f"must hold a mapping of keys, got {table!r:.80}")
    return table


def parse_yaml(text: str) -> Any:
    """Read YAML from text, such as the value of an option.

    Raises:
        UserError: The text is not YAML (the message has the line), or would lose something.
    """
    try:
        # _Loader is a SafeLoader.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        raise UserError(f"{where}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"not YAML: {' '.join(str(error).split())}") from None
    except (AttributeError, LookupError, TypeError):
        # PyYAML raises this for `!!timestamp x` or `!!bool x`.
        raise UserError("not YAML: a value does not fit the tag before it") from None
