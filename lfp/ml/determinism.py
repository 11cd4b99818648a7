"""What makes a run repeat bit for bit: a fixed number of threads."""

import torch


def set_threads(n: int) -> None:
    """Fixes torch's CPU threads: sums are split by their number, so results repeat only with the same one."""
    torch.set_num_threads(n)
