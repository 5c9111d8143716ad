"""The stages of `convert`: fine-tuned, beside a dense control, annealed, by budgets; stopped anywhere it goes on."""

import gc
import os
import signal
import sys
import weakref
from functools import partial

import pytest
import torch

from lazyneuron.cli.enforce import Enforce
from lazyneuron.cli.enforce_run import convert, finetuning_of
from lazyneuron.enforce.enforce import enforce, enforced
from lazyneuron.enforce.saved import from_pretrained
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import StoppedError, UsageError
from lazyneuron.load.checkpoint import quiet
from lazyneuron.load.models import load
from lazyneuron.records.folder import RunFolder
from lazyneuron.training.comparison import Comparison
from lazyneuron.training.finetune import Finetuning, finetune
from lazyneuron.training.split_data import text_data
from tests.load.conftest import build, byte_tokenizer

K = 4
HOW = {"finetune": True, "steps": 6, "lr": 1e-2, "distill": 0.5}
COMMAND, LOOP = "lazyneuron.cli.enforce_run", "lazyneuron.training.finetune"


@pytest.fixture(autouse=True)
def log_every(monkeypatch):
    """`log_every(n)` records fine-tuning every n steps; every 2 unless called."""

    def set_interval(num_steps):
        monkeypatch.setattr(sys.modules[COMMAND], "Finetuning", partial(Finetuning, log_every=num_steps))

    set_interval(2)
    return set_interval


def values(records):
    return {(r.case, r.x, r.what): r.value for r in records if r.split == "eval" and not r.site}


def told(records):
    return [(r.case, r.split, r.x, r.what, r.site, r.step, r.value) for r in records]


def data_of(loaded, options):
    return text_data(loaded, options.text, batch_size=2, length=24, seed=0, is_split=True)


def stopping(patch, target, name, at):
    """Let the process be interrupted at the call of that number."""
    real, calls = getattr(target, name), []

    def call(*arguments, **more):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **more)

    patch.setattr(target, name, call)


def test_stopped_in_every_stage_it_goes_on_to_the_same_records(options, console, monkeypatch):
    whole = convert(options(**HOW), console)
    asked = options(**HOW, out="parted")
    loop = sys.modules[LOOP]
    for target, name, at, message, stage in (
        (Comparison, "add", 1, "stopped judging after 48 of 90; the same command resumes it", "judging"),
        (loop, "objective", 3, "stopped at step 3 of 6", "finetuning"),
        (Comparison, "add", 1, "stopped judging again after 48 of 90", "judging-finetuned"),
        (loop, "objective", 2, "stopped at step 2 of 6", "control"),
        (Comparison, "add", 1, "stopped judging the control after 48 of 90", "judging-control"),
    ):
        with monkeypatch.context() as patch:
            stopping(patch, target, name, at)
            with pytest.raises(StoppedError, match=message):
                convert(asked, console)
        assert len(RunFolder(asked.folder).checkpoints(stage)) == 1
    rest = convert(asked, console)
    assert told(rest.records) == told(whole.records)
    ours, theirs = (from_pretrained(str(each.model)).state_dict() for each in (rest, whole))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert list(asked.folder.glob("*.pt")) == []


def test_killed_between_stages_nothing_is_recorded_or_trained_twice(options, console, monkeypatch):
    whole = convert(options(**HOW), console)
    asked, loop = options(**HOW, out="killed"), sys.modules[LOOP]

    real, calls = loop.objective, []
    for number in (3, 6 + 3):  # the third step of the fine-tuning: after a record, before a checkpoint; of the control

        def dying(*arguments, number=number):
            calls.append(1)
            if len(calls) == number:
                raise MemoryError
            return real(*arguments)

        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "objective", dying)
            with pytest.raises(MemoryError):
                convert(asked, console)
    saved = (asked.folder / "model" / "model.safetensors").stat().st_mtime_ns
    rest = convert(asked, console)
    assert told(rest.records) == told(whole.records)
    assert (asked.folder / "model" / "model.safetensors").stat().st_mtime_ns == saved


def test_the_fine_tuned_model_is_judged_over_the_same_densities(options, console):
    converted = convert(options(**HOW), console)
    found = values(converted.records)
    assert [x for case, x, what in found if (case, what) == ("finetuned", "loss")] == [K / 32, 1.0, 0.5]
    model = from_pretrained(str(converted.model))
    loaded, asked = load(options().model), options()
    written = enforced(model)
    half = {name: entry | {"selection": TopK(density=0.5).to_dict()} for name, entry in written.items()}
    judged = Comparison(model, loaded.model, converted.sites, {0.5: half})
    for batch, _ in zip(data_of(loaded, asked).evaluation(), range(2), strict=False):
        judged.add(batch)
    assert found["finetuned", 0.5, "loss"] == pytest.approx(judged.evaluations[0.5].quality.loss, rel=1e-12)
    assert found["finetuned", 0.5, "loss"] != found["sweep", 0.5, "loss"]
    kept = {r.x: r.value for r in converted.records if (r.case, r.what) == ("finetuned", "density")}
    assert kept.keys() == {K / 32, 1.0, 0.5}


