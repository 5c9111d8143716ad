"""Skipping inactive neurons: rounding alone, and as many FLOPs as neurons are active."""

from lazyneuron.reproduce.runs import Skipping


def test_skipping_costs_rounding_alone_and_saves_what_density_says(trained, studied):
    _, runs = trained
    records = studied(Skipping(name="skipping", of=tuple(runs.values()), num_batches=2))
    errors = [r.value for r in records if r.what == "skip_error"]
    assert len(errors) == 2 + 2 + 2
    assert all(0 <= error <= 2 for error in errors)
    share = {(r.case, r.site): r.value for r in records if r.what == "skip_flops_share"}
    density = {(r.case, r.site): r.value for r in records if r.what == "density"}
    assert share == density
    assert all(0.2 < value < 0.8 for (run, _), value in share.items() if run != "vit-top8")
    assert all(value <= 8 / 96 for (run, _), value in share.items() if run == "vit-top8")
