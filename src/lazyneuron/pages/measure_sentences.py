"""Sentences and warnings about measured models."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from lazyneuron.pages.charts import Run
from lazyneuron.pages.measured_layers import (
    Layer,
    by_stack,
    has_positive,
    is_dense,
    is_smooth,
    layers_of,
    least_and_most,
    mean_over,
    neurons,
)
from lazyneuron.pages.prose import decimal, integer, percent
from lazyneuron.records.record import Record

_LISTED = 12


def origin(run: Run) -> str:
    """The model in full, how it was run, and on which data."""
    on = [f"{word} {run.config[key]}" for word, key in (("in", "dtype"), ("on", "device")) if run.config.get(key)]
    sentences = f"Model: {', '.join([str(run.config.get('model', run.name)), *on])}."
    return sentences + (f" Data: {str(run.config['data']).rstrip('.')}." if run.config.get("data") else "")


def summary(run: Run) -> list[str]:
    """What was measured, in sentences: each stack's mean and ends, the energy, and the neurons never active."""
    layers, sentences = layers_of(run), []
    for stack, part in by_stack(layers):
        if not any("density" in layer.numbers for layer in part):
            continue
        mean, sizes, full = percent(mean_over(part, "density")), {layer.d_ff for layer in part}, is_dense(part)
        count = decimal(mean_over(part, "num_active") or 0)
        of = f" ({count} of {integer(size)})" if len(sizes) == 1 and (size := max(sizes, key=bool)) and not full else ""
        between = "" if full else _between(part, "density")
        first = f"In the {stack}, {mean}" if stack else f"{mean[0].upper()}{mean[1:]}"
        sentences.append(f"{first} of the neurons are active for a token{of}, on average over the layers{between}.")
    if any("energy_90" in layer.numbers for layer in layers):
        mean, between = (
            percent(mean_over(layers, "energy_90")),
            _between(layers, "energy_90") if is_dense(layers) else "",
        )
        sentences.append(f"On average {mean} of the neurons hold 90\u00a0% of a token's energy{between}.")
    if found := [layer for layer in layers if has_positive(layer)]:
        mean, keep = percent(mean_over(found, "positive")), "" if _is_gated(found) else ": those that ReLU would keep"
        sentences.append(f"On average {mean} of the neurons are above zero{keep}.")
    if (dead := neurons(layers, "never_fired")) is not None:
        never, total = dead
        share = f"{integer(never)} of {integer(total)} neurons ({percent(never / total)}) were never active."
        sentences.append(share if never else f"Each of the {integer(total)} neurons was active for at least one token.")
    if (rare := neurons(layers, "rarely_fired")) is not None and not is_dense(layers):
        hot, shared = percent(mean_over(layers, "hot_90")), mean_over(layers, "hot_overlap")
        halves = "" if shared is None else f"; of these, {percent(shared)} do so in both halves of the data"
        sentences.append(
            f"{percent(rare[0] / rare[1])} of the neurons were active at less than 1\u00a0% of the tokens. On average "
            f"{hot} of a layer's neurons make up 90\u00a0% of its activity over the data{halves}."
        )
    return sentences


def warnings(run: Run) -> list[str]:
    """What makes the numbers doubtful: entries that are not a number, and layers that no token reached."""
    layers = layers_of(run)
    if not layers:
        return ["This folder holds no records yet: the measurement did not come to its end."]
    sentences = []
    if broken := [layer for layer in layers if layer.numbers.get("num_nan", 0) > 0]:
        count = integer(sum(layer.numbers["num_nan"] for layer in broken))
        entries, they, sentence = ("entry", "is", "It is") if count == "1" else ("entries", "are", "They are")
        sentences.append(
            f"{count} {entries} of the activation maps {they} NaN, in {_named(broken)}. {sentence} counted apart, not "
            "as active. The other numbers of these layers and of those after them cannot be trusted: try another dtype."
        )
    sentences += unlike_config(run)
    if unseen := [layer for layer in layers if "density" not in layer.numbers]:
        sentences.append(f"No density is known of {_named(unseen)}: no token reached them.")
    return sentences


def unlike_config(run: Run) -> list[str]:
    """Where the MLPs are not what the model's config declares: a sentence for each such pair."""
    by_case: dict[str, list[Record]] = defaultdict(list)
    for record in run.pick("unlike_config"):
        by_case[record.case].append(record)
    sentences = []
    for case, records in by_case.items():
        places = dict.fromkeys((r.stack, r.layer or 0) for r in records)
        ends = dict.fromkeys(percent(pick(r.value for r in records)) for pick in (min, max))
        sentences.append(
            f"Not what the model's config says: {case}, in {_named_places(places)}, where {' to '.join(ends)} of the "
            "neurons are active. These may not be the numbers of the model as it was trained: check what runs it."
        )
    return sentences


def notes(run: Run) -> list[str]:
    """How to read the numbers of models whose activation hardly ever gives an exact zero."""
    layers, sentences = layers_of(run), []
    if smooth := sorted({layer.activation or "unknown" for layer in layers if is_smooth(layer)}):
        sentences.append(
            f"The activation here ({', '.join(smooth)}) hardly ever gives an exact zero, so density says little: look "
            "at the share of neurons that holds 90\u00a0% of a token's energy, or is above 1\u00a0% of its largest."
        )
    if is_dense(layers):
        sentences.append(
            "In every layer more than 99\u00a0% of the neurons are active: how often each one is, how many are for a "
            "token and density by position would be flat lines at 100\u00a0%. They are not drawn, but the records "
            "hold them."
        )
    return sentences


def _is_gated(layers: Sequence[Layer]) -> bool:
    return any(layer.activation.startswith("gated") for layer in layers)


def _between(layers: Sequence[Layer], what: str) -> str:
    """The same in words, for the end of a sentence; nothing where both ends read the same."""
    low, high = least_and_most(layers, what) or (layers[0], layers[0])
    ends = [percent(layer.numbers[what]) for layer in (low, high)]
    is_alone = len({layer.stack for layer in layers}) == 1
    names = [f"layer {layer.layer}" if is_alone else _named([layer]) for layer in (low, high)]
    return f": from {ends[0]} ({names[0]}) to {ends[1]} ({names[1]})" if ends[0] != ends[1] else ""


def _named(layers: Sequence[Layer]) -> str:
    """Layers in words: "layers 0 and 3", by stack where there are several; the first twelve of many."""
    return _named_places([(layer.stack, layer.layer) for layer in layers])


def _named_places(places: Iterable[tuple[str, int]]) -> str:
    by_stack: dict[str, list[str]] = defaultdict(list)
    for stack, layer in places:
        by_stack[stack].append(str(layer))
    sentences = []
    for stack, numbers in by_stack.items():
        rest = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
        word = "layer" if len(numbers) == 1 else "layers"
        sentences.append(" ".join(filter(None, [stack, word, ", ".join(numbers[:_LISTED]) + rest])))
    return "; ".join(sentences)
