"""`measure` from model to records: the numbers of a loop, resumed, stopped, and refused in one line."""

import json
import signal
import warnings
from pathlib import Path

import pytest
import torch
import transformers as hf
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from lazyneuron.cli.measure import Measure
from lazyneuron.cli.measure_run import measure
from lazyneuron.cli.measure_terminal import measured_json, measured_table
from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.load.models import short_name
from lazyneuron.records.folder import RunFolder

CODE = '''
import os, signal
from types import SimpleNamespace

import torch
from torch import nn


class Block(nn.Module):
    """An MLP that stops its own process at the batch named in STOP_AT, and keeps its inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.seen = nn.Linear(6, 40), nn.Linear(40, 6), []
        self.up.bias.data[3] += float(os.environ.get("BIAS", 0))

    def forward(self, x, attention_mask=None):
        self.seen.append(x)
        if len(self.seen) == int(os.environ.get("STOP_AT", -1)):
            os.kill(os.getpid(), signal.SIGINT)
        return self.down(torch.relu(self.up(x) - 0.5))


def batches():
    return [torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(i)) for i in range(10)]


def build():
    return Block(), batches()


def masked():
    return Block(), {"x": batches()[0], "attention_mask": torch.zeros(2, 5, dtype=torch.long)}


def broken():
    model = Block()
    model.up.bias.data[3] = float("nan")
    return model, batches()


class Misnamed(Block):
    """Its config says ReLU, its activation is smooth."""

    config = SimpleNamespace(hidden_act="relu")

    def forward(self, x):
        return self.down(nn.functional.gelu(self.up(x)))


def misnamed():
    return Misnamed(), batches()


def failing():
    return Block(), torch.randn(2, 5, 7)


def linear():
    return nn.Linear(3, 3), torch.randn(2, 3)
'''


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the current folder; options to measure one of its functions."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)

    def options(function: str, tokens: int = 70, out: str = "out", **chosen) -> Measure:
        return Measure(model=f"{name}:{function}", tokens=tokens, out=Path(out), **chosen)

    return options


def values(folder: Path) -> dict[tuple, float]:
    return {(r.site, r.what, r.x): r.value for r in RunFolder(folder).records()}


def test_records_are_the_numbers_of_a_loop(own, console):
    measured = measure(own("build"), console)
    torch.manual_seed(0)
    up = nn.Linear(6, 40)
    x = torch.cat([torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(i)) for i in range(7)])
    with torch.no_grad():
        active = torch.relu(up(x) - 0.5) > 0
    found = values(measured.folder)
    counts = active.sum(-1).flatten()
    assert found["", "density", None] == active.double().mean().item()
    assert found["", "num_active", None] == counts.double().mean().item()
    assert found["", "never_fired", None] == int((active.flatten(0, 1).sum(0) == 0).sum())
    assert found["", "num_nan", None] == 0
    assert found["", "num_active_quantile", 0.5] == counts.sort().values[34]
    assert found["", "num_active_quantile", 1] == counts.max()
    rates = sorted(active.double().mean((0, 1)).tolist(), reverse=True)
    curve = [value for (_, what, _), value in found.items() if what == "firing_rate"]
    assert curve == rates
    shares = {x: value for (_, what, x), value in found.items() if what == "token_share"}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[float(counts[0])] == (counts == counts[0]).double().mean().item()
    by_position = [value for (_, what, _), value in found.items() if what == "density_by_position"]
    assert by_position == active.double().mean((0, 2)).tolist()
    assert {r.num_tokens for r in measured.records} == {70}
    assert measured.records[0].source is not None
    assert (measured.folder / "counts.safetensors").exists()
    assert any("the inputs that" in note for note in measured.notes)


def test_what_is_done_is_read_and_what_was_stopped_goes_on(own, console, monkeypatch):
    whole = measure(own("build"), console)
    again = measure(own("build"), console)
    assert again.records == whole.records
    assert "was measured before" in again.notes[1]
    monkeypatch.setenv("BIAS", "9")
    with pytest.raises(UsageError, match=r"another config \(fingerprint\)"):
        measure(own("build"), console)  # the same name, other weights
    monkeypatch.delenv("BIAS")
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setenv("STOP_AT", "4")  # the first call traces the model
    part = measure(own("build", out="parted"), console)
    assert signal.getsignal(signal.SIGINT) == before
    assert part.stopped is not None
    assert "stopped after 30 of 70 tokens; the same command resumes" in str(part.stopped)
    assert {r.num_tokens for r in part.records} == {30}
    monkeypatch.delenv("STOP_AT")
    rest = measure(own("build", out="parted"), console)
    assert rest.stopped is None
    assert [(r.what, r.x, r.value) for r in rest.records] == [(r.what, r.x, r.value) for r in whole.records]
    assert RunFolder(rest.folder).checkpoints() == []


