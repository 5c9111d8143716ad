"""Quality and calibration of predictions, and their agreement with an original model's, as sums over predictions."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

NUM_BINS = 15
IGNORED = -100
_ENTRIES_AT_ONCE = 2**22


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

    The confidence of a prediction is its largest softmax probability, computed in float64. The reliability diagram has
    `num_bins` bins of equal width: the bin (low, high] holds a confidence that equals `high` as a float64, the last one
    confidence 1.0 too. What is kept are sums, so that however the data is cut into batches and ranks, counts are the
    same and means differ by no more than the rounding of a float64 sum. `num_classes` is the number of logits, if it
    should be checked.

    With `adaptive` the confidences are kept as well, 8 bytes a prediction (on every rank those of all ranks, after
    `all_reduce`), for the error over bins of equal mass: leave it out for language models.

    A prediction with a logit that is nan or inf counts in `num_nonfinite` and makes every mean nan. A logit of -inf is
    a class of probability 0, unless all are.
    """

    def __init__(self, num_classes: int | None = None, *, num_bins: int = NUM_BINS, adaptive: bool = True) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins must be 1 or more; got {num_bins}")
        self.num_classes, self.num_bins, self.adaptive = num_classes, num_bins, adaptive
        self._sums = torch.zeros(4, dtype=torch.float64)  # of finite predictions: nats, hits, squared error; not finite
        self._bins = torch.zeros(3, num_bins, dtype=torch.float64)  # of finite predictions: number, confidence, hits
        self._edges = torch.tensor([number / num_bins for number in range(num_bins + 1)], dtype=torch.float64)
        self._kept: list[Tensor] = []  # confidences, those of misses negative

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add the predictions `logits` [N, C] of `labels` [N], integers; those of label -100 are left out."""
        places, labels = self._checked(logits, labels)
        for some in places.split(max(1, _ENTRIES_AT_ONCE // logits.shape[1])):
            self._add(logits[some].double(), labels[some])

    def _checked(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The places that are not ignored and the labels, on the device of the logits."""
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            shapes = f"{list(logits.shape)} and {list(labels.shape)}"
            raise ValueError(f"logits and labels must be [N, C] and [N]; got {shapes}: flatten them")
        if not logits.is_floating_point() or labels.is_floating_point() or labels.dtype == torch.bool:
            dtypes = f"{logits.dtype} and {labels.dtype}"
            raise ValueError(f"logits must be floating point and labels integers; got {dtypes}: convert them")
        num_classes = logits.shape[1]
        if self.num_classes not in (None, num_classes):
            raise ValueError(
                f"logits must have {self.num_classes} classes; got {num_classes}: give Quality that number"
            )
        labels = labels.to(logits.device, torch.int64)
        places = (labels != IGNORED).nonzero().squeeze(1)
        if len(places):
            low, high = labels[places].aminmax()
            if low < 0 or high >= num_classes:
                found = f"{int(low)} to {int(high)}"
                hint = f"give those that should not count the label {IGNORED}"
                raise ValueError(f"labels must be from 0 to {num_classes - 1}; got {found}: {hint}")
        return places, labels

    def _add(self, z_NC: Tensor, labels_N: Tensor) -> None:
        """Add predictions from their float64 logits, which are overwritten."""
        top_N, guess_N = z_NC.max(1)
        is_finite = top_N.isfinite()
        num_nonfinite = len(z_NC) - int(is_finite.sum())
        if num_nonfinite:
            z_NC, labels_N, top_N, guess_N = (x[is_finite] for x in (z_NC, labels_N, top_N, guess_N))
        z_NC -= top_N[:, None]
        label_N = z_NC.gather(1, labels_N[:, None])[:, 0]
        total_N = z_NC.exp_().sum(1)
        # At most 1, and for n equal logits 1 / n as a float64 has it: on the edge of a bin, not beside it.
        confidence, hit = (1 / total_N).cpu(), (guess_N == labels_N).cpu().double()
        nats = total_N.log() - label_N
        squared = z_NC.square_().sum(1) / total_N.square() - 2 * label_N.exp() / total_N + 1
        sums = [float(nats.sum()), float(hit.sum()), float(squared.sum()), num_nonfinite]
        self._sums = self._sums + torch.tensor(sums, dtype=torch.float64)
        place = torch.bucketize(confidence, self._edges[1:-1])
        rows = (torch.ones_like(hit), confidence, hit)
        self._bins = self._bins + torch.stack([place.bincount(row, self.num_bins) for row in rows])
        if self.adaptive:
            self._kept.append(torch.where(hit > 0, confidence, -confidence))

    def merge(self, other: "Quality") -> None:
        """Add another's predictions, of another batch or rank."""
        self._check_same(other._settings)
        self._sums = self._sums + other._sums
        self._bins = self._bins + other._bins
        self._kept = [*self._kept, *other._kept]

    def all_reduce(self) -> None:
        """Add up those of all ranks, in place on each: call it on all, once, after the last batch.

        Nothing to do where `torch.distributed` is not initialised; its backend must take tensors on the CPU or a GPU.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        found: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(found, (self._settings, self._sums, self._bins, self._kept))
        for settings, *_ in found:
            self._check_same(settings)
        self._sums = torch.stack([sums for _, sums, _, _ in found]).sum(0)
        self._bins = torch.stack([bins for _, _, bins, _ in found]).sum(0)
        self._kept = [part for *_, kept in found for part in kept]

    def state(self) -> dict[str, Any]:
        """All sums, for `load_state`."""
        return {"sums": self._sums, "bins": self._bins, "kept": self._kept}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from the `state()` of a Quality with the same settings."""
        self._sums, self._bins, self._kept = state["sums"], state["bins"], state["kept"]

    @property
    def count(self) -> int:
        """Predictions so far, those that are not finite included."""
        return int(self._bins[0].sum()) + self.num_nonfinite

    @property
    def num_nonfinite(self) -> int:
        """Predictions with a logit that is nan or inf, or all of them -inf: any makes all means nan."""
        return int(self._sums[3])

    @property
    def accuracy(self) -> float:
        """Fraction of predictions whose largest logit (the first of equal ones) is the label's."""
        return self._mean(self._sums[1])

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the labels in nats."""
        return self._mean(self._sums[0])

    @property
    def perplexity(self) -> float:
        """exp(loss); inf where that is too large for a number."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    @property
    def brier(self) -> float:
        """Mean over predictions of the squared distance from probabilities to one-hot label, in [0, 2] (Brier 1950)."""
        return self._mean(self._sums[2])

    @property
    def reliability(self) -> list[Bin]:
        """The reliability diagram, from the least to the most confident; its counts are of finite predictions."""
        bins, edges = [], self._edges.tolist()
        for low, high, (count, confidence, hits) in zip(edges[:-1], edges[1:], self._bins.T.tolist(), strict=True):
            has_means = count and not self.num_nonfinite
            means = (confidence / count, hits / count) if has_means else (math.nan, math.nan)
            bins.append(Bin(low, high, int(count), *means))
        return bins

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]: |accuracy - confidence| of the bins, weighted by their predictions.

        The largest probability is calibrated, over bins of equal width, as in Guo et al. (arXiv 1706.04599, equation 3)
        after Naeini et al. 2015.
        """
        _, confidence, hits = self._bins
        return self._mean((hits - confidence).abs().sum())

    @property
    def adaptive_ece(self) -> float:
        """The same over `num_bins` bins of nearly equal counts, by order of confidence (Nguyen & O'Connor 2015).

        Where the edge of a bin falls among predictions of equal confidence, which nothing orders, each of them counts
        with the accuracy of them all. The adaptive bins of arXiv 1904.01685 are these, theirs for each class apart.
        """
        if not self.adaptive:
            raise ValueError("the confidences were not kept: make it Quality(adaptive=True)")
        signed = torch.cat([torch.zeros(0, dtype=torch.float64), *self._kept])
        confidence, order = signed.abs().sort()
        _, group, sizes = confidence.unique_consecutive(return_inverse=True, return_counts=True)
        hits = group.bincount((signed[order] > 0).double(), len(sizes))
        gaps = ((hits / sizes)[group] - confidence).tensor_split(self.num_bins)
        return self._mean(torch.stack([gap.sum().abs() for gap in gaps]).sum())

    @property
    def _settings(self) -> tuple[int | None, int, bool]:
        return self.num_classes, self.num_bins, self.adaptive

    def _check_same(self, others: tuple[int | None, int, bool]) -> None:
        if self._settings != others:
            ours, theirs = (f"Quality({n}, num_bins={bins}, adaptive={a})" for n, bins, a in (self._settings, others))
            raise ValueError(f"cannot add {theirs} to {ours}: make both with the same settings")

    def _mean(self, total: Tensor) -> float:
        if not self.count:
            raise ValueError("no prediction was counted: update(logits, labels) first, with labels other than -100")
        return math.nan if self.num_nonfinite else float(total) / self.count


class Agreement:
    """How near a model's answers are to its original's, over the rows given to `update`; `sums` is all of its state.

    Logits [N, V] have the share of rows whose first choice is the same (`agreement`) and the mean KL(original || model)
    in nats (`kl`); hidden states [N, D] of a model without a head have their mean `cosine`. Sums are in float64.
    """

    def __init__(self) -> None:
        # Rows of logits, same first choices, nats; rows of hidden states, cosines.
        self.sums = torch.zeros(5, dtype=torch.float64)

    @property
    def count(self) -> int:
        """Rows so far."""
        return int(self.sums[0] + self.sums[3])

    @torch.no_grad()
    def update(self, values: Tensor, original: Tensor, *, is_logits: bool) -> None:
        """Add rows, in pieces whose float64 copies are small."""
        size = max(1, _ENTRIES_AT_ONCE // values.shape[-1])
        for ours, theirs in zip(values.split(size), original.split(size), strict=True):
            a, b = ours.double(), theirs.double()
            if is_logits:
                log_q, log_p = a.log_softmax(-1), b.log_softmax(-1)
                nats = (log_p.exp() * (log_p - log_q)).masked_fill_(log_p == -math.inf, 0).sum().item()
                sums = [len(a), (a.argmax(-1) == b.argmax(-1)).sum().item(), nats, 0, 0]
            else:
                sums = [0, 0, 0, len(a), torch.cosine_similarity(a, b, dim=-1).sum().item()]
            self.sums = self.sums + torch.tensor(sums, dtype=torch.float64)

    @property
    def means(self) -> dict[str, float]:
        """`agreement` and `kl`, or `cosine`; empty before the first row."""
        rows, same, nats, hidden, cosines = self.sums.tolist()
        if hidden:
            return {"cosine": cosines / hidden}
        return {"agreement": same / rows, "kl": nats / rows} if rows else {}
