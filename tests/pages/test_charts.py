"""What all figures share: rounding, themes, selection in the legend, PNG and SVG files."""

import math
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from lazyneuron.pages import charts, training_charts
from lazyneuron.pages.charts import Run


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.123456789, 0.12346), (123456.7, 123460.0), (0.0, 0.0), (math.nan, None), (math.inf, None), (None, None)],
)
def test_rounded_keeps_five_digits_and_drops_what_json_cannot_hold(value: float | None, expected: float | None) -> None:
    assert charts.rounded(value) == expected


def test_saved_files_are_a_titled_svg_and_a_png_of_twice_its_size(runs: dict[str, Run], tmp_path: Path) -> None:
    figure = training_charts.density_over_training(runs["t5"], "fig1-t5")
    assert figure is not None
    charts.save(figure, tmp_path)
    svg = ElementTree.parse(tmp_path / "fig1-t5.svg").getroot()
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert figure.title in texts
    png = (tmp_path / "fig1-t5.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", png[16:24])
    assert (width, height) == pytest.approx((2 * float(svg.attrib["width"]), 2 * float(svg.attrib["height"])), abs=2)


def test_a_legend_selects_in_every_panel(runs: dict[str, Run]) -> None:
    figure = training_charts.density_over_training(runs["t5"], "x")
    assert figure is not None
    (param,) = figure.spec["params"]
    assert param["select"]["fields"] == ["layer"]
    assert param["views"] == [
        layer["name"] for panel in figure.spec["concat"] for layer in panel["layer"] if "name" in layer
    ]
    assert len(param["views"]) == 2


def test_light_and_dark_theme_differ_in_colours_only() -> None:
    def shape(value: object) -> object:
        return {key: shape(part) for key, part in value.items()} if isinstance(value, dict) else type(value)

    assert shape(charts.theme()) == shape(charts.theme(dark=True))
    assert charts.theme()["axis"]["labelColor"] != charts.theme(dark=True)["axis"]["labelColor"]


def test_report_needs_neither_torch_nor_pandas() -> None:
    code = "import sys, lazyneuron.pages.page; print({'torch', 'pandas'} & sys.modules.keys())"
    code = "import sys, types; sys.modules['lazyneuron'] = package = types.ModuleType('lazyneuron');" + (
        f"package.__path__ = [{str(Path(charts.__file__).parents[1])!r}];" + code
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
