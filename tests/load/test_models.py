"""A model is loaded whole, by the class that its config names, or refused in one line that says what mends it."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from lazyneuron.errors import UsageError
from lazyneuron.load.models import load

CLASSES = [
    ("llama", "LlamaForCausalLM", "text"),
    ("gpt2", "GPT2LMHeadModel", "text"),
    ("opt", "OPTForCausalLM", "text"),
    ("bert", "BertForMaskedLM", "text"),
    ("t5", "T5ForConditionalGeneration", "text"),
    ("bart", "BartForConditionalGeneration", "text"),
    ("vit", "ViTForImageClassification", "images"),
    ("clip", "CLIPModel", "text and images"),
    ("whisper", "WhisperForConditionalGeneration", "other"),
    ("wav2vec2", "Wav2Vec2ForCTC", "other"),
]


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture
def copy(saved, tmp_path):
    """A private copy of a saved model, to damage."""
    return lambda family: shutil.copytree(saved(family), tmp_path / family)


def rewrite(folder, change):
    """Write the weights again without, or in place of, some."""
    from safetensors.torch import save_file

    save_file(change(weights(folder)), folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refusal(name, **options):
    with pytest.raises(UsageError) as caught:
        load(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("family", "class_name", "kind"), CLASSES)
def test_the_class_is_the_one_that_the_config_names_and_the_weights_are_the_files(saved, family, class_name, kind):
    folder = saved(family)
    loaded = load(str(folder))
    assert (type(loaded.model).__name__, loaded.kind, loaded.name) == (class_name, kind, str(folder))
    assert not any(module.training for module in loaded.model.modules())
    state = loaded.model.state_dict()
    for name, weight in weights(folder).items():
        if name in state:
            torch.testing.assert_close(state[name], weight, rtol=0, atol=0)
    assert (loaded.tokenizer is not None) == kind.startswith("text")
    assert (loaded.image_processor is not None) == kind.endswith("images")
    assert loaded.notes == ()


def test_kinds_that_need_a_closer_look(tmp_path):
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        LlavaConfig,
        LlavaForConditionalGeneration,
        VideoMAEConfig,
        VideoMAEModel,
    )

    from tests.load.conftest import FAMILIES, SHAPE, TEXT, VIT

    parts = {"text_config": TEXT | {"model_type": "llama"}, "vision_config": VIT | {"model_type": "clip_vision_model"}}
    LlavaForConditionalGeneration(LlavaConfig(**parts)).save_pretrained(tmp_path / "llava")
    loaded = load(str(tmp_path / "llava"))
    assert loaded.kind == "text"
    assert "takes images inside its text: it gets text only" in loaded.notes[0]
    VideoMAEModel(VideoMAEConfig(**VIT, num_frames=2)).save_pretrained(tmp_path / "video")
    assert load(str(tmp_path / "video")).kind == "other"
    opt = FAMILIES["opt"][1] | {"model_type": "opt"}
    parts = {"text_config": opt, "vision_config": VIT, "qformer_config": SHAPE | {"encoder_hidden_size": 16}}
    config = Blip2Config(**parts, num_query_tokens=2, image_token_index=7)
    Blip2ForConditionalGeneration(config).save_pretrained(tmp_path / "blip")
    assert load(str(tmp_path / "blip")).kind == "other"  # its text must hold image tokens


def test_without_a_class_in_the_config_it_is_the_base_model(copy):
    folder = copy("gpt2")
    edit_config(folder, architectures=None)
    loaded = load(str(folder))
    assert (type(loaded.model).__name__, loaded.kind, loaded.notes) == ("GPT2Model", "text", ())


def test_a_class_that_is_unknown_or_of_another_family_is_told(copy):
    folder = copy("gpt2")
    for architecture in ("Contriever", "Trainer", "LlamaForCausalLM"):
        edit_config(folder, architectures=[architecture])
        loaded = load(str(folder))
        assert type(loaded.model).__name__ == "GPT2Model"
        assert loaded.notes == (f"{folder} names the unknown class {architecture}: loaded as GPT2Model",)


def test_dtype_is_the_checkpoints_unless_asked(tmp_path):
    from tests.load.conftest import build

    build("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load(str(tmp_path)).model.parameters()} == {torch.bfloat16}
    for name in ("float32", "float16", "bfloat16"):
        loaded = load(str(tmp_path), dtype=name)
        assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, name)} == {loaded.dtype}
    assert refusal(tmp_path, dtype="int8") == (
        "no dtype 'int8': choose float32, bfloat16, float16, or none for the checkpoint's"
    )


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_is_not_there(device):
    assert refusal("whatever", device=device).startswith(f"no device {device!r} here (")


def test_what_is_no_model_says_what_is(tmp_path, saved):
    accepted = "give a hub id, a folder that save_pretrained wrote, a .gguf file, timm:NAME or module.path:function"
    lone = saved("llama") / "model.safetensors"
    assert refusal(lone) == f"{lone} is a single file, and weights alone are not a model: {accepted}"
    assert refusal(tmp_path) == f"no config.json in the folder {tmp_path}: {accepted}"
    for name in ("./nothing", "/no/where", "a/b/c", "model.gguf", "org/model.safetensors", "C:\\model"):
        assert refusal(name) == f"no model at {name}: {accepted}"


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_hold_tensors_and_run_no_code(copy, tmp_path):
    folder = copy("llama")
    state = weights(folder)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    found = load(str(folder)).model.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state)
    mark = tmp_path / "code-ran"
    for save in (torch.save, lambda value, file: file.write_bytes(pickle.dumps(value, protocol=2))):
        save(state | {"lm_head.weight": Malice(mark)}, folder / "pytorch_model.bin")
        assert refusal(folder).startswith(f"{folder} has a pickle that holds more than tensors")
        assert not mark.exists()
    pickle.loads(pickle.dumps(Malice(mark)))
    assert mark.exists()


def test_a_half_downloaded_folder_is_refused(copy):
    folder = copy("llama")
    whole = (folder / "model.safetensors").read_bytes()
    for size in (0, 100, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:size])
        assert refusal(folder).startswith(f"cannot load {folder} (Error while deserializing header: ")
    (folder / "model.safetensors").unlink()
    message = refusal(folder)
    assert message.startswith(f"cannot load {folder} (Error no file named model.safetensors")
    assert message.endswith("): save or download it again")
    (folder / "config.json").write_text('{"model_type": "ll')
    assert "is not a valid JSON file): save or download it again" in refusal(folder)
    (folder / "config.json").write_text("{}")
    assert "Should have a `model_type` key" in refusal(folder)


def test_a_missing_shard_is_named(tmp_path):
    from tests.load.conftest import build

    model = build("llama")
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert torch.equal(load(str(tmp_path)).model.lm_head.weight, model.lm_head.weight)
    (lost := sorted(tmp_path.glob("*.safetensors"))[1]).unlink()
    assert lost.name in refusal(tmp_path)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("llama", "model.layers.1.mlp.down_proj.weight"),
        ("llama", "lm_head.weight"),
        ("vit", "classifier.bias"),
        ("bert", "bert.encoder.layer.0.intermediate.dense.bias"),
    ],
)
def test_a_weight_that_would_be_random_is_refused(copy, family, key):
    folder = copy(family)
    rewrite(folder, lambda state: {name: value for name, value in state.items() if name != key})
    message = refusal(folder)
    assert message.startswith(f"{folder} lacks 1 weight(s) of ")
    assert f"({key}), which would be random" in message


def test_weights_of_another_shape_are_refused(copy):
    folder = copy("llama")
    edit_config(folder, intermediate_size=48)
    message = refusal(folder)
    assert message.startswith(f"{folder} has other shapes for 6 weight(s) of LlamaForCausalLM (model.layers.0.mlp.")
    assert ", ...), which would be random" in message


def test_a_pooler_alone_may_be_missing_and_is_told(copy):
    folder = copy("bert")
    edit_config(folder, architectures=["BertModel"])
    loaded = load(str(folder))
    assert type(loaded.model).__name__ == "BertModel"
    assert loaded.notes == (f"the pooler of {folder} is random (not in the checkpoint); it comes after all MLPs",)


def test_a_pooler_that_a_head_reads_may_not_be_missing(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    from tests.load.conftest import TEXT

    BertForSequenceClassification(BertConfig(**TEXT)).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda state: {name: value for name, value in state.items() if "pooler" not in name})
    assert "(bert.pooler.dense.bias, bert.pooler.dense.weight), which would be random" in refusal(tmp_path)


REMOTE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class MyConfig(PretrainedConfig):
    model_type = "mine"

class MyModel(PreTrainedModel):
    config_class = MyConfig

    def __init__(self, config):
        super().__init__(config)
        self.up = torch.nn.Linear(2, 3)
        self.post_init()

    def forward(self, input_ids):
        return self.up(input_ids)
"""


