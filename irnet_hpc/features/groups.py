"""Sort features into groups that describe the same, such as all statistics of one property."""

import re

from irnet_hpc.data.elements import NUMBER

# (pattern of a label, its group); `\1` is a part of the label. The first pattern that fits counts,
# and a label that fits none, such as a column of the user's own table, is a group of its own.
GROUPS = (
    (r"\d+-norm", "norms of the fractions"),
    (r"MagpieData \w+ (\w+)", r"\1"),
    (r"avg [spdf] valence electrons", "shares of valence electrons"),
    (r"compound possible|(?:max|avg) ionic char", "ionic character"),
    (r"\w+ CN_VoronoiNN", "coordination numbers"),
    (r".* relative bond length|\w+ neighbor distance variation", "bond lengths"),
    (r"mean absolute deviation in relative cell size|max packing efficiency", "cell sizes"),
    (r"mean ordering parameter shell \d+", "chemical ordering"),
    (r"\w+ local difference in (\w+)", r"local differences in \1"),
    (r"fraction of element \d+", "fractions of the elements in order"),
    (r"(\w+) of element \d+", r"\1"),
    (r".+ in [\d.]+ to [\d.]+", "classes of fractions"),
    (
        r"volume per atom|density|packing fraction of covalent spheres|volume relative to .*",
        "volume per atom",
    ),
    (r"asph .*", "persistent homology"),
)


def group_of(label: str) -> str:
    r"""Return the group of a feature.

    >>> group_of("MagpieData mean MeltingT"), group_of("MeltingT of element 2"), group_of("Fe")
    ('MeltingT', 'MeltingT', 'fractions of the elements')
    """
    if label in NUMBER:
        return "fractions of the elements"
    for pattern, group in GROUPS:
        if match := re.fullmatch(pattern, label):
            return match.expand(group)
    return label
