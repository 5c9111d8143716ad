"""The callbacks of Hugging Face's Trainer and of Lightning's: what they count is what the steps trained on."""

import copy
import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.measure.callbacks import lightning_callback, trainer_callback
from lazyneuron.records.folder import RunFolder
from tests.processes import run_on_ranks

Step = tuple[dict[str, Tensor], list[dict[str, Tensor]]]
"""Weights and micro-batches of one optimizer step."""


def _bert() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return hf.BertForMaskedLM(hf.BertConfig(**sizes, intermediate_size=32, hidden_act="relu"))


def _data(count: int = 12, seed: int = 0) -> list[dict[str, Tensor]]:
    """Sentences of six tokens, of which the last two are padding in every other one."""
    ids = torch.randint(3, 50, (count, 6), generator=torch.Generator().manual_seed(seed))
    masks = [torch.tensor([1, 1, 1, 1, 1 - i % 2, 1 - i % 2]) for i in range(count)]
    return [{"input_ids": i, "attention_mask": m, "labels": i} for i, m in zip(ids, masks, strict=True)]


@torch.no_grad()
def _by_hand(step: Step) -> list[float]:
    """Density of each layer at these weights on these batches, from the outputs of BERT's own ReLU."""
    weights, batches = step
    model = _bert().eval()
    model.load_state_dict(weights)
    active, tokens = [0, 0], 0
    maps: list[Tensor] = []
    for layer in model.bert.encoder.layer:
        layer.intermediate.register_forward_hook(lambda module, args, h: maps.append(h))
    for batch in batches:
        model(**batch)
        mask = batch["attention_mask"] == 1
        tokens += int(mask.sum())
        active = [count + int((h[mask] > 0).sum()) for count, h in zip(active, maps, strict=True)]
        maps.clear()
    return [count / (32 * tokens) for count in active]


class Spy(hf.Trainer):
    """Keeps the weights and micro-batches of each step, and runs the model once more without gradients in each."""

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        steps = self.__dict__.setdefault("steps", {})
        _, batches = steps.setdefault(self.state.global_step, (copy.deepcopy(self.model.state_dict()), []))
        batches.append({name: value.clone() for name, value in inputs.items()})
        with torch.no_grad():
            model(**{name: value.flip(-1) for name, value in inputs.items()})
        if self.state.global_step == self.__dict__.get("fails_at"):
            loss = super().training_step(model, inputs, *args, **kwargs)
            raise KeyError(f"after a backward pass with loss {loss}")
        return super().training_step(model, inputs, *args, **kwargs)


def _arguments(folder: Path, **chosen: Any) -> hf.TrainingArguments:
    given: dict[str, Any] = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    given |= {"learning_rate": 0.01, "per_device_train_batch_size": 2, "dataloader_pin_memory": False}
    return hf.TrainingArguments(str(folder / "out"), **given | chosen)


def _num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def _densities(folder: Path) -> dict[int | None, list[float]]:
    """Recorded densities by step, in order of the layers; each layer is there once."""
    found: dict[int | None, list[float]] = {}
    records = [record for record in RunFolder(folder).records() if record.what == "density"]
    for record in records:
        assert (record.split, record.layer) == ("train", len(found.setdefault(record.step, [])))
        found[record.step].append(record.value)
    return found


def test_the_trainer_records_what_a_count_by_hand_gives(tmp_path: Path) -> None:
    """With gradient accumulation, a last step of an epoch that is smaller, padding, and evaluation in between."""
    arguments = _arguments(
        tmp_path, num_train_epochs=2, gradient_accumulation_steps=4, eval_strategy="steps", eval_steps=1, seed=5
    )
    model = _bert()
    callback = trainer_callback(tmp_path / "mine", every=1, recipe="bert")
    trainer = Spy(model, arguments, train_dataset=_data(), eval_dataset=_data(4, 1), callbacks=[callback])
    trainer.train()
    steps: dict[int, Step] = trainer.__dict__["steps"]
    assert [len(batches) for _, batches in steps.values()] == [4, 2, 4, 2]
    assert _densities(tmp_path / "mine") == {step: pytest.approx(_by_hand(seen)) for step, seen in steps.items()}
    records = RunFolder(tmp_path / "mine").records()
    assert {(record.recipe, record.seed) for record in records} == {("bert", 5)}
    assert {record.num_tokens for record in records if record.step == 0} == {
        int(sum(batch["attention_mask"].sum() for batch in steps[0][1]))
    }
    assert _num_hooks(model) == 0


