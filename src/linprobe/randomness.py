"""Where random numbers come from: a generator of its own for each purpose, never the global one."""

import hashlib

import torch


def generator(seed: int, purpose: str) -> torch.Generator:
    """A source of randomness of its own for each purpose of a run, on the CPU."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
