"""A kernel as one loop in C++: its graph written out for the compiler, which vectorizes it with masks in registers.

torch.compile writes vectors of its own, whose masks are whole vectors and whose conversion to bfloat16 takes as long as
some kernels: its code takes a third (TIES) to two thirds (DARE-TIES) longer. It compiles in seconds, this in tenths.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

TYPES = {
    torch.float64: "double",
    torch.float32: "float",
    torch.float16: "_Float16",
    torch.bfloat16: "uint16_t",
    torch.bool: "bool",
    torch.uint8: "uint8_t",
    torch.int16: "int16_t",
    torch.int32: "int32_t",
    torch.int64: "int64_t",
}
COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "eq": "==", "ne": "!="}
OPERATIONS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "rsub": "{1} - {0}",
    "neg": "-{}",
    "reciprocal": "1 / {}",
    "abs": "std::abs({})",
    "sqrt": "std::sqrt({})",
    "sign": "({0} > 0) - ({0} < 0)",
    "maximum": "({0} > {1}) | ({0} != {0}) ? {0} : {1}",
    "minimum": "({0} < {1}) | ({0} != {0}) ? {0} : {1}",
    "bitwise_and": "{} & {}",
    "bitwise_or": "{} | {}",
    "bitwise_xor": "{} ^ {}",
    "logical_and": "{} & {}",
    "logical_or": "{} | {}",
    "__and__": "{} & {}",
    "__or__": "{} | {}",
    "__xor__": "{} ^ {}",
    "__rshift__": "{} >> {}",
    "bitwise_right_shift": "{} >> {}",
}
VIEWS = {"split", "split_with_sizes", "select", "slice", "view", "expand", "unsqueeze", "squeeze", "alias", "detach"}
SOURCE = """\
#include <cmath>
#include <cstdint>
#include <cstring>

static inline float wide(uint16_t x) {{
    uint32_t bits = uint32_t(x) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}}

static inline uint16_t bfloat16(float x) {{
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}}

// The processor's own reading ahead begins anew at each page, too late for tensors that are read once.
const int64_t BLOCK = 256, AHEAD = 2 * BLOCK;

template <class T> static inline void prefetch(const T* x) {{
    for (const T* line = x; line < x + BLOCK; line += 64 / sizeof(T))
        __builtin_prefetch(line);
}}

static void part({parameters}, int64_t start, int64_t stop) {{
{before}
    for (int64_t block = start; block < stop; block += BLOCK) {{
{prefetched}
        const int32_t place = (int32_t)block, count = (int32_t)(stop - block < BLOCK ? stop - block : BLOCK);
        for (int32_t k = 0; k < count; k++) {{
            const int64_t i = block + k;
{body}
        }}
    }}
}}

