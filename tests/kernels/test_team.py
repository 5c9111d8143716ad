"""Kernels run by torch's own threads: every member does its part, and no folder to write to is no obstacle."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from numba import cfunc

from lazyneuron.kernels import team as threads
from lazyneuron.kernels.team import F32, F64, I16, I64, barrier, kernel, share

REFUSALS = {
    "no locator": RuntimeError("cannot cache function 'doubled': no locator available for file 'x.py'"),
    "no permission": PermissionError(13, "Permission denied"),
}


@kernel
def sums(team, whole_N: I64, totals_P: I64, parts_1: I64):
    """Each member writes its share of 0, 1, 2, ..., waits, and then sums up everybody's."""
    start, stop = share(team, len(whole_N))
    for i in range(start, stop):
        whole_N[i] = i
    barrier(team)
    for i in range(len(whole_N)):
        totals_P[team.member] += whole_N[i]
    if team.member == 0:
        parts_1[0] = team.size


def doubled(team, x_N: F32):
    for i in range(len(x_N)):
        x_N[i] *= 2


def run_sums(num_threads, whole, totals, parts):
    sums.run(num_threads, N=len(whole), whole_N=whole, totals_P=totals, parts_1=parts)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 3, 100_003])
def test_members_see_what_others_wrote_before_the_barrier(num_threads, size):
    for _ in range(20):
        whole = torch.full((size,), -1)
        totals, parts = torch.zeros(num_threads, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        run_sums(num_threads, whole, totals, parts)
        assert 1 <= parts.item() <= num_threads
        assert totals[: parts.item()].tolist() == [size * (size - 1) // 2] * parts.item()
        assert not totals[parts.item() :].any()
        assert torch.equal(whole, torch.arange(size))


@kernel
def scaled(team, factor: int, x_NK: F32 | I16, y_NK: F64, bias_K: F32 | None = None, *, sums_NK: F64, twice_N2: F64):
    for i in range(len(x_NK)):
        for j in range(x_NK.shape[1]):
            sums_NK[i, j] = x_NK[i, j] * factor
        twice_N2[i, 0] = 7.0
        twice_N2[i, 1] = len(bias_K)
    for i in range(len(x_NK)):
        for j in range(x_NK.shape[1]):
            y_NK[i, j] = sums_NK[i, j] + twice_N2[i, 0] + twice_N2[i, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
@pytest.mark.parametrize("bias", [None, torch.zeros(3)])
def test_arguments_have_the_shapes_of_their_names(dtype, bias):
    x, y = torch.arange(15).reshape(5, 3).to(dtype), torch.zeros(5, 3, dtype=torch.float64)
    scaled.run(1, x.element_size(), N=5, K=3, factor=2, x_NK=x, y_NK=y, bias_K=bias)
    assert torch.equal(y, 2 * x.double() + 7 + (0 if bias is None else 3))


@pytest.mark.parametrize("wrong", [{"factor": 2}, {"factor": 2, "y_NK": torch.zeros(1), "x": 3, "N": 1}])
def test_arguments_that_are_missing_or_unknown_are_refused(wrong):
    with pytest.raises(TypeError, match=r"scaled\(\) (missing .* 'y_NK'|got an unexpected keyword argument 'x')"):
        scaled.run(1, K=3, x_NK=torch.zeros(1), **wrong)


@pytest.mark.slow
def test_machine_code_is_kept_until_a_source_changes(tmp_path):
    """Also a source of a function that the kernel only calls."""
    package = tmp_path / "lazyneuron"
    shutil.copytree(Path(threads.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import torch; from lazyneuron.kernels.topk import topk; print(topk(torch.ones(1, 4), 2).tolist())"

    def run():
        env = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip(), sorted(p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.nbc"))

    first, kept = run()
    assert (first, len(kept)) == ("[[1.0, 1.0, 0.0, 0.0]]", 1)
    assert run() == (first, kept)
    weights = package / "kernels" / "weights.py"
    weights.write_text(weights.read_text() + "# edited\n")
    _, anew = run()
    assert len(anew) == 2


def test_without_torchs_runtime_one_thread_does_it_all(monkeypatch):
    monkeypatch.setattr(threads, "_start", None)
    whole, totals, parts = torch.zeros(10, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), torch.zeros(1).long()
    run_sums(4, whole, totals, parts)
    assert parts.item() == 1
    assert totals.tolist() == [45, 0, 0, 0]


@pytest.mark.skipif("not sys.platform.startswith('linux')")
def test_on_linux_torchs_runtime_is_found_and_gives_as_many_threads_as_asked_for():
    assert threads._start is not None
    assert all(threads._team)
    totals, parts = torch.zeros(2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    run_sums(2, torch.zeros(4, dtype=torch.int64), totals, parts)
    assert parts.item() == 2


def test_torch_computes_as_before_after_a_kernel():
    a, b = torch.randn(300, 300), torch.randn(300, 300)
    expected, before = a @ b, torch.get_num_threads()
    run_sums(5, *(torch.zeros(n, dtype=torch.int64) for n in (1, 5, 1)))
    assert torch.get_num_threads() == before
    assert torch.equal(a @ b, expected)


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_a_kernel_that_cannot_be_kept_on_disk_is_compiled_all_the_same(error, monkeypatch, caplog):
    def refusing(signature, cache=False):
        if cache:
            raise error
        return cfunc(signature)

    monkeypatch.setattr(threads, "cfunc", refusing)
    made, x = kernel(doubled), torch.ones(5)
    with caplog.at_level(logging.WARNING, logger="lazyneuron.kernels.team"):
        made.run(1, N=5, x_N=x)
        made.run(1, N=5, x_N=x)
    assert x.tolist() == [4] * 5
    assert [record.message.count("compiled again in each process") for record in caplog.records] == [1]


def test_another_error_of_the_compiler_is_not_swallowed(monkeypatch):
    def failing(signature, cache=False):
        raise RuntimeError("out of registers")

    monkeypatch.setattr(threads, "cfunc", failing)
    with pytest.raises(RuntimeError, match="out of registers"):
        kernel(doubled).run(1, N=1, x_N=torch.ones(1))
