"""Processes that work together or are killed, each forked from one that has imported what takes seconds."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import start_processes

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "pytest",
        "torch.distributed.fsdp",
        "torch.utils.tensorboard",
        "transformers.trainer",
        "transformers.models.bert.modeling_bert",
        "transformers.models.mixtral.modeling_mixtral",
        "transformers.models.vit.modeling_vit",
        "lazyneuron.enforce.verify",
        "lazyneuron.measure.callbacks",
        "lazyneuron.paper.train",
    ]
)


def run_on_ranks(work: Callable[..., None], *args: Any, num_ranks: int = 2) -> None:
    """Run `work(rank, *args)` in `num_ranks` processes at a time, to their end."""
    start_processes(work, args, nprocs=num_ranks, start_method="forkserver")
