"""What statistical top-k keeps of Gaussian input and of real pre-activations."""

import pytest
import torch

from lazyneuron.paper.statistical import run as statistical
from lazyneuron.paper.statistical.run import Statistical
from lazyneuron.paper.study import load_trained
from lazyneuron.records.folder import RunFolder


def test_gaussian_input_keeps_about_k_and_real_maps_are_measured(trained, studied):
    _, runs = trained
    study = Statistical(
        name="statistical", of=(runs["t5"], runs["vit"]), densities=(0.25, 0.08), widths=(512, 2048), num_rows=128
    )
    records = studied(study)
    gaussian = {r.x: r.value for r in records if r.what == "kept_ratio" and r.case == "gaussian"}
    assert gaussian == {0.25: pytest.approx(1, abs=0.03), 0.08: pytest.approx(1, abs=0.06)}
    for what in ("statistical_ms", "topk_ms"):
        assert [r.x for r in records if r.what == what] == [512, 2048]
    for what in ("kept_ratio", "kept_deviation", "kept_overlap"):
        found = [r for r in records if r.what == what and r.case in runs]
        assert [(r.case, r.x) for r in found] == [
            (case, x) for case in ("t5", "t5", "vit", "vit") for x in (0.25, 0.08)
        ]
        assert {r.site for r in found if r.case == "vit"} == {"vit.layers.0.mlp", "vit.layers.1.mlp"}


def test_what_is_kept_is_compared_with_k_and_with_the_largest_k():
    """Of 8 entries with k = 2 the first row keeps both of its largest, the second one of its two."""
    u = torch.tensor([[0.0] * 6 + [1, 1], [0.0] * 6 + [1, 8]])
    found = {r.what: r.value for r in statistical._records(u, 0.25, {"recipe": "statistical", "seed": 0})}
    assert found == {
        "kept_ratio": pytest.approx((1 + 1 / 2) / 2),
        "kept_deviation": pytest.approx(0.5 / 2**0.5),
        "kept_overlap": pytest.approx(3 / 4),
    }


def test_real_pre_activations_are_as_often_positive_as_neurons_were_active_in_training(trained, monkeypatch):
    folder, runs = trained
    monkeypatch.setattr(statistical, "_BATCHES", runs["vit"].probe_batches)
    found = statistical._entering(load_trained(runs["vit"], folder, 0, folder / "cache"))
    last = [r for r in RunFolder(folder / "vit-seed0").records() if r.step == runs["vit"].num_steps]
    density = {r.site: r.value for r in last if (r.what, r.split) == ("density", "eval")}
    assert {name: (u > 0).double().mean().item() for name, u in found.items()} == pytest.approx(density, abs=1e-4)