def test_the_control_is_the_original_fine_tuned_alike_without_a_selection(options, console, tmp_path):
    converted = convert(options(**HOW), console)
    found = values(converted.records)
    asked = options()
    ours, original = load(asked.model), load(asked.model)
    data = data_of(ours, asked)
    finetune(
        ours.model,
        data.training,
        finetuning_of(options(**HOW)),
        RunFolder(tmp_path / "own", {}),
        original=original.model,
    )
    enforce(ours.model, TopK(density=1.0), example_inputs=next(data.evaluation()).inputs)
    judged = Comparison(ours.model, original.model, converted.sites, {1.0: enforced(ours.model)})
    for batch, _ in zip(data.evaluation(), range(2), strict=False):
        judged.add(batch)
    assert found["control", 1.0, "loss"] == judged.evaluations[1.0].quality.loss
    assert found["control", 1.0, "loss"] < found["before", 1.0, "loss"]
    losses = [r.value for r in converted.records if (r.case, r.split, r.what) == ("control", "train", "loss")]
    assert len(losses) == 3
    assert from_pretrained(str(converted.model)).config.lazyneuron  # what is saved is not the control


def test_one_model_beside_the_original_is_in_memory_at_a_time(options, console, monkeypatch):
    command, taught, alive = sys.modules[COMMAND], [], []
    real = command.finetune

    def tuned(model, *arguments, **more):
        gc.collect()
        alive.append(sum(seen() is not None for seen in taught))
        taught.append(weakref.ref(model))
        real(model, *arguments, **more)
        assert all(weight.grad is None for weight in model.parameters())

    monkeypatch.setattr(command, "finetune", tuned)
    convert(options(**HOW), console)
    assert alive == [0, 0]


def test_the_control_can_be_left_out_and_unlabelled_data_have_none(options, console, checkpoints, tmp_path):
    found = convert(options(**HOW, control=False), console).records
    assert {r.case for r in found} == {"before", "converted", "sweep", "finetuning", "finetuned"}
    assert "control" not in {r.case for r in convert(options(out="plain"), console).records}
    with quiet():
        build("bert").bert.save_pretrained(tmp_path / "bert")
    byte_tokenizer("[CLS]", "[SEP]").save_pretrained(tmp_path / "bert")
    text = str(checkpoints("llama").parent / "text.txt")
    quick = {"text": text, "sweep": "1.0", "tokens": 90, "length": 24, "batch": 2, "out": tmp_path / "bare"}
    converted = convert(Enforce(model=str(tmp_path / "bert"), **HOW, **quick), console)
    assert "control" not in {r.case for r in converted.records}
    assert any(note.startswith("no control: without labels") for note in converted.notes)


def test_annealed_the_density_falls_and_top_k_is_what_is_saved(options, console, log_every):
    log_every(1)
    converted = convert(options(finetune=True, steps=8, lr=1e-2, anneal=True, control=False), console)
    steps = [r.value for r in converted.records if (r.case, r.what, r.layer) == ("finetuning", "density", 0)]
    expected = [(K / 32) ** (step / 8) for step in range(8)]
    assert steps[0] > 0.9
    assert steps == pytest.approx(expected, abs=1 / 32)
    selections = [entry["selection"] for entry in enforced(from_pretrained(str(converted.model))).values()]
    assert selections == [{"kind": "topk", "density": K / 32}] * 2
    found = values(converted.records)
    assert found["finetuned", K / 32, "loss"] < found["converted", K / 32, "loss"]
    with pytest.raises(UsageError, match="annealing lowers the density while the model is fine-tuned: add --finetune"):
        options(anneal=True)


def test_annealing_stopped_goes_on_to_the_same_records(options, console, monkeypatch):
    whole = convert(options(**HOW, anneal=True), console)
    asked = options(**HOW, anneal=True, out="parted")
    with monkeypatch.context() as patch:
        stopping(patch, sys.modules[LOOP], "objective", 4)
        with pytest.raises(StoppedError, match="stopped at step 4 of 6"):
            convert(asked, console)
    assert told(convert(asked, console).records) == told(whole.records)


def test_budgets_give_each_site_its_density(options, console):
    asked = options(budgets={r"layers\.0\.": 0.25}, sweep="0.5,0.1875", **HOW, anneal=True)
    converted = convert(asked, console)
    in_force = enforced(from_pretrained(str(converted.model)))
    assert [entry["selection"]["density"] for entry in in_force.values()] == [0.25, 0.125]
    kept = {(r.case, r.x, r.layer): r.value for r in converted.records if r.what == "density" and r.split == "eval"}
    mean = 0.1875  # the same as a density of the sweep, which is of every site
    assert [kept["converted", mean, layer] for layer in (0, 1)] == [0.25, 0.125]
    assert [kept["sweep", mean, layer] for layer in (0, 1)] == [0.1875, 0.1875]
    assert [kept["finetuned", mean, layer] for layer in (0, 1)] == [0.25, 0.125]
    found = values(converted.records)
    assert found["converted", mean, "loss"] != found["sweep", mean, "loss"]
    with pytest.raises(UsageError, match="'nowhere' matches none of the 2 sites: 'model"):
        convert(options(budgets={"nowhere": 0.1}, out="wrong"), console)
    assert not options(out="wrong").folder.exists()
    with pytest.raises(UsageError, match=r"--budgets: '\(' is neither the name of a site nor a regular expression"):
        convert(options(budgets={"(": 0.1}, out="wrong"), console)
