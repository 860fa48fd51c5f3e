"""Every formula is test in exactly one fold of each repeat, whatever other rows there are."""

from collections import Counter

import pytest

from irnet_hpc.data.splits import (
    SplitRule,
    fold_of,
    fold_rules,
    name_of_folds,
    parse_split_rule,
    roles_of_fold,
    rule_of_identity,
    split_identity,
    split_suffix,
    split_suffix_in,
    uniform,
)
from irnet_hpc.errors import UserError

FORMULAS = [f"Al{n}Ni{n + 1}" for n in range(200)]


def test_each_formula_is_test_in_one_fold_of_each_repeat():
    rows = [*FORMULAS, *FORMULAS[:50]]  # several rows of one formula
    for repeat in range(2):
        rules = fold_rules(5, 2)[5 * repeat : 5 * repeat + 5]
        roles = [roles_of_fold(rows, rule) for rule in rules]
        assert all(sum(of_fold[i] == "test" for of_fold in roles) == 1 for i in range(len(rows)))
        for of_fold in roles:
            assert len(set(zip(rows, of_fold, strict=True))) == len(FORMULAS)
    first, again = (roles_of_fold(rows, SplitRule("folds", "5", seed)) for seed in (0, 5))
    assert (first != again).any()


def test_the_fold_is_the_hash_of_the_formula_alone():
    assert fold_of("Fe2O3", 5) == int(5 * uniform("fold", 0, "Fe2O3"))
    rule = SplitRule("folds", "5", 3)
    few, many = roles_of_fold(FORMULAS[:100], rule), roles_of_fold(FORMULAS, rule)
    assert [role == "test" for role in few] == [role == "test" for role in many[:100]]


def test_a_small_table_has_val_rows_in_every_fold():
    """The hash alone would leave some of these folds fewer than a tenth of the other formulas."""
    for rule in fold_rules(5, 20):
        formulas = FORMULAS[:50]
        counts = Counter(roles_of_fold(formulas, rule))
        assert counts["val"] >= (50 - counts["test"]) / 10 and counts["train"] > 20


def test_too_many_folds_are_one_sentence():
    with pytest.raises(UserError, match="12 folds need at least 12 different formulas, got 10"):
        roles_of_fold(FORMULAS[:10], SplitRule("folds", "12", 0))
    empty = next(k for k in range(10) if all(fold_of(f, 10) != k for f in FORMULAS[:10]))
    with pytest.raises(UserError, match=f"fold {empty} of 10 has none of the 10 formulas"):
        roles_of_fold(FORMULAS[:10], SplitRule("folds", "10", empty))
    for wrong in ("folds", "folds:1", "folds:51", "folds:x", "folds:05"):
        with pytest.raises(UserError):
            parse_split_rule(wrong)


def test_a_rule_of_folds_survives_its_identity_and_its_name():
    rule = parse_split_rule("folds:5", 7)
    assert split_identity(rule) == {"by": "folds", "n_folds": 5, "seed": 7}
    assert rule_of_identity(split_identity(rule)) == rule and str(rule) == "folds:5"
    assert rule.elements == ()
    name = f"mine-magpie{split_suffix(rule)}"
    assert name == "mine-magpie-folds5-fold7" and split_suffix_in(name) == "-folds5-fold7"
    assert name_of_folds(name) == "mine-magpie-folds5" == name_of_folds("mine-magpie-folds5")
    assert name_of_folds("steels-fold3") == "steels-fold3"
