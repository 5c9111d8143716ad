"""Quality against its definitions, scikit-learn, torchmetrics and netcal, and the same however the data is cut."""

import math
import socket
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torch.distributed import barrier, destroy_process_group, init_process_group
from torchmetrics.classification import MulticlassCalibrationError

import lazyneuron.training.quality as calibration
from lazyneuron.training.quality import Quality
from tests.processes import run_on_ranks

MEANS = ("accuracy", "loss", "perplexity", "brier", "ece", "adaptive_ece")
close = partial(pytest.approx, rel=1e-10, abs=1e-12)


def drawn(seed: int, count: int = 200, num_classes: int = 7, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits, some of them tied, and labels that they tell something about."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, num_classes)) * scale
    labels = (logits + rng.gumbel(size=logits.shape) * rng.uniform(0.5, 2)).argmax(1)
    logits[::5] = logits[::5].round()
    logits[::11] = 0
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


def quality(logits: Tensor, labels: Tensor, **how) -> Quality:
    found = Quality(**how)
    found.update(logits, labels)
    return found


def with_confidence(confidence, num_classes: int = 3) -> Tensor:
    """Float64 logits whose first class has about these probabilities, and the others the rest."""
    p = torch.as_tensor(confidence, dtype=torch.float64)
    rest = ((1 - p) / (num_classes - 1))[:, None].expand(-1, num_classes - 1)
    return torch.cat([p[:, None], rest], 1).log()


def softmax(logits: Tensor) -> np.ndarray:
    return torch.softmax(logits.double(), 1).numpy()


def naeini(p: np.ndarray, labels: np.ndarray, num_bins: int) -> float:
    """The definition, prediction by prediction and bin by bin."""
    confidence, hit = p.max(1), p.argmax(1) == labels
    error = 0.0
    for number in range(num_bins):
        is_here = (confidence > number / num_bins) & (confidence <= (number + 1) / num_bins)
        if is_here.any():
            error += is_here.mean() * abs(hit[is_here].mean() - confidence[is_here].mean())
    return error


def same(a: Quality, b: Quality) -> None:
    assert (a.count, a.num_nonfinite) == (b.count, b.num_nonfinite)
    assert {name: getattr(a, name) for name in MEANS} == close({name: getattr(b, name) for name in MEANS}, nan_ok=True)
    for left, right in zip(a.reliability, b.reliability, strict=True):
        assert (left.low, left.high, left.count) == (right.low, right.high, right.count)
        assert (left.confidence, left.accuracy) == close((right.confidence, right.accuracy), nan_ok=True)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_ece_is_naeinis(seed, num_bins):
    logits, labels = drawn(seed)
    logits, labels = logits[logits.any(1)], labels[logits.any(1)]  # NumPy's 1 / 7 need not be ours to the last bit
    found = quality(logits, labels, num_bins=num_bins)
    assert found.ece == close(naeini(softmax(logits), labels.numpy(), num_bins))


@pytest.mark.parametrize("seed", range(10))
def test_accuracy_loss_and_brier_are_scikit_learns(seed):
    logits, labels = drawn(seed)
    found, p, every = quality(logits, labels), softmax(logits), list(range(7))
    p /= p.sum(1, keepdims=True)
    assert found.accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert found.loss == close(log_loss(labels, p, labels=every))
    assert found.perplexity == close(math.exp(found.loss))
    assert found.brier == close(brier_score_loss(labels, p, labels=every, scale_by_half=False))


@pytest.mark.parametrize("seed", range(5))
def test_ece_is_torchmetrics_away_from_confidence_1(seed):
    logits, labels = drawn(seed)
    metric = MulticlassCalibrationError(num_classes=7, n_bins=15)
    away = logits.any(1) & (torch.softmax(logits, 1).amax(1) < 0.999)
    assert quality(logits[away], labels[away]).ece == pytest.approx(metric(logits[away], labels[away]).item(), abs=1e-5)


def test_confidence_1_is_in_the_last_bin_and_not_in_one_of_its_own_as_torchmetrics_has_it():
    certain = torch.tensor([[1000.0, 0, 0]])
    logits = torch.cat([certain.expand(5, 3), with_confidence([0.95] * 5).float()])
    labels = torch.tensor([1] + 4 * [0] + 5 * [0])  # 4 of 5 that are certain are right, 5 of 5 of the others
    found = quality(logits, labels)
    assert [bin.count for bin in found.reliability] == 14 * [0] + [10]
    assert found.ece == close(abs(0.9 - 0.975), abs=1e-7)
    apart = MulticlassCalibrationError(num_classes=3, n_bins=15)(logits, labels).item()
    assert apart == pytest.approx(0.5 * abs(0.8 - 1) + 0.5 * abs(1 - 0.95), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_ece_and_adaptive_ece_are_netcals(seed):
    metrics = pytest.importorskip("netcal.metrics")
    rng = np.random.default_rng(seed)
    # The quantiles at which netcal cuts lie between the predictions of 15 bins of 40: its bins are ours.
    logits, labels = torch.tensor(rng.normal(size=(600, 5)) * 2), torch.tensor(rng.integers(0, 5, 600))
    found, p = quality(logits, labels), softmax(logits)
    assert found.ece == close(metrics.ECE(15).measure(p, labels.numpy()))
    assert found.adaptive_ece == close(metrics.ECE(15, equal_intervals=False).measure(p, labels.numpy()))


@pytest.mark.parametrize("seed", range(5))
def test_adaptive_ece_is_that_of_bins_of_equal_counts(seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(203, 5)) * 2, rng.integers(0, 5, 203)
    p = softmax(torch.tensor(logits))
    order = p.max(1).argsort()
    confidence, hit = p.max(1)[order], (p.argmax(1) == labels)[order]
    parts = np.array_split(np.arange(203), 15)
    error = sum(len(i) / 203 * abs(hit[i].mean() - confidence[i].mean()) for i in parts)
    assert quality(torch.tensor(logits), torch.tensor(labels)).adaptive_ece == close(error)


def test_predictions_of_equal_confidence_share_their_accuracy():
    logits = torch.zeros(1000, 2)
    labels = torch.tensor([0, 1]).repeat_interleave(500)  # half right, at confidence 0.5, and sorted
    assert quality(logits, labels).adaptive_ece == 0
    assert quality(logits, labels).ece == 0


def test_adaptive_ece_of_fewer_predictions_than_bins():
    assert quality(with_confidence([0.7, 0.9]), torch.tensor([0, 1])).adaptive_ece == close((0.3 + 0.9) / 2)


@pytest.mark.parametrize("num_classes", range(1, 16))
def test_a_confidence_on_an_edge_is_in_the_bin_below_it(num_classes):
    found = quality(torch.full((4, num_classes), 0.7), torch.zeros(4, dtype=torch.long), num_bins=num_classes)
    assert [bin.count for bin in found.reliability] == [4] + (num_classes - 1) * [0]
    assert found.reliability[0].confidence == found.reliability[0].high == 1 / num_classes


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_split_order_or_rank_changes_anything(data):
    logits, labels = drawn(data.draw(st.integers(0, 10**6)), data.draw(st.integers(1, 60)))
    labels[torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))] = -100
    labels[0] = 0
    whole = quality(logits, labels)
    order = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=5)))
    ranks = [Quality(), Quality(), Quality()]
    for some in order.tensor_split(cuts):
        ranks[data.draw(st.integers(0, 2))].update(logits[some], labels[some])
    for rank in ranks[1:]:
        ranks[0].merge(rank)
    same(ranks[0], whole)
    counts = [bin.count for bin in whole.reliability]
    assert sum(counts) == whole.count == int((labels != -100).sum())
    assert 0 <= whole.ece <= 1
    assert 0 <= whole.adaptive_ece <= 1
    assert 0 <= whole.brier <= 2


