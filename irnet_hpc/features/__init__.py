"""Features: turn materials into a matrix of numbers.

A feature set has a name, such as `magpie`. A sum of names, such as `magpie+structure`, means the
columns of both sets, side by side.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "frame": ["featurize"],
        "groups": ["group_of"],
        "sets": [
            "ELEMENTS",
            "FEATURE_SETS",
            "Described",
            "block_rows",
            "check_installed",
            "describe",
            "describe_batches",
            "experimental_notes",
            "feature_labels",
            "need_structures",
            "parse_feature_sets",
            "unknown_elements",
            "worthwhile_workers",
        ],
        "transformer": ["FormulaFeaturizer"],
    },
)
