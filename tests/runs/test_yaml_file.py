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
