"""A saved model brings its selections with it, and works without lazyneuron."""

import json
import subprocess
import sys

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.utils import logging

import lazyneuron.enforce
from lazyneuron.enforce.enforce import enforce, enforced, release, set_step
from lazyneuron.enforce.saved import from_pretrained, restore
from lazyneuron.enforce.selection import Anneal, StatisticalTopK, TopK
from lazyneuron.errors import UsageError
from lazyneuron.load.models import load

IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _no_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, labels=IDS).logits


@pytest.mark.parametrize("family", ["llama", "t5", "mixtral"])
@pytest.mark.parametrize("selection", [TopK(k=2), TopK(density=0.1, straight_through=True)], ids=str)
def test_a_saved_model_comes_back_enforced(build, family, selection, tmp_path):
    model = build(family)
    dense = logits(model)
    enforce(model, selection)
    sparse = logits(model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["lazyneuron"] == enforced(model)
    found = from_pretrained(str(tmp_path))
    assert not found.training
    assert type(found) is type(model)
    assert enforced(found) == enforced(model)
    assert torch.equal(logits(found), sparse)
    plain = type(model).from_pretrained(tmp_path).eval()
    assert enforced(plain) == {}
    assert torch.equal(logits(plain), dense)
    assert torch.equal(logits(restore(plain)), sparse)
    release(found)
    found.save_pretrained(tmp_path / "released")
    assert "lazyneuron" not in json.loads((tmp_path / "released" / "config.json").read_text())


def test_dropouts_are_known_without_a_pass(build, tmp_path):
    model = build("t5")
    enforce(model, TopK(k=2))
    model.save_pretrained(tmp_path)
    found = from_pretrained(str(tmp_path))
    for each in (model, found):
        each.train()
        torch.manual_seed(0)
    torch.manual_seed(0)
    expected = logits(model)
    torch.manual_seed(0)
    assert torch.equal(logits(found), expected)


def test_a_model_without_a_selection_is_returned_as_it_is(build, tmp_path):
    model = build("llama")
    model.save_pretrained(tmp_path)
    found = from_pretrained(str(tmp_path), dtype="float32")
    assert enforced(found) == {}
    assert torch.equal(logits(found), logits(model))


def test_the_spec_fits_with_and_without_the_head(build, tmp_path):
    """AutoModel loads the base of what was saved with a head, and a head is put around a saved base."""
    model = build("llama")
    enforce(model, TopK(k=2))
    model.save_pretrained(tmp_path / "whole")
    base = restore(hf.AutoModel.from_pretrained(tmp_path / "whole").eval())
    assert [*enforced(base)] == ["layers.0.mlp", "layers.1.mlp"]
    base.save_pretrained(tmp_path / "base")
    whole = hf.LlamaForCausalLM(base.config).eval()
    whole.load_state_dict(model.state_dict())
    assert [*enforced(restore(whole))] == [*enforced(model)]
    assert torch.equal(logits(whole), logits(model))


def test_dropouts_are_renamed_with_the_rest(build):
    model = build("llama")
    spec = {"up": "layers.0.mlp.up_proj.weight", "gate": None, "down": "layers.0.mlp.down_proj.weight"}
    site = spec | {"d_model": 16, "d_ff": 32, "activation": "silu"}
    entry = {"selection": {"kind": "topk", "k": 2}, "site": site, "dropout": "layers.0.mlp.drop"}
    model.config.lazyneuron = {"layers.0.mlp": entry}
    with pytest.raises(
        UsageError, match=r"'model\.layers\.0\.mlp': the model has no dropout 'model\.layers\.0\.mlp\.drop'"
    ):
        restore(model)


def test_annealing_is_saved_where_it_stands(build, tmp_path):
    model = build("llama")
    enforce(model, Anneal(1.0, 0.1, num_steps=10))
    set_step(model, 7)
    model.save_pretrained(tmp_path)
    found = from_pretrained(str(tmp_path))
    assert {entry["selection"]["step"] for entry in enforced(found).values()} == {7}
    assert torch.equal(logits(found), logits(model))


def test_statistical_top_k_is_saved(build, tmp_path):
    model = build("llama")
    enforce(model, StatisticalTopK(0.1, form="gemma3n"))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(from_pretrained(str(tmp_path))), logits(model))


def test_a_spec_that_does_not_fit_is_refused(build, tmp_path):
    model = build("llama")
    enforce(model, TopK(k=2))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for broken in ({"x": {"selection": {"kind": "topk"}}}, {"x": 3}, {"x": {"site": {"down": "nowhere"}}}, [1]):
        (tmp_path / "config.json").write_text(json.dumps(config | {"lazyneuron": broken}))
        with pytest.raises(UsageError, match="the config's lazyneuron entry does not fit the model"):
            from_pretrained(str(tmp_path))


def test_loading_it_otherwise_tells_nothing_yet_harms_nothing(build, tmp_path):
    """`models.load.load`, which the command line uses, loads it dense."""
    model = build("llama")
    dense = logits(model)
    enforce(model, TopK(k=2))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load(str(tmp_path)).model), dense)


def test_the_package_is_its_verb(build):
    """`lazyneuron.enforce` is the package to Python and the function to its user, whatever was imported before."""
    model = build("llama")
    lazyneuron.enforce(model, TopK(k=2))  # pyright: ignore[reportCallIssue]
    assert {entry["selection"]["k"] for entry in enforced(model).values()} == {2}


def test_importing_it_is_light():
    heavy = "{'transformers', 'numba', 'torch._dynamo'} & sys.modules.keys()"
    code = f"import sys, lazyneuron.enforce; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
