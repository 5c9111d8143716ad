"""Fine-tuning learns under the selection, which holds at every step; it stops, goes on, and refuses in one line."""

import itertools
import os
import signal

import pytest
import torch
import transformers as hf
from torch.nn import functional as F

from lazyneuron.enforce.enforce import enforce
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import LazyneuronError, StoppedError, UsageError
from lazyneuron.load.models import Loaded
from lazyneuron.measure import watch
from lazyneuron.records.folder import RunFolder
from lazyneuron.sites import find_sites
from lazyneuron.training.evaluation import Answer, Batch, Evaluation
from lazyneuron.training.finetune import Finetuning, finetune, objective
from lazyneuron.training.quality import IGNORED
from lazyneuron.training.split_data import image_data, text_data
from tests.load.conftest import FAMILIES, build, byte_tokenizer

K = 4


@pytest.fixture
def batches():
    """Four batches of one sentence, over and over: something to memorise."""
    ids = torch.tensor([list(range(10, 34)) * 2])
    labels = F.pad(ids[:, 1:], (0, 1), value=IGNORED)

    def from_step(start):
        return itertools.islice(itertools.repeat(Batch({"input_ids": ids}, labels)), start, None)

    return from_step


def sparse(family="llama", dropout=0.0):
    """A tiny model under TopK, its sites, and it as it was before."""
    model = build(family)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    example = {"input_ids": torch.arange(10, 20)[None]}
    sites = find_sites(model, example)
    enforce(model, TopK(k=K), sites, example)
    return model, sites, build(family)


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_the_loss_falls_and_at_most_k_are_nonzero_at_every_step(family, batches, tmp_path):
    model, sites, _ = sparse(family, dropout=0.1)
    how = Finetuning(num_steps=40, learning_rate=1e-2, log_every=5)
    folder = RunFolder(tmp_path / "run", {})
    losses = []
    with watch(model, sites, ["active"]) as probe:
        finetune(model, batches, how, folder, sites=sites, report=lambda step, loss: losses.append(loss))
    assert len(losses) == 40
    assert losses[0] > 4
    assert losses[-1] < losses[0] / 2
    assert all(largest <= K for largest in probe.quantile(1).values())
    assert all(number >= 40 * 48 for number in probe.num_tokens.values())
    assert not model.training
    records = folder.records()
    logged = [(r.step, r.value) for r in records if r.what == "loss"]
    means = [sum(losses[i : i + 5]) / 5 for i in range(0, 40, 5)]
    assert logged == [(5 * i + 5, pytest.approx(mean)) for i, mean in enumerate(means)]
    assert {(r.case, r.split) for r in records} == {("finetuning", "train")}
    assert all(0 < r.value <= K / 32 for r in records if r.what == "density")
    assert all(r.value > K / 32 for r in records if r.what == "natural_density")
    assert len([r for r in records if r.what == "natural_density"]) == 8 * len(sites)


def test_stopped_and_gone_on_it_comes_to_the_same_weights(batches, tmp_path):
    how = Finetuning(num_steps=11, learning_rate=1e-3, log_every=3, distill=0.5)
    whole, sites, original = sparse("gpt2", dropout=0.1)
    first = RunFolder(tmp_path / "whole", {})
    finetune(whole, batches, how, first, sites=sites, original=original)
    part, sites, original = sparse("gpt2", dropout=0.1)
    second = RunFolder(tmp_path / "part", {})

    def stop(step, loss):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="finetuning stopped at step 5 of 11; the same command resumes it"):
        finetune(part, batches, how, second, sites=sites, original=original, report=stop)
    rest, sites, original = sparse("gpt2", dropout=0.1)
    seen = []
    finetune(rest, batches, how, second, sites=sites, original=original, report=lambda step, loss: seen.append(step))
    assert seen == list(range(6, 12))
    for name, weight in weights(whole).items():
        assert torch.equal(weight, rest.state_dict()[name]), name
    assert first.records() == second.records()
    again, sites, original = sparse("gpt2")
    finetune(again, batches, how, second, sites=sites)  # done: nothing is trained
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in weights(whole).items())
    assert second.records() == first.records()


