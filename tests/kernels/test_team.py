"""Kernels run by torch's own threads: every member does its part, and no folder to write to is no obstacle."""

import logging

import numpy as np
import pytest
import torch
from numba import cfunc

from lazyneuron.kernels import team as threads
from lazyneuron.kernels.team import Kernel, array, barrier, team

REFUSALS = {
    "no locator": RuntimeError("cannot cache function 'doubled': no locator available for file 'x.py'"),
    "no permission": PermissionError(13, "Permission denied"),
}


@Kernel
def sums(a):
    """Each member writes its share of 0, 1, 2, ..., waits, and then sums up everybody's."""
    p, parts = team(a)
    size = a[3]
    whole, totals = array(a[4], (size,), np.int64), array(a[5], (parts,), np.int64)
    for i in range(size * p // parts, size * (p + 1) // parts):
        whole[i] = i
    barrier(a)
    for i in range(size):
        totals[p] += whole[i]
    if p == 0:
        array(a[6], (1,), np.int64)[0] = parts


def doubled(a):
    out = array(a[4], (a[3],), np.float32)
    for i in range(a[3]):
        out[i] *= 2


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 3, 100_003])
def test_members_see_what_others_wrote_before_the_barrier(num_threads, size):
    for _ in range(20):
        whole = torch.full((size,), -1)
        totals, parts = torch.zeros(num_threads, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        sums.run(num_threads, size, whole, totals, parts)
        assert 1 <= parts.item() <= num_threads
        assert totals[: parts.item()].tolist() == [size * (size - 1) // 2] * parts.item()
        assert not totals[parts.item() :].any()
        assert torch.equal(whole, torch.arange(size))


def test_without_torchs_runtime_one_thread_does_it_all(monkeypatch):
    monkeypatch.setattr(threads, "_start", None)
    whole, totals, parts = torch.zeros(10, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.zeros(1).long()
    sums.run(4, 10, whole, totals, parts)
    assert parts.item() == 1
    assert totals.tolist() == [45, 0, 0, 0]


@pytest.mark.skipif("not sys.platform.startswith('linux')")
def test_on_linux_torchs_runtime_is_found_and_gives_as_many_threads_as_asked_for():
    assert threads._start is not None
    assert all(threads._team)
    totals, parts = torch.zeros(2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    sums.run(2, 4, torch.zeros(4, dtype=torch.int64), totals, parts)
    assert parts.item() == 2


def test_torch_computes_as_before_after_a_kernel():
    a, b = torch.randn(300, 300), torch.randn(300, 300)
    expected, before = a @ b, torch.get_num_threads()
    sums.run(5, 1, torch.zeros(1, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), torch.zeros(1).long())
    assert torch.get_num_threads() == before
    assert torch.equal(a @ b, expected)


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_a_kernel_that_cannot_be_kept_on_disk_is_compiled_all_the_same(error, monkeypatch, caplog):
    def refusing(signature, cache=False):
        if cache:
            raise error
        return cfunc(signature)

    monkeypatch.setattr(threads, "cfunc", refusing)
    kernel, x = Kernel(doubled), torch.ones(5)
    with caplog.at_level(logging.WARNING, logger="lazyneuron.kernels.team"):
        kernel.run(1, 5, x)
        kernel.run(1, 5, x)
    assert x.tolist() == [4] * 5
    assert [record.message.count("compiled anew in each process") for record in caplog.records] == [1]


def test_another_error_of_the_compiler_is_not_swallowed(monkeypatch):
    def failing(signature, cache=False):
        raise RuntimeError("out of registers")

    monkeypatch.setattr(threads, "cfunc", failing)
    with pytest.raises(RuntimeError, match="out of registers"):
        Kernel(doubled).run(1, 1, torch.ones(1))
