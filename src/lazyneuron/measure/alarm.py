"""An alarm where a model's MLPs are not what its config declares: runtimes have run ReLU² models with SiLU."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lazyneuron.sites import RELU_LIKE, Site

_DECLARED_RELU = {"relu", "relu2", "relu^2", "relu_squared", "squared_relu", "relu6"}
_DECLARED_SMOOTH = ("gelu", "silu", "swish")
_NEARLY_ALL, _MANY = 0.99, 0.75
_LISTED = 3


@dataclass(frozen=True)
class Alarm:
    """A site whose map does not fit its config: its density, and `case`, what was declared and what was traced."""

    site: str
    case: str
    density: float


def alarms(sites: Sequence[Site], declared: Mapping[str, str], density: Mapping[str, float]) -> list[Alarm]:
    """The sites that saw a token and do not do what `declared` calls their activation.

    Where ReLU or its square is declared, at least 99 % of the neurons are active, or 75 % and another activation was
    traced. Where GELU or SiLU is declared, ReLU or its square was traced, and fewer than 99 % are active.
    """
    found = []
    for site in sites:
        name, seen = declared.get(site.name, "").lower(), density[site.name]
        is_dense = seen >= (_NEARLY_ALL if "relu" in site.activation else _MANY)
        is_sparse = seen < _NEARLY_ALL and site.activation in RELU_LIKE
        is_smooth = any(smooth in name for smooth in _DECLARED_SMOOTH)
        if (is_dense and name in _DECLARED_RELU) or (is_sparse and is_smooth):
            found.append(Alarm(site.name, f"{declared[site.name]} declared, {site.activation} traced", seen))
    return found


def alarm_texts(found: Iterable[Alarm]) -> list[str]:
    """A sentence for each pair of a declared and a traced activation: the sites, and how dense they are."""
    by_case: dict[str, list[Alarm]] = defaultdict(list)
    for alarm in found:
        by_case[alarm.case].append(alarm)
    texts = []
    for case, same in by_case.items():
        names = [alarm.site or "(model)" for alarm in same]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        ends = dict.fromkeys(f"{100 * pick(alarm.density for alarm in same):.2f}" for pick in (min, max))
        texts.append(
            f"not what the config says: {case}, and {' to '.join(ends)} % of the neurons are active at "
            f"{', '.join(names[:_LISTED])}{more}; these may not be the numbers of the model as it was trained"
        )
    return texts
