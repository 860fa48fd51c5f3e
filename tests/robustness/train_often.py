"""Train with a checkpoint at the end of every epoch, so that a short training can be resumed.

python tests/robustness/train_often.py --pack ...    or under horovodrun
"""

import sys

from irnet_hpc.console import exit_status
from irnet_hpc.train import cli as train
from irnet_hpc.train import loop as training

training.CHECKPOINT_S = 0

if __name__ == "__main__":
    sys.exit(exit_status(train.main))
