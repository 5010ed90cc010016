"""A small Ray for one job on one machine, or a cluster's; and no more to say than it must."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping

import ray

LOCAL = "local"
"""Address of a Ray that starts and ends with the job."""
_OBJECT_STORE_BYTES = 512 * 2**20

_SAID_OF_EVERY_JOB = (
    "DeprecationWarning: `RLModule(config=[RLModuleConfig object])`",  # RLlib calls it itself
    "on the new API stack! This is the new default behavior",
)


class _WithoutRoutine(logging.Filter):
    """Lets all pass but what RLlib says of every job, whatever it does."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in _SAID_OF_EVERY_JOB)


@contextlib.contextmanager
def local_ray(num_cpus: float, address: str = LOCAL) -> Iterator[None]:
    """Within it a Ray runs: the one that does already, a local one without dashboard, or a cluster's.

    Args:
        num_cpus: places for actors, of which this process takes one; a cluster has its own.
        address: as :class:`~training.rl.config.TrainConfig` has it.

    Raises:
        ConnectionError: there is no cluster at the address.
    """
    routine = _WithoutRoutine()
    handlers = [handler for name in ("ray", "ray.rllib") for handler in logging.getLogger(name).handlers]
    mine = not ray.is_initialized()
    if mine:
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address == LOCAL:
            ray.init(
                LOCAL,
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
        else:
            try:
                ray.init(address, **quiet)
            except ConnectionError as error:
                raise ConnectionError(
                    f"ray_address is {address!r}, but no Ray cluster answers there; start one (ray start "
                    "--head), give the HOST:PORT of its head, or local"
                ) from error
    for handler in handlers:
        handler.addFilter(routine)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(routine)
        if mine:
            ray.shutdown()


def shortage(needed: Mapping[str, float]) -> str | None:
    """What the Ray at hand has too little of to start a job, in a sentence; None if there is enough.

    Args:
        needed: CPUs and GPUs that the job's processes ask for, beside this one.
    """
    there = ray.cluster_resources()
    missing = [
        f"{kind} {amount:g} where the cluster has {there.get(kind, 0):g}"
        for kind, amount in needed.items()
        if amount > there.get(kind, 0)
    ]
    return f"The job asks Ray for {' and '.join(missing)}; it waits until there is more." if missing else None
