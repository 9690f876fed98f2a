"""A pretended accelerator, as the machine of the tests has none: its tensors lie on the CPU and are computed there.

Its device is called "far". As on a GPU, an operation that mixes it with tensors of the CPU fails, numpy takes none of
its tensors, and a generator of the CPU draws nothing there; but single numbers may come from the CPU, indices too, and
copies go either way. As on Apple's GPUs, there is no float64.

PyTorch allows one such device in a process, and libraries look for it: import this file in a process of its own, after
the encoder is loaded.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}

_setup_privateuseone_for_python_backend("far")
DEVICE = torch.device("far", 0)
_tensor, _as_tensor = torch.tensor, torch.as_tensor


class Far(torch.Tensor):
    """A tensor on the pretended device; `near` is what it is made of."""

    near: torch.Tensor

    @staticmethod
    def __new__(cls, near: torch.Tensor):
        place = {"strides": near.stride(), "storage_offset": near.storage_offset()}
        tensor = torch.Tensor._make_wrapper_subclass(cls, near.size(), dtype=near.dtype, device=DEVICE, **place)
        tensor.near = near
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _compute(operator, args, kwargs or {})

    def tolist(self):
        return self.near.tolist()

    def numpy(self, *, force: bool = False):
        if not force:
            raise TypeError("can't convert a far tensor to numpy: use Tensor.cpu() first")
        return self.near.numpy(force=True)

    __array__ = numpy

    # what follows is made in C++ on the device of the tensor, past all that Python can watch

    def __getitem__(self, index):
        return super().__getitem__(_listed(index))

    def __setitem__(self, index, value):
        value = value if isinstance(value, torch.Tensor) else Far(_tensor(value, dtype=self.dtype))
        super().__setitem__(_listed(index), value)

    def new_tensor(self, data, *, dtype=None):
        return Far(_tensor(data, dtype=dtype or self.dtype))


class Accelerator(TorchDispatchMode):
    """Has the device in a `with` block."""

    def __enter__(self):
        torch.tensor, torch.as_tensor = _made, _made_of
        return super().__enter__()

    def __exit__(self, *error):
        torch.tensor, torch.as_tensor = _tensor, _as_tensor
        return super().__exit__(*error)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return _compute(operator, args, kwargs or {})


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The model on the pretended device; weights that were tied stay tied."""
    sent: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and not isinstance(weight, Far):
                there = torch.nn.Parameter(Far(weight.detach()), weight.requires_grad)
                module._parameters[name] = sent.setdefault(id(weight), there)
        module._buffers.update({name: _sent(value) for name, value in module._buffers.items()})
    return model


def _listed(index: Any) -> Any:
    """An index whose lists are tensors."""
    if isinstance(index, tuple):
        return tuple(map(_listed, index))
    return _tensor(index, dtype=None if index else torch.long) if isinstance(index, list) else index


def _is_far(device: Any) -> bool:
    return device is not None and torch.device(device).type == "far"


def _made(data, *, device=None, **options):
    return Far(_tensor(data, **options)) if _is_far(device) else _tensor(data, device=device, **options)


def _made_of(data, dtype=None, device=None):
    if isinstance(data, torch.Tensor):
        return data.to(device=device or data.device, dtype=dtype or data.dtype)
    return _made(data, dtype=dtype, device=device) if _is_far(device) else _as_tensor(data, dtype=dtype, device=device)


def _compute(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation on the CPU; what it makes is on the device of its inputs, or on the one that it names."""
    leaves: list[Any] = []
    for one in (*args, *kwargs.values()):
        leaves += one if isinstance(one, list | tuple) else [one]
    far = any(isinstance(one, Far) for one in leaves)
    near = [one for one in leaves if isinstance(one, torch.Tensor) and not isinstance(one, Far) and one.dim()]
    makes_far = far if kwargs.get("device") is None else _is_far(kwargs["device"])
    if operator in INDEXED and isinstance(args[0], Far):
        near = [one for one in near if all(one is not index for index in args[1])]
    if far and near and operator not in COPIES:
        raise RuntimeError(f"{operator} on several devices: the accelerator and the CPU")
    if makes_far and any(isinstance(one, torch.Generator) and one.device.type == "cpu" for one in leaves):
        raise RuntimeError(f"{operator} on the accelerator by a generator of the CPU")
    if operator is aten._fused_sdp_choice.default:
        return 0  # attention by its formula: the fused kernels are of real devices
    named = {name: "cpu" if name == "device" else _near(value) for name, value in kwargs.items()}
    found = operator(*map(_near, args), **named)
    first = operator._schema.arguments[:1]
    if first and first[0].alias_info is not None and first[0].alias_info.is_write:
        return None if found is None else args[0]
    return _sent(found) if makes_far else found


def _near(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_near, value))
    return value.near if isinstance(value, Far) else value


def _sent(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_sent, value))
    if not isinstance(value, torch.Tensor) or isinstance(value, Far):
        return value
    if value.dtype == torch.float64:
        raise TypeError("the accelerator has no float64")
    return Far(value)
