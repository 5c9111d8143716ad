"""The config nearest to a site says what its activation should be."""

from types import SimpleNamespace as Config

from torch import nn

from lazyneuron.sites import Site, declared_activations


def site(name: str) -> Site:
    return Site(name, f"{name}.up.weight", None, f"{name}.down.weight", 4, 8, "silu")


def tree(**configs: Config) -> nn.Module:
    """`vision.mlp` and `decoder.mlp`, with a config at the modules named, "root" among them."""
    root = nn.ModuleDict({part: nn.ModuleDict({"mlp": nn.Linear(4, 4)}) for part in ("vision", "decoder")})
    for name, config in configs.items():
        vars(root if name == "root" else root[name])["config"] = config
    return root


def test_the_nearest_config_counts():
    sites = [site("vision.mlp"), site("decoder.mlp")]
    model = tree(root=Config(hidden_act="gelu"), decoder=Config(mlp_hidden_act="relu2", mamba_hidden_act="silu"))
    assert declared_activations(model, sites) == {"vision.mlp": "gelu", "decoder.mlp": "relu2"}
    assert declared_activations(tree(decoder=Config(hidden_size=4)), sites) == {}


def test_a_composite_config_names_the_text_models_activation_and_stacks_may_have_their_own():
    whole = Config(text_config=Config(hidden_activation="gelu_pytorch_tanh"))
    assert declared_activations(tree(root=whole), [site("decoder.mlp")]) == {"decoder.mlp": "gelu_pytorch_tanh"}
    detr = Config(activation_function="silu", decoder_activation_function="relu", activation=nn.ReLU)
    sites = [site("vision.mlp"), site("decoder.mlp"), site("")]
    assert declared_activations(tree(root=detr), sites) == {"vision.mlp": "silu", "decoder.mlp": "relu", "": "silu"}