def test_after_an_exception_the_hooks_go_with_the_next_call(tmp_path: Path) -> None:
    """The Trainer says nothing of it; the model's next call outside ends the step, in training mode too."""
    model, arguments = _bert(), _arguments(tmp_path, max_steps=4)
    trainer = Spy(model, arguments, train_dataset=_data(), callbacks=[trainer_callback(tmp_path / "mine", every=2)])
    trainer.__dict__["fails_at"] = 2
    with pytest.raises(KeyError):
        trainer.train()
    assert _num_hooks(model) > 0
    batch = {name: value[None] for name, value in _data()[0].items()}
    model.train()(**batch)
    assert _num_hooks(model) == 0
    assert list(_densities(tmp_path / "mine")) == [0]


def test_after_an_exception_the_next_training_is_clean(tmp_path: Path) -> None:
    """Of the same model by another Trainer, with another callback and folder: its first call ends the failed step."""
    model = _bert()
    for fails_at, name in ((0, "first"), (None, "second")):
        arguments = _arguments(tmp_path, max_steps=1)
        callback = trainer_callback(tmp_path / name, every=1)
        trainer = Spy(model, arguments, train_dataset=_data(), callbacks=[callback])
        trainer.__dict__["fails_at"] = fails_at
        if fails_at is None:
            trainer.train()
        else:
            with pytest.raises(KeyError):
                trainer.train()
            assert _num_hooks(model) > 0
    assert _num_hooks(model) == 0
    assert not (tmp_path / "first" / "records.jsonl").exists()
    assert _densities(tmp_path / "second")[0] == pytest.approx(_by_hand(trainer.__dict__["steps"][0]))


