"""Where the time of a call goes: operators' own time, in a few groups."""

from collections import Counter, defaultdict
from collections.abc import Callable

import torch
from torch.autograd import DeviceType

from modeling_embinv.evaluation.report import markdown_table

# operators by the beginning of their names; the longest one counts
OPERATORS = {
    "matrix products": ("mm", "addmm", "linear", "mkldnn::_linear_pointwise"),
    "attention": ("bmm", "baddbmm"),
    "normalisation and pointwise": (
        "native_layer_norm", "add", "sub", "mul", "div", "addcmul", "gelu", "tanh", "sum", "where",
        "triton_", "## Call CompiledFxGraph",
    ),
    "softmax and loss": ("_softmax", "_log_softmax", "softmax", "log_softmax", "max", "argmax", "logsumexp"),
    "gather and scatter": ("index", "_index", "gather", "scatter", "embedding", "nonzero"),
    "optimizer, clipping, EMA": ("lerp", "linalg_vector_norm"),
    "copies and other": (),
}  # fmt: skip
# what runs inside one of these is part of it, matrix products excepted
SCOPES = {
    "scaled_dot_product": "attention",
    "_ChunkedCrossEntropy": "softmax and loss",
    "Optimizer.": "optimizer, clipping, EMA",
    "_foreach_": "optimizer, clipping, EMA",
}


def where_time_goes(call: Callable, device: torch.device, calls: int = 3) -> dict[str, dict]:
    """Share of all operators' own time by group, and the operators that take most of it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # torch 2.11 warns, wrongly for a single cycle, that it keeps no events
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        for _ in range(calls):
            call()
    spent = defaultdict(Counter)
    for event in profile.events():
        if event.device_type == DeviceType.CPU:
            own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            spent[group_of(event)][event.name.removeprefix("aten::")] += own
    total = sum(own.total() for own in spent.values())
    return {
        group: {
            "share": spent[group].total() / total,
            "operators": {name: own / total for name, own in spent[group].most_common(5) if own},
        }
        for group in OPERATORS
    }


def group_of(event) -> str:
    """Products by their own name, others by the scope that they run in, else by their own name."""
    name = event.name.removeprefix("aten::")
    matches = [(word, group) for group, words in OPERATORS.items() for word in words if name.startswith(word)]
    _, group = max(matches, key=lambda match: len(match[0]), default=("", "copies and other"))
    if group == "matrix products":
        return group
    while event is not None:
        for scope, scope_group in SCOPES.items():
            if scope in event.name:
                return scope_group
        event = event.cpu_parent
    return group


def profile_table(profiles: dict[str, dict]) -> str:
    """Markdown: the share of the time that each group of operators takes."""
    lines = [["where the time goes, largest batch", *profiles]]
    for group in OPERATORS:
        lines.append([group, *(f"{groups[group]['share']:.0%}" for groups in profiles.values())])
    return markdown_table(lines)


def print_profile(title: str, groups: dict[str, dict]):
    print(f"\nwhere the time of {title} goes")
    for group, spent in groups.items():
        operators = ", ".join(f"{name} {share:.1%}" for name, share in spent["operators"].items() if share >= 0.001)
        print(f"{group:28} {spent['share']:6.1%}  {operators}")