extern "C" void loop({parameters}, int64_t size, int64_t threads) {{
    #pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < threads; t++)
        part({names}, size * t / threads / 64 * 64, t + 1 == threads ? size : size * (t + 1) / threads / 64 * 64);
}}
"""


class NotALoop(ValueError):  # noqa: N818  (what the kernel is)
    """A kernel that has an operation which is not written in C++ here."""


def source(step: Callable[..., None], kinds: Sequence[torch.dtype], lengths: Sequence[int], kind: torch.dtype) -> str:
    """`step` (see `native`) in C++, for inputs of these kinds, so many floats and integers and a target of `kind`."""
    from torch.fx.experimental.proxy_tensor import make_fx

    size = 1009  # nothing else is so long
    with torch.inference_mode(False), torch.no_grad():
        floats = torch.zeros(lengths[0], dtype=torch.float64 if kind == torch.float64 else torch.float32)
        integers = torch.zeros(lengths[1], dtype=torch.int32)
        inputs = [torch.zeros(size, dtype=each) for each in kinds]
        graph = make_fx(step, tracing_mode="fake")(inputs, floats, integers, torch.zeros(size, dtype=kind)).graph
    names = [*(f"x{k}" for k in range(len(kinds))), "floats", "integers", "target"]
    types = [*kinds, floats.dtype, integers.dtype]
    parameters = [f"const {TYPES[each]}* __restrict {name}" for each, name in zip(types, names, strict=False)]
    body = _Body(size, names)
    for node in graph.nodes:
        body.add(node)
    return SOURCE.format(
        parameters=", ".join([*parameters, f"{TYPES[kind]}* __restrict target"]),
        names=", ".join(names),
        before="\n".join(f"    {line}" for line in body.before.values()),
        prefetched="\n".join(f"        prefetch(x{k} + block + AHEAD);" for k in range(len(kinds))),
        body="\n".join(f"            {line}" for line in body.lines),
    )


class _Body:
    """The statements of a loop over `size` entries, node by node of a graph whose placeholders have these `names`."""

    def __init__(self, size: int, names: Sequence[str]) -> None:
        self.before: dict[str, str] = {}  # by name, the numbers that are used: a choice between reads is a branch
        self.lines: list[str] = []
        self._size = size
        self._names = list(names)
        self._values: dict[object, str] = {}  # of nodes that are one number for each entry, or one for all
        self._arrays: dict[object, str] = {}  # of nodes that are numbers of a kernel, or some of them

    def add(self, node: Any) -> None:
        if node.op == "output":
            return
        if node.op == "placeholder":
            name = self._names.pop(0)
            if name in ("floats", "integers"):
                self._arrays[node] = name
            elif name == "target":
                self._values[node] = name
            else:
                self._assign(node, f"{name}[i]")
            return
        if node.op != "call_function":
            raise NotALoop(f"{node} is a constant")
        name = node.target.__name__.partition(".")[0]
        if (name in VIEWS or name == "getitem") and node.args[0] in self._arrays:
            self._arrays[node] = self._arrays[node.args[0]]
        elif name == "copy_" and self._values.get(node.args[0]) == "target":
            self.lines.append(f"target[i] = {self._cast(node.args[1], _kind(node.args[0]))};")
        else:
            self._assign(node, self._expression(node, name))

    def _assign(self, node: Any, expression: str) -> None:
        if node.meta["val"].shape not in ((self._size,), (1,), ()):
            raise NotALoop(f"{node} has the shape {tuple(node.meta['val'].shape)}")
        self._values[node] = node.name
        self.lines.append(f"const {TYPES[_kind(node)]} {node.name} = {expression};")

    def _expression(self, node: Any, name: str) -> str:
        kind = _kind(node)
        if name in VIEWS | {"_to_copy", "clone"}:
            if node.args[0].meta["val"].numel() not in (1, node.meta["val"].numel()):
                raise NotALoop(f"{node} is a part of the entries")
            return self._cast(node.args[0], kind)
        if name == "arange" and node.args in ((self._size,), (0, self._size)):
            return "place + k" if kind == torch.int32 else f"({TYPES[kind]})i"  # i would take vectors of 64 bits
        if name in ("zeros", "zeros_like", "scalar_tensor"):
            return _literal(node.args[0] if name == "scalar_tensor" else 0, kind)
        if name in COMPARISONS:
            common = torch.result_type(*(getattr(each, "meta", {"val": each})["val"] for each in node.args))
            common = torch.float32 if common == torch.bfloat16 else common
            one, other = (self._cast(each, common) for each in node.args)
            return f"{one} {COMPARISONS[name]} {other}"
        if name in ("bitwise_not", "logical_not"):
            return ("!" if kind == torch.bool else "~") + self._cast(node.args[0], kind)
        if name == "where":
            which, one, other = self._cast(node.args[0], torch.bool), *(self._cast(x, kind) for x in node.args[1:])
            # Of truth values without branches, which would keep the loop from being vectorized.
            return f"({which} & {one}) | (!{which} & {other})" if kind == torch.bool else f"{which} ? {one} : {other}"
        if name == "clamp":
            value, *ends = (each if each is None else self._cast(each, kind) for each in (*node.args, None)[:3])
            over, under = (f"{value} {sign} {end} ? {end} : " for sign, end in zip("<>", ends, strict=True))
            return f"{over if ends[0] else ''}{under if ends[1] else ''}{value}"
        if name not in OPERATIONS or node.kwargs or kind.itemsize == 2:
            raise NotALoop(f"{node.target} of {kind} is not written in C++")
        return OPERATIONS[name].format(*(self._cast(each, kind) for each in node.args))

    def _cast(self, value: Any, kind: torch.dtype) -> str:
        """A node's value, or a number, as it is in `kind`."""
        if isinstance(value, bool | int | float):
            return _literal(value, kind)
        if value not in self._arrays and value not in self._values:
            raise NotALoop(f"{value} is no number")
        if value in self._arrays:
            numbers = value.meta["val"]
            if numbers.numel() != 1:
                raise NotALoop(f"{value} has {numbers.numel()} numbers")
            place, has = numbers.storage_offset(), numbers.dtype
            name = f"{self._arrays[value]}_{place}"
            self.before[name] = f"const {TYPES[has]} {name} = {self._arrays[value]}[{place}];"
        else:
            name, has = self._values[value], _kind(value)
        if has == kind:
            return name
        name = f"wide({name})" if has == torch.bfloat16 else name
        if kind == torch.bfloat16:
            return f"bfloat16({name})"
        return f"(_Float16)(float){name}" if kind == torch.float16 else f"({TYPES[kind]}){name}"


def _kind(node: Any) -> torch.dtype:
    kind: torch.dtype = node.meta["val"].dtype
    return kind


def _literal(value: float, kind: torch.dtype) -> str:
    if not kind.is_floating_point:
        return f"({TYPES[kind]}){int(value)}"
    if kind == torch.bfloat16:
        return f"bfloat16({_literal(value, torch.float32)})"
    names = {math.inf: "INFINITY", -math.inf: "-INFINITY"}
    return f"({TYPES[kind]}){'NAN' if math.isnan(value) else names.get(value) or float(value).hex()}"
