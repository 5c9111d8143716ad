"""A choice of sites is all of them, an expression or a checked list."""

import dataclasses
from typing import Any

import pytest
from torch import nn

from lazyneuron.sites import NoSitesError, find_sites, given_sites
from tests.sites.models import MODEL, SITES, X


def test_a_choice_of_sites_is_all_a_pattern_or_a_list() -> None:
    """None and "auto" are all; an expression is searched for in the names; a list comes back as it is."""
    assert find_sites(MODEL, X, None) == find_sites(MODEL, X, "auto") == SITES
    assert find_sites(MODEL, X, r"\.[12]$") == SITES[1:]
    assert find_sites(MODEL, {"x": X}, "blocks.0") == SITES[:1]
    assert given_sites(MODEL, "blocks") is given_sites(MODEL, None) is None
    own = [dataclasses.replace(SITES[2], name="mine"), SITES[0]]
    assert find_sites(nn.DataParallel(MODEL), {}, tuple(own)) == given_sites(MODEL, own) == own


@pytest.mark.parametrize(
    ("sites", "error", "message"),
    [
        ("decoder", NoSitesError, r"sites='decoder' matches none of the 3 MLPs found: 'blocks.0', 'blocks.1', 'blo"),
        ("(", ValueError, r"sites='\(' is not a valid regular expression: "),
        ([], ValueError, r"sites=\[\] leaves nothing to do: pass 'auto'"),
        (["blocks.0"], TypeError, r"a list of Site; got 'blocks.0'"),
        (3, TypeError, r"a list of Site; got 3"),
        ([SITES[0]] * 2, ValueError, r"two sites are named 'blocks.0'"),
        ([dataclasses.replace(SITES[0], d_ff=13)], ValueError, r"blocks.0.w2.weight of shape \(8, 12\), not d_ff=13"),
        (
            [dataclasses.replace(SITES[1], gate="blocks.1.d.weight")],
            ValueError,
            r"site 'blocks.1': Residual has no parameter 'blocks.1.d.weight'; did you mean 'blocks.1..\.weight'\?",
        ),
        ([dataclasses.replace(SITES[0], up="?")], ValueError, r"'\?'; use a name from its named_parameters\(\)"),
    ],
)
def test_a_wrong_choice_of_sites_says_what_is_wrong(sites: Any, error: type[Exception], message: str) -> None:
    """The error names the site, what it lacks, and what to give instead."""
    with pytest.raises(error, match=message):
        find_sites(MODEL, X, sites)
