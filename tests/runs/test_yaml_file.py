"""YAML that users write: what it says is read, or refused with the line."""

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.yaml_file import load_yaml, parse_yaml
from irnet_hpc.train.request import resolve_recipe

BASE = "{name: mine, base: paper, epochs: 5}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        # The mapping that merges stands deeper than the one that merges it in turn, so PyYAML
        # constructs it later.
        (
            "deep: {er: {est: &b {<<: {x: 1, y: 2}, y: 3}}}\nq: {<<: *b, z: 4}",
            {"deep": {"er": {"est": {"x": 1, "y": 3}}}, "q": {"x": 1, "y": 3, "z": 4}},
        ),
        (
            "l: [[[&b {<<: {x: 1, y: 2}, y: 3}]]]\nq: {<<: *b, y: 4}",
            {"l": [[[{"x": 1, "y": 3}]]], "q": {"x": 1, "y": 4}},
        ),
        # The first of several wins.
        ("q: {<<: [{a: 1}, {a: 2, b: 3}]}", {"q": {"a": 1, "b": 3}}),
    ],
)
def test_a_key_replaces_a_merged_one_at_any_depth(text, expected):
    assert parse_yaml(text) == expected


@pytest.mark.parametrize(
    "text", ["{x: 1, x: 2}", "q: {v: 1, 'v': 2}", "{<<: {a: 1}, <<: {a: 2}}", "[[{x: 1, x: 1}]]"]
)
def test_a_key_given_twice_is_refused(text, tmp_path):
    with pytest.raises(UserError, match="line 1"):
        parse_yaml(text)
    (tmp_path / "m.yaml").write_text(f"a: b\n{'k: ' if text[0] in '{[' else ''}{text}\n")
    with pytest.raises(UserError, match="line 2"):
        load_yaml(tmp_path / "m.yaml")


def test_an_inline_recipe_has_the_rules_of_a_matrix():
    """Of `epochs: 5, epochs: 50` the last had been taken without a word."""
    assert resolve_recipe(BASE, "irnet") == resolve({"name": "mine", "base": "paper", "epochs": 5})
    for bad in (BASE[:-1] + ", epochs: 50}", BASE[:-1] + ", base: onecycle}", BASE + " x", "{"):
        with pytest.raises(UserError):
            resolve_recipe(bad, "irnet")
    # A sweep hands a recipe on as JSON, whose numbers YAML 1.1 may read as text.
    json_text = '{"name": "mine", "base": "paper", "learning_rate": 1e-05}'
    recipe = resolve_recipe(json_text, "irnet")
    assert getattr(recipe, "learning_rate") == 1e-5  # noqa: B009 (a Recipe, no Grid)


@pytest.mark.parametrize(
    "text",
    [
        "12:30:00",
        "16:00",
        "1:30",
        "30:00.5",
        "010",
        "0100",
        "-017",
        "0x10",
        "0b11",
        "1_000",
        "1_0.5",
    ],
)
def test_a_number_in_another_base_or_notation_is_text(text):
    """PyYAML follows YAML 1.1: 12:30:00 is 45000, 010 is 8."""
    assert parse_yaml(f"[{text}, {{k: {text}}}]") == [text, {"k": text}]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("-7", -7), ("+3", 3), ("100", 100), ("1.5", 1.5), ("-0.25", -0.25), (".5", 0.5),
        ("2.", 2.0), ("1.0e-3", 1e-3), ("2.5e4", 25000.0), ("-.inf", float("-inf")),
    ],
)  # fmt: skip
def test_a_decimal_number_is_a_number(text, number):
    read = parse_yaml(f"k: {text}")["k"]
    assert read == number and type(read) is type(number)


@pytest.mark.parametrize(
    "change",
    [
        "batch: 1:30", "batch: 0100", "batch: 1_28", "learning_rate: 010", "learning_rate: 1:30.5",
        "learning_rate: '1_0'", "clip: 0x10",
    ],
)  # fmt: skip
def test_a_recipe_refuses_what_only_python_or_yaml_1_1_takes_for_a_number(change):
    with pytest.raises(UserError, match=change.partition(":")[0]):
        resolve_recipe(f"{{name: mine, base: onecycle, {change}}}", "irnet")
