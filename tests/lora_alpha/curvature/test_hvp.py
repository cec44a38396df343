import pytest
import torch
import torch.nn.functional as F

from lora_alpha.curvature.coordinates import probed_model
from lora_alpha.curvature.hvp import HessianOperator, graph_bytes
from lora_alpha.errors import ProbeError


def operator_on(block, workload, factors, space, *, strategy="retained", steps=(0,)):
    """An operator with ``steps`` as microbatches; the loss closures stay valid after the block."""
    with probed_model(block, factors, space=space) as coordinates:
        batches = [workload.batch(block, step=step, seeds=[0], batch_size=8) for step in steps]
        modules = dict(coordinates.layers)
        tensors = coordinates.tensors()

    def loss_of(batch):
        def loss(leaves):
            with probed_model(block, factors, space=space) as inside:
                inside.assign(leaves)
                return workload.losses(block, batch, num_configs=1).sum()

        return loss

    assert modules
    return HessianOperator([loss_of(batch) for batch in batches], tensors, strategy=strategy)


@pytest.mark.parametrize("space", ["lora", "full"])
@pytest.mark.parametrize("strategy", ["retained", "fresh"])
def test_product_equals_dense_hessian(block, workload, factors, dense, space, strategy):
    operator = operator_on(block, workload, factors, space, strategy=strategy)
    assert operator.dim == len(dense[space].hessian) >= 2000
    vector = torch.randn(operator.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = dense[space].hessian @ vector
    torch.testing.assert_close(operator.matvec(vector), expected, rtol=0, atol=1e-11 * float(expected.norm()))
    torch.testing.assert_close(operator.gradient(), dense[space].gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize("space", ["lora", "full"])
def test_product_equals_central_difference_of_gradients(block, workload, factors, space):
    operator = operator_on(block, workload, factors, space)
    generator = torch.Generator().manual_seed(3)
    vector = torch.randn(operator.dim, dtype=torch.float64, generator=generator)
    vector /= vector.norm()

    def gradient_at(offset):
        with probed_model(block, factors, space=space) as coordinates:
            pieces = torch.split(vector, [t.numel() for t in coordinates.tensors()])
            moved = [
                (t + offset * p.view_as(t)).requires_grad_()
                for t, p in zip(coordinates.tensors(), pieces, strict=True)
            ]
            coordinates.assign(moved)
            batch = workload.batch(block, step=0, seeds=[0], batch_size=8)
            gradients = torch.autograd.grad(workload.losses(block, batch, num_configs=1).sum(), moved)
        return torch.cat([g.reshape(-1) for g in gradients])

    h = 1e-4
    # Fourth-order stencil: truncation ~h⁴, so that 1e-8 is reached before rounding (1e-16/h) bites.
    difference = (8 * (gradient_at(h) - gradient_at(-h)) - (gradient_at(2 * h) - gradient_at(-2 * h))) / (
        12 * h
    )
    product = operator.matvec(vector)
    assert float((product - difference).norm() / product.norm()) < 1e-8


def test_rows_of_a_batched_product_equal_single_products(block, workload, factors):
    operator = operator_on(block, workload, factors, "lora")
    vectors = torch.randn(3, operator.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    together = operator.matmat(vectors)
    for row, vector in zip(together, vectors, strict=True):
        torch.testing.assert_close(row, operator.matvec(vector), rtol=1e-10, atol=1e-12)
    assert operator.num_products == 6


def test_microbatches_give_the_mean_hessian_in_both_strategies(block, workload, factors):
    vector = torch.randn(2016, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    singles = [operator_on(block, workload, factors, "lora", steps=(step,)) for step in (0, 1, 2)]
    expected = sum(operator.matvec(vector) for operator in singles) / 3
    for strategy in ("retained", "fresh"):
        operator = operator_on(block, workload, factors, "lora", strategy=strategy, steps=(0, 1, 2))
        torch.testing.assert_close(operator.matvec(vector), expected, rtol=1e-12, atol=1e-12)
        assert operator.loss() == pytest.approx(sum(o.loss() for o in singles) / 3, rel=1e-14)


def test_coordinates_that_the_loss_ignores_or_is_linear_in_have_zero_rows():
    x = [torch.ones(2, dtype=torch.float64), torch.ones(3, dtype=torch.float64), torch.ones(1).double()]
    operator = HessianOperator(lambda p: (p[0] ** 3).sum() + 2 * p[2].sum(), x)
    assert operator.matvec(torch.ones(6).double()).tolist() == [6, 6, 0, 0, 0, 0]
    flat = HessianOperator(lambda p: 3 * p[0].sum(), x)
    assert flat.matvec(torch.ones(6).double()).tolist() == [0] * 6


def test_the_given_tensors_are_left_alone():
    point = torch.ones(2)
    HessianOperator(lambda p: (p[0] ** 2).sum(), [point]).matvec(torch.ones(2))
    assert not point.requires_grad
    assert point.grad is None


def test_losses_without_a_finite_scalar_are_refused():
    point = [torch.ones(2)]
    with pytest.raises(ProbeError, match="one finite number"):
        HessianOperator(lambda p: p[0] * 2, point)
    with pytest.raises(ProbeError, match="one finite number"):
        HessianOperator(lambda p: (p[0] / 0).sum(), point)
    with pytest.raises(ProbeError, match="at least one"):
        HessianOperator([], point)
    with pytest.raises(ProbeError, match="differ in dtype"):
        HessianOperator(lambda p: p[0].sum(), [torch.ones(1), torch.ones(1).double()])


def test_graph_bytes_grow_with_the_batch_and_count_no_storage_twice():
    weight = [torch.randn(8, 8)]

    def loss_for(rows):
        x = torch.randn(rows, 8)
        return lambda p: F.linear(x, p[0]).tanh().square().sum()

    small, large = (graph_bytes(loss_for(rows), weight) for rows in (16, 160))
    assert 16 * 8 * 4 <= small < large
    assert large <= 20 * 160 * 8 * 4
