"""Compiled passes against eager ones, and what happens where they cannot be had."""

import shutil

import pytest
import torch
from torch import nn
from torch._inductor import config
from torch.nn.functional import cross_entropy

import lazyneuron as lazy
from lazyneuron.training import compiled
from lazyneuron.training.compiled import NotCompiledError, compile_passes

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs the C++ compiler g++")


def model(dropout=0.0):
    torch.manual_seed(0)
    drop = nn.Dropout(dropout)
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), drop, nn.Linear(16, 6), nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3)
    )


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return {"input": torch.randn(8, 6, generator=generator), "labels": torch.arange(8) % 3}


def loss_of(call, batch):
    logits = call(input=batch["input"])
    loss = cross_entropy(logits, batch["labels"])
    return loss + 1e-2 * logits.logsumexp(-1).square().mean(), loss


def check(trained, passes):
    """At other weights and batches than the example's, seen with hooks and dynamo reset between."""
    for seed in range(1, 4):
        with torch.no_grad():
            for weight in trained.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
        found = passes(batch(seed))
        gradients = [weight.grad for weight in trained.parameters()]
        trained.zero_grad()
        with lazy.watch(trained) as probe:
            expected = loss_of(trained, batch(seed))
        assert all(0 < density < 1 for density in probe.density.values())
        expected[0].backward()
        torch.testing.assert_close(found, tuple(value.detach() for value in expected))
        torch.testing.assert_close(gradients, [weight.grad for weight in trained.parameters()])


@pytest.mark.slow
@needs_compiler
def test_compiled_passes_are_the_eager_ones():
    trained = model()
    check(trained, compile_passes(trained, loss_of, batch(0)))


@pytest.mark.slow
@needs_compiler
def test_selections_in_force_are_compiled_too():
    trained = model()
    lazy.enforce(trained, lazy.TopK(k=5), example_inputs=batch(0)["input"])
    passes = compile_passes(trained, loss_of, batch(0))
    check(trained, passes)
    down = trained[3].weight
    passes({**batch(7), "input": batch(7)["input"][:1].expand(8, -1)})
    assert down.grad is not None
    assert int((down.grad != 0).any(0).sum()) == min(5, int((trained[1](trained[0](batch(7)["input"][:1])) > 0).sum()))


@pytest.mark.slow
@needs_compiler
def test_passes_that_draw_are_not_the_eager_ones():
    with pytest.raises(NotCompiledError, match="compiled passes differ from the eager ones by"):
        compile_passes(model(dropout=0.5).train(), loss_of, batch(0))


def test_a_pass_that_changes_buffers_is_not_compiled_and_leaves_them_alone():
    trained = nn.Sequential(model(), nn.BatchNorm1d(3)).train()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    with pytest.raises(NotCompiledError, match=r"changes the model's buffers \(1.running_mean\)"):
        compile_passes(trained, loss_of, batch(0))
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_without_a_compiler_it_says_so_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    no_compiler = config.patch("cpp.cxx", (str(tmp_path / "none"),))
    with no_compiler, pytest.raises(NotCompiledError, match=r"^\w+: [^\n]+$"):
        compile_passes(model(), loss_of, batch(0))


def test_the_least_difference_that_counts_is_relative():
    values = [torch.tensor(2.0), torch.tensor(1.0), torch.ones(4), torch.zeros(3)]
    off = [values[0], values[1], values[2] * 1.5, values[3]]
    assert compiled._difference(values, values) == 0
    assert compiled._difference(off, values) == pytest.approx(0.5)
    assert compiled._difference([values[0] * float("nan"), *values[1:]], values) == float("inf")
