"""`convert` from a checkpoint to a saved sparse one: its numbers, resumed, stopped, and refused in one line."""

import pytest
import torch
import transformers as hf
from rich.console import Console

from lazyneuron.cli.enforce import Enforce
from lazyneuron.cli.enforce_run import convert
from lazyneuron.cli.enforce_terminal import quality_rows, quality_table
from lazyneuron.enforce.enforce import enforced
from lazyneuron.enforce.saved import from_pretrained
from lazyneuron.enforce.verify import verify
from lazyneuron.errors import UsageError
from lazyneuron.load.checkpoint import quiet
from lazyneuron.load.models import load
from lazyneuron.records.folder import RunFolder
from lazyneuron.training.evaluation import Evaluation, answer
from lazyneuron.training.split_data import text_data
from tests.load.conftest import build, byte_tokenizer

K = 4
HOW = {"finetune": True, "steps": 6, "lr": 1e-2, "distill": 0.5}


def values(records):
    return {(r.case, r.x, r.what): r.value for r in records if r.split == "eval" and not r.site}


def quality_of(model, options):
    """What a loop of our own says of a model on the same held-out batches."""
    loaded = load(options.model)
    data = text_data(loaded, options.text, batch_size=2, length=24, seed=0, is_split=True)
    evaluation, seen = Evaluation(model), 0
    with torch.no_grad():
        for batch in data.evaluation():
            if seen >= options.tokens:
                break
            seen += batch.inputs.get("decoder_input_ids", batch.inputs["input_ids"]).numel()
            evaluation.add(batch, answer(loaded.model, batch.inputs))
    return evaluation.means


@pytest.mark.parametrize("family", ["llama", "opt", "t5"])
def test_a_checkpoint_becomes_sparse_and_loads_again_with_the_same_loss(family, options, console):
    asked = options(family)
    converted = convert(asked, console)
    found = values(converted.records)
    assert found["before", 1.0, "loss"] == found["sweep", 1.0, "loss"]
    assert found["sweep", 1.0, "kl"] == 0
    assert found["sweep", 1.0, "agreement"] == 1
    assert found["converted", K / 32, "kl"] > 0
    assert {(case, x) for case, x, _ in found} == {("before", 1), ("converted", K / 32), ("sweep", 1), ("sweep", 0.5)}
    reloaded = from_pretrained(str(converted.model))
    assert {entry["selection"]["density"] for entry in enforced(reloaded).values()} == {K / 32}
    quality = quality_of(reloaded, asked)
    assert found["converted", K / 32, "loss"] == pytest.approx(quality["loss"], rel=1e-12)
    assert found["converted", K / 32, "kl"] == pytest.approx(quality["kl"], rel=1e-9)
    assert found["converted", K / 32, "perplexity"] == pytest.approx(quality["perplexity"])
    dense = load(str(converted.model))
    assert quality_of(dense.model, asked)["loss"] == pytest.approx(found["before", 1.0, "loss"], rel=1e-12)
    assert dense.tokenizer("the")["input_ids"] == load(asked.model).tokenizer("the")["input_ids"]
    kept = [r for r in converted.records if r.what == "density" and r.case == "converted"]
    assert [r.site for r in kept] == [site.name for site in converted.sites]
    assert all(r.value <= K / 32 and r.layer is not None and r.source is not None for r in kept)
    natural = [r.value for r in converted.records if r.what == "natural_density" and r.case == "converted"]
    assert min(natural) > K / 32
    assert RunFolder(converted.folder).config["name"] == "enforce"
    again = convert(asked, console)
    assert again.records == converted.records
    assert "is complete: its records are shown" in again.notes[-1]
    with pytest.raises(UsageError, match=r"another config \(density\)"):
        convert(options(family, density=0.5), console)


def test_relufied_and_fine_tuned_it_is_better_than_only_converted(options, console):
    converted = convert(options(relufy=True, finetune=True, steps=30, lr=1e-2), console)
    assert {site.activation for site in converted.sites} == {"relu"}
    found = values(converted.records)
    assert found["finetuned", K / 32, "loss"] < 0.8 * found["converted", K / 32, "loss"]
    assert found["sweep", 1.0, "kl"] > 0  # dense, but with ReLU
    steps = [r.step for r in converted.records if r.case == "finetuning" and r.what == "loss"]
    assert steps == [10, 20, 30]
    reloaded = from_pretrained(str(converted.model))
    assert reloaded.config.hidden_act == "relu"
    assert quality_of(reloaded, options())["loss"] == pytest.approx(found["finetuned", K / 32, "loss"], rel=1e-12)
    assert verify(reloaded, {"input_ids": torch.arange(10, 40)[None]})
    assert list(converted.folder.glob("*.pt")) == []
    assert not any("top-k is by magnitude" in note for note in converted.notes)


