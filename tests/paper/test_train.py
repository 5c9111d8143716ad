"""The training loop: records, resumption bit for bit, Ctrl-C, SIGKILL, and a loss that is no longer finite."""

import os
import random
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from torch._inductor import config

import lazyneuron as lazy
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import LazyneuronError, StoppedError, UsageError
from lazyneuron.paper.runs import folder_name, probe_steps, run_config
from lazyneuron.paper.study import load_trained
from lazyneuron.paper.task import build_model, forward, load_batches
from lazyneuron.paper.train import train
from lazyneuron.records.folder import RunFolder
from tests.processes import FORKED


def run_to_end(run, path, cache, seed=0, report=lambda progress: None):
    batches = load_batches(run, seed, cache)
    folder = RunFolder(path, run_config(run, seed, batches.fingerprint))
    train(run, folder, batches, seed=seed, device="cpu", report=report)
    return folder


def test_a_run_records_density_loss_and_accuracy_at_its_steps(small_run, tmp_path, cache):
    seen = []
    folder = run_to_end(small_run, tmp_path / "run", cache, report=seen.append)
    records = folder.records()
    steps = probe_steps(small_run.num_steps, small_run.num_probes)
    num_layers = 2
    for split in ("train", "eval"):
        density = [r for r in records if r.what == "density" and r.split == split]
        assert [r.step for r in density] == [step for step in steps for _ in range(num_layers)]
        assert all(0 < r.value < 1 for r in density)
        counts = [r for r in records if r.what == "num_active" and r.split == split]
        assert [c.value / 96 for c in counts] == pytest.approx([d.value for d in density], rel=1e-12)
    losses = [r.step for r in records if r.what == "loss" and r.split == "train"]
    assert losses == [3, 6, 9, 12]
    num_examples = load_batches(small_run, 0, cache).num_examples
    assert [r.value for r in records if r.what == "epochs"] == [12 * small_run.batch_size / num_examples]
    assert [r.step for r in records if r.what == "accuracy" and r.split == "eval"] == steps
    assert {(r.recipe, r.seed) for r in records} == {(small_run.name, 0)}
    test = {r.what: r for r in records if r.split == "test"}
    assert {"density", "num_active", "loss", "accuracy", "brier", "ece", "reliability"} <= test.keys()
    assert ("adaptive_ece" in test) == (small_run.name == "vit")
    assert {r.step for r in test.values()} == {12}
    of_bins = [r.num_tokens for r in records if r.what == "reliability"]
    assert sum(of_bins) == test["loss"].num_tokens == test["accuracy"].num_tokens
    assert {r.source.num_threads for r in records if r.source} == {1}
    assert [p.step for p in seen][-1] == small_run.num_steps
    assert folder.is_done()


def test_idle_neurons_and_blind_layers_are_recorded_of_held_out_data(small_run, tmp_path, cache):
    """At each probe step and, over all held-out examples, at the end: counted again here from the maps themselves."""
    run = replace(small_run, selection=TopK(k=7))
    folder = run_to_end(run, tmp_path / folder_name(run.name, 0), cache)
    whats = ("never_fired", "fires_below", "input_share", "mean_share")
    records = [r for r in folder.records() if r.what in whats]
    steps = [("eval", step) for step in probe_steps(run.num_steps, run.num_probes)] + [("test", run.num_steps)]
    assert [(r.split, r.step) for r in records] == [at for at in steps for _ in range(2 * len(whats))]
    assert all(0 <= r.value <= 1 and r.unit == "fraction" for r in records)
    assert {(r.what, r.x) for r in records} == {(what, 0.01 if what == "fires_below" else None) for what in whats}
    trained = load_trained(run, tmp_path, 0, cache)
    batches = list(trained.batches.test())
    with lazy.capture(trained.model, trained.sites, max_tokens=10**6) as maps, torch.no_grad():
        for batch in batches:
            trained.run_batch(batch)
    for r in (r for r in records if r.split == "test"):
        fired_TF = maps[r.site] != 0
        assert r.num_tokens == len(fired_TF)
        rates = fired_TF.double().mean(0)
        if r.what == "never_fired":
            assert r.value == (rates == 0).double().mean()
        elif r.what == "fires_below":
            assert r.value == (rates < 0.01).double().mean()
        elif r.what == "input_share":
            fired_BSF = fired_TF.view(37, -1, 96).double()
            at = fired_BSF.mean(0)
            assert r.value == pytest.approx(((at * (1 - at)).mean(0).sum() / (rates * (1 - rates)).sum()).item())
    density = {r.site: r.value for r in folder.records() if r.what == "density" and r.split == "test"}
    assert max(density.values()) <= 7 / 96


