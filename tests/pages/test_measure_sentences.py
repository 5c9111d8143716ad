"""Sentences about measured models: what was measured, what is wrong with it, and how to read it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lazyneuron.pages import measure_sentences
from lazyneuron.pages.charts import Run

Measured = Callable[..., Run]


def plain(texts: list[str]) -> str:
    return " ".join(texts).replace("\u00a0", " ").replace("\n", " ")


def changed(run: Run, what: str, value: float, layer: int | None = None) -> Run:
    records = [replace(r, value=value) if r.what == what and layer in (None, r.layer) else r for r in run.records]
    return replace(run, records=records)


def test_the_summary_of_a_dense_model_gives_the_range_of_its_energy(measured: Measured) -> None:
    run = measured(stacks={"encoder": 2, "decoder": 1}, activation="silu", density=0.9999)
    curved = [replace(r, value=0.1 * (1 + (r.layer or 0))) if r.what == "energy_90" else r for r in run.records]
    said = plain(measure_sentences.summary(replace(run, records=curved)))
    assert "In the encoder, 99.99 % of the neurons are active for a token, on average over the layers. In" in said
    alone = plain(measure_sentences.summary(measured("alone", activation="silu", density=1 - 1e-6)))
    assert alone.startswith("Over 99.99 % of the neurons are active for a token, on")
    assert "hold 90 % of a token's energy: from 10 % (encoder layer 0) to 20 % (encoder layer 1)." in said


def test_the_summary_says_mean_ends_energy_and_dead_neurons(measured: Measured) -> None:
    said = plain(measure_sentences.summary(measured()))
    assert "3.33 % of the neurons are active for a token (2.13 of 64)" in said
    assert "from 1.67 % (layer 0) to 5 % (layer 2)" in said
    assert "0.833 % of the neurons hold 90 %" in said
    assert "24 of 192 neurons (12.5 %) were never active. 25 % of the neurons were active at less than 1 %" in said
    hot = (
        "On average 25 % of a layer's neurons make up 90 % of its activity over the data; of these, 80 % do so in both"
    )
    assert hot in said
    alive = plain(measure_sentences.summary(changed(measured(), "never_fired", 0)))
    assert "Each of the 192 neurons was active for at least one token." in alive
    stacks = plain(measure_sentences.summary(measured(stacks={"encoder": 1, "decoder": 1})))
    assert "In the encoder, 5 %" in stacks
    assert "from" not in stacks
    assert measure_sentences.summary(replace(measured(), records=[])) == []


def test_the_origin_names_model_device_and_data(measured: Measured) -> None:
    run = measured()
    origin = measure_sentences.origin(run)
    assert origin == "Model: org/tiny-relu, in float32, on cpu. Data: Eight texts of Python's prose."
    assert measure_sentences.origin(replace(run, config={})) == "Model: tiny."


def test_nan_entries_are_a_warning_that_names_the_layers(measured: Measured) -> None:
    run = measured(stacks={"encoder": 3, "decoder": 3})
    assert measure_sentences.warnings(run) == []
    (said,) = measure_sentences.warnings(changed(run, "num_nan", 7, layer=2))
    assert said.startswith("14 entries of the activation maps are NaN, in encoder layer 2; decoder layer 2.")
    (one,) = measure_sentences.warnings(changed(measured("one", stacks={"": 1}), "num_nan", 1))
    assert one.startswith("1 entry of the activation maps is NaN, in layer 0. It is counted apart, not as active.")
    (many,) = measure_sentences.warnings(changed(measured("many", stacks={"": 20}), "num_nan", 1))
    assert "layers 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more" in many


def test_layers_that_no_token_reached_are_a_warning(measured: Measured) -> None:
    (said,) = measure_sentences.warnings(changed(measured(), "density", float("nan"), layer=1))
    assert said == "No density is known of layer 1: no token reached them."
    (empty,) = measure_sentences.warnings(replace(measured(), records=[]))
    assert "no records yet" in empty


@pytest.mark.parametrize(
    ("activation", "density", "num_notes"),
    [
        ("relu", 0.04, 0), ("relu", 0.6, 0), ("relu^2", 0.6, 0), ("silu", 1.0, 2), ("gelu", 0.97, 1), ("gelu", 0.2, 0),
        ("leaky_relu", 1.0, 2), ("", 0.9, 1), ("pow+tanh", 0.995, 2),
    ],
)  # fmt: skip
def test_smooth_activations_come_with_a_note(
    measured: Measured, activation: str, density: float, num_notes: int
) -> None:
    said = measure_sentences.notes(measured(activation=activation, density=density))
    assert len(said) == num_notes
    if said:
        assert f"({activation or 'unknown'}) hardly ever gives an exact zero" in said[0]
        assert "90 % of a token's energy" in plain(said)


def test_a_model_that_is_not_what_its_config_declares_is_a_warning(measured: Measured) -> None:
    run = measured(stacks={"": 3}, activation="silu", density=0.9999)
    unlike = [replace(r, what="unlike_config", case="relu2 declared, silu traced") for r in run.pick("density")]
    (said,) = measure_sentences.warnings(replace(run, records=[*run.records, *unlike]))
    assert plain([said]).startswith(
        "Not what the model's config says: relu2 declared, silu traced, in layers 0, 1, 2, where 99.99 % of the neurons"
    )
