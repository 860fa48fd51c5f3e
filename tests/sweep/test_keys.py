"""Hold the page of keys to the types, and what a type says to what is refused."""

import dataclasses
import json

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.sweep import cli
from irnet_hpc.sweep.matrix.fields import check_value, rule_of
from irnet_hpc.sweep.matrix.keys import MatrixKeys, ModelKeys, keys_page
from irnet_hpc.sweep.matrix.origins import InitKeys
from irnet_hpc.sweep.matrix.pack_keys import PackKeys
from irnet_hpc.sweep.matrix.resources import Resources, Retry
from irnet_hpc.sweep.matrix.sites import Site
from tests.sweep.stand_ins import ROOT

RECORDS = (MatrixKeys, PackKeys, ModelKeys, InitKeys, Resources, Retry, Site)


def test_the_committed_page_is_up_to_date(capsys):
    assert cli.main(["keys"]) == 0
    page = (ROOT / "docs/matrix.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page, "python -m irnet_hpc.sweep keys >docs/matrix.md"


@pytest.mark.parametrize("record", RECORDS)
def test_the_page_has_every_key_with_a_meaning(record):
    rows = {line.split(" | ")[0]: line for line in keys_page().splitlines()}
    for field in dataclasses.fields(record):
        *_, meaning = rows[f"| `{field.name}`"].removesuffix(" |").split(" | ")
        assert meaning


@pytest.mark.parametrize("record", [Resources, Retry, Site])
def test_the_defaults_of_a_record_are_values_that_it_takes(record):
    for field in dataclasses.fields(record):
        value = getattr(record(), field.name)
        check_value(field.name, json.loads(json.dumps(value)), field.type)


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [(0, False), (1, True), (10**6, True), (10**6 + 1, False), (1.0, False), (True, False)],
)
def test_a_value_is_taken_within_its_bounds_only(value, is_taken):
    kind = Resources.__annotations__["nodes"]
    assert "1,000,000" in rule_of(kind)
    if is_taken:
        check_value("nodes", value, kind)
    else:
        with pytest.raises(UserError, match="nodes"):
            check_value("nodes", value, kind)