def test_a_run_with_a_selection_keeps_k_from_the_first_step_on(small_run, tmp_path, cache):
    """No token of any layer, split or step has more than k nonzeros; what was there before is recorded beside it."""
    run = replace(small_run, selection=TopK(k=7))
    records = run_to_end(run, tmp_path / "run", cache).records()
    assert {r.value for r in records if r.what == "max_active"} == {7}
    assert {r.value for r in records if r.what == "budget"} == {7}
    kept = [r for r in records if r.what == "density" and r.split != "test"]
    natural = [r for r in records if r.what == "natural_density"]
    assert [(r.site, r.step, r.split) for r in kept] == [(r.site, r.step, r.split) for r in natural]
    assert all(r.value <= 7 / 96 for r in kept)
    assert all(0.3 < r.value < 0.7 for r in natural if r.step == 0)
    assert run_config(run, 0)["selection"] == {"kind": "topk", "k": 7}


def test_a_selection_of_all_neurons_is_the_run_without_one_bit_for_bit(small_run, tmp_path, cache):
    plain = run_to_end(small_run, tmp_path / "plain", cache).records()
    whole = run_to_end(replace(small_run, selection=TopK(density=1.0)), tmp_path / "whole", cache).records()
    extra = {"natural_density", "max_active", "budget"}
    assert [(r.what, r.step, r.value) for r in whole if r.what not in extra] == [
        (r.what, r.step, r.value) for r in plain
    ]
    assert "selection" not in run_config(small_run, 0)