def test_what_is_not_what_the_config_says_is_told_once(own, console):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measured = measure(own("misnamed"), console)
    told = [text for text in (*(str(w.message) for w in caught), *measured.notes) if "not what the config says" in text]
    assert len(told) == 1
    assert "relu declared, gelu traced, and 100.00 % of the neurons are active at (model)" in told[0]
    assert told[0] in measured.notes


def test_sites_by_expression_and_data_that_end_early(own, console):
    measured = measure(own("build", tokens=1000, sites="^$"), console)
    assert {r.num_tokens for r in measured.records} == {100}
    assert "the data ended after 100 of 1,000 tokens" in measured.notes
    with pytest.raises(UsageError, match="sites='encoder' matches none of the 1 MLPs found: ''"):
        measure(own("build", sites="encoder", out="b"), console)
    with pytest.raises(UsageError, match="is not a valid regular expression"):
        measure(own("build", sites="(", out="b"), console)


def test_bad_input_is_told_in_one_line(own, console):
    with pytest.raises(LazyneuronError, match=r"no token of \w+:masked was counted: the attention mask leaves none"):
        measure(own("masked"), console)
    measured = measure(own("broken", out="broken"), console)
    assert "NaN in the activation maps, counted apart: 70 at (model)" in measured.notes[1]
    with pytest.raises(LazyneuronError, match=r"pass of \w+:failing fails on its data \(RuntimeError: mat1"):
        measure(own("failing"), console)
    with pytest.raises(UsageError, match="no MLP found in Linear"):
        measure(own("linear"), console)
    with pytest.raises(UsageError, match="tokens must be 1 or more; got 0"):
        own("build", tokens=0)
    with pytest.raises(UsageError, match="holds a run with another config"):
        measure(own("build", tokens=30, out="broken"), console)


@pytest.mark.parametrize(
    ("model", "title"),
    [("gpt2", "gpt2"), ("org/name", "name"), ("mine.build:model", "mine.build:model"), (".", "model"), ("/", "model")],
)
def test_the_short_name_and_the_folder(model, title):
    assert short_name(model) == title
    assert Measure(model=model).folder == Path("runs") / f"measure-{title.replace(':', '-')}"


def test_a_hugging_face_folder_with_its_class_token(tmp_path, console):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = hf.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, hidden_act="relu")
    hf.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    measured = measure(Measure(model=str(tmp_path / "vit"), tokens=100, out=tmp_path / "out"), console)
    found = values(measured.folder)
    first = measured.sites[0].name
    assert 0 < found[first, "density_class_token", None] < 1
    assert found[first, "density_class_token", None] == found[first, "density_by_position", 0]
    mean = (found[first, "density_class_token", None] + 4 * found[first, "density_patches", None]) / 5
    assert mean == pytest.approx(found[first, "density", None])
    assert any("digits" in note for note in measured.notes)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(measured_table(measured.sites, measured.records))
    lines = captured.get().splitlines()
    row = next(line for line in lines if line.startswith("0 "))
    assert f"{100 * found[first, 'density', None]:.2f}" in row.split()
    assert f"{100 * found[first, 'density_class_token', None]:.2f}" in row.split()
    numbers = measured_json(measured.sites, measured.records)
    assert json.loads(json.dumps(numbers))[0]["density"] == found[first, "density", None]
    assert numbers[0]["num_active_quantile"]["0.5"] == found[first, "num_active_quantile", 0.5]


def test_examples_of_images_have_their_pictures(tmp_path, console):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = hf.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, hidden_act="relu")
    hf.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    chosen = Measure(model=str(tmp_path / "vit"), tokens=100, batch=4, examples=2, out=tmp_path / "out")
    folder = measure(chosen, console).folder
    shown = json.loads((folder / "images.json").read_text())
    (sequences,) = (x for name, x in load_file(folder / "examples.safetensors").items() if name.endswith("/sequences"))
    assert (shown["side"], shown["num_before"]) == (2, 1)
    assert shown["images"].keys() == {str(number) for number in sequences.unique().tolist() if number >= 0}
    assert len(set(shown["images"].values())) == len(shown["images"]) > 1


def test_examples_are_kept_over_an_interruption(own, console, monkeypatch):
    """Stopped and resumed, the examples are those of one run; without the option no file is written."""
    whole = measure(own("build", out="whole", examples=3), console)
    monkeypatch.setenv("STOP_AT", "4")
    assert measure(own("build", examples=3), console).stopped
    monkeypatch.delenv("STOP_AT")
    resumed = measure(own("build", examples=3), console)
    for name in ("examples.safetensors", "vocabulary.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    plain = measure(own("build", out="plain"), console)
    assert not (plain.folder / "examples.safetensors").exists()
