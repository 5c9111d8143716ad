"""Quality against density: means over seeds, from runs trained with a selection."""

import pytest

from lazyneuron.record import Record
from lazyneuron.report.charts import Run
from lazyneuron.report.selection_charts import family, is_selected, quality_against_density, selection_rows


def run(name="vit-top4pct", label="a", seed=0, budget=4.0, accuracy=0.9, loss=0.3, natural=(0.5, 0.2)) -> Run:
    def record(what, value, step, split="eval", layer=0):
        place = {"recipe": name, "seed": seed, "step": step, "split": split, "layer": layer}
        return Record(what=what, value=value, unit="", **place)

    records = []
    for step, share in zip((0, 100), natural, strict=True):
        for layer in (0, 1):
            records += [
                record("density", budget / 100, step, layer=layer),
                record("num_active", budget, step, layer=layer),
                record("natural_density", share, step, layer=layer),
                record("budget", budget, step, layer=layer),
            ]
        records += [record("accuracy", accuracy if step else 0.1, step), record("loss", loss if step else 2.3, step)]
        records.append(record("density", 0.9, step, "train"))
    config = {"selection": {"kind": "topk", "density": budget / 100}, "num_steps": 100}
    return Run(label=label, name=name, config=config, records=records)


def rows(figure, layer):
    return layer["data"].get("values") or figure.spec["datasets"][layer["data"]["name"]]


def test_rows_are_means_and_deviations_over_seeds():
    runs = [run(), run(label="b", seed=1, accuracy=0.8), run("vit-top50pct", budget=50.0, accuracy=0.95)]
    dense, sparse = selection_rows(runs)
    assert (dense["family"], dense["percent"], dense["num_seeds"]) == ("ViT", 50, 1)
    assert dense["accuracy_deviation"] is None
    assert (sparse["percent"], sparse["num_seeds"], sparse["budget"]) == (4, 2, 4)
    assert sparse["accuracy"] == pytest.approx(85)
    assert sparse["accuracy_deviation"] == pytest.approx(7.0711)
    assert (sparse["natural_start"], sparse["natural_end"], sparse["kept_end"]) == (0.5, 0.2, 0.04)


def test_the_chart_has_a_point_per_seed_and_a_line_per_model():
    runs = [run(), run(label="b", seed=1), run("t5-top8pct", budget=8.0)]
    figure = quality_against_density(runs, "quality")
    assert figure is not None
    panels = figure.spec["concat"]
    assert [panel["title"] for panel in panels] == ["accuracy", "loss"]
    lines, points = panels[0]["layer"]
    assert len(rows(figure, lines)) == 2
    assert sorted(row["percent"] for row in rows(figure, points)) == [4, 4, 8]
    assert points["encoding"]["color"]["scale"]["domain"] == ["T5", "ViT"]
    assert points["encoding"]["x"]["scale"]["type"] == "log"


def test_runs_without_a_selection_or_an_end_have_no_chart():
    plain = Run(label="a", name="vit", config={}, records=[])
    assert not is_selected(plain)
    assert is_selected(run())
    assert family(run("t5-top12pct")) == "t5"
    assert quality_against_density([plain], "quality") is None
    whole = run()
    cut = Run(label="a", name=whole.name, config=whole.config | {"num_steps": 200}, records=whole.records)
    assert selection_rows([cut]) == []  # it has not come to its end
    assert selection_rows([Run(label="a", name="vit-top4pct", config={"selection": {}}, records=[])]) == []