def test_a_control_trains_all_but_its_mlps_which_give_nothing(small_run, tmp_path, cache):
    """Its answers depend on no weight of its MLPs, before and after training, whatever the optimizer does."""
    task = replace(small_run.task, mlps="none")
    run = replace(small_run, task=task, weight_decay=0.1)
    folder = run_to_end(run, tmp_path / "run", cache)
    records, batches = folder.records(), load_batches(run, 0, cache)
    plain = build_model(load_batches(small_run, 0, cache), 0)
    model = build_model(batches, 0)
    mlps = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert len(mlps) == {"t5": 4, "vit": 8}[small_run.name]
    state = folder.load_checkpoint()["model"]
    for name, parameter in plain.named_parameters():
        if name in mlps:
            assert torch.equal(state[name], parameter), name
        elif "norm" not in name:
            assert not torch.equal(state[name], parameter), name
    model.load_state_dict(state)
    before = forward(model, batches.probe("eval", 0))[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in mlps:
                parameter.normal_()
    assert torch.equal(forward(model, batches.probe("eval", 0))[0], before)
    assert not {"density", "num_active"} & {r.what for r in records}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert [r.value for r in records if r.what == "num_parameters"] == [trained]
    assert run_config(run, 0)["task"]["mlps"] == "none"


def test_a_done_run_is_not_run_again(small_vit, tmp_path, cache):
    folder = run_to_end(small_vit, tmp_path / "run", cache)
    before = {file: file.stat().st_mtime_ns for file in folder.path.iterdir()}
    run_to_end(small_vit, tmp_path / "run", cache)
    assert {file: file.stat().st_mtime_ns for file in folder.path.iterdir()} == before


def test_another_seed_gives_other_numbers_on_the_same_held_out_data(small_vit, tmp_path, cache):
    first, second = (run_to_end(small_vit, tmp_path / str(seed), cache, seed).records() for seed in (0, 1))
    assert [r.value for r in first] != [r.value for r in second]
    one, two = (load_batches(small_vit, seed, cache).probe("eval", 1) for seed in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("stop_at", [0, 3, 6, 12])
def test_an_interrupted_run_goes_on_bit_for_bit(small_run, tmp_path, cache, stop_at):
    whole = run_to_end(small_run, tmp_path / "whole", cache)

    def interrupt(progress):
        if progress.step == stop_at and progress.density:
            os.kill(os.getpid(), signal.SIGINT)

    is_late = stop_at == small_run.num_steps
    stopped = "is done, then stopped" if is_late else rf"stopped at step {stop_at + (stop_at == 0)} of 12"
    with pytest.raises(StoppedError, match=stopped):
        run_to_end(small_run, tmp_path / "cut", cache, report=interrupt)
    assert RunFolder(tmp_path / "cut").is_done() == is_late
    cut = run_to_end(small_run, tmp_path / "cut", cache)
    assert (cut.path / "records.jsonl").read_bytes() == (whole.path / "records.jsonl").read_bytes()
    weights = [folder.load_checkpoint()["model"] for folder in (cut, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs the C++ compiler g++")
@pytest.mark.parametrize("selection", [None, TopK(k=7)])
def test_an_interrupted_compiled_run_goes_on_bit_for_bit(small_run, tmp_path, cache, monkeypatch, selection):
    """Compiled, a run stays within rounding of the eager one; a warning would say that it was not."""
    run, reports = replace(small_run, selection=selection), []
    eager = run_to_end(run, tmp_path / "eager", cache).load_checkpoint()
    monkeypatch.setattr("lazyneuron.paper.train.COMPILED_FROM_STEPS", 1)
    whole = run_to_end(run, tmp_path / "whole", cache, report=reports.append)

    def interrupt(progress):
        reports.append(progress)
        if progress.step == 6 and progress.density:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="stopped at step 6 of 12"):
        run_to_end(run, tmp_path / "cut", cache, report=interrupt)
    cut = run_to_end(run, tmp_path / "cut", cache, report=reports.append)
    assert {progress.warning for progress in reports} == {""}
    assert (cut.path / "records.jsonl").read_bytes() == (whole.path / "records.jsonl").read_bytes()
    weights = [folder.load_checkpoint()["model"] for folder in (cut, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert all(torch.allclose(weights[0][name], eager["model"][name], rtol=0.02, atol=0.02) for name in weights[0])
    if selection is not None:
        assert {r.value for r in whole.records() if r.what == "max_active"} == {7}


def test_a_long_run_without_a_compiler_says_why_once_and_runs_eagerly(small_vit, tmp_path, cache, monkeypatch):
    whole, seen = run_to_end(small_vit, tmp_path / "whole", cache), []
    monkeypatch.setattr("lazyneuron.paper.train.COMPILED_FROM_STEPS", small_vit.num_steps)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    with config.patch("cpp.cxx", (str(tmp_path / "none"),)):
        found = run_to_end(small_vit, tmp_path / "found", cache, report=seen.append)
    (warning,) = [progress.warning for progress in seen if progress.warning]
    assert warning.startswith("training is not compiled, which takes longer: ")
    assert (found.path / "log.txt").read_text().count(warning) == 1
    assert found.records() == whole.records()


def test_worker_processes_change_no_bit(small_vit, tmp_path, cache):
    alone = run_to_end(small_vit, tmp_path / "0", cache).records()
    helped = run_to_end(replace(small_vit, num_workers=2), tmp_path / "2", cache).records()
    assert helped == alone


def train_and_say_when_it_begins(run, path, cache, begun):
    def report(progress):
        if not begun.closed:
            begun.send(progress.step)
            begun.close()

    run_to_end(run, path, cache, report=report)


def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(small_vit, tmp_path, cache):
    run = replace(small_vit, num_steps=120, checkpoint_every=10)

    def start(name):
        heard, begun = FORKED.Pipe(duplex=False)
        process = FORKED.Process(target=train_and_say_when_it_begins, args=(run, tmp_path / name, cache, begun))
        process.start()
        begun.close()
        heard.recv()
        return process

    whole = start("whole")
    began = time.monotonic()
    whole.join()
    assert whole.exitcode == 0
    longest = time.monotonic() - began
    delays, kills = random.Random(0), 0
    while True:
        process = start("killed")
        process.join(delays.uniform(0.1, 0.45) * longest)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0 or kills == 3:
            break
    assert kills >= 1
    if process.exitcode != 0:
        final = start("killed")
        final.join()
        assert final.exitcode == 0
    assert (tmp_path / "killed/records.jsonl").read_bytes() == (tmp_path / "whole/records.jsonl").read_bytes()


def test_a_loss_that_is_not_finite_names_step_rate_and_checkpoint(small_vit, tmp_path, cache):
    run = replace(small_vit, learning_rate=1e30, clip_norm=None, warmup_steps=0, checkpoint_every=1)
    with pytest.raises(
        LazyneuronError, match=r"loss became nan at step \d+ of 12, learning rate .*last good checkpoint is .*pt"
    ):
        run_to_end(run, tmp_path / "run", cache)
    folder = RunFolder(tmp_path / "run")
    state = folder.load_checkpoint()
    assert state is not None
    assert all(weight.isfinite().all() for weight in state["model"].values())
    assert folder.records()


def test_weights_that_are_not_finite_are_never_saved(small_vit, tmp_path, cache, monkeypatch):
    def clip(parameters, norm, foreach):
        for parameter in parameters:
            parameter.grad.fill_(float("nan"))

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", clip)
    with pytest.raises(LazyneuronError, match=r"a weight is no longer finite at step 1 of 12, .* no checkpoint yet"):
        run_to_end(replace(small_vit, clip_norm=1.0, checkpoint_every=1), tmp_path / "run", cache)
    assert RunFolder(tmp_path / "run").load_checkpoint() is None


def test_a_damaged_checkpoint_stops_the_run_and_its_removal_lets_it_go_on(small_vit, tmp_path, cache):
    whole = run_to_end(small_vit, tmp_path / "run", cache)
    expected = (whole.path / "records.jsonl").read_bytes()
    newest = whole.checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    (whole.path / "done").unlink()
    with pytest.raises(LazyneuronError, match="is damaged"):
        run_to_end(small_vit, tmp_path / "run", cache)
    assert (whole.path / "records.jsonl").read_bytes() == expected
    newest.unlink()
    run_to_end(small_vit, tmp_path / "run", cache)
    assert (whole.path / "records.jsonl").read_bytes() == expected


def test_the_model_is_drawn_by_its_seed_and_leaves_the_generator_alone(small_t5, cache):
    batches = load_batches(small_t5, 0, cache)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (build_model(batches, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    name = "encoder.block.0.layer.1.DenseReluDense.wi.weight"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])


def test_training_learns(small_vit, tmp_path, cache):
    run = replace(small_vit, num_steps=150, learning_rate=3e-3, warmup_steps=10, batch_size=64)
    records = run_to_end(run, tmp_path / "run", cache).records()
    losses = [r.value for r in records if r.what == "loss" and r.split == "eval"]
    assert losses[-1] < 0.75 * losses[0]


def test_adafactor_on_sharded_weights_is_refused(small_t5, tmp_path, cache):
    batches = load_batches(small_t5, 0, cache)
    folder = RunFolder(tmp_path / "run", run_config(small_t5, 0, batches.fingerprint))
    with pytest.raises(UsageError, match="t5: PyTorch's Adafactor takes no sharded weights"):
        train(small_t5, folder, batches, seed=0, device="cpu", sharded=True)
