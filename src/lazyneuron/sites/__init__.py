"""Sites: where a model's MLPs keep their up, gate and down weights, found by tracing."""

from lazyneuron.sites.declared import declared_activations
from lazyneuron.sites.dry_run import Inputs, as_call, dry_run, dummy_inputs, inputs_or_dummy, is_tracing
from lazyneuron.sites.find import find_sites, find_sites_in_call
from lazyneuron.sites.parallel import all_neurons, is_expert_parallel, tensor_parallel_mesh
from lazyneuron.sites.select import SiteChoice, given_sites, matching
from lazyneuron.sites.site import RELU_LIKE, NoSitesError, Site, numbered, site_table
from lazyneuron.sites.wrappers import clean_name, unwrap

__all__ = [
    "RELU_LIKE",
    "Inputs",
    "NoSitesError",
    "Site",
    "SiteChoice",
    "all_neurons",
    "as_call",
    "clean_name",
    "declared_activations",
    "dry_run",
    "dummy_inputs",
    "find_sites",
    "find_sites_in_call",
    "given_sites",
    "inputs_or_dummy",
    "is_expert_parallel",
    "is_tracing",
    "matching",
    "numbered",
    "site_table",
    "tensor_parallel_mesh",
    "unwrap",
]
