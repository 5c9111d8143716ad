"""How good and how well calibrated predictions are: sums that add up over batches and ranks."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

NUM_BINS = 15
IGNORED = -100


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence is in (low, high]: how many, their mean confidence, and the share that is right.

    The two means are nan where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class Quality:
    """Top-1 accuracy, loss, Brier score and calibration of the predictions given to `update`.

    The confidence of a prediction is its largest softmax probability, computed in float64, so that no split into
    batches changes a bin. The reliability diagram has 15 bins of equal width, (low, high], the last of which holds
    confidence 1.0; its expected calibration error is that of Naeini et al. 2015. With `adaptive` the confidences
    themselves are kept, 16 bytes a prediction, for the error over bins of equal mass (arXiv 1904.01685). `num_classes`
    is the number of logits, if it should be checked. A prediction with logits that are not finite makes all means nan.
    """

    def __init__(self, num_classes: int | None = None, *, num_bins: int = NUM_BINS, adaptive: bool = True) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins must be 1 or more; got {num_bins}")
        self.num_classes, self.num_bins, self.adaptive = num_classes, num_bins, adaptive
        self._sums = torch.zeros(4, dtype=torch.float64)  # predictions, nats, hits, squared error
        self._bins = torch.zeros(3, num_bins, dtype=torch.float64)  # predictions, confidence, hits
        self._kept: list[Tensor] = []  # confidence and hit, [N, 2]

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add the predictions `logits` [N, C] of `labels` [N]; those of label -100 are left out."""
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            shapes = f"{list(logits.shape)} and {list(labels.shape)}"
            raise ValueError(f"logits and labels must be [N, C] and [N]; got {shapes}: flatten them")
        if self.num_classes is not None and logits.shape[1] != self.num_classes:
            raise ValueError(f"logits must have {self.num_classes} classes; got {logits.shape[1]}")
        logits, labels = logits.detach()[labels != IGNORED], labels[labels != IGNORED]
        if not len(labels):
            return
        if labels.min() < 0 or labels.max() >= logits.shape[1]:
            found = f"{int(labels.min())} to {int(labels.max())}"
            raise ValueError(f"labels must be from 0 to {logits.shape[1] - 1}, or {IGNORED}; got {found}")
        # A row whose logits are not finite is nan throughout, also where its label's logit is the finite one.
        spoilt = logits.new_zeros(len(logits), dtype=torch.float64).masked_fill(~logits.isfinite().all(1), math.nan)
        log_p = logits.double().log_softmax(1)
        of_label = log_p.gather(1, labels[:, None])[:, 0] + spoilt
        confidence, guess = log_p.max(1)
        confidence = confidence.exp().clamp(max=1) + spoilt
        hit = (guess == labels).double() + spoilt
        squared = log_p.mul_(2).exp_().sum(1) - 2 * of_label.exp() + 1
        self._sums += torch.stack([hit.new_tensor(len(hit)), -of_label.sum(), hit.sum(), squared.sum()]).cpu()
        confidence, hit = confidence.cpu(), hit.cpu()
        place = (confidence.nan_to_num() * self.num_bins).ceil().long().sub(1).clamp(0, self.num_bins - 1)
        for row, values in zip(self._bins, (torch.ones_like(hit), confidence, hit), strict=True):
            row.index_add_(0, place, values)
        if self.adaptive:
            self._kept.append(torch.stack([confidence, hit], 1))

    def merge(self, other: "Quality") -> None:
        """Add another's predictions, of another batch or rank."""
        if (self.num_bins, self.adaptive) != (other.num_bins, other.adaptive):
            raise ValueError("only qualities with as many bins, and both adaptive or neither, can be merged")
        self._sums += other._sums
        self._bins += other._bins
        self._kept += other._kept

    def all_reduce(self) -> None:
        """Add up those of all ranks, in place on each: call it on all, once, after the last batch.

        Nothing to do where `torch.distributed` is not initialised; its backend must take tensors on the CPU or a GPU.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        others: list[tuple[Tensor, Tensor, list[Tensor]] | None] = [None] * distributed.get_world_size()
        distributed.all_gather_object(others, (self._sums, self._bins, self._kept))
        found = [other for other in others if other is not None]
        self._sums = torch.stack([sums for sums, _, _ in found]).sum(0)
        self._bins = torch.stack([bins for _, bins, _ in found]).sum(0)
        self._kept = [part for _, _, kept in found for part in kept]

    @property
    def count(self) -> int:
        """Predictions so far."""
        return int(self._sums[0])

    @property
    def accuracy(self) -> float:
        """Fraction of predictions whose largest logit (the first of equal ones) is the label's."""
        return self._mean(2)

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the labels in nats."""
        return self._mean(1)

    @property
    def perplexity(self) -> float:
        """exp(loss); inf where that is no longer a float."""
        return math.exp(self.loss) if not self.loss > 700 else math.inf

    @property
    def brier(self) -> float:
        """Mean over predictions of the squared distance from probabilities to one-hot label, in [0, 2] (Brier 1950)."""
        return self._mean(3)

    @property
    def reliability(self) -> list[Bin]:
        """The reliability diagram, from the least to the most confident."""
        found = []
        for number, (count, confidence, hits) in enumerate(self._bins.T.tolist()):
            low, high = number / self.num_bins, (number + 1) / self.num_bins
            means = (confidence / count, hits / count) if count else (math.nan, math.nan)
            found.append(Bin(low, high, int(count), *means))
        return found

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence| of the bins, weighted by their predictions, in [0, 1]."""
        self._check()
        count, confidence, hits = self._bins
        return float((hits - confidence).abs().sum() / count.sum())

    @property
    def adaptive_ece(self) -> float:
        """The same over bins of as equal counts as can be, by order of confidence (arXiv 1904.01685)."""
        self._check()
        if not self.adaptive:
            raise ValueError("the confidences were not kept: make it Quality(adaptive=True)")
        confidence, hit = torch.cat(self._kept).T
        # Predictions of equal confidence are sorted by hit, so that their order of arrival changes nothing.
        order = hit.argsort(stable=True)
        order = order[confidence[order].argsort(stable=True)]
        gaps = [gap.sum().abs() for gap in (hit - confidence)[order].tensor_split(self.num_bins)]
        return float(torch.stack(gaps).sum() / len(hit))

    def _mean(self, row: int) -> float:
        self._check()
        return float(self._sums[row] / self._sums[0])

    def _check(self) -> None:
        if not self.count:
            raise ValueError("no prediction yet: update(logits, labels) first")
