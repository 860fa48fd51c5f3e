"""Compare the identities of packs, without opening a pack.

As in a run's key, the hash of the pack's content is left out, since features may differ in the last
bit between machines. The other fields (the hash of the source, the feature versions, the filters
and the split) already determine the content.
"""

from collections.abc import Mapping
from typing import Any


def without_content_hash(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an identity that decide which data a pack holds."""
    return {name: value for name, value in identity.items() if name != "content_sha256"}


def differing_fields(identity: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """List the fields in which two packs' data differ, sorted; empty for the same data."""
    first, second = without_content_hash(identity), without_content_hash(other)
    return sorted(
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
    )