def test_steps_between_have_no_hook_in_the_trainer(tmp_path: Path) -> None:
    """What an unmeasured step runs has no hook at all."""
    seen: dict[int, bool] = {}

    class Look(hf.TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen[state.global_step] = _num_hooks(kwargs["model"]) > 0

    callbacks = [trainer_callback(tmp_path / "mine", every=3), Look()]
    trainer = hf.Trainer(_bert(), _arguments(tmp_path, max_steps=5), train_dataset=_data(), callbacks=callbacks)
    trainer.train()
    assert seen == {0: True, 1: False, 2: False, 3: True, 4: False}


def test_the_trainer_resumes(tmp_path: Path) -> None:
    """From a checkpoint: records of the steps that are run again are there once, and equal."""
    arguments = _arguments(tmp_path, max_steps=6, save_strategy="steps", save_steps=3)
    callback = trainer_callback(tmp_path / "mine", every=1)
    hf.Trainer(_bert(), arguments, train_dataset=_data(), callbacks=[callback]).train()
    whole = _densities(tmp_path / "mine")
    assert list(whole) == [0, 1, 2, 3, 4, 5]
    again = hf.Trainer(_bert(), arguments, train_dataset=_data(), callbacks=[callback])
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert _densities(tmp_path / "mine") == whole
    assert "step 3: start" in (tmp_path / "mine" / "log.txt").read_text()


def test_the_trainers_own_report_to_is_ours_too(tmp_path: Path) -> None:
    """TensorBoard gets the recorded numbers in our folder; nothing does where the user says so."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for name, trackers in (("mine", None), ("none", ())):
        arguments = _arguments(tmp_path, max_steps=3, report_to="tensorboard")
        callback = trainer_callback(tmp_path / name, every=2, trackers=trackers)
        hf.Trainer(_bert(), arguments, train_dataset=_data(), callbacks=[callback]).train()
    found = events.EventAccumulator(str(tmp_path / "mine")).Reload()
    expected = [(step, pytest.approx(values[1])) for step, values in _densities(tmp_path / "mine").items()]
    assert [(e.step, e.value) for e in found.Scalars("density/layer.1")] == expected
    assert not list((tmp_path / "none").glob("events*"))


def test_the_output_dir_is_no_folder_of_ours(tmp_path: Path) -> None:
    """The Trainer writes a config.json there too."""
    callback = trainer_callback(tmp_path / "out")
    trainer = hf.Trainer(_bert(), _arguments(tmp_path), train_dataset=_data(), callbacks=[callback])
    with pytest.raises(UsageError, match="is the Trainer's output_dir: give trainer_callback another folder"):
        trainer.train()


def _train_on_two_ranks(rank: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29519", "RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    arguments = _arguments(folder, max_steps=3, ddp_backend="gloo")
    callback = trainer_callback(folder / "mine", every=2)
    trainer = Spy(_bert(), arguments, train_dataset=_data(), callbacks=[callback])
    trainer.train()
    assert arguments.world_size == 2
    torch.save(trainer.__dict__["steps"], folder / f"steps-{rank}.pt")
    torch.distributed.destroy_process_group()


def test_the_trainer_on_two_ranks_records_their_sum(tmp_path: Path) -> None:
    """Under DDP, by gloo: the tokens of both ranks, counted by hand from the batches that each has seen."""
    run_on_ranks(_train_on_two_ranks, tmp_path)
    seen = [torch.load(tmp_path / f"steps-{rank}.pt") for rank in (0, 1)]
    expected = {step: _by_hand((seen[0][step][0], seen[0][step][1] + seen[1][step][1])) for step in (0, 2)}
    assert _densities(tmp_path / "mine") == {step: pytest.approx(values) for step, values in expected.items()}


def _lit(pl: Any, failing: bool = False, called: str = "net") -> Any:
    """A LightningModule around BERT that keeps the weights and micro-batches of each optimizer step."""

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.steps = _bert(), dict[int, Step]()
            if called == "module":
                self.scale = nn.Parameter(torch.ones(()))

        def forward(self, **batch: Tensor) -> Any:
            return self.net(**batch)

        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
            step = self.trainer.global_step
            _, batches = self.steps.setdefault(step, (copy.deepcopy(self.net.state_dict()), []))
            batches.append(batch)
            loss = (self if called == "module" else self.net)(**batch).loss
            if failing and step == 2:
                raise KeyError
            return loss

        def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
            self.net(**batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.net.parameters(), lr=0.5)

    return Lit()


def _fit(pl: Any, model: Any, folder: Path, callback: Any, resume: str | None = None, **chosen: Any) -> Any:
    loaders = [torch.utils.data.DataLoader(_data(count, seed), batch_size=2) for count, seed in ((12, 0), (4, 1))]
    given = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    given |= {"enable_progress_bar": False, "default_root_dir": folder, "callbacks": [callback]}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
        warnings.filterwarnings("ignore", "Found .* module.* in eval mode")
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
        trainer = pl.Trainer(**given | chosen)
        trainer.fit(model, *loaders, ckpt_path=resume)
    return trainer


@pytest.mark.parametrize(("name", "called"), [("lightning.pytorch", "net"), ("pytorch_lightning", "module")])
def test_lightning_records_what_a_count_by_hand_gives(tmp_path: Path, name: str, called: str) -> None:
    """With gradient accumulation over the end of an epoch, and validation between the micro-batches of a step."""
    pl = pytest.importorskip(name)
    model = _lit(pl, called=called)
    callback = lightning_callback(tmp_path / "mine", every=1, recipe="lit")
    chosen = {"max_epochs": 2, "accumulate_grad_batches": 4, "val_check_interval": 1}
    _fit(pl, model, tmp_path, callback, **chosen)
    assert [len(batches) for _, batches in model.steps.values()] == [4, 2, 4, 2]
    assert _densities(tmp_path / "mine") == {step: pytest.approx(_by_hand(seen)) for step, seen in model.steps.items()}
    assert _num_hooks(model) == 0
    assert isinstance(callback, pl.Callback)
    sites = {record.site for record in RunFolder(tmp_path / "mine").records()}
    assert all(site.startswith("net." if called == "module" else "bert.") for site in sites)


def test_lightning_leaves_no_hook_after_an_exception(tmp_path: Path) -> None:
    """And no record of the step that failed."""
    pl = pytest.importorskip("lightning.pytorch")
    model = _lit(pl, failing=True)
    with pytest.raises(KeyError):
        _fit(pl, model, tmp_path, lightning_callback(tmp_path / "mine", every=1), max_epochs=1)
    assert _num_hooks(model) == 0
    assert list(_densities(tmp_path / "mine")) == [0, 1]


def test_lightning_resumes_and_tells_its_own_loggers(tmp_path: Path) -> None:
    """From a checkpoint after one epoch: each step is there once, and TensorBoard has it."""
    pl = pytest.importorskip("lightning.pytorch")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loggers = importlib.import_module("lightning.pytorch.loggers")
    callback = lightning_callback(tmp_path / "mine", every=2)
    trainer = _fit(pl, _lit(pl), tmp_path, callback, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "epoch.ckpt")
    _fit(pl, _lit(pl), tmp_path, callback, max_epochs=2)
    whole = _densities(tmp_path / "mine")
    assert list(whole) == [0, 2, 4, 6, 8, 10]
    logger = loggers.TensorBoardLogger(tmp_path / "tb", name="", version="")
    _fit(
        pl, _lit(pl), tmp_path, callback, str(tmp_path / "epoch.ckpt"), max_epochs=2, logger=logger, log_every_n_steps=1
    )
    assert _densities(tmp_path / "mine") == whole
    found = events.EventAccumulator(str(tmp_path / "tb")).Reload()
    expected = [(step, pytest.approx(whole[step][0])) for step in (6, 8, 10)]
    assert [(e.step, e.value) for e in found.Scalars("density/layer.0")] == expected


def test_without_lightning_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; and neither Lightning nor transformers is imported before a callback is made."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"^lightning_callback needs lightning: pip install 'lazyneuron\[lightning\]'$"
    ):
        lightning_callback(tmp_path)
    code = (
        "import sys, lazyneuron.measure.callbacks; "
        "sys.exit(bool({'lightning', 'pytorch_lightning', 'transformers', 'accelerate'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
