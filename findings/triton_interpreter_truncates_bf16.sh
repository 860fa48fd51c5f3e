#!/usr/bin/env bash
# triton 3.7.1 with TRITON_INTERPRET=1, which runs kernels on a CPU: a float32 that a kernel stores as bfloat16 is cut and not
# rounded, and arithmetic between two bfloat16 values works on their bits as whole numbers. Neither raises an error. So a kernel is
# compared with torch only if it loads to float32, computes there, and is allowed an error of a whole unit in the last place.
#
# Seen: 1.00781 (0x3f80ffff as float32) is stored as 1.0, torch's conversion gives 1.0078125; 1.0 + 1.0 in bfloat16 is 1.7e38.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 triton==3.7.1 numpy==2.4.6
cd "$folder"
cat >kernels.py <<'EOF'
import torch
import triton
import triton.language as tl


@triton.jit
def narrow(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + at, tl.load(x + at).to(tl.bfloat16))


@triton.jit
def add(x, y, z, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(z + at, tl.load(x + at) + tl.load(y + at))


x = torch.tensor([0x3F80FFFF, 0x3F800000, 0x40490FDB, 0x3F80FFFF], dtype=torch.int32).view(torch.float32)
stored = torch.zeros(4, dtype=torch.bfloat16)
narrow[(1,)](x, stored, 4)
a = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.bfloat16)
total = torch.zeros(4, dtype=torch.bfloat16)
add[(1,)](a, a, total, 4)
print(triton.__version__, torch.__version__)
print("stored ", stored.tolist(), "torch", x.bfloat16().tolist())
print("a + a  ", total.tolist(), "torch", (a + a).tolist())
assert stored.tolist() == [1.0, 1.0, 3.140625, 1.0] and x.bfloat16()[0] == 1.0078125
assert not torch.isclose(total, a + a).any()
EOF
TRITON_INTERPRET=1 "$folder/venv/bin/python" kernels.py
