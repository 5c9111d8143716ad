"""Quality is the number of a loop over tokens, and the original's own where nothing is left out."""

import copy
import math

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F

from lazyneuron.enforce.enforce import enforce, enforced
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import UsageError
from lazyneuron.load.batches import text_batches
from lazyneuron.load.models import Loaded
from lazyneuron.measure import watch
from lazyneuron.sites import find_sites
from lazyneuron.training.comparison import Comparison
from lazyneuron.training.evaluation import Answer, Batch, Evaluation, answer
from lazyneuron.training.quality import IGNORED
from lazyneuron.training.split_data import image_data, text_data
from tests.load.conftest import FAMILIES, build, byte_tokenizer

DOCUMENTS = [f"Paragraph number {i} says that {i} plus {i} makes {2 * i}." for i in range(60)]


@pytest.fixture
def text(tmp_path):
    """`text(family)` is that model as loaded, with a tokenizer, and data of 60 paragraphs of which 3 are held out."""
    (tmp_path / "text.txt").write_text("\n\n".join(DOCUMENTS))

    def made(family: str, batch_size: int = 2, length: int | None = 24):
        tokenizer = byte_tokenizer(*FAMILIES[family][2], num_sentinels=30 * (family == "t5"))
        if family == "bert":
            tokenizer.add_special_tokens({"mask_token": "<unk>"})
        loaded = Loaded(family, build(family), "text", tokenizer=tokenizer)
        path = str(tmp_path / "text.txt")
        return loaded, text_data(loaded, path, batch_size=batch_size, length=length, seed=0, is_split=True)

    return made


def evaluated(loaded, data, *densities, number=4):
    """An evaluation over the first batches, the model under TopK at each density."""
    batches = [batch for batch, _ in zip(data.evaluation(), range(number), strict=False)]
    sites = find_sites(loaded.model, batches[0].inputs)
    original = copy.deepcopy(loaded.model)
    specs = {}
    for density in densities:
        enforce(loaded.model, TopK(density=density), sites, batches[0].inputs)
        specs[density] = enforced(loaded.model)
    found = Comparison(loaded.model, original, sites, specs)
    for batch in batches:
        found.add(batch)
    return found, batches, original


@torch.no_grad()
def loop(model, original, batches) -> dict:
    """The same token by token."""
    nats, hits, same, kl = [], [], [], []
    for batch in batches:
        ours, theirs = model(**batch.inputs).logits.double(), original(**batch.inputs).logits.double()
        for place in (batch.labels != IGNORED).nonzero().tolist():
            p, q = theirs[tuple(place)].softmax(-1), ours[tuple(place)].softmax(-1)
            label = int(batch.labels[tuple(place)])
            nats.append(-math.log(q[label]))
            hits.append(int(q.argmax()) == label)
            same.append(int(q.argmax()) == int(p.argmax()))
            kl.append(sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True)))
    means = [math.fsum(x) / len(x) for x in (nats, hits, same, kl)]
    return dict(zip(("loss", "accuracy", "agreement", "kl"), means, strict=True)) | {"count": len(nats)}


@pytest.mark.parametrize("family", ["llama", "opt", "bert", "t5", "bart"])
def test_it_is_the_number_of_a_loop_over_tokens(family, text):
    loaded, data = text(family)
    found, batches, original = evaluated(loaded, data, 1.0, 0.1)
    wanted = loop(loaded.model, original, batches)  # the last density is in force
    means = found.evaluations[0.1].means
    assert found.evaluations[0.1].num_scored == wanted["count"] > 20
    for name in ("loss", "accuracy", "agreement", "kl"):
        assert means[name] == pytest.approx(wanted[name], rel=1e-9, abs=1e-12)
    assert means["perplexity"] == pytest.approx(math.exp(wanted["loss"]))
    assert means["kl"] > 0
    assert means["agreement"] < 1 or family not in ("llama", "opt")
    dense, before = found.evaluations[1.0].means, found.evaluations[None].means
    assert dense == before  # k = d_ff
    assert (dense["kl"], dense["agreement"]) == (0, 1)


