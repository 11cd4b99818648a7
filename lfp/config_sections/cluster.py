"""The section of a config that says where stages do their work: in this process, or on a Ray cluster."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from lfp.config_sections import Section

NO_CLUSTER, LOCAL, RUNNING = "none", "local", "auto"


class ClusterConfig(Section):
    """Where stages do their work (docs/CLUSTER.md). Only `shard_texts` has a part in results."""

    commands = ("run", "sweep", "plant")
    address: str = Field(NO_CLUSTER, exclude=True)
    """`none` for this process alone, `local` for a Ray cluster that is started on this machine and ended with the run,
    `auto` for the one that this machine is a node of, or an address: `ray://HOST:PORT`, `HOST:PORT`."""
    workers: int = Field(2, ge=1, exclude=True)
    """Processes that work side by side, each with its own models and `threads`."""
    gpus_per_worker: float = Field(0.0, ge=0.0, exclude=True)
    """GPUs of each, a share of one where several workers use it; needs `model.device`."""
    shard_texts: int = Field(1024, ge=1)
    """Texts that a worker reads at a time, rounded up to whole batches. Sums are of shards in a fixed order, in one
    process too, so that results are the same with any number of workers; other shards round them otherwise."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str) -> str:
        if address not in (NO_CLUSTER, LOCAL, RUNNING) and not re.fullmatch(r"(ray://)?[^\s/:]+:\d{1,5}", address):
            raise ValueError(f"{address!r} is neither none, local, auto nor an address such as ray://10.0.0.5:10001")
        return address
