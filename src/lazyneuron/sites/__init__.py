"""Where a model keeps up, gate, activation map and down: its sites, found by tracing."""

from lazyneuron.sites.find import clean_name, find_sites, find_sites_in_call, is_tracing, unwrap
from lazyneuron.sites.site import NoSitesError, Site, numbered

__all__ = ["NoSitesError", "Site", "clean_name", "find_sites", "find_sites_in_call", "is_tracing", "numbered", "unwrap"]
