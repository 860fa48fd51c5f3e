"""Parse layer strings, in the grammar of the papers, and define the presets. Needs no torch.

A layer string lists stacks of equal layers, joined by `-`, and at the end the output width (Jha et
al. 2019, the reference code):

    1024BARx4-512BARx3-256BARx3-128BARx3-64BARx2-32BARx1-1      IRNet-17: shortcut after a layer
    1024BAx4R-512BAx3R-256BAx3R-128BAx3R-64BAx2R-32BAx1R-1      SRNet-17: shortcut around a stack
    1024BAx4-512BAx3-256BAx3-128BAx3-64BAx2-32BAx1-1            plain-17
    1024L0.3Rx2+2-512L0.3Rx3-...-32L0.3Rx1-1                    BRNet: two branches, added
    1024Ax4D0.2-512Ax3D0.1-256Ax3D0.3-128Ax3D0.2-64Ax2-32Ax1-1  ElemNet: dropout after a stack

A stack is written as WIDTH, the parts that follow each of its fully connected layers, xCOUNT (x1 if
left out), and the parts that follow the whole stack. Parts act in the order in which they are
written, each at most once:

    B       batch normalisation
    A       ReLU
    L0.3    leaky ReLU of slope 0.3, in place of A
    R       a shortcut around each layer; after the count, around the whole stack
    D0.2    dropout of 0.2, while training only, after each layer; after the count, after the stack
    x2+1    branches of 2 layers and of 1, each from the stack's input, their outputs added
"""

import functools
import hashlib
import re
from typing import NamedTuple

from irnet_hpc.errors import UserError, check_choice


class Stack(NamedTuple):
    """A stack of equal layers."""

    width: int
    branches: tuple[int, ...]  # layers of each branch; nearly always there is one
    norm: bool
    slope: float | None  # slope of the activation below zero, 0 for ReLU; None: no activation
    shortcut: str  # "none", "layer" or "stack"
    layer_dropout: float  # share of the values dropped after every layer; 0: none
    stack_dropout: float  # the same after the stack


class Layers(NamedTuple):
    """A layer string, parsed."""

    stacks: tuple[Stack, ...]
    n_outputs: int

    @property
    def depth(self) -> int:
        """Return the number of fully connected layers, as the papers count 17, 24 and 48.

        The output layer and the layers of all branches are included.
        """
        return sum(sum(stack.branches) for stack in self.stacks) + 1


# depth -> (width, layers) of each stack; the output layer makes up the depth. 17, 24 and 48 are the
# papers'. They name a 10-layer network without its widths: ours keeps every width of the 17-layer
# one and gives the depth to the widest.
WIDTHS = {
    10: ((1024, 2), (512, 2), (256, 2), (128, 1), (64, 1), (32, 1)),
    17: ((1024, 4), (512, 3), (256, 3), (128, 3), (64, 2), (32, 1)),
    24: ((1024, 4), (512, 4), (256, 4), (128, 4), (64, 3), (32, 2), (16, 2)),
    48: ((1024, 8), (512, 8), (256, 8), (128, 8), (64, 8), (32, 4), (16, 3)),
}
# SRNet-48 puts a shortcut around every 4 layers, not around each stack of 8; the last stack has 3.
SRNET_STACK = {48: 4}

# architecture -> the stack template that its depths are written with
TEMPLATES = {
    "plain": "{width}BAx{count}",
    "srnet": "{width}BAx{count}R",
    "irnet": "{width}BARx{count}",
}

# (architecture, depth) -> layer string, where an architecture exists at the published depth only
SINGLE = {
    # Gupta et al. 2023 and the code of iBRNet. Eleven published parameter counts, one for each
    # placement of the branches (tests/models/test_architectures.py), decide that every branch
    # starts from the stack's input with a projection of its own, and that branches are added
    # (concatenated, they would widen the next layer). They leave open the slope, the places of the
    # activations and which branch is the longer: those are as in the published code, where nothing
    # follows the additions.
    ("brnet", 17): "1024L0.3Rx2+2-512L0.3Rx3-256L0.3Rx3-128L0.3Rx3-64L0.3Rx2-32L0.3Rx1-1",
    # Jha et al. 2018: the reference's configuration keeps 0.8, 0.9, 0.7 and 0.8.
    ("elemnet", 17): "1024Ax4D0.2-512Ax3D0.1-256Ax3D0.3-128Ax3D0.2-64Ax2-32Ax1-1",
}

# architecture -> its valid depths
MODELS = {architecture: tuple(WIDTHS) for architecture in TEMPLATES}
MODELS |= {architecture: (depth,) for architecture, depth in SINGLE}

MAX_WEIGHTS = 4_000_000_000
MAX_DEPTH = 10_000  # layers in all