def test_an_image_classifier_and_a_model_without_a_head(tmp_path, checkpoints, console):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = hf.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=10, hidden_act="relu")
    with quiet():
        hf.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
        build("bert").bert.save_pretrained(tmp_path / "bert")
    quick = {"density": 0.25, "sweep": "1.0", "tokens": 500}
    converted = convert(Enforce(model=str(tmp_path / "vit"), out=tmp_path / "images", **quick), console)
    found = values(converted.records)
    assert {what for case, _, what in found if case == "converted"} == {"loss", "accuracy", "agreement", "kl"}
    assert {r.num_tokens for r in converted.records if r.what == "accuracy"} == {359}
    assert "the held-out data ended after 359 of 500" in converted.notes
    byte_tokenizer("[CLS]", "[SEP]").save_pretrained(tmp_path / "bert")
    text = str(checkpoints("llama").parent / "text.txt")
    model = Enforce(model=str(tmp_path / "bert"), text=text, out=tmp_path / "bare", **quick)
    converted = convert(model, console)
    assert {what for _, _, what in values(converted.records)} == {"cosine"}
    assert any("gelu: top-k is by magnitude there; --relufy" in note for note in converted.notes)
    with pytest.raises(UsageError, match="no labels for this model: distil from the original with --distill 1"):
        convert(Enforce(model=model.model, text=text, finetune=True, out=tmp_path / "c", **quick), console)


def test_the_table_has_a_line_for_each_density(options, console):
    converted = convert(options(**HOW), console)
    rows = quality_rows(converted.records)
    assert [row["case"] for row in rows] == ["before", "converted", "sweep", "sweep", *["finetuned"] * 3, "control"]
    assert rows[1]["density"] <= K / 32
    shown = Console(width=120)
    with shown.capture() as captured:
        shown.print(quality_table(converted.records))
    lines = captured.get().splitlines()
    line = next(line for line in lines if line.startswith("finetuned"))
    found = values(converted.records)
    assert line.split()[1] == "12.5"
    assert f"{found['finetuned', K / 32, 'loss']:.4f}" in line.split()
    assert f"{100 * found['finetuned', K / 32, 'agreement']:.2f}" in line.split()


def test_what_was_asked_wrongly_is_told_in_one_line(options, console, tmp_path, monkeypatch):
    for wrong, message in (
        ({"density": 0.0}, r"a density must be above 0 and at most 1 \(0.05 keeps 5 %\); got 0.0"),
        ({"density": 5.0}, r"at most 1 \(0.05 keeps 5 %\); got 5.0"),
        ({"sweep": "1.0,-0.1"}, "got -0.1"),
        ({"tokens": 0}, "tokens must be 1 or more; got 0"),
        ({"finetune": True, "dtype": "bfloat16"}, "fine-tuning in bfloat16 loses small updates: leave out --dtype"),
    ):
        with pytest.raises(UsageError, match=message):
            options(**wrong)
    for wrong, message in (
        ({"images": "digits"}, r"takes text: leave out images \(digits\)"),
        ({"sites": "nowhere"}, "sites='nowhere' matches none of the 2 MLPs"),
        ({"text": str(tmp_path / "missing.txt")}, "no text at"),
        ({"family": "opt", "relufy": True, "text": "none.txt"}, r"no text at none\.txt"),
    ):
        with pytest.raises(UsageError, match=message):
            convert(options(out="wrong", **wrong), console)
    (tmp_path / "own_linear.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Linear(2, 2), torch.ones(1, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"own_linear:build is not of transformers.*takes any"):
        convert(Enforce(model="own_linear:build", out=tmp_path / "own"), console)


def test_the_command_line_prints_the_table_and_one_line_errors(options, command):
    asked = options(out="cli")
    call = ["enforce", asked.model, "--text", str(asked.text), "--tokens", "90"]
    call += ["--batch", "2", "--length", "24", "--density", "0.125", "--out", str(asked.out)]
    done = command(*call, "--sweep", "1.0,0.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"model: {asked.out}/model"
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("sweep", "conv", "before"))] == [
        "before",
        "converted",
        "sweep",
        "sweep",
    ]
    wrong = command(*call, "--sweep", "1.0,few")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "lazyneuron: --sweep takes densities such as 1.0,0.1,0.05; got '1.0,few'\n",
    )
    assert "examples:" in command("enforce", "--help").stdout
