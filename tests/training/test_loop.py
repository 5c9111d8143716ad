"""The loop alone, on a model of one weight: its rates, hooks, records and refusals."""

import itertools
import os
import signal

import pytest
import torch
from torch import nn

from lazyneuron.errors import LazyneuronError, StoppedError
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record
from lazyneuron.training.loop import Loop, learning_rate_at


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "rates"),
    [
        ("constant", 0, [8, 8, 8, 8]),
        ("constant", 4, [2, 4, 6, 8]),
        ("linear", 0, [8, 6, 4, 2]),
        ("linear", 2, [4, 6, 4, 2]),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls_to_zero(schedule, warmup_steps, rates):
    how = {"peak": 8, "num_steps": 4, "warmup_steps": warmup_steps, "schedule": schedule}
    assert [learning_rate_at(step, **how) for step in range(4)] == rates


def loop(path, num_steps=6, batches=None, **how):
    """SGD on w * batch, which takes the rate times the batch off the weight at each step."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    given = {"loss_of": lambda batch: (model.weight.sum() * batch,) * 2, "learning_rate": lambda step: 0.5}
    return Loop(
        name="line",
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=9.0),
        batches=batches or (lambda start: itertools.count(start + 1)),
        folder=RunFolder(path, {}),
        num_steps=num_steps,
        seed=0,
        **({"clip_norm": None, "log_every": 2} | given | how),
    )


def test_every_batch_is_a_step_at_its_rate_and_hooks_see_them_in_order(tmp_path):
    seen = []
    made = loop(
        tmp_path,
        num_steps=3,
        learning_rate=lambda step: 10.0**-step,
        at_step=lambda step: seen.append(("at", step)),
        on_loss=lambda step, loss: seen.append(("loss", step, loss)),
        on_log=lambda step, loss, batch: seen.append(("log", step, loss, batch)),
    )
    made.run()
    assert made.model.weight.item() == pytest.approx(-(1 + 0.2 + 0.03))
    assert [event[:2] for event in seen] == [
        ("at", 0), ("loss", 1), ("at", 1), ("loss", 2), ("log", 2), ("at", 2), ("loss", 3), ("at", 3),
    ]  # fmt: skip
    assert seen[4][2:] == (pytest.approx((0 - 1 * 2) / 2), 2)


def test_clipping_bounds_each_step(tmp_path):
    made = loop(tmp_path, clip_norm=1.0)
    made.run()
    assert made.model.weight.item() == pytest.approx(-6 * 0.5, rel=1e-4)


def test_stopped_it_resumes_and_drops_only_its_own_later_records(tmp_path):
    place = {"what": "loss", "unit": "nats", "recipe": "r", "seed": 0}
    other = Record(value=1, case="other", **place)

    def recording(made):
        made.on_log = lambda step, loss, batch: made.folder.append([Record(value=loss, step=step, case="own", **place)])
        return made

    def stop(step, loss):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = recording(loop(tmp_path / "whole", case="own", checkpoint_every=2))
    whole.run()
    cut = recording(loop(tmp_path / "cut", case="own", checkpoint_every=2, on_loss=stop))
    cut.folder.append([other, Record(value=7, step=2, case="own", **place)])
    with pytest.raises(StoppedError, match="line stopped at step 3 of 6; the same command resumes it"):
        cut.run()
    cut.folder.append([Record(value=8, step=4, case="own", **place)])
    rest = recording(loop(tmp_path / "cut", case="own", checkpoint_every=2))
    rest.run()
    assert torch.equal(rest.model.weight, whole.model.weight)
    assert rest.folder.records() == [other, *whole.folder.records()]
    assert [path.name for path in rest.folder.checkpoints("own")] == ["own-000000004.pt", "own-000000006.pt"]


@pytest.mark.parametrize("hook", ["at_step", "on_loss"])
def test_a_signal_after_the_last_step_stops_once_all_is_done(tmp_path, hook):
    ended = []

    def stop(step, *rest):
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    late = loop(tmp_path, at_end=lambda: ended.append(1), **{hook: stop})
    with pytest.raises(StoppedError, match="line is done, then stopped"):
        late.run()
    assert ended == [1]
    assert "step 6: done" in (tmp_path / "log.txt").read_text()
    again = loop(tmp_path, at_end=lambda: ended.append(2))
    again.run()
    assert torch.equal(again.model.weight, late.model.weight)
    assert ended == [1, 2]


def test_what_cannot_go_on_names_step_and_rate(tmp_path):
    with pytest.raises(LazyneuronError, match="the training data ended at step 2 of 6: give more"):
        loop(tmp_path / "short", batches=lambda start: [1, 2]).run()
    bad = lambda start: [1, 2, float("inf")]  # noqa: E731
    with pytest.raises(
        LazyneuronError,
        match=r"line: the loss became -inf at step 3 of 6, learning rate 0\.5; the last good .*0002\.pt",
    ):
        loop(tmp_path / "inf", batches=bad, checkpoint_every=1).run()
