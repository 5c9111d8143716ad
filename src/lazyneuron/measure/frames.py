"""A probe's counts as a data frame of pandas or polars, and as a chart."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Literal

import torch

from lazyneuron.errors import explained_imports
from lazyneuron.measure.probe_records import probe_records
from lazyneuron.sites import numbered

if TYPE_CHECKING:
    import altair

    from lazyneuron.measure.probe import Probe

Per = Literal["site", "neuron"]


def probe_frame(probe: "Probe", per: Per, backend: str | None) -> Any:
    """See `Probe.to_frame`."""
    if per not in ("site", "neuron"):
        raise ValueError(f"a frame has a row per 'site' or per 'neuron'; got per={per!r}")
    with explained_imports("to_frame"):
        import narwhals

        is_pandas = not importlib.util.find_spec("polars") and importlib.util.find_spec("pandas")
        chosen: Any = backend or ("pandas" if is_pandas else "polars")
        importlib.import_module(chosen)
    columns = _by_site(probe) if per == "site" else _by_neuron(probe)
    return narwhals.from_dict(columns, backend=chosen).to_native()


def probe_chart(probe: "Probe") -> "altair.Chart":
    """See `Probe.plot`."""
    with explained_imports("plot"):
        import altair as alt
    columns = _by_site(probe)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    chart = alt.Chart(alt.InlineData(values=rows)).mark_line(point=True)
    return chart.encode(
        x=alt.X("layer:O", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("density:Q", title="density (share of neurons active)", axis=alt.Axis(format="~%")),
        color=alt.Color("stack:N", legend=alt.Legend() if len(set(columns["stack"])) > 1 else None),
        tooltip=[alt.Tooltip("site:N"), alt.Tooltip("density:Q", format=".4~%"), alt.Tooltip("num_tokens:Q")],
    )


def _by_site(probe: "Probe") -> dict[str, list[Any]]:
    rows: dict[str, dict[str, Any]] = {}
    tokens, numbers = probe.num_tokens, [r for r in probe_records(probe, recipe="") if r.x is None]
    for stack, layer, site in numbered(probe.sites):
        place = {"stack": stack, "layer": layer, "site": site.name, "activation": site.activation}
        rows[site.name] = place | {"is_gated": site.is_gated, "d_ff": site.d_ff, "num_tokens": tokens[site.name]}
    for r in numbers:
        rows[r.site][r.what] = r.value
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {name: [row.get(name) for row in rows.values()] for name in names}


def _by_neuron(probe: "Probe") -> dict[str, Any]:
    columns: dict[str, list[Any]] = {name: [] for name in ("stack", "layer", "site", "neuron")}
    rates = probe.firing_rate
    for stack, layer, site in numbered(probe.sites):
        for name, value in (("stack", stack), ("layer", layer), ("site", site.name)):
            columns[name] += [value] * site.d_ff
        columns["neuron"] += range(site.d_ff)
    return columns | {"firing_rate": torch.cat([rates[site.name].cpu() for site in probe.sites]).tolist()}