def test_labels_are_the_next_token_the_target_and_what_was_masked(text):
    loaded, data = text("llama")
    batch = next(data.evaluation())
    ids = batch.inputs["input_ids"]
    assert torch.equal(batch.labels[:, :-1], ids[:, 1:])
    assert (batch.labels[:, -1] == IGNORED).all()
    held_out = loaded.tokenizer(DOCUMENTS[10])["input_ids"]
    assert ids[0].tolist() == held_out[:24]
    loaded, data = text("t5")
    batch = next(data.evaluation())
    assert torch.equal(batch.labels[:, :-1], batch.inputs["decoder_input_ids"][:, 1:])
    loaded, data = text("bert", length=60)
    first, again = next(data.evaluation()), next(data.evaluation())
    assert torch.equal(first.labels, again.labels)
    masked = first.labels != IGNORED
    assert (first.inputs["input_ids"][masked] == loaded.tokenizer.mask_token_id).all()
    assert 0.05 < masked.sum() / first.inputs["attention_mask"].sum() < 0.25
    assert not (masked & (first.inputs["attention_mask"] == 0)).any()
    assert not torch.isin(first.labels[masked], torch.tensor(loaded.tokenizer.all_special_ids)).any()
    trained = next(data.training(0))
    assert trained.labels.shape != first.labels.shape or not torch.equal(trained.labels, first.labels)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_training_never_sees_what_is_held_out_and_goes_on_at_any_step(family, text):
    loaded, data = text(family, length=60)
    held_out = {DOCUMENTS[i] for i in (10, 30, 50)}

    def words(batches, name):
        rows = []
        for batch in batches:
            known = batch.labels != IGNORED if family == "bert" else torch.zeros_like(batch.inputs[name]).bool()
            rows += torch.where(known, batch.labels, batch.inputs[name]).tolist()
        return "".join(loaded.tokenizer.decode(row, skip_special_tokens=True) for row in rows)

    evaluation = words(data.evaluation(), "input_ids")
    stream = data.training(0)
    trained = words((next(stream) for _ in range(40)), "input_ids")
    assert DOCUMENTS[10] in evaluation
    assert sum(document in trained for document in DOCUMENTS) > 20
    assert not any(document in trained for document in held_out)
    stream, later = data.training(0), data.training(37)
    for _ in range(37):
        next(stream)
    a, b = next(stream), next(later)
    assert torch.equal(a.inputs["input_ids"], b.inputs["input_ids"])
    assert torch.equal(a.labels, b.labels)


def test_padding_is_left_out():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 7), torch.randint(0, 7, (2, 4))
    labels[1, 2:] = IGNORED
    found = Evaluation(nn.Identity())
    found.count(Batch({}, labels), Answer(logits, True), Answer(logits, True))
    kept = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    wanted = sum(F.cross_entropy(logits[i].double(), labels[i]).item() for i in kept) / 6
    assert found.num_scored == 6
    assert found.means["loss"] == pytest.approx(wanted, rel=1e-12)
    mask = (labels != IGNORED).long()
    other = logits.clone()
    other[1, 2:] = 100 * torch.randn(2, 7)
    found = Evaluation(nn.Identity())
    found.count(Batch({"attention_mask": mask}), Answer(other, True), Answer(logits, True))
    assert found.num_scored == 6
    assert found.means == {"agreement": 1, "kl": 0}


def test_certain_and_impossible_tokens_have_finite_numbers():
    logits = torch.tensor([[[0.0, -math.inf, 1.0]]])
    found = Evaluation(nn.Identity())
    assert (found.num_scored, found.means) == (0, {})
    found.count(Batch({}, torch.tensor([[2]])), Answer(logits, True), Answer(logits, True))
    assert found.means["kl"] == 0
    assert found.means["loss"] == pytest.approx(math.log(1 + math.exp(-1)))


def test_a_model_without_a_head_has_the_cosine_alone(text):
    loaded, _ = text("bert")
    bare = Loaded("bert", loaded.model.bert, "text", tokenizer=loaded.tokenizer)
    batches = [Batch(inputs) for inputs in text_batches(bare, DOCUMENTS[:8], batch_size=4, length=60)]
    original = copy.deepcopy(bare.model)
    sites = find_sites(bare.model, batches[0].inputs)
    enforce(bare.model, TopK(k=2), sites, batches[0].inputs)
    found = Comparison(bare.model, original, sites, {0.1: enforced(bare.model)})
    for batch in batches:
        found.add(batch)
    wanted = []
    with torch.no_grad():
        for batch in batches:
            a, b = (m(**batch.inputs).last_hidden_state.double() for m in (bare.model, original))
            wanted += torch.cosine_similarity(a, b, dim=-1)[batch.inputs["attention_mask"] != 0].tolist()
    assert found.evaluations[0.1].num_scored == len(wanted)
    assert found.evaluations[0.1].means == {"cosine": pytest.approx(sum(wanted) / len(wanted))}
    assert found.evaluations[None].means == {"cosine": pytest.approx(1)}


