"""Screening never drops what is needed, edited weights are noticed, and arguments that do not fit are refused."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lazyneuron.kernels import skip, team
from lazyneuron.kernels.screen import Screen, screen_of
from lazyneuron.kernels.skip import (
    KINDS,
    dense_mlp,
    dense_up,
    largest_logits,
    masked_up,
    screen_bounds,
    screened_up,
    sparse_down,
    sparse_mlp,
)
from lazyneuron.kernels.weights import Rows, StaleScreenError

ACTS = {
    "relu": torch.relu,
    "relu^2": lambda u: torch.relu(u).square(),
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}
RELUS = ["relu", "relu^2"]
DTYPES = [torch.float32, torch.bfloat16]
TOKENS = (1, 2, 3, 7, 64)
SHAPES = ((1, 1), (1, 33), (3, 1), (97, 97), (1, 2**17), (301, 33), (515, 2048))
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_relu = pytest.mark.parametrize("activation", RELUS)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """No kernel may count on what `torch.empty` happens to hold."""
    empty = torch.empty

    def poisoned_empty(*sizes, **options):
        x = empty(*sizes, **options)
        return x.fill_(math.nan if x.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poisoned_empty)
    torch.manual_seed(0)


@pytest.fixture(params=[1, 2, 5])
def num_threads(request, monkeypatch):
    """So many also where there is little to do, or fewer neurons than threads."""
    monkeypatch.setattr(skip, "_BYTES_PER_THREAD", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def rows(weight, bias=None):
    return Rows(weight, bias, screen_of(weight))


def random_rows(F, D, dtype=torch.float32, with_bias=False, screened=True):
    weight = (torch.randn(F, D) / D**0.5).to(dtype)
    return Rows(weight, torch.randn(F) * 0.5 if with_bias else None, screen_of(weight) if screened else None)


def pre(x, projection):
    """Pre-activations in float64."""
    bias = 0 if projection.bias is None else projection.bias.double()
    return x.double() @ projection.weight_FD.double().T + bias


def largest(h, k):
    """`h` at the k entries of largest magnitude, else 0."""
    kept = h.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(h).scatter(-1, kept, h.gather(-1, kept))


def mlp(x, up, down, bias, gate, activation, k, dtype):
    """The map and the output, in plain PyTorch."""

    def linear(projection):
        given = None if projection.bias is None else projection.bias.to(dtype)
        return torch.nn.functional.linear(x.to(dtype), projection.weight_FD.to(dtype), given)

    h = ACTS[activation](linear(gate or up))
    h = h * linear(up) if gate else h
    h = largest(h, k) if k else h
    y = h @ down.to(dtype)
    return h, y if bias is None else y + bias.to(dtype)


def assert_as_good_as_torch(y, x, *problem):
    """At most twice the error of fp32 in plain PyTorch, and what storing the answer in its dtype takes."""
    h, expected = mlp(x, *problem, torch.float64)
    _, in_fp32 = mlp(x, *problem, torch.float32)
    down = problem[1]
    assert y.dtype == x.dtype
    assert y.shape == expected.shape
    floor = 4 * UNIT[torch.float32] * (h.abs() @ down.double().abs() + expected.abs())
    stored = UNIT[y.dtype] * expected.abs() + 1e-40
    allowed = 2 * (in_fp32 - expected).abs().max() + floor + stored
    assert ((y - expected).abs() <= allowed).all()


def upper_bounds(x, projection, k=0):
    """What the screen bounded the pre-activations by, above and from below, as fp32 [T, F]."""
    low, high = screen_bounds(x, projection)
    return high, low, screened_up(x, projection, k=k)[0]


# Values


@every_dtype
def test_threads_change_no_more_than_the_order_of_sums(dtype):
    up, down, x = random_rows(515, 1024, dtype, True), torch.randn(515, 1024).to(dtype), torch.randn(3, 1024)
    before, answers = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            answers.append(sparse_mlp(x, up, down))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[1], answers[3])
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=1e-5, atol=1e-4)


# Certainty

DISTRIBUTIONS = {
    "normal": (torch.randn, torch.randn),
    "heavy tails": (
        lambda *shape: torch.randn(shape) / torch.rand(shape),
        lambda *shape: torch.randn(shape) / torch.rand(shape),
    ),
    "sparse": (
        lambda *shape: torch.randn(shape) * (torch.rand(shape) < 0.05),
        lambda *shape: torch.randn(shape) * (torch.rand(shape) < 0.05),
    ),
    "a mean": (lambda *shape: torch.randn(shape) + 3, torch.randn),
    "nearly parallel": (
        lambda *shape: 1 + 1e-3 * torch.randn(shape),
        lambda *shape: (w := torch.randn(shape)) - w.mean(-1, keepdim=True),
    ),
    "integers": (
        lambda *shape: torch.randint(-2, 3, shape).float(),
        lambda *shape: torch.randint(-2, 3, shape).float(),
    ),
    "outliers": (
        lambda *shape: torch.randn(shape) * (1 + 1000 * (torch.arange(shape[-1]) == 5)),
        lambda *shape: torch.randn(shape) * (1 + 100 * (torch.arange(shape[-1]) == 7)),
    ),
}


def test_among_ten_million_pairs_none_with_a_positive_pre_activation_is_dropped():
    T, F, D = 64, 4096, 128
    pairs, dropped, positive = 0, 0, 0
    for tokens, weights in DISTRIBUTIONS.values():
        for i in range(8):
            weight = weights(F, D).to(DTYPES[i % 2])
            up = rows(weight, torch.randn(F) * weight.float().std() if i % 3 == 2 else None)
            x = tokens(T, D)
            exact = pre(x, up)
            norms = weight.double().norm(dim=-1) * x.double().norm(dim=-1, keepdim=True)
            if up.bias is not None:
                norms = norms + up.bias.double().abs()
            is_positive = exact > 1e-12 * norms
            high, low, u = upper_bounds(x, up, k=1 if i < 2 else 0)
            assert (high >= exact - 1e-12 * norms).all(), "a bound does not hold"
            assert (low <= exact + 1e-12 * norms).all(), "a lower bound does not hold"
            if i >= 2:
                assert not (is_positive & (u == 0) & (high <= 0)).any(), "dropped"
                assert not u[high <= 0].any()
                # Where fp32 sums to 0, the exact value is within its rounding of 0.
                assert (exact[is_positive & (u == 0)] <= (1e-5 * norms)[is_positive & (u == 0)]).all()
                dropped += (u == 0).sum().item()
                positive += is_positive.sum().item()
                pairs += u.numel()
            if i == 2:
                assert torch.equal(u, screened_up(x, up)[0]), "bounds of another call than the public one"
    assert pairs >= 10**7
    assert positive > pairs // 5
    assert dropped > pairs // 5, "nothing was screened"


def assert_none_dropped(x, weight, bias=None):
    """Each positive pre-activation, summed exactly, is a candidate."""
    up = rows(weight, bias)
    high, _, u = upper_bounds(x, up)
    for t, token in enumerate(x.double().tolist()):
        for f, row in enumerate(weight.double().tolist()):
            terms = [a * b for a, b in zip(token, row, strict=True)]  # exact: fp32 times fp32 fits float64
            exact = math.fsum([*terms, 0.0 if bias is None else bias[f].item()])
            assert high[t, f].item() >= exact, (t, f)
            assert exact <= 0 or high[t, f] > 0, (t, f)
    assert torch.equal(u, screened_up(x, up)[0].float())
    return u


def nasty(D):
    """Rows and tokens that are hard to bound."""
    normal, ones = torch.randn(6, D), torch.ones(D)
    spike = torch.randn(D) * 1e-6
    spike[0] = 1e6
    alternating = ones * (1 - 2 * (torch.arange(D) % 2))
    return torch.cat(
        [
            normal,
            normal[:2] * 1e-20,
            normal[:2] * 1e18,
            torch.stack([spike, -spike, ones, -ones, ones * 0, -ones * 0, alternating, ones * 0.1, -ones * 0.1]),
            normal[:2] / torch.rand(2, D) ** 4,
            (normal[:2] * 127).round(),
        ]
    )


@every_dtype
@pytest.mark.parametrize("D", [1, 2, 33, 128])
def test_hard_rows_with_hard_tokens(dtype, D):
    weight, x = nasty(D).to(dtype), nasty(D).to(dtype).float()
    assert_none_dropped(x, weight)
    for scale in (1, 1e-30, 1e10):
        assert_none_dropped(x, weight, torch.randn(len(weight)) * scale)


@every_dtype
@pytest.mark.parametrize("sign", [1, -1, 0])
@pytest.mark.parametrize("tiny", [2.0**-40, 2.0**-60])
def test_terms_that_nearly_cancel_leave_a_neuron_in_if_what_is_left_is_positive(dtype, sign, tiny):
    """The pre-activation is a 2**-40th of its terms, where fp32 may say 0."""
    for D in (3, 33, 129):
        weight = torch.zeros(4, D)
        weight[:, 0], weight[:, 1] = 1, -1
        weight[:, 2] = sign * torch.tensor([1, 0.5, 2.0**-7, 1])
        weight[3] *= 3
        x = torch.zeros(2, D)
        x[:, 0], x[:, 1], x[:, 2] = 1, 1, tiny
        x[1] *= 5
        assert_none_dropped(x, weight.to(dtype))
        if sign > 0:
            assert screened_up(x, rows(weight.to(dtype)))[1][0] == 4
    one = torch.ones(1, 1)  # of 1 and a bias
    for bias, is_left in ((-1.0, False), (-1 + 2.0**-24, True), (-1 - 2.0**-23, False)):
        up = rows(one.to(dtype), torch.tensor([bias]))
        high, _, _ = upper_bounds(one, up)
        assert high > 0 if is_left else True
    assert_none_dropped(one, one.to(dtype), torch.tensor([-1.0]))


@every_dtype
def test_an_exact_zero_of_nothing_is_dropped_and_biases_decide_for_empty_tokens(dtype):
    weight = nasty(33).to(dtype)
    bias = torch.tensor([1e-45, -1e-45, 0.0, -0.0, 3.0, -3.0, 1e30, -1e30] * 3)[: len(weight)]
    x = torch.zeros(2, 33)
    x[1] = -0.0
    u, reads = screened_up(x, rows(weight, bias))
    assert torch.equal(u, bias.clamp(min=0).expand_as(u))
    assert reads[0] == (bias > 0).sum()
    u, reads = screened_up(x, rows(weight))
    assert not u.any()
    assert reads.tolist() == [0, 0]


@every_dtype
@pytest.mark.parametrize("norm", [1e-20, 1e20])
def test_tokens_of_extreme_norm(dtype, norm):
    up, down = random_rows(97, 33, dtype), torch.randn(97, 33).to(dtype)
    x = torch.randn(3, 33)
    x = (norm * x / x.norm(dim=-1, keepdim=True)).to(dtype)
    assert_none_dropped(x.float(), up.weight_FD)
    assert_as_good_as_torch(sparse_mlp(x, up, down), x, up, down, None, None, "relu", 0)
    assert_as_good_as_torch(sparse_mlp(x, up, down, k=4), x, up, down, None, None, "relu", 4)


def test_denormal_tokens_and_rows():
    scales = torch.tensor([1.0, 1e-10, 1e-20, 1e-36, 1e-39, 1e-42, 1e-44])
    x, weight = torch.randn(7, 8) * scales[:, None], (torch.randn(5, 7, 8) * scales[:, None]).flatten(0, 1)
    assert_none_dropped(x, weight[::7].contiguous())
    assert_none_dropped(x[:1].expand(2, 8), weight)


@every_dtype
def test_products_that_underflow_are_no_edited_weights(dtype):
    """33 products of 0.6e-45, each rounded up to 1.4e-45 in fp32: far above the bound, with the weights unchanged."""
    weight = torch.full((4, 33), 2.0**-66).to(dtype)
    assert_none_dropped(torch.full((1, 33), 0.75 * 2.0**-83), weight)


@every_dtype
@pytest.mark.parametrize("activation", RELUS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_tokens_that_are_not_finite_give_what_a_dense_mlp_gives(dtype, activation, bad):
    up, down = random_rows(97, 33, dtype, True), torch.randn(97, 33).to(dtype)
    problem = (up, down, None, None, activation, 0)
    for T in (1, 4):
        x = torch.randn(T, 33).to(dtype)
        x[0, 5] = bad
        u, _ = screened_up(x, up)
        expected = torch.relu(pre(x, up))
        assert torch.equal(u[0].isnan(), expected[0].isnan())
        assert torch.equal(torch.relu(u[0]).isinf(), expected[0].isinf())
        y, (_, dense) = sparse_mlp(x, up, down, activation=activation), mlp(x, *problem, torch.float64)
        assert torch.equal(y[0].isnan(), dense[0].isnan())
        assert torch.equal(dense_mlp(x, up, down, activation=activation)[0].isnan(), dense[0].isnan())
        if T > 1:
            assert_as_good_as_torch(y[1:], x[1:], *problem)


@every_dtype
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("k", [0, 5])
def test_rows_that_are_not_finite_are_never_dropped(dtype, bad, k):
    up = random_rows(97, 33, dtype)
    up.weight_FD[[3, 40, 96], 7] = bad
    up = rows(up.weight_FD)
    x = torch.randn(4, 33).to(dtype)
    x[3, 7] = 0
    for activation in KINDS:
        u, _ = screened_up(x, up, activation, k)
        assert not u[:, [3, 40, 96]].isfinite().any()
        assert u[:, :3].isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("activation", KINDS)
def test_rows_that_are_not_finite_are_not_dropped_for_a_product_either(activation, bad):
    for at in (0, 1):
        gate, other, x = torch.randn(64, 16), torch.randn(64, 16), torch.randn(3, 16)
        (gate, other)[at][5, 2] = bad
        u, _ = screened_up(x, rows(gate), activation, 4, rows(other))
        act = ACTS[activation](pre(x, Rows(gate)))
        needed = ~(act * pre(x, Rows(other))).isfinite()[:, 5] & ~((act == 0)[:, 5])
        assert (u[:, 5][needed] != 0).all()


# Top-k


@every_dtype
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("way", ["plain", "gated"])
@pytest.mark.parametrize("activation", KINDS)
def test_whatever_may_be_among_the_k_largest_is_computed(dtype, activation, way, with_bias, num_threads):
    screened = 0
    for shift, scale in ((0, 0.1), (-1.5, 1), (1.5, 1), (-6, 1), (0, 5)):
        up, other = (random_rows(300, 100, dtype, with_bias) for _ in range(2))
        x = (torch.randn(5, 100) * scale).to(dtype)
        if with_bias:
            up.bias.add_(shift)
        other = other if way == "gated" else None
        u = pre(x, up)
        h = (ACTS[activation](u) * (pre(x, other) if other else 1)).abs()
        for k in (1, 10, 100, 300):
            got, _ = screened_up(x, up, activation, k, other)
            least, kept = h.topk(k, dim=-1)
            is_kept = torch.zeros_like(h, dtype=torch.bool).scatter(-1, kept, least > 1e-300)
            assert (got[is_kept] != 0).all()
            near = 1e-5 * (1 + u.abs().max()) + UNIT[dtype] * u.abs()
            assert ((got - u).abs() <= near)[got != 0].all()
            screened += (got == 0).sum().item()
    assert screened > 5_000


# Refusals


def test_weights_that_no_kernel_reads_are_refused():
    up, down, x = random_rows(8, 4), torch.randn(8, 4), torch.randn(2, 4)
    for bad in (down.half(), down.double(), down.char(), torch.randn(4, 8).T, torch.randn(8, 4, device="meta")):
        for run in (
            lambda bad=bad: sparse_down(torch.randn(2, 8), bad),
            lambda bad=bad: screened_up(x, Rows(bad, None, up.screen)),
            lambda bad=bad: masked_up(x, Rows(bad), torch.randn(2, 8)),
            lambda bad=bad: sparse_mlp(x, Rows(bad, None, up.screen), down),
            lambda bad=bad: dense_mlp(x, Rows(bad), down),
        ):
            with pytest.raises(ValueError, match="contiguous fp32 or bf16 on the CPU"):
                run()


def test_a_missing_screen_is_said():
    up, down, x = random_rows(8, 4, screened=False), torch.randn(8, 4), torch.randn(2, 4)
    for run in (
        lambda: screened_up(x, up),
        lambda: sparse_mlp(x, up, down),
        lambda: sparse_mlp(x, random_rows(8, 4), down, gate=up),
    ):
        with pytest.raises(ValueError, match="needs a screen"):
            run()
    dense_mlp(x, up, down)
    sparse_mlp(x, up, down, gate=random_rows(8, 4))


UNCHECKED = {
    "down not contiguous": lambda x, up, down: sparse_mlp(x, up, down.T.contiguous().T),
    "bias of another dtype": lambda x, up, down: sparse_mlp(x, rows(up.weight_FD, torch.zeros(64).bfloat16()), down),
    "bias of down of another dtype": lambda x, up, down: sparse_mlp(x, up, down, torch.zeros(16).bfloat16()),
    "bias too short": lambda x, up, down: sparse_mlp(x, rows(up.weight_FD, torch.zeros(32)), down),
    "narrow tokens": lambda x, up, down: sparse_mlp(x[:, :8], up, down),
    "narrow map": lambda x, up, down: sparse_down(torch.rand(2, 32), down),
    "narrow mask": lambda x, up, down: masked_up(x, up, torch.rand(2, 32)),
    "short down": lambda x, up, down: sparse_mlp(x, up, down[:32]),
    "another's screen": lambda x, up, down: sparse_mlp(x, Rows(up.weight_FD, None, screen_of(down[:32])), down),
    "a gate with k and no screen": lambda x, up, down: sparse_mlp(x, Rows(up.weight_FD), down, gate=up, k=3),
    "SiLU": lambda x, up, down: sparse_mlp(x, up, down, activation="silu"),
    "another activation": lambda x, up, down: sparse_mlp(x, up, down, activation="tanh"),
    "scales of fp32": lambda x, up, down: dense_up(x, Rows(up.weight_FD, scales=torch.ones(64))),
    "too few scales": lambda x, up, down: dense_up(x, Rows(up.weight_FD.char(), scales=torch.ones(63))),
    "bf16 scales of down": lambda x, up, down: sparse_down(
        torch.rand(2, 64), down.char(), None, torch.ones(64).bfloat16()
    ),
    "int8 with a screen": lambda x, up, down: screened_up(
        x, Rows(up.weight_FD.char(), screen=up.screen, scales=torch.ones(64))
    ),
    "no screen of the other": lambda x, up, down: screened_up(x, up, "silu", 3, Rows(down)),
}


@pytest.mark.parametrize("run", UNCHECKED.values(), ids=UNCHECKED)
def test_arguments_that_do_not_fit_are_refused(run):
    up, down, x = random_rows(64, 16), torch.randn(64, 16), torch.randn(2, 16)
    with pytest.raises(ValueError, match=r"."):
        run(x, up, down)


@every_dtype
@pytest.mark.parametrize("k", [0, 5])
def test_edited_weights_are_noticed(dtype, k):
    up, down, x = random_rows(97, 33, dtype, True), torch.randn(97, 33).to(dtype), torch.randn(3, 33).to(dtype)
    up.weight_FD.neg_()
    for run in (lambda: screened_up(x, up, k=k), lambda: sparse_mlp(x, up, down, k=k)):
        with pytest.raises(StaleScreenError, match="screen them again"):
            run()


def test_edited_weights_are_noticed_where_no_pre_activation_was_near_zero():
    up = rows(torch.ones(4, 8))
    up.weight_FD.neg_()
    with pytest.raises(StaleScreenError):
        screened_up(torch.ones(1, 8), up)


@every_dtype
def test_weights_screened_anew_are_as_good_as_others(dtype):
    up, down, x = random_rows(97, 33, dtype), torch.randn(97, 33).to(dtype), torch.randn(3, 33).to(dtype)
    up.weight_FD.neg_()
    fresh = rows(up.weight_FD)
    assert_as_good_as_torch(sparse_mlp(x, fresh, down), x, fresh, down, None, None, "relu", 0)


def test_fp32_tokens_keep_their_precision_with_bf16_weights():
    up, down, x = random_rows(97, 33, torch.bfloat16), torch.randn(97, 33).bfloat16(), torch.randn(3, 33)
    assert_as_good_as_torch(sparse_mlp(x, up, down), x, up, down, None, None, "relu", 0)


def test_a_screen_is_what_counts_not_how_it_was_made():
    """A screen that knows nothing (infinite bounds) drops nothing."""
    up, x = random_rows(97, 33), torch.randn(3, 33)
    scales = torch.tensor([0, math.inf, 0]).expand(97, 3).contiguous()
    u, _ = screened_up(x, Rows(up.weight_FD, None, Screen(torch.zeros(97, 33, dtype=torch.int8), scales)))
    torch.testing.assert_close(u.double(), pre(x, up), rtol=1e-5, atol=1e-5)


def test_calls_of_several_threads_keep_apart():
    problems = [(random_rows(F, 40), torch.randn(F, 40), torch.randn(3, 40)) for F in (50, 3000)]
    wanted = [sparse_mlp(x, up, down) for up, down, x in problems]

    def work(number):
        up, down, x = problems[number % 2]
        return all(torch.equal(sparse_mlp(x, up, down), wanted[number % 2]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("kept", [0, 2**26])
def test_scratch_grows_and_much_is_not_kept(kept, monkeypatch):
    monkeypatch.setattr(team, "_MOST_BYTES_KEPT", kept)
    monkeypatch.setattr(team, "_scratch", team._Scratch())
    for F in (5, 700, 30):
        up, down, x = random_rows(F, 16), torch.randn(F, 16), torch.randn(2, 16)
        torch.testing.assert_close(sparse_mlp(x, up, down), torch.relu(x @ up.weight_FD.T) @ down)
    held = team._scratch.kept
    assert held is None if kept == 0 else held.nbytes < 2**20


@every_dtype
def test_of_a_million_logits_none_of_the_largest_is_left_out_and_most_others_are(dtype):
    head = random_rows(4000, 64, dtype)
    for scale in (1e-20, 1.0, 1e20):
        for _ in range(2):
            x = scale * torch.randn(50, 64)
            wanted = pre(x, head)
            found, reads = largest_logits(x, head, 3)
            assert found.isfinite()[wanted >= wanted.topk(3).values[:, -1:]].all()
            assert torch.equal(found.argmax(-1), wanted.argmax(-1))
            assert reads[1] == found.isfinite().sum() < 0.1 * found.numel()


@pytest.mark.parametrize("k", [0, 51])
def test_k_is_at_most_the_vocabulary(k):
    with pytest.raises(ValueError, match=f"50 rows; got {k}"):
        largest_logits(torch.randn(1, 16), random_rows(50, 16), k)
