"""Which networks exist: the layer-string grammar of the papers and the presets written in it. No torch here.

A string lists stacks of equal layers, `-` between them, the output width last (Jha et al. 2019, the reference code):

    1024BARx4-512BARx3-256BARx3-128BARx3-64BARx2-32BARx1-1      IRNet-17: a shortcut after every layer
    1024BAx4R-512BAx3R-256BAx3R-128BAx3R-64BAx2R-32BAx1R-1      SRNet-17: a shortcut around every stack
    1024BAx4-512BAx3-256BAx3-128BAx3-64BAx2-32BAx1-1            plain-17

A stack is WIDTH, then letters for what follows each fully connected layer (B batch normalisation, A activation,
R a shortcut around that layer), then xCOUNT (x1 if left out), then R for one shortcut around the whole stack.
"""

import hashlib
import re
from typing import NamedTuple

from irnet_hpc.errors import UserError, choose


class Stack(NamedTuple):
    width: int
    count: int  # layers
    norm: bool
    activation: bool
    shortcut: str  # "none", "layer" or "stack"


class Layers(NamedTuple):
    stacks: tuple[Stack, ...]
    n_outputs: int

    @property
    def depth(self) -> int:
        """Fully connected layers on the longest path, the output layer included: how the papers count 17, 24 and 48."""
        return sum(stack.count for stack in self.stacks) + 1


# depth -> (width, layers) of each stack; the output layer makes up the depth. 17, 24 and 48 are the papers'. The papers
# name a 10-layer network without its widths: ours keeps every width of the 17-layer one and gives the depth to the widest.
WIDTHS = {
    10: ((1024, 2), (512, 2), (256, 2), (128, 1), (64, 1), (32, 1)),
    17: ((1024, 4), (512, 3), (256, 3), (128, 3), (64, 2), (32, 1)),
    24: ((1024, 4), (512, 4), (256, 4), (128, 4), (64, 3), (32, 2), (16, 2)),
    48: ((1024, 8), (512, 8), (256, 8), (128, 8), (64, 8), (32, 4), (16, 3)),
}
# SRNet-48 puts a shortcut around every 4 layers, not around each stack of 8; the last stack has 3.
SRNET_STACK = {48: 4}

# architecture -> the stack template that its depths are written with
TEMPLATES = {"plain": "{width}BAx{count}", "srnet": "{width}BAx{count}R", "irnet": "{width}BARx{count}"}

MODELS = {architecture: tuple(WIDTHS) for architecture in TEMPLATES}  # the valid (architecture, depth) pairs

MAX_WEIGHTS = 4_000_000_000

STACK = re.compile(r"(?P<width>\d+)(?P<after>[A-Z]*?)(?:x(?P<count>\d+)(?P<stack>R?))?")


def layer_string(architecture: str, depth: int) -> str:
    """The layer string of a preset. Raises UserError listing the choices for one that does not exist."""
    choose("architecture", architecture, MODELS)
    if depth not in MODELS[architecture]:
        raise UserError(f"{architecture} has no depth {depth}; known: {', '.join(map(str, MODELS[architecture]))}")
    most = SRNET_STACK.get(depth) if architecture == "srnet" else None
    stacks = [
        TEMPLATES[architecture].format(width=width, count=part)
        for width, count in WIDTHS[depth]
        for part in _parts(count, most or count)
    ]
    return "-".join([*stacks, "1"])


def _parts(count: int, most: int) -> list[int]:
    """Split a stack of `count` layers into stacks of at most `most`."""
    return [min(most, count - start) for start in range(0, count, most)]


def parse(string: str) -> Layers:
    """Read a layer string. Raises UserError naming the part that does not fit the grammar."""
    *parts, last = string.split("-")
    if not parts or not re.fullmatch(r"[1-9]\d*", last):
        raise UserError(
            f"layer string {string!r} must be stacks and an output width joined by '-', e.g. 64BARx2-32BARx1-1"
        )
    layers = Layers(tuple(_stack(part, string) for part in parts), int(last))
    if sum(stack.count * stack.width**2 for stack in layers.stacks) > MAX_WEIGHTS:
        raise UserError(f"layer string {string!r} must have at most {MAX_WEIGHTS:,} weights")
    return layers


def _stack(part: str, string: str) -> Stack:
    match = STACK.fullmatch(part)
    if not match:
        raise UserError(f"stack {part!r} of layer string {string!r} must be WIDTH[B][A][R][xCOUNT[R]], e.g. 64BARx2")
    after, width, count = match["after"], int(match["width"]), int(match["count"] or 1)
    if after not in ("", "B", "A", "BA", "R", "BR", "AR", "BAR"):
        raise UserError(f"stack {part!r} of layer string {string!r} must have B, A and R at most once, in this order")
    if match["stack"] and "R" in after:
        raise UserError(f"stack {part!r} of layer string {string!r} must have R before the count or after it, not both")
    if not 1 <= width <= 65536 or not 1 <= count <= 1000:
        raise UserError(
            f"stack {part!r} of layer string {string!r} must have a width of 1 to 65536 and 1 to 1000 layers"
        )
    shortcut = "stack" if match["stack"] else "layer" if "R" in after else "none"
    return Stack(width, count, "B" in after, "A" in after, shortcut)


def custom_name(string: str) -> str:
    """The architecture name of a user's own layer string: `custom-<hash8>`."""
    if (n_outputs := parse(string).n_outputs) != 1:
        raise UserError(f"layer string {string!r} must end in -1, one output for one property, however: {n_outputs}")
    return f"custom-{hashlib.sha256(string.encode()).hexdigest()[:8]}"
