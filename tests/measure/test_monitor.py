"""The monitor of a training loop: what it records, when it looks, and that it leaves nothing behind."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers as hf
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.measure.monitor import Monitor
from lazyneuron.pages import write_report
from lazyneuron.paper.models import vit
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record
from lazyneuron.sites import find_sites
from tests.processes import run_on_ranks


class Block(nn.Module):
    """A residual ReLU MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class Stack(nn.Module):
    """Two MLPs, whose active neurons are easily counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)

    @torch.no_grad()
    def active(self, x: Tensor) -> list[int]:
        """How many entries of each map are nonzero, computed without the library."""
        return [int((self.blocks[0].up(x) > 0).sum()), int((self.blocks[1].up(self.blocks[0](x)) > 0).sum())]


def _x(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (10, 8)), generator=torch.Generator().manual_seed(seed))


def _num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def _records(folder: Path, what: str = "density") -> dict[tuple[int | None, str, int | None], Record]:
    """Records by step, stack and layer, each there once."""
    records = [record for record in RunFolder(folder).records() if record.what == what]
    found = {(record.step, record.stack, record.layer): record for record in records}
    assert len(found) == len(records)
    return found


def _values(folder: Path, what: str = "density") -> dict[tuple[int | None, str, int | None], float]:
    return {place: record.value for place, record in _records(folder, what).items()}


def _steps(folder: Path) -> list[int | None]:
    return [step for step, _, layer in _records(folder) if layer == 0]


def test_a_plain_loop_records_what_a_count_by_hand_gives(tmp_path: Path) -> None:
    """Each measured step has the density at the weights before its update, by layer, and says where it comes from."""
    model, expected, never_active = Stack(), {}, 0
    with torch.no_grad():
        model.blocks[1].up.bias[:2] = -9  # two dead neurons
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = Monitor(model, tmp_path / "mine", every=2, recipe="toy", seed=3)
    for step in range(5):
        x = _x(step)
        if step % 2 == 0:
            expected |= {(step, "", layer): active / 120 for layer, active in enumerate(model.active(x))}
            never_active = int((model.blocks[1].up(model.blocks[0](x)) <= 0).all(0).sum())
        with monitor.step(step):
            loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert _values(tmp_path / "mine") == expected
    assert len(set(expected.values())) > 3
    assert _values(tmp_path / "mine", "num_active") == pytest.approx({k: 12 * v for k, v in expected.items()})
    rare = _values(tmp_path / "mine", "never_fired")
    assert rare == _values(tmp_path / "mine", "rarely_fired")  # 1 of 10 tokens is more than 1 %
    assert rare[4, "", 1] == never_active
    assert _values(tmp_path / "mine", "hot_99")[4, "", 1] == pytest.approx(1 - never_active / 12)
    assert _values(tmp_path / "mine", "hot_90")[4, "", 1] < 1 - never_active / 12
    record = _records(tmp_path / "mine")[4, "", 1]
    assert (record.recipe, record.seed, record.split, record.site) == ("toy", 3, "train", "blocks.1")
    assert (record.num_tokens, record.unit) == (10, "fraction")
    assert record.source is not None
    assert record.source.versions["torch"] == torch.__version__
    assert (record.source.device.split()[0], record.source.num_threads) == ("cpu", torch.get_num_threads())
    assert (tmp_path / "mine" / "records.jsonl").read_text().count('"source"') == 1
    assert monitor.density == {"blocks.0": expected[4, "", 0], "blocks.1": expected[4, "", 1]}


def test_steps_between_have_no_hook_and_sites_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks are there in measured steps alone, gone after them, and only the first one traces the model."""
    model, calls = Stack(), []
    monkeypatch.setattr(Block, "forward", lambda self, x: calls.append(0) or x + self.down(self.up(x).relu()))
    monitor = Monitor(model, tmp_path, every=3)
    for step in range(7):
        with monitor.step(step):
            assert bool(_num_hooks(model)) == (step % 3 == 0)
            model(_x(step))
        assert _num_hooks(model) == 0
    assert len(calls) == 2 * 7 + 2  # traced once
    calls.clear()
    given = Monitor(model, tmp_path / "given", every=3, sites=find_sites(model, _x(0)))
    calls.clear()
    with given.step(0):
        model(_x(0))
    assert len(calls) == 2
    assert _steps(tmp_path / "given") == [0]


