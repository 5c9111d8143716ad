"""What statistical top-k keeps of Gaussian input and of real pre-activations."""

import pytest

from lazyneuron.paper.statistical.run import Statistical


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
        assert all(r.value > 0 for r in records if r.what == what)
    for what in ("kept_ratio", "kept_deviation", "kept_overlap"):
        found = [r for r in records if r.what == what and r.case in runs]
        assert len(found) == (2 + 2) * 2
        assert all(r.value >= 0 for r in found)
        assert {r.site for r in found if r.case == "vit"} == {"vit.layers.0.mlp", "vit.layers.1.mlp"}