def test_pieces_of_a_large_batch_are_as_the_whole(monkeypatch):
    logits, labels = drawn(0)
    whole = quality(logits, labels)
    monkeypatch.setattr(calibration, "_ENTRIES_AT_ONCE", 50)
    same(quality(logits, labels), whole)


def test_predictions_that_are_calibrated_have_a_small_error():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 10)) * 2
    labels = torch.tensor((logits + rng.gumbel(size=logits.shape)).argmax(1))  # drawn from the softmax
    found, sharp = quality(torch.tensor(logits), labels), quality(torch.tensor(3 * logits), labels)
    assert max(found.ece, found.adaptive_ece) < 0.02
    assert min(sharp.ece, sharp.adaptive_ece) > 0.15


def test_ignored_labels_do_not_count():
    logits, labels = drawn(0)
    some = torch.arange(200) % 3 > 0
    spoilt = torch.where(some[:, None], logits, math.nan)
    same(quality(spoilt, labels.where(some, -100)), quality(logits[some], labels[some]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("is_label", [True, False])
def test_logits_that_are_not_finite_are_counted_and_spoil_every_mean(bad, is_label):
    logits, labels = drawn(0)
    logits[3, labels[3] if is_label else (labels[3] + 1) % 7] = bad
    found = quality(logits, labels)
    found.merge(quality(*drawn(1)))
    assert (found.count, found.num_nonfinite) == (400, 1)
    assert all(math.isnan(getattr(found, name)) for name in MEANS)
    assert sum(bin.count for bin in found.reliability) == 399
    assert all(math.isnan(bin.accuracy) and math.isnan(bin.confidence) for bin in found.reliability)


def test_all_logits_not_finite_are_no_good_number_either():
    found = quality(torch.full((4, 3), math.nan), torch.zeros(4, dtype=torch.long))
    assert found.count == found.num_nonfinite == 4
    assert all(math.isnan(getattr(found, name)) for name in MEANS)


def test_a_class_of_logit_minus_infinity_has_probability_zero():
    logits, labels = drawn(0)
    wide = torch.cat([logits, torch.full((200, 1), -math.inf)], 1)
    same(quality(wide, labels), quality(logits, labels))
    assert quality(wide[:1], torch.tensor([7])).loss == math.inf
    assert quality(torch.full((1, 3), -math.inf), torch.tensor([0])).num_nonfinite == 1


def test_extreme_logits_are_exact():
    found = quality(torch.tensor([[3e38, -3e38], [0.0, 2000.0]]), torch.tensor([0, 0]))
    assert (found.loss, found.accuracy, found.brier, found.ece) == (1000, 0.5, 1, 0.5)
    assert found.perplexity == math.inf
    assert quality(torch.tensor([[0.0, 705.0]]), torch.tensor([0])).perplexity == close(math.exp(705))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_read_as_they_are(dtype):
    logits, labels = drawn(0)
    same(quality(logits.to(dtype), labels.int()), quality(logits.to(dtype).double(), labels))


def test_logits_stay_as_they_are_and_need_no_gradient_and_inference_mode_may_end_between():
    logits, labels = drawn(0)
    logits = logits.double().requires_grad_()
    before, found = logits.detach().clone(), Quality()
    found.update(logits, labels)
    with torch.inference_mode():
        found.update(logits, labels)
        inside = quality(logits, labels)
    found.update(logits, labels)
    inside.update(logits, labels)
    inside.merge(inside)
    assert torch.equal(logits, before)
    assert logits.grad is None
    assert (found.count, inside.count) == (600, 800)
    assert found.loss == close(inside.loss)


def test_without_adaptive_nothing_grows():
    found = quality(*drawn(0), adaptive=False)
    assert found.ece == quality(*drawn(0)).ece
    assert found._kept == []
    with pytest.raises(ValueError, match=r"make it Quality\(adaptive=True\)"):
        _ = found.adaptive_ece


X, Y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 2, 3), Y, r"got \[2, 2, 3\] and \[4\]: flatten them"),
        (X, Y[:3], r"got \[4, 3\] and \[3\]"),
        (torch.zeros(4, 2), Y, "must have 3 classes; got 2"),
        (X, Y + 3, "from 0 to 2; got 3 to 3: give those that should not count the label -100"),
        (X, Y - 1, "from 0 to 2; got -1 to -1"),
        (X, Y.double(), "labels integers; got torch.float32 and torch.float64"),
        (X.long(), Y, "logits must be floating point"),
    ],
)
def test_wrong_input_is_refused_in_one_line_and_changes_nothing(logits, labels, message):
    found = Quality(3)
    with pytest.raises(ValueError, match=message) as error:
        found.update(logits, labels)
    assert "\n" not in str(error.value)
    assert found.count == 0


