"""Check YAML that users write against typed records, and describe the records in words.

A record is a dataclass whose fields have msgspec's types, such as `Annotated[int, Meta(ge=1)]`.
These types and bounds are the only source of the error messages and of docs/matrix.md.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from irnet_hpc.errors import UserError, check_choice


def check_keys(kind: str, table: Mapping, record: type) -> None:
    """Raise UserError, which lists the known keys, if a key of a mapping is unknown."""
    known = [field.name for field in dataclasses.fields(record)]
    for key in table:
        check_choice(kind, key, known)


def check_values(table: Mapping, record: type, owner: str = "") -> None:
    """Check the values of a mapping against the fields of a record.

    Args:
        table: Keys of the record and their values.
        record: A dataclass.
        owner: The thing that the keys belong to, as the message names it, such as "pack
            oqmd-magpie".

    Raises:
        UserError: A value does not have the type of its field, or is outside the field's bounds.
    """
    for field in dataclasses.fields(record):
        if field.name in table:
            name = f"{field.name} of {owner}" if owner else field.name
            check_value(name, table[field.name], field.type)


def check_value(name: str, value: object, kind: Any) -> None:
    """Raise UserError, which states the rule and the value, unless a value has the type `kind`."""
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        raise UserError(f"{name} must be {rule_of(kind)}, got {value!r:.80}") from None


def entries_of(
    table: Mapping, record: type, key: str, default: Iterable | None = None, owner: str = ""
) -> list:
    """Return the list that a key of a mapping has, without repeated entries.

    A single text or mapping counts as a list with one entry. A single number is refused, since a
    user who writes `seeds: 3` may mean three seeds.

    Args:
        table: The mapping that may have the key.
        record: The record that describes the mapping; its field `key` has a type `list[...]`.
        key: The key.
        default: The entries if the key is missing; None if the key is required.
        owner: The thing that the key belongs to, as the message names it.

    Raises:
        UserError: The value is not a list, is empty, or has an entry of a wrong type.
    """
    (kind,) = (field.type for field in dataclasses.fields(record) if field.name == key)
    info, name = inspect.type_info(kind), f"{key} of {owner}" if owner else key
    item = info.type if isinstance(info, inspect.Metadata) else info
    if isinstance(item, inspect.UnionType):
        item = next(one for one in item.types if isinstance(one, inspect.ListType))
    assert isinstance(item, inspect.ListType)
    value = table.get(key, default)
    entries = [value] if isinstance(value, str | dict) else value
    if not isinstance(entries, list | tuple) or not entries:
        raise UserError(f"{name} must be {_list_rule(item)}, got {value!r:.80}")
    for entry in entries:
        try:
            msgspec.convert([entry], kind)
        except (msgspec.ValidationError, OverflowError):
            rule = _rule(item.item_type)
            raise UserError(f"each entry of {name} must be {rule}, got {entry!r:.80}") from None
    by_text = {json.dumps(entry, sort_keys=True, default=str): entry for entry in entries}
    return list(by_text.values())


def rule_of(kind: Any) -> str:
    """Describe a type and its bounds, such as "a whole number from 1 to 1,000,000"."""
    return _rule(inspect.type_info(kind))


def _rule(info: inspect.Type) -> str:
    if isinstance(info, inspect.Metadata):
        stated = (info.extra or {}).get("rule")
        return stated or _rule(info.type)
    if isinstance(info, inspect.UnionType):
        return " or ".join(_rule(one) for one in info.types)
    if isinstance(info, inspect.ListType):
        return _list_rule(info)
    if isinstance(info, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(info, inspect.IntType) else "a number"
        bounds = "" if info.ge is None else f" from {info.ge:,}"
        return noun + bounds + ("" if info.le is None else f" to {info.le:,}")
    if isinstance(info, inspect.LiteralType):
        return " or ".join("false" if value is False else str(value) for value in info.values)
    names = {
        inspect.StrType: "text",
        inspect.BoolType: "true or false",
        inspect.NoneType: "null",
        inspect.DictType: "a mapping",
        inspect.AnyType: "anything",
    }
    return names[type(info)]


def _list_rule(info: inspect.ListType) -> str:
    if isinstance(info.item_type, inspect.AnyType):
        return "a list"
    return f"a list with at least one entry, each {_rule(info.item_type)}"


def markdown_table(record: type) -> str:
    """Write a table of a record's keys with their types and bounds, defaults and meanings."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(record):
        info = inspect.type_info(field.type)
        extra = info.extra_json_schema or {} if isinstance(info, inspect.Metadata) else {}
        default = "(required)"
        if field.default_factory is not dataclasses.MISSING:
            default = f"`{json.dumps(field.default_factory())}`"
        elif field.default is not dataclasses.MISSING:
            default = f"`{json.dumps(field.default)}`"
        if stated := (getattr(info, "extra", None) or {}).get("default"):
            default = stated
        row = (f"`{field.name}`", _rule(info), default, extra.get("description", ""))
        lines.append(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |")
    return "\n".join(lines)