def test_the_objective_is_cross_entropy_plus_weighted_kl():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 5, 7, requires_grad=True), torch.randn(2, 5, 7)
    labels = torch.randint(0, 7, (2, 5))
    labels[1, 3:] = IGNORED
    total, loss = objective(Batch({}, labels), Answer(ours, True), Answer(theirs, True), 0.7)
    found = Evaluation(torch.nn.Identity())
    found.count(Batch({}, labels), Answer(ours.detach(), True), Answer(theirs, True))
    assert loss.item() == pytest.approx(found.means["loss"], rel=1e-5)
    assert total.item() == pytest.approx(found.means["loss"] + 0.7 * found.means["kl"], rel=1e-5)
    total.backward()
    assert ours.grad is not None
    assert (ours.grad[1, 3:] == 0).all()
    total, loss = objective(Batch({}), Answer(ours, True), Answer(theirs, True), 2.0)
    assert total.item() == pytest.approx(2 * loss.item())
    total, _ = objective(Batch({}), Answer(ours, False), Answer(theirs, False), 1.0)
    assert total.item() == pytest.approx(((ours - theirs).square().sum() / theirs.square().sum()).item())
    nothing, _ = objective(Batch({}, torch.full((2, 5), IGNORED)), Answer(ours, True), None, 0.0)
    assert nothing.item() == 0


def test_distillation_brings_a_model_back_to_its_original(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(f"Number {i} and number {i + 1}." for i in range(60)))
    model, _, original = sparse("bert")
    loaded = Loaded("bert", model.bert, "text", tokenizer=byte_tokenizer(*FAMILIES["bert"][2]))
    data = text_data(loaded, str(tmp_path / "text.txt"), batch_size=4, length=40, seed=0, is_split=True)
    assert not data.is_labelled
    losses = []
    how = Finetuning(num_steps=30, learning_rate=3e-3, distill=1)
    finetune(
        model.bert,
        data.training,
        how,
        RunFolder(tmp_path / "run", {}),
        original=original.bert,
        report=lambda step, loss: losses.append(loss),
    )
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_an_image_classifier_learns(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = hf.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=10, hidden_act="relu")
    loaded = Loaded("vit", hf.ViTForImageClassification(config).eval(), "images")
    data = image_data(loaded, None, batch_size=64, seed=0)
    example = next(data.evaluation()).inputs
    enforce(loaded.model, TopK(k=K), example_inputs=example)
    how = Finetuning(num_steps=120, learning_rate=5e-3)
    finetune(loaded.model, data.training, how, RunFolder(tmp_path / "run", {}))
    assert Evaluation(loaded.model).run(data.evaluation()).quality.accuracy > 0.6


def test_a_loss_that_is_no_number_is_an_error_that_names_the_step(batches, tmp_path):
    model, _, _ = sparse()

    def poison(step, loss):
        if step == 3:
            next(model.parameters()).data[10] = float("nan")

    with pytest.raises(
        LazyneuronError,
        match=r"finetuning: the loss became nan at step 4 of 9, learning rate .* lower learning rate",
    ):
        finetune(model, batches, Finetuning(num_steps=9), RunFolder(tmp_path / "run", {}), report=poison)


def test_bad_settings_are_told_in_one_line(batches, tmp_path):
    for wrong, message in (
        ({"num_steps": 0}, "num_steps must be 1 or more; got 0"),
        ({"learning_rate": 0.0}, "the learning rate must be above 0; got 0.0"),
        ({"learning_rate": float("nan")}, "the learning rate must be above 0; got nan"),
        ({"distill": -1.0}, "the weight of distillation must be 0 or more; got -1.0"),
        ({"seed": -1}, "seed must be 0 or more; got -1"),
    ):
        with pytest.raises(UsageError, match=message):
            Finetuning(**wrong)
    model, _, _ = sparse()
    bare = Batch({"input_ids": torch.arange(10, 20)[None]})
    folder = RunFolder(tmp_path / "run", {})
    with pytest.raises(UsageError, match="no labels for this model: distil from the original with --distill 1"):
        finetune(model, lambda step: iter([bare]), Finetuning(num_steps=2), folder)
    with pytest.raises(LazyneuronError, match="the training data ended at step 2 of 5: give more"):
        finetune(model, lambda step: itertools.islice(batches(step), 2), Finetuning(num_steps=5), folder)


def test_the_learning_rate_rises_then_falls_to_nothing():
    how = Finetuning(num_steps=100, learning_rate=1.0)
    rates = [how.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(0.91)
    assert rates[99] == pytest.approx(0.01)
