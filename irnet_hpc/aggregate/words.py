"""Name models and properties in words, as a paper does: `Random forest`, `Band gap (eV)`.

Folders, matrices and CSV keep the short names.
"""

import re
from collections.abc import Collection

from irnet_hpc.aggregate.scores import NAMES, Model

# Classical models, and networks at one depth; other names become words by capital_first().
MODEL_WORDS = {
    "linear": "Linear regression",
    "ridge": "Ridge regression",
    "elastic_net": "Elastic net",
    "sgd": "Linear by SGD",
    "svr": "Support vectors",
    "decision_tree": "Decision tree",
    "adaboost": "AdaBoost",
    "bagging": "Bagged trees",
    "extra_trees": "Extra trees",
    "random_forest": "Random forest",
    "boosted_trees": "Boosted trees",
    "tabm": "TabM",
}
PROPERTY_WORDS = {"band_gap_mbj": "Band gap (mBJ)"}
NETWORK = re.compile(rf"({'|'.join(NAMES)})-(\d+)")


def model_words(model: Model | str) -> str:
    """Name a model.

    >>> model_words("irnet-17"), model_words("random_forest"), model_words("my_model")
    ('IRNet-17', 'Random forest', 'My model')
    """
    name = str(model)
    if name in MODEL_WORDS:
        return MODEL_WORDS[name]
    if name in NAMES:
        return NAMES[name]
    if match := NETWORK.fullmatch(name):
        architecture = NAMES[match[1]]
        return f"{architecture[0].upper()}{architecture[1:]}-{match[2]}"
    return capital_first(name)


def property_words(name: str) -> str:
    """Name a property, or several that are joined by commas.

    >>> property_words("pH"), property_words("volume,band_gap_mbj")
    ('pH', 'Volume, Band gap (mBJ)')
    """
    return ", ".join(PROPERTY_WORDS.get(one) or capital_first(one) for one in name.split(","))


def capital_first(name: str) -> str:
    """Write a name with blanks and, unless it already has capitals, with a first capital."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:] if name == name.lower() else words


def in_words(text: str, properties: Collection[str] = ()) -> str:
    """Replace the names of models and properties within a text by words.

    A name that is a part of a longer one, such as a pack's, stays.

    >>> in_words("band_gap (eV), irnet-17 against random_forest on lab-irnet-17", {"band_gap"})
    'Band gap (eV), IRNet-17 against Random forest on lab-irnet-17'
    """
    networks = (name for name, words in NAMES.items() if name != words)
    names = [*MODEL_WORDS, *networks, *map(re.escape, sorted(properties, key=len, reverse=True))]
    pattern = rf"(?<![\w.+=#-])(?:{NETWORK.pattern}|{'|'.join(names)})(?![\w+=#-]|\.\w)"

    def words(match: re.Match) -> str:
        is_property = match[0] in properties
        return property_words(match[0]) if is_property else model_words(match[0])

    return re.sub(pattern, words, text)
