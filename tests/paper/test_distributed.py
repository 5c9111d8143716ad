"""Two processes that share each batch (DDP), or the weights too (FSDP2), give the records of one."""

import os
import socket
from dataclasses import replace

import pytest

from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import StoppedError
from lazyneuron.paper.runs import Training, run_config
from lazyneuron.paper.task import load_batches
from lazyneuron.paper.train import train
from lazyneuron.records.folder import RunFolder
from tests.processes import run_on_ranks

UNEVEN = {"batch_size": 7, "test_examples": 22, "optimizer": "adamw", "learning_rate": 3e-3}
"""Batches of 7 split into 4 and 3, and the last of 22 held-out examples has one row: none for the second process."""


def carried_out(run: Training, folder, cache, kind: str) -> None:
    batches = load_batches(run, 0, cache)
    of_run = RunFolder(folder, run_config(run, 0, batches.fingerprint))
    train(run, of_run, batches, seed=0, device="cpu", sharded=kind == "fsdp2")


def work(rank: int, runs: list[Training], folder, cache, kind: str, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    from torch.distributed import destroy_process_group

    for run in runs:
        carried_out(run, folder / run.name, cache, kind)
    destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.filterwarnings("ignore")  # of torch's own, in the children and about them
def test_two_processes_give_the_densities_losses_and_ece_of_one(small_vit, small_t5, tmp_path, cache, kind):
    topk = replace(small_vit, name="vit-top9", selection=TopK(k=9))
    runs = [replace(run, **UNEVEN) for run in (small_vit, small_t5, topk)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for run in runs:
        carried_out(run, tmp_path / "one" / run.name, cache, "one")
    run_on_ranks(work, runs, tmp_path / "two", cache, kind, port)
    for run in runs:
        one, two = (RunFolder(tmp_path / folder / run.name).records() for folder in ("one", "two"))
        keys = [[(r.what, r.split, r.site, r.step, r.num_tokens) for r in records] for records in (one, two)]
        assert keys[0] == keys[1]
        assert [r.value for r in two] == pytest.approx([r.value for r in one], rel=1e-4, abs=1e-6)
        test = {r.what: r for r in two if r.split == "test"}
        assert test["loss"].num_tokens == (22 if "vit" in run.name else 22 * len(label_row(run, cache)))
        assert {"density", "loss", "accuracy", "ece"} <= test.keys()


def label_row(run: Training, cache):
    return next(load_batches(run, 0, cache).test())["labels"][0]


def stopped_then_on(rank: int, run: Training, folder, cache, port: int) -> None:
    """Three steps on sharded weights, then the rest; both end by a signal to the first process alone."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    import signal

    from torch.distributed import destroy_process_group

    batches = load_batches(run, 0, cache)
    of_run = RunFolder(folder, run_config(run, 0, batches.fingerprint))

    def interrupt(progress):
        if rank == 0 and progress.step == 3 and progress.density:
            os.kill(os.getpid(), signal.SIGINT)

    def interrupt_late(progress):
        if rank == 0 and progress.step == run.num_steps and progress.density:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="stopped at step"):
        train(run, of_run, batches, seed=0, device="cpu", sharded=True, report=interrupt)
    with pytest.raises(StoppedError, match="is done, then stopped"):
        train(run, of_run, batches, seed=0, device="cpu", sharded=True, report=interrupt_late)
    assert of_run.is_done()
    destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sharded_run_goes_on_from_its_checkpoint(small_vit, tmp_path, cache):
    run = replace(small_vit, **UNEVEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    carried_out(run, tmp_path / "one", cache, "one")
    run_on_ranks(stopped_then_on, run, tmp_path / "two", cache, port)
    one, two = (RunFolder(tmp_path / folder).records() for folder in ("one", "two"))
    assert [(r.what, r.split, r.site, r.step) for r in one] == [(r.what, r.split, r.site, r.step) for r in two]
    assert [r.value for r in two] == pytest.approx([r.value for r in one], rel=1e-4, abs=1e-6)