def test_code_of_a_repository_runs_only_when_asked(tmp_path, monkeypatch):
    from safetensors.torch import save_file
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "remote"
    folder.mkdir()
    classes = {"AutoConfig": "mine.MyConfig", "AutoModel": "mine.MyModel"}
    config = {"model_type": "mine", "architectures": ["MyModel"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    mark = tmp_path / "code-ran"
    (folder / "mine.py").write_text(f"{REMOTE}\nopen({str(mark)!r}, 'w').close()\n")
    weight = {"up.weight": torch.ones(3, 2), "up.bias": torch.zeros(3)}
    save_file(weight, folder / "model.safetensors", metadata={"format": "pt"})
    assert refusal(folder) == (
        f"{folder} has its own code, which is not run unless you allow it: read it, then pass --trust-remote-code"
    )
    assert not mark.exists()
    loaded = load(str(folder), trust_remote_code=True)
    assert (type(loaded.model).__name__, loaded.kind) == ("MyModel", "text")
    assert loaded.model(torch.ones(1, 2)).tolist() == [[2.0, 2.0, 2.0]]


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A hub that refuses connections, and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_that_cannot_be_reached_is_told_at_once(no_hub):
    start = time.perf_counter()
    message = refusal("someone/some-model")
    assert time.perf_counter() - start < 5
    assert message.startswith(
        "someone/some-model is neither a folder here nor complete in the hub's cache, and the hub"
    )
    assert "HF_HUB_OFFLINE=1" in message


def test_without_the_hub_its_cache_is_enough(no_hub, saved):
    repository = no_hub / "models--someone--some-model"
    commit = "0" * 40
    shutil.copytree(saved("llama"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    start = time.perf_counter()
    loaded = load("someone/some-model")
    assert time.perf_counter() - start < 5
    assert (type(loaded.model).__name__, loaded.notes) == ("LlamaForCausalLM", ())
    assert loaded.tokenizer("ab")["input_ids"][0] == 1
    os.unlink(repository / "snapshots" / commit / "model.safetensors")
    assert "nor complete in the hub's cache" in refusal("someone/some-model")


def test_what_the_hub_denies_is_told(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def deny(kind):
        def ask(url):
            raise kind.__new__(kind)

        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)

    deny(errors.RepositoryNotFoundError)
    assert refusal("someone/typo").startswith("someone/typo is neither a folder here nor on the hub: correct the name")
    deny(errors.GatedRepoError)
    assert refusal("someone/gated").startswith("someone/gated is gated: accept its terms on the hub")


def test_a_folder_without_a_tokenizer_has_none(copy):
    # transformers makes an empty tokenizer for BERT and T5, and fails for Llama.
    for family in ("bert", "t5", "llama"):
        folder = copy(family)
        for file in folder.glob("*token*"):
            file.unlink()
        loaded = load(str(folder))
        assert loaded.tokenizer is None
        assert loaded.notes[0].startswith(f"{folder} has no tokenizer")


def test_loading_is_silent_and_leaves_settings_alone(copy, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    folder = copy("bert")
    edit_config(folder, architectures=["BertModel"])
    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    load(str(folder))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()) == before
    assert "DISABLE_SAFETENSORS_CONVERSION" not in os.environ
    (folder / "model.safetensors").unlink()
    refusal(folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()) == before


def test_importing_it_imports_no_transformers():
    code = "import sys, lazyneuron.load.models, lazyneuron.load.batches; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_gguf_file_is_dequantized(tmp_path, capfd):
    gguf = pytest.importorskip("gguf")
    from tests.load.conftest import TEXT, build

    model = build("llama")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(TEXT["vocab_size"])
    parts = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    parts |= {f"self_attn.{x}_proj": f"attn_{'output' if x == 'o' else x}" for x in "qkvo"}
    parts |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names = {
        f"model.layers.{i}.{ours}.weight": f"blk.{i}.{theirs}.weight" for i in (0, 1) for ours, theirs in parts.items()
    }
    names |= {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names |= {"lm_head.weight": "output.weight"}
    state = model.state_dict()
    for ours, theirs in names.items():
        array = state[ours].numpy()
        if ".down_proj." in ours:
            packed = gguf.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(theirs, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            state[ours] = torch.from_numpy(gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
            assert not torch.equal(state[ours], model.state_dict()[ours])
        else:
            writer.add_tensor(theirs, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    capfd.readouterr()
    loaded = load(str(path))
    assert capfd.readouterr() == ("", "")
    assert (type(loaded.model).__name__, loaded.kind) == ("LlamaForCausalLM", "text")
    found = loaded.model.state_dict()
    for i in (0, 1):
        for part in ("gate_proj", "up_proj", "down_proj"):
            key = f"model.layers.{i}.mlp.{part}.weight"
            assert torch.equal(found[key], state[key])
    assert loaded.tokenizer is None
    assert loaded.notes[0].startswith(f"{path} has no tokenizer")


def test_a_gguf_file_needs_its_reader(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert refusal(path) == f"{path} is a GGUF file: pip install 'lazyneuron[gguf]' to read it"


def test_timm_models_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal("timm:vit_tiny").endswith("pip install timm")
    asked = []

    def create_model(name, pretrained):
        asked.append((name, pretrained))
        if name != "vit_tiny":
            raise RuntimeError(f"Unknown model\n({name})")
        return nn.Linear(4, 2)

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    loaded = load("timm:vit_tiny", dtype="bfloat16")
    assert asked == [("vit_tiny", True)]
    assert (loaded.kind, loaded.model.weight.dtype, loaded.model.training) == ("images", torch.bfloat16, False)
    assert refusal("timm:wat") == ("cannot load timm:wat (Unknown model (wat)): timm.list_pretrained() has the names")


OWN = """
import torch
from helper_beside_it import width

def build():
    return torch.nn.Linear(width, 2), torch.ones(3, width)

def wrong():
    return torch.nn.Linear(2, 2)

def no_inputs():
    return torch.nn.Linear(2, 2), None

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_models_for_test.py").write_text(OWN)
    (tmp_path / "helper_beside_it.py").write_text("width = 4\n")
    (tmp_path / "broken_for_test.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("my_models_for_test", "helper_beside_it", "broken_for_test"):
        sys.modules.pop(name, None)


def test_a_function_of_ones_own(own):
    path = list(sys.path)
    loaded = load("my_models_for_test:build", dtype="bfloat16")
    assert sys.path == path
    assert (loaded.kind, loaded.inputs.tolist()) == ("own", [[1.0] * 4] * 3)
    assert (loaded.model.weight.dtype, loaded.model.training) == (torch.bfloat16, False)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load("broken_for_test:build")
    assert sys.path == path


def test_a_function_that_is_not_there_or_gives_something_else(own, tmp_path):
    assert refusal("not.here:build").startswith(f"no module not in {tmp_path}, and none is installed")
    assert refusal("my_models_for_test.sub:build").startswith("no module my_models_for_test.sub in ")
    for name in ("nothing", "number"):
        assert refusal(f"my_models_for_test:{name}").startswith(f"the module my_models_for_test has no function {name}")
    assert refusal("my_models_for_test:wrong") == (
        "my_models_for_test:wrong returned a Linear: return (model, inputs) with a torch module first"
    )
    assert "returned inputs of type NoneType" in refusal("my_models_for_test:no_inputs")