def test_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """Weights after training with dropout do not depend on whether the monitor looks."""

    def trained(monitored: bool) -> Tensor:
        model = nn.Sequential(Stack(), nn.Dropout(0.3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = Monitor(model, tmp_path, every=1) if monitored else None
        torch.manual_seed(1)
        for step in range(3):
            with monitor.step(step) if monitor else pytest.MonkeyPatch.context():
                model(_x(step)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(trained(True), trained(False))


@pytest.mark.parametrize("way", ["inside", "one by one", "flushed"])
def test_micro_batches_of_a_step_count_together(tmp_path: Path, way: str) -> None:
    """Gradient accumulation in one `with`, or in one each, gives one record per layer: the sum."""
    model, parts = Stack(), [_x(0), _x(1, 3, 8), _x(2)]
    monitor = Monitor(model, tmp_path, every=2)
    for step in range(2):
        if way == "inside":
            with monitor.step(step):
                for part in parts:
                    model(part)
        else:
            for number, part in enumerate(parts):
                with monitor.step(step, is_last=way == "one by one" and number == 2):
                    model(part)
                assert _num_hooks(model) == 0
            if way == "flushed":
                monitor.flush()
    totals = [sum(active) for active in zip(*map(model.active, parts), strict=True)]
    assert _values(tmp_path) == {(0, "", 0): totals[0] / 276, (0, "", 1): totals[1] / 276}
    assert {record.num_tokens for record in _records(tmp_path).values()} == {23}


def test_a_step_left_unfinished_is_recorded_when_the_next_begins(tmp_path: Path) -> None:
    """An epoch that ends amid the micro-batches of a step loses nothing."""
    model = Stack()
    monitor = Monitor(model, tmp_path, every=2)
    with monitor.step(0, is_last=False):
        model(_x(0))
    assert _records(tmp_path) == {}
    with monitor.step(1):
        model(_x(1))
    assert _values(tmp_path)[0, "", 0] == model.active(_x(0))[0] / 120


@pytest.mark.parametrize("first", [True, False])
def test_passes_without_gradients_do_not_count(tmp_path: Path, first: bool) -> None:
    """Evaluation inside a measured step is left out, also if it is the first pass, and also if it fails."""
    model = Stack()
    monitor = Monitor(model, tmp_path, every=1)
    with monitor.step(0):
        if first:
            with torch.no_grad():
                model.eval()(_x(7))
        model.train()(_x(0))
        with torch.inference_mode():
            model(_x(8))
        with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(_x(8, 2, 3))
        model(_x(1))
    totals = [sum(active) for active in zip(model.active(_x(0)), model.active(_x(1)), strict=True)]
    assert _values(tmp_path) == {(0, "", 0): totals[0] / 240, (0, "", 1): totals[1] / 240}
    assert _num_hooks(model) == 0


def test_an_exception_leaves_no_hook_and_no_record(tmp_path: Path) -> None:
    """Whatever fails inside a measured step, before, in or after the forward pass; the next step is whole."""
    model = Stack()
    monitor = Monitor(model, tmp_path, every=1)

    def fail(step: int, is_last: bool) -> None:
        with monitor.step(step, is_last=is_last):
            model(_x(0))
            assert _num_hooks(model) > 0
            raise KeyError

    for step, is_last in enumerate((True, False)):
        with pytest.raises(KeyError):
            fail(step, is_last)
        assert _num_hooks(model) == 0
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), monitor.step(2):
        model(_x(0, 2, 3))
    assert _num_hooks(model) == 0
    with monitor.step(3):
        model(_x(3))
    assert _values(tmp_path)[3, "", 0] == model.active(_x(3))[0] / 120
    assert _steps(tmp_path) == [3]


def _train(folder: Path, steps: range, every: int = 2) -> None:
    model = Stack()
    monitor = Monitor(model, folder, every=every)
    for step in steps:
        with monitor.step(step):
            model(_x(step))


def test_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    """Records of the steps that are run again, the user's own and a line cut short too, are put aside."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _train(whole, range(9))
    _train(broken, range(7))
    RunFolder(broken).append([Record(what="loss", value=1.0, unit="nats", recipe="train", seed=0, step=5)])
    with (broken / "records.jsonl").open("a") as file:
        file.write('{"what": "dens')
    _train(broken, range(3, 9))
    assert _values(broken) == _values(whole)
    assert _steps(broken) == [0, 2, 4, 6, 8]
    replaced = [json.loads(line) for line in (broken / "replaced.jsonl").read_text().splitlines()[:-1]]
    assert {line["step"] for line in replaced if "step" in line} == {4, 5, 6}
    assert (broken / "log.txt").read_text().count("start") == 2
    _train(broken, range(9, 11))
    assert _steps(broken) == [0, 2, 4, 6, 8, 10]


def test_steps_must_go_forward(tmp_path: Path) -> None:
    """A count that starts anew with each epoch, and a step recorded twice, are refused in one line."""
    model = Stack()
    monitor = Monitor(model, tmp_path, every=2)
    for step in range(3):
        with monitor.step(step):
            model(_x(step))
    with pytest.raises(UsageError, match="step 0 came after step 2"):
        monitor.step(0)
    with pytest.raises(UsageError, match=r"step 2 is already recorded.*is_last=False"):
        monitor.step(2)


def test_misuse_is_refused_in_one_line(tmp_path: Path) -> None:
    """A module that is not called, a wrong interval, and another run's folder."""
    model = Stack()
    monitor = Monitor(model, tmp_path, every=1)
    with pytest.raises(UsageError, match="step 0: nothing was counted, because Stack itself was not"), monitor.step(0):
        model.blocks(_x(0))
    with pytest.raises(UsageError, match="every must be 1 step or more; got 0"):
        Monitor(model, tmp_path, every=0)
    with pytest.raises(UsageError, match=r"another config \(name\)"):
        Monitor(model, tmp_path, recipe="other")


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All curves of the event files right in a folder, as TensorBoard reads them."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_gets_the_recorded_numbers(tmp_path: Path) -> None:
    """Its event file, beside the records, holds each layer's curve and the mean."""
    pytest.importorskip("tensorboard")
    model = Stack()
    monitor = Monitor(model, tmp_path / "mine", every=2, trackers=["tensorboard"])
    for step in range(3):
        with monitor.step(step):
            model(_x(step))
    monitor.close()
    curves, values = _scalars(tmp_path / "mine"), _values(tmp_path / "mine")
    assert curves.keys() == {"density/layer.0", "density/layer.1", "density/mean"}
    for layer in (0, 1):
        expected = [(0, pytest.approx(values[0, "", layer])), (2, pytest.approx(values[2, "", layer]))]
        assert curves[f"density/layer.{layer}"] == expected
    assert curves["density/mean"][1] == (2, pytest.approx((values[2, "", 0] + values[2, "", 1]) / 2))


def test_an_encoder_and_a_decoder_have_layers_of_their_own(tmp_path: Path) -> None:
    """T5's stacks have layers of their own in records and curves, and dropout does not make neurons inactive."""
    config = hf.T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.5)
    config.decoder_start_token_id = 0
    torch.manual_seed(0)
    model = hf.T5ForConditionalGeneration(config).train()
    ids, counts = torch.arange(24).reshape(4, 6), []
    before_dropout = model.encoder.block[0].layer[1].DenseReluDense.act
    before_dropout.register_forward_hook(lambda m, args, h: counts.append((h > 0).double().mean().item()))
    pytest.importorskip("tensorboard")
    monitor = Monitor(model, tmp_path, every=1, trackers=["tensorboard"])
    with monitor.step(0):
        model(input_ids=ids, labels=ids[:, :3].contiguous())
    places = {(0, "encoder", 0), (0, "encoder", 1), (0, "decoder", 0), (0, "decoder", 1)}
    values = _values(tmp_path)
    assert values.keys() == places
    assert values[0, "encoder", 0] == pytest.approx(counts[-1])
    assert [record.num_tokens for record in _records(tmp_path).values()] == [24, 24, 12, 12]
    monitor.close()
    assert {"density/encoder.1", "density/decoder.0"} < _scalars(tmp_path).keys()


def test_the_report_draws_density_over_training(tmp_path: Path) -> None:
    """A folder of a monitor gives Figure 1 with one line per layer, under the run's name, and no word of unfinished."""
    model = vit("vit-tiny", num_classes=4, image_size=6, num_channels=1, num_layers=2, d_ff=32)
    monitor = Monitor(model, tmp_path / "mine", every=2, recipe="my run")
    for step in range(5):
        with monitor.step(step):
            model(pixel_values=_x(step, 2, 1, 6, 6))
    page = write_report([tmp_path / "mine"], tmp_path / "page" / "index.html").read_text()
    assert (tmp_path / "page" / "charts" / "fig1-my-run.svg").is_file()
    assert "Density of each layer while training: my run" in page
    assert "not finished" not in page
    assert all(f"vit.layers.{layer}" in page for layer in (0, 1))


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # dynamo's own, at graph breaks
@pytest.mark.parametrize("how", ["wrapped", "in place", "inner"])
def test_compiled_models_are_counted(tmp_path: Path, how: str) -> None:
    """Counts of a compiled model are those of the plain one, and a small interval is warned of."""
    model = Stack()
    run: Any = model
    if how == "in place":
        model.compile(backend="eager")
    else:
        run = torch.compile(model, backend="eager")
    watched = model if how == "inner" else run
    if how == "inner":
        monitor = Monitor(watched, tmp_path, every=2)
    else:
        with pytest.warns(UserWarning, match="recompiled twice in 2 steps: raise `every`"):
            monitor = Monitor(watched, tmp_path, every=2)
    for step in range(3):
        with monitor.step(step):
            run(_x(step)).sum().backward()
            with torch.no_grad():
                run(_x(9))
    assert {step: _values(tmp_path)[step, "", 1] for step in (0, 2)} == {
        step: model.active(_x(step))[1] / 120 for step in (0, 2)
    }
    assert RunFolder(tmp_path).config["model"] == "Stack"
    assert _num_hooks(model) == 0


def _work(rank: int, folder: Path) -> None:
    """One rank of two: trains under DDP on its own data, with an evaluation in between."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517", "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = nn.parallel.DistributedDataParallel(Stack())
    monitor = Monitor(model, folder, every=2)
    for step in range(3):
        with monitor.step(step):
            model(_x(10 * step + rank, 10 + rank, 8)).sum().backward()
        model.zero_grad()
        with torch.no_grad():
            model.module(_x(0))
    Path(f"{folder}-{rank}.json").write_text(json.dumps(list(monitor.density.values())))
    assert _num_hooks(model) == 0
    sites = find_sites(model, _x(0))[: 2 - rank]
    with pytest.raises(UsageError, match="the ranks hold different sites"):  # on both, rather than wait for ever
        with Monitor(model, folder.parent / "other", every=1, sites=sites).step(0):
            model(_x(0))
    dist.destroy_process_group()


def test_two_ranks_record_their_sum_once(tmp_path: Path) -> None:
    """Under DDP the tokens of all ranks count, in one set of records, and every rank knows the density."""
    run_on_ranks(_work, tmp_path / "mine")
    model, expected = Stack(), {}
    for step in (0, 2):
        for layer, active in enumerate(zip(*(model.active(_x(10 * step + r, 10 + r, 8)) for r in (0, 1)), strict=True)):
            expected[step, "", layer] = sum(active) / (21 * 12)
    assert _values(tmp_path / "mine") == expected
    assert {record.num_tokens for record in _records(tmp_path / "mine").values()} == {21}
    last = [expected[2, "", 0], expected[2, "", 1]]
    assert [json.loads((tmp_path / f"mine-{rank}.json").read_text()) for rank in (0, 1)] == [last, last]
