"""Where a model keeps up, gate, activation map and down: its sites, found by tracing."""

from lazyneuron.sites.find import find_sites, find_sites_in_call, is_tracing
from lazyneuron.sites.select import SiteChoice, given_sites, matching
from lazyneuron.sites.site import NoSitesError, Site, numbered, site_table
from lazyneuron.sites.wrappers import clean_name, unwrap

__all__ = [
    "NoSitesError",
    "Site",
    "SiteChoice",
    "clean_name",
    "find_sites",
    "find_sites_in_call",
    "given_sites",
    "is_tracing",
    "matching",
    "numbered",
    "site_table",
    "unwrap",
]
