"""The matrix products that a call dispatches, and the same products with nothing around them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Product:
    """`batch` matrix products (m, k) · (k, n); `layout` has an N, or a T for transposed in memory, per operand.

    Those of `onednn` are by that library, whose right operand is always transposed in memory.
    """

    batch: int
    m: int
    k: int
    n: int
    layout: str = "NN"
    onednn: bool = False

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.m * self.k * self.n


class ProductRecorder(TorchDispatchMode):
    """Lists the matrix products that run inside its `with` block, in order."""

    def __init__(self):
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += products_of(func.overloadpacket, args)
        return func(*args, **(kwargs or {}))


def products_of(operator, args: tuple) -> list[Product]:
    """The matrix products that one call of an ATen operator stands for; most operators stand for none.

    Attention is two batched products, and backward another two for each of these: scores that a fused kernel
    computes again are its own choice and not counted.

    Raises:
        NotImplementedError: for an operator that PyTorch's own counter counts and this one does not know.
    """
    name = operator.__name__
    if name in ("mm", "bmm"):
        return [_product(*args[:2])]
    if name in ("addmm", "addmm_", "baddbmm", "baddbmm_"):
        return [_product(*args[1:3])]
    if name == "_linear_pointwise":
        rows = args[0].numel() // args[0].shape[-1]
        return [Product(1, rows, args[1].shape[1], args[1].shape[0], "NT", onednn=True)]
    if name.startswith("_scaled_dot_product"):
        backward = name.endswith("_backward")
        query, key, value = args[1:4] if backward else args[:3]
        heads, length, width = query.shape[0] * query.shape[1], query.shape[2], query.shape[3]
        scores = Product(heads, length, width, key.shape[2])
        mixture = Product(heads, length, key.shape[2], value.shape[3])
        return [scores, mixture] * (2 if backward else 1)
    if operator in flop_registry:
        raise NotImplementedError(f"{operator} holds matrix products that benchmarks/matrix_products.py cannot list.")
    return []


def _product(left: Tensor, right: Tensor) -> Product:
    layout = "".join("NT"[not x.is_contiguous() and x.mT.is_contiguous()] for x in (left, right))
    return Product(left.shape[0] if left.ndim == 3 else 1, *left.shape[-2:], right.shape[-1], layout)


def record(call: Callable) -> list[Product]:
    """The matrix products of one call; compiled parts run as written meanwhile."""
    with torch.compiler.set_stance("force_eager"), ProductRecorder() as recorder:
        call()
    return recorder.products


class BareProducts:
    """Runs products one after the other and nothing else, on operands and results that are allocated once.

    All of them share the memory of the largest, so that ever new shapes do not fill the machine.
    """

    def __init__(self, products: list[Product], dtype: torch.dtype, device: torch.device, layout: str):
        sizes = [(p.batch * p.m * p.k, p.batch * p.k * p.n, p.batch * p.m * p.n) for p in products]
        left, right, out = (torch.empty(max(sizes), dtype=dtype, device=device) for sizes in zip(*sizes, strict=True))
        left.normal_()
        right.normal_()
        self.calls = []
        for p in products:
            stored = p.layout if layout == "recorded" or p.onednn else "NN"
            operands = _matrix(left, p.batch, p.m, p.k, stored[0]), _matrix(right, p.batch, p.k, p.n, stored[1])
            function = _by_onednn if p.onednn else torch.mm if p.batch == 1 else torch.bmm
            self.calls.append((function, *operands, _matrix(out, p.batch, p.m, p.n)))

    @torch.no_grad()
    def __call__(self):
        for function, left, right, out in self.calls:
            function(left, right, out=out)


def _by_onednn(left: Tensor, right: Tensor, out: Tensor):
    """left · right; the operator allocates its result, and `out` stays as it is."""
    torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")


def _matrix(memory: Tensor, batch: int, rows: int, columns: int, stored: str = "N") -> Tensor:
    flat = memory[: batch * rows * columns]
    matrix = flat.view(batch, columns, rows).mT if stored == "T" else flat.view(batch, rows, columns)
    return matrix[0] if batch == 1 else matrix


def print_products(row: dict, least: float = 0.02):
    """The shapes that hold at least the share `least` of a row's operations."""
    operations = [(p, 2 * p["batch"] * p["m"] * p["k"] * p["n"] * p["count"]) for p in row["products"]]
    total = sum(flops for _, flops in operations)
    print(
        f"\nmatrix products of {row['what']}, batch {row['batch_size']}: {total / 1e9:.2f} GFLOP; from {least:.0%} up"
    )
    print(f"{'count':>6} {'batch':>6} {'m':>7} {'k':>7} {'n':>7} layout {'GFLOP':>9} {'share':>6}")
    for p, flops in sorted(operations, key=lambda pair: -pair[1]):
        if flops >= least * total:
            sizes = f"{p['count']:6d} {p['batch']:6d} {p['m']:7d} {p['k']:7d} {p['n']:7d} {p['layout']:>6}"
            print(f"{sizes} {flops / 1e9:9.2f} {flops / total:6.1%}")
