"""A small Ray for one job on one machine, and no more to say than it must."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import ray

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
def local_ray(num_cpus: int) -> Iterator[None]:
    """Within it a Ray runs: the one that does already, or a local one without dashboard.

    Args:
        num_cpus: places for actors, of which this process takes one.
    """
    routine = _WithoutRoutine()
    handlers = [handler for name in ("ray", "ray.rllib") for handler in logging.getLogger(name).handlers]
    mine = not ray.is_initialized()
    if mine:
        ray.init(
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    for handler in handlers:
        handler.addFilter(routine)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(routine)
        if mine:
            ray.shutdown()
