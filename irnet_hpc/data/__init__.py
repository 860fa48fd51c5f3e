"""Data: turn a source (a database or the user's own table) into materials with a split."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "alloys": ["compute_alloys"],
        "catalogue": ["list_sources"],
        "crystals": [
            "MIN_DISTANCE",
            "Crystal",
            "Crystals",
            "Unsuitable",
            "reduced_cell",
            "stack_crystals",
        ],
        "download.obtain": ["ensure"],
        "download.probe": ["probe_source"],
        "duplicates": ["OnePerFormula", "one_per_formula"],
        "elements": ["FAMILIES", "NUMBER", "SYMBOLS"],
        "formulas": [
            "InvalidFormula",
            "elements_in",
            "formula_text",
            "parse_formula",
            "reduced_formula",
        ],
        "loading": ["DEFAULT_ROWS", "Loaded", "load_source"],
        "materials": ["LostValue", "Materials", "Rejected", "lose", "parse_materials", "reject"],
        "properties": ["PROPERTIES", "floor_of"],
        "raw_jsonl": ["parse_json_line", "parse_structure"],
        "raw_table": ["OPENERS", "RawTable", "ending_of", "formula_table", "one_sentence"],
        "resolve": ["ResolvedSource", "resolve_source"],
        "sources": ["SOURCES", "Filter", "Source", "are_outliers", "hard_limits"],
        "splits": [
            "RANDOM",
            "ROLES",
            "SplitRule",
            "count_on_two_sides",
            "describe_held_out",
            "join_with_or",
            "pack_order",
            "parse_split_rule",
            "roles_around",
            "roles_of",
            "rule_of_identity",
            "sample",
            "split_identity",
            "split_suffix",
            "split_suffix_in",
        ],
    },
)