# ASCII digits, and few enough for Python to parse quickly.
DIGITS = r"[0-9]{1,9}"
NUMBER = rf"{DIGITS}(?:\.{DIGITS})?"
STACK = re.compile(
    rf"(?P<width>{DIGITS})(?P<norm>B?)(?P<activation>A|L(?P<slope>{NUMBER}))?"
    rf"(?P<layer>R?)(?:D(?P<layer_dropout>{NUMBER}))?"
    rf"(?:x(?P<counts>{DIGITS}(?:\+{DIGITS})*)(?P<stack>R?)(?:D(?P<stack_dropout>{NUMBER}))?)?"
)
FORM = (
    "WIDTH[B][A|LSLOPE][R][DRATE][xCOUNT[+COUNT...][R][DRATE]], "
    "e.g. 64BARx2, 64L0.3Rx2+2 or 64Ax4D0.2"
)


def layer_string(architecture: str, depth: int) -> str:
    """Return the layer string of a preset.

    Raises UserError if there is no such preset; the message lists the choices.
    """
    if depth not in MODELS[check_choice("architecture", architecture, MODELS)]:
        raise UserError(
            f"{architecture} has no depth {depth!r}; "
            f"known: {', '.join(map(str, MODELS[architecture]))}"
        )
    return _preset(architecture, depth)


@functools.cache
def _preset(architecture: str, depth: int) -> str:
    """Build the layer string of a preset that exists."""
    if (architecture, depth) in SINGLE:
        return SINGLE[architecture, depth]
    max_layers = SRNET_STACK.get(depth) if architecture == "srnet" else None
    stacks = [
        TEMPLATES[architecture].format(width=width, count=part)
        for width, count in WIDTHS[depth]
        for part in _parts(count, max_layers or count)
    ]
    return "-".join([*stacks, "1"])


def _parts(count: int, max_layers: int) -> list[int]:
    """Divide a stack of `count` layers into stacks of at most `max_layers`."""
    return [min(max_layers, count - start) for start in range(0, count, max_layers)]


def parse_layers(string: str) -> Layers:
    """Parse a layer string. Raises UserError, which names the part that breaks the grammar."""
    *parts, last = string.split("-")
    if not parts or not re.fullmatch(r"[1-9][0-9]{0,8}", last):
        raise UserError(
            f"layer string {string!r} must be stacks and an output width joined by '-', "
            "e.g. 64BARx2-32BARx1-1"
        )
    layers = Layers(tuple(_stack(part, string) for part in parts), int(last))
    if sum(sum(stack.branches) * stack.width**2 for stack in layers.stacks) > MAX_WEIGHTS:
        raise UserError(f"layer string {string!r} must have at most {MAX_WEIGHTS:,} weights")
    if layers.depth > MAX_DEPTH:
        raise UserError(
            f"layer string {string[:50]!r}... must have at most {MAX_DEPTH:,} layers, "
            f"got {layers.depth:,}"
        )
    return layers


def _stack(part: str, string: str) -> Stack:
    where = f"stack {part!r} of layer string {string!r}"
    if not (match := STACK.fullmatch(part)):
        raise UserError(f"{where} must be {FORM}")
    if match["stack"] and match["layer"]:
        raise UserError(f"{where} must have R before the count or after it, not both")
    width, branches = int(match["width"]), tuple(map(int, (match["counts"] or "1").split("+")))
    if not 1 <= width <= 65536 or min(branches) < 1 or sum(branches) > 1000:
        raise UserError(f"{where} must have a width of 1 to 65536 and 1 to 1000 layers")
    slope = float(match["slope"] or 0) if match["activation"] else None
    if slope is not None and slope > 1:
        raise UserError(f"{where} must have a slope of 0 to 1, got {match['slope']}")
    dropout = {name: float(match[name] or 0) for name in ("layer_dropout", "stack_dropout")}
    for name, rate in dropout.items():
        if match[name] and not 0.001 <= rate <= 0.999:
            raise UserError(f"{where} must have a dropout of 0.001 to 0.999, got {match[name]}")
    shortcut = "stack" if match["stack"] else "layer" if match["layer"] else "none"
    return Stack(width, branches, bool(match["norm"]), slope, shortcut, **dropout)


def n_weights(layers: Layers, n_features: int) -> int:
    """Count the weights and biases of a network, shortcuts and normalisation included."""
    n_inputs, n = n_features, 0
    for stack in layers.stacks:
        for n_layers in stack.branches:
            widths = [n_inputs] + [stack.width] * (n_layers - 1)
            n += sum((width + 1) * stack.width + 2 * stack.width * stack.norm for width in widths)
        # A shortcut from another width has a projection: one in each branch, or one of the stack.
        if n_inputs != stack.width:
            projection = (n_inputs + 1) * stack.width
            n_shortcuts = {"none": 0, "layer": len(stack.branches), "stack": 1}[stack.shortcut]
            n += n_shortcuts * projection
        n_inputs = stack.width
    return n + (n_inputs + 1) * layers.n_outputs


def custom_name(string: str) -> str:
    """Return the architecture name of a user's own layer string, `custom-<hash8>`."""
    if (n_outputs := parse_layers(string).n_outputs) != 1:
        raise UserError(
            f"layer string {string!r} must end in -1, one output for one property, got {n_outputs}"
        )
    return f"custom-{hashlib.sha256(string.encode()).hexdigest()[:8]}"
