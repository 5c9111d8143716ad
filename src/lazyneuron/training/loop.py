"""The training loop: warm-up and decay, clipping, checkpoints, a stop between two steps, and resumption bit for bit."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from lazyneuron.errors import LazyneuronError, StoppedError
from lazyneuron.records.folder import RunFolder
from lazyneuron.training.sharding import full_state, load_full_state, num_processes, process_number
from lazyneuron.training.stop import stop_signals

_SECONDS_BETWEEN_CHECKPOINTS = 300.0


def learning_rate_at(
    step: int, *, peak: float, num_steps: int, warmup_steps: int, schedule: Literal["constant", "linear"]
) -> float:
    """The rate of a step, counted from 0: a linear rise to `peak`, times a linear fall to 0 at `num_steps` if any."""
    rate = peak * min(1.0, (step + 1) / max(1, warmup_steps))
    return rate * (1 - step / num_steps) if schedule == "linear" else rate


def _seed(seed: int) -> None:
    """As `torch.manual_seed`, which takes 0.3 ms to seed devices that are not there."""
    if torch.cuda.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@dataclass(kw_only=True)
class Loop:
    """Trains `model` in place for `num_steps`, from the newest checkpoint of `folder` if there is one.

    `batches(start)` gives the batches from that step on, `loss_of` the loss to minimise and the loss to report, and
    `learning_rate` the rate of a step counted from 0. Hooks: `at_step(step)` runs before each step and, once all are
    done and saved, with `num_steps`; `on_loss(step, loss)` runs after each; `on_log(step, loss, batch)` every
    `log_every` steps, with the mean loss since the last; `at_end()` runs last of all. Checkpoints are written every
    `checkpoint_every` steps, or five minutes; they and the records of `case` are the loop's: records later than the
    checkpoint are dropped.
    `passes`, such as `compile_passes` makes, takes the place of `loss_of` and its backward pass.

    On a CPU an interrupted run ends with the same bits as an uninterrupted one, given the same PyTorch, the same kind
    of processor and, where `passes` is compiled, the same compiler. Processes of torch.distributed share each batch.
    Raises StoppedError after SIGINT or SIGTERM, once a checkpoint is written or, where the last step was made, `at_end`
    has run; LazyneuronError where loss or weights are no longer finite, or the data end early.
    """

    name: str
    model: nn.Module
    optimizer: Optimizer
    batches: Callable[[int], Iterable[Any]]
    loss_of: Callable[[Any], tuple[Tensor, Tensor]]
    folder: RunFolder
    num_steps: int
    learning_rate: Callable[[int], float]
    seed: int
    clip_norm: float | None
    log_every: int
    passes: Callable[[Any], tuple[Tensor, Tensor]] | None = None
    checkpoint_every: int | None = None
    num_checkpoints: int = 2
    case: str = ""
    at_step: Callable[[int], None] = lambda step: None
    on_loss: Callable[[int, float], None] = lambda step, loss: None
    on_log: Callable[[int, float, Any], None] = lambda step, loss, batch: None
    at_end: Callable[[], None] = lambda: None
    loss_sum: float = 0.0

    def run(self) -> None:
        """Train to the end."""
        done, is_stopping, began = self._load(), False, time.monotonic()
        start, saved = done, began
        self._log(f"step {start}: start")
        self.model.train()
        with stop_signals() as stops:
            for step, batch in zip(range(start, self.num_steps), self.batches(start), strict=False):
                is_stopping |= bool(stops) and num_processes() == 1
                if is_stopping or (step > start and self._is_due(step, saved)):
                    self._save(step)
                    saved = time.monotonic()
                if is_stopping:
                    self._log(f"step {step}: stopped after {time.monotonic() - began:.1f} s")
                    where = f"step {step} of {self.num_steps}"
                    raise StoppedError(f"{self.name} stopped at {where}; the same command resumes it")
                self.at_step(step)
                loss, is_stopping = self._update(step, batch, bool(stops))
                done = step + 1
                self.loss_sum += loss
                self.on_loss(done, loss)
                if done % self.log_every == 0:
                    mean, self.loss_sum = self.loss_sum / self.log_every, 0.0
                    self.on_log(done, mean, batch)
            if done < self.num_steps:
                raise LazyneuronError(f"the training data ended at step {done} of {self.num_steps}: give more")
            if done > start:
                self._save(done)
            self.at_step(done)
            self._log(f"step {done}: done after {time.monotonic() - began:.1f} s")
            self.at_end()
            if self._is_any_stopped(bool(stops)):
                raise StoppedError(f"{self.name} is done, then stopped; the same command goes on from there")

    def _is_due(self, step: int, saved: float) -> bool:
        if self.checkpoint_every is not None:
            return step % self.checkpoint_every == 0
        return time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS

    def _update(self, step: int, batch: Any, is_stopped: bool) -> tuple[float, bool]:
        """One step: its loss from before it, and whether any process received a signal to stop."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        _seed(hash((self.seed, step)))
        if self.passes is None:
            total, loss = self.loss_of(batch)
            total.backward()
        else:
            total, loss = self.passes(batch)
        alone = num_processes() == 1
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm, foreach=True if alone else None)
        if alone:
            mean_loss, mean_total, stopping = loss.item(), total.item(), is_stopped
        else:
            values = loss, total, loss.new_tensor(float(is_stopped))
            shared = torch.stack([value.detach().float() for value in values])
            distributed.all_reduce(shared)
            mean_loss, mean_total, stopping = (shared / num_processes()).tolist()
        if not math.isfinite(mean_total + mean_loss):
            self._fail(f"the loss became {mean_total}", step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean_loss, stopping > 0

    def _is_any_stopped(self, is_stopped: bool) -> bool:
        """Whether any process received a signal to stop."""
        if num_processes() == 1:
            return is_stopped
        signalled = torch.tensor(float(is_stopped), device=next(self.model.parameters()).device)
        distributed.all_reduce(signalled)
        return signalled.item() > 0

    def _fail(self, why: str, step: int) -> NoReturn:
        good = self.folder.checkpoints(self.case or "checkpoint")
        last = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint yet"
        where = f"step {step} of {self.num_steps}, learning rate {self.learning_rate(max(0, step - 1)):.3g}"
        fix = "run again with a lower learning rate in another --out"
        raise LazyneuronError(f"{self.name}: {why} at {where}; {last}: {fix}")

    def _log(self, text: str) -> None:
        if process_number() == 0:
            name = f"{self.case} " * bool(self.case)
            self.folder.log(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {name}{text}")

    def _save(self, step: int) -> None:
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            self._fail("a weight is no longer finite", step)
        weights, moments = full_state(self.model, self.optimizer)
        state = {"model": weights, "optimizer": moments, "loss_sum": self.loss_sum}
        if process_number() == 0:
            self.folder.save_checkpoint(step, state, keep=self.num_checkpoints, name=self.case or "checkpoint")

    def _load(self) -> int:
        """Go back to the newest checkpoint; the step it was made at, 0 without one."""
        state = self.folder.load_checkpoint(name=self.case or "checkpoint")
        if state is not None:
            load_full_state(self.model, self.optimizer, state["model"], state["optimizer"])
            self.loss_sum = state["loss_sum"]
        if process_number() == 0:
            self._drop_records(state)
        return state["step"] if state else 0

    def _drop_records(self, state: dict[str, Any] | None) -> None:
        """Drop the records of steps that will be run again."""
        if state is not None:
            self.folder.truncate_records(state["records_size"])
            return
        records = self.folder.records()
        kept = [record for record in records if record.case != self.case]
        if len(kept) < len(records):
            self.folder.truncate_records(0)
            self.folder.append(kept)
