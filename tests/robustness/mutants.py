"""Spoil bytes as a disk or a network does, and values as a person or another program does.

The same number spoils the same content in the same way.
"""

import copy
import json
import random
import re

# Values of another type, beyond any range, that point elsewhere, or that do not end.
ODD = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        -(2**70),
        10**400,
        0.5,
        -0.0,
        1e-320,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "x",
        "0",
        "é" * 300,
        "../../../../tmp/x",
        "/etc/passwd",
        "a\0b",
        "a\nb",
        "\u202e",
        "9" * 5000,
        "{",
        "${HOME}",
    ),
    *([], {}, [[]], [None], {"a": 1}, {"": None}, ["x", 1], [[0.5] * 3] * 3),
)
DEEP = "[" * 3000 + "]" * 3000


def spoil_bytes(content: bytes, number: int) -> bytes:
    """Return the content with one to three accidents of a disk, a transfer or an editor."""
    chance, made = random.Random(number), bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at, n = chance.randrange(len(made) + 1), chance.choice((1, 1, 2, 8, 64, 512))
        end = min(at + n, len(made))
        accident = chance.randrange(9)
        if accident == 0 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif accident == 1:
            del made[at:]  # cut short
        elif accident == 2:
            del made[at:end]
        elif accident == 3:
            made[at:end] = bytes(end - at)
        elif accident == 4:
            made[at:end] = chance.randbytes(end - at)
        elif accident == 5:
            made[at:at] = chance.randbytes(n)
        elif accident == 6:
            made[at:at] = made[at:end]  # twice
        elif accident == 7:
            other = chance.randrange(len(made) + 1)
            made[at:end] = made[other : other + end - at]
        else:
            made += chance.randbytes(n)
    return bytes(made)


def spoil_tree(value: object, number: int) -> object:
    """Copy a JSON value and change, remove or rename what stands in one to three places."""
    chance, made = random.Random(number), copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(made))
        if not places:
            return copy.deepcopy(chance.choice(ODD))
        parent, key = chance.choice(places)
        change = chance.randrange(6)
        if change == 0:
            del parent[key]
        elif change == 1 and isinstance(parent, dict):
            parent[chance.choice(("x", "../x", "", "Ω", str(key).upper()))] = parent.pop(key)
        elif change == 2:
            other, place = chance.choice(places)
            if place in (other if isinstance(other, dict) else range(len(other))):
                parent[key] = copy.deepcopy(other[place])
        else:
            parent[key] = copy.deepcopy(chance.choice(ODD))
    return made


def _places(value: object):
    for key, below in list(
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield value, key
        yield from _places(below)


def spoil_text(text: str, number: int) -> bytes:
    """Return a text with accidents, a word replaced by an odd value, or brackets without end."""
    chance = random.Random(number)
    words = list(re.finditer(r"[\w.+-]+", text))
    choice = chance.randrange(10)
    if choice < 5 or not words:
        return spoil_bytes(text.encode(), number)
    word, odd = chance.choice(words), chance.choice(ODD)
    if choice == 9:
        new = chance.choice(
            (
                DEEP,
                "&a [*a]",
                "*a",
                "!!python/object:os.system x",
                "!!binary x",
                "!!set {a}",
                "0x" + "f" * 6000,
                "<<: x",
            )
        )
    else:
        new = odd if isinstance(odd, str) else json.dumps(odd)
    return (text[: word.start()] + new + text[word.end() :]).encode(errors="surrogatepass")