def test_kept_and_natural_density_are_measured(text):
    loaded, data = text("opt")
    found, batches, original = evaluated(loaded, data, 1.0, 4 / 32)
    found = found.evaluations
    with watch(original, found[None].sites) as probe, torch.no_grad():
        for batch in batches:
            original(**batch.inputs)
    assert found[None].kept.density == found[1.0].kept.density == found[1.0].natural.density == probe.density
    assert all(value <= 4 / 32 for value in found[4 / 32].kept.density.values())
    assert all(value > 0.3 for value in found[4 / 32].natural.density.values())


def test_its_state_goes_on(text):
    loaded, data = text("llama")
    whole, batches, original = evaluated(loaded, data, 1.0, 0.1)
    sites = whole.evaluations[None].sites
    specs = {1.0: whole._specs[1.0], 0.1: whole._specs[0.1]}
    first, second = (Comparison(loaded.model, original, sites, specs) for _ in range(2))
    for batch in batches[:2]:
        first.add(batch)
    second.load_state(copy.deepcopy(first.state()))
    for batch in batches[2:]:
        second.add(batch)
    for key, evaluation in whole.evaluations.items():
        assert second.evaluations[key].means == evaluation.means
    assert second.evaluations[0.1].natural.density == whole.evaluations[0.1].natural.density


def vit(num_labels: int) -> Loaded:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = hf.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=num_labels)
    return Loaded("vit", hf.ViTForImageClassification(config).eval(), "images")


def test_image_classifiers_have_accuracy_where_the_classes_are_the_models():
    loaded = vit(10)
    data = image_data(loaded, None, batch_size=32, seed=0)
    found, batches, _ = evaluated(loaded, data, 0.1, number=100)
    labels = torch.cat([batch.labels for batch in batches])
    with torch.no_grad():
        logits = torch.cat([loaded.model(**batch.inputs).logits for batch in batches])
    quality = found.evaluations[0.1].quality
    assert quality.count == 359
    assert quality.accuracy == pytest.approx((logits.argmax(-1) == labels).double().mean().item())
    assert quality.loss == pytest.approx(F.cross_entropy(logits.double(), labels).item())
    other = image_data(vit(3), None, batch_size=32, seed=0)
    assert not other.is_labelled
    assert next(other.evaluation()).labels is None
    assert "labels left out" in other.about
    found, _, _ = evaluated(vit(3), other, 0.1)
    assert found.evaluations[0.1].means.keys() == {"agreement", "kl"}
    assert found.evaluations[0.1].means["kl"] > 0


def test_what_cannot_be_judged_is_told_in_one_line(text, tmp_path):
    class Odd(nn.Module):
        def forward(self, input_ids):
            return {"boxes": input_ids}

    with pytest.raises(UsageError, match="Odd gives neither logits nor hidden states"):
        answer(Odd(), {"input_ids": torch.ones(1, 2)})
    with pytest.raises(UsageError, match=r"answer has shape \(2, 3, 5\), the labels \(2,\)"):
        Batch({}, torch.zeros(2).long()).is_scored(Answer(torch.zeros(2, 3, 5), True))
    loaded, _ = text("llama")
    (tmp_path / "short.txt").write_text("One paragraph alone, which is enough to judge by.")
    short = {"batch_size": 2, "length": 8, "seed": 0}
    with pytest.raises(UsageError, match=r"too few documents to hold out one in 20: give at least 11 paragraphs"):
        text_data(loaded, str(tmp_path / "short.txt"), is_split=True, **short)
    data = text_data(loaded, str(tmp_path / "short.txt"), is_split=False, **short)
    assert "all of it, for it is short" in data.about
    assert next(data.evaluation()).labels is not None