@pytest.mark.parametrize("name", MEANS)
def test_nothing_has_no_mean(name):
    for labels in (Y[:0], Y - 100):
        with pytest.raises(ValueError, match=r"no prediction was counted: update"):
            getattr(quality(X[: len(labels)], labels), name)
    assert [bin.count for bin in Quality().reliability] == 15 * [0]


def test_other_settings_are_not_merged():
    with pytest.raises(ValueError, match="num_bins must be 1 or more; got 0"):
        Quality(num_bins=0)
    for other in (Quality(num_bins=10), Quality(adaptive=False), Quality(3)):
        with pytest.raises(ValueError, match=r"cannot add Quality\(.* to Quality\(None, num_bins=15, adaptive=True\)"):
            Quality().merge(other)


def test_all_reduce_alone_does_nothing():
    found = quality(*drawn(0))
    found.all_reduce()
    same(found, quality(*drawn(0)))


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = Quality()
    for logits, labels in (drawn(0, 6), drawn(1, 5), drawn(2, 1)):
        found.update(logits[rank::2], labels[rank::2])
    mine = found.count
    found.all_reduce()
    torch.save((mine, found._sums, found._bins, found._kept), f"{folder}/{rank}.pt")
    barrier()
    destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # of torch's own, in the children and about them
def test_two_ranks_find_what_one_process_does(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_on_ranks(work, port, str(tmp_path))
    whole = Quality()
    for logits, labels in (drawn(0, 6), drawn(1, 5), drawn(2, 1)):
        whole.update(logits, labels)
    for rank, own in enumerate((3 + 3 + 1, 3 + 2 + 0)):
        found = Quality()
        mine, found._sums, found._bins, found._kept = torch.load(tmp_path / f"{rank}.pt")
        assert mine == own
        same(found, whole)
