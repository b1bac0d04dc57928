"""Where a model's parameters and its work are: counted by component, and without weights where it was made without.

with torch.device("meta"):
    model = Anyformer(tokenizers, transformer)
print(measure(model, token_counts(model)))
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.attention import Attention
from anyformer.model.experts.experts import Experts
from anyformer.model.heads import Head
from anyformer.model.layers import MLP
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lifts import Lookup, SharedLift
from anyformer.model.lora import adapters
from anyformer.model.losses.ctc import CTCHead
from anyformer.model.transformer import Block, Transformer
from anyformer.text_tables import align
from anyformer.tokenizers.pretrained import EncoderLift, Pretrained
from anyformer.tokens import Tokenizer

ADAPTERS = "adapters (LoRA)"
PROJECTIONS = {"q": "query", "k": "key", "v": "value", "o": "output"}


@dataclass(frozen=True)
class Component:
    """A part of a model with what it counts, in all blocks together."""

    part: str
    """embeddings, encoder, transformer, or the name of what stands beside them in a task (head)."""
    name: str
    parameters: int = 0
    """Numbers that are learned; none for what belongs to another component too and is counted there."""
    flops: int = 0
    """Of a forward pass over one sample: a product and a sum are two."""
    is_matrix: bool = False
    """Whether it is a matrix or a table of content, not positions, biases, norms or the like."""
    n_shared: int = 0
    """Parameters that another component counts."""
    n_blocks: int = 1
    """Alike blocks that the numbers are of."""
    n_frozen: int = 0
    """Parameters that are not trained."""
    n_experts: int = 1
    """Alike parts of which a token goes through `n_active` alone."""
    n_active: int = 1


@dataclass(frozen=True)
class Sizes:
    """What a model counts; as a string a table."""

    components: tuple[Component, ...]
    tokens: Mapping[str, int]
    """Tokens of each field in the sample that the FLOPs are of."""

    @property
    def total(self) -> int:
        """Parameters, those of tied matrices once."""
        return sum(component.parameters for component in self.components)

    @property
    def trained(self) -> int:
        """Parameters that are trained: all, but where weights are frozen, as under adapters."""
        return self.total - sum(component.n_frozen for component in self.components)

    @property
    def active(self) -> int:
        """Parameters that a token goes through: all, but of experts."""
        return sum(part.parameters * part.n_active // part.n_experts for part in self.components)

    @property
    def untied(self) -> int:
        """Parameters, tied matrices counted wherever they are used."""
        return self.total + sum(component.n_shared for component in self.components)

    @property
    def attention(self) -> int:
        """Parameters of the query, key, value and output matrices of all attention."""
        names = {*PROJECTIONS.values(), *(f"cross {name}" for name in PROJECTIONS.values())}
        return sum(part.parameters for part in self.components if part.name in names)

    @property
    def matrices(self) -> int:
        """Parameters without positions, biases and norms, tied matrices counted wherever they are used."""
        return sum(part.parameters + part.n_shared for part in self.components if part.is_matrix)

    @property
    def flops(self) -> int:
        return sum(component.flops for component in self.components)

    def __str__(self) -> str:
        lines = [("", "parameters", "a block", "forward FLOPs")]
        for part in dict.fromkeys(component.part for component in self.components):
            inside = [component for component in self.components if component.part == part]
            n_blocks = max(component.n_blocks for component in inside)
            blocks = f", {n_blocks} blocks" if n_blocks > 1 else ""
            lines.append((part + blocks, _number(sum(c.parameters for c in inside)), "", _short(_flops(inside))))
            for c in inside:
                each = _number(c.parameters // c.n_blocks) if c.n_blocks > 1 else ""
                own = _number(c.parameters) if c.parameters or not c.n_shared else "tied"
                lines.append((f"  {c.name}", own, each, _short(c.flops)))
        lines.append(("total", _number(self.total), "", _short(self.flops)))
        if self.active != self.total:
            lines.append(("active for a token", _number(self.active), "", ""))
        if self.trained != self.total:
            lines.append(("trained", _number(self.trained), "", ""))
        if self.untied != self.total:
            lines.append(("total, tied matrices counted apart", _number(self.untied), "", ""))
        lines.append(("query, key, value and output matrices", _number(self.attention), "", ""))
        lines.append(("without positions, biases and norms, untied", _number(self.matrices), "", ""))
        counted = ", ".join(f"{name} {n:,}" for name, n in self.tokens.items())
        note = f"FLOPs of one sample of {sum(self.tokens.values()):,} tokens ({counted}); of all pairs, seen or not."
        return "\n".join([*align(lines), "", note])


def measure(module: nn.Module, tokens: Mapping[str, int], conditions: Sequence[str] = ()) -> Sizes:
    """Count a model, or a task that holds one: every parameter once, in the component that it belongs to.

    module: made under `torch.device("meta")` it takes no memory.
    tokens: of each field in one sample, see `token_counts`; of a mixture one sample of each task counts.
    conditions: the fields that the encoder reads, where there is one; the transformer reads the others.
    """
    seen: set[Tensor] = set()
    found: dict[tuple[str, str], Component] = {}
    for member, task in members(module).items():
        # What the tasks of a mixture share is counted in the first.
        before = set(seen)
        for component, parameters in _components(member, task, tokens, task.conditions if member else conditions):
            own = sum(p.numel() for p in parameters if p not in seen)
            frozen = sum(p.numel() for p in parameters if p not in seen and not p.requires_grad)
            shared = sum(p.numel() for p in parameters if p in seen - before)
            seen.update(parameters)
            key = component.part, component.name
            held = found.get(key, component)
            flops = component.flops + (held.flops if key in found else 0)
            found[key] = replace(
                held,
                parameters=held.parameters + own,
                n_shared=held.n_shared + shared,
                n_frozen=held.n_frozen + frozen,
                flops=flops,
            )
    counted = (c for c in found.values() if c.parameters or c.n_shared or c.flops)
    return Sizes(tuple(counted), dict(tokens))


def members(module: nn.Module) -> dict[str, nn.Module]:
    """The tasks of a mixture, by name; any other module as ""."""
    return dict(getattr(module, "members", None) or {"": module})


def _components(member: str, task: nn.Module, tokens: Mapping[str, int], conditions: Sequence[str]) -> Counted:
    model = _model(task)
    counts = {name: tokens[f"{member}:{name}" if member else name] for name in model.tokenizers}
    n = sum(count for name, count in counts.items() if name not in conditions)
    m = sum(counts[name] for name in conditions)
    yield from _embeddings(model, counts)
    if model.encoder is not None:
        yield from _stack("encoder", model.encoder, m, 0)
    yield from _stack("transformer", model.transformer, n, m)
    yield from _biases(model)
    for component, parameters in _rest(task, model, n, m):
        yield replace(component, part=f"{member}: {component.part}" if member else component.part), parameters


def token_counts(module: nn.Module, given: Mapping[str, int] | int | None = None) -> dict[str, int]:
    """How many tokens each field of a model has in a sample at most: what its positions or its tokenizer hold.

    given: other numbers, by field; or one, for the only field that carries data.
    Fields of the tasks of a mixture are called `task:field`. Raises InputError where it cannot be known.
    """
    if "" not in (tasks := members(module)):
        return _counts_of_all(tasks, given)
    model = _model(module)
    fields = [name for name, tokenizer in model.tokenizers.items() if not isinstance(tokenizer, LearnedTokens)]
    if isinstance(given, int):
        if len(fields) != 1:
            raise InputError(
                f"--tokens needs a number for a field, as {fields[0]}=N; the fields are {', '.join(fields)}"
            )
        given = {fields[0]: given}
    given = given or {}
    for name in given.keys() - model.tokenizers.keys():
        raise InputError(f"--tokens: there is no field {name!r}; there are {', '.join(fields)}")
    tables = {
        axis: size
        for config, positions in zip(model.embeddings.placed, model.embeddings.positions, strict=True)
        for axis, size in zip(config.axes, positions.sizes, strict=False)
    }
    counts = {}
    for name, tokenizer in model.tokenizers.items():
        sizes = tokenizer.sizes | tables
        if name in given:
            counts[name] = given[name]
        elif isinstance(tokenizer, LearnedTokens):
            counts[name] = tokenizer.n
        elif isinstance(tokenizer, Pretrained) and tokenizer.pool != "tokens":
            counts[name] = 1
        elif tokenizer.axes and all(axis in sizes for axis in tokenizer.axes):
            counts[name] = math.prod(sizes[axis] for axis in tokenizer.axes)
        else:
            raise InputError(f"how many tokens {name!r} has is not said by the config; give --tokens {name}=N")
    return counts


def _counts_of_all(tasks: Mapping[str, nn.Module], given: Mapping[str, int] | int | None) -> dict[str, int]:
    if isinstance(given, int):
        raise InputError("--tokens of a mixture needs a number for a field of a task, as TASK:FIELD=N")
    left, counts = dict(given or {}), {}
    for member, task in tasks.items():
        names = [name for name in left if name.startswith(f"{member}:")]
        own = {name.removeprefix(f"{member}:"): left.pop(name) for name in names}
        try:
            counts |= {f"{member}:{name}": n for name, n in token_counts(task, own).items()}
        except InputError as error:
            raise InputError(f"tasks.{member}: {error}") from None
    for name in left:
        raise InputError(f"--tokens: there is no field {name!r}; there are {', '.join(counts)}")
    return counts


Counted = Iterator[tuple[Component, list[Tensor]]]
"""Components with the parameters in them, whose numbers `measure` fills in."""


def _model(module: nn.Module) -> Anyformer:
    return next(inner for inner in module.modules() if isinstance(inner, Anyformer))


def _embeddings(model: Anyformer, tokens: Mapping[str, int]) -> Counted:
    embeddings, part = model.embeddings, "embeddings"
    for (name, tokenizer), lift in zip(model.tokenizers.items(), embeddings.lifts.values(), strict=True):
        owner = lift.owner if isinstance(lift, SharedLift) else lift
        if isinstance(owner, EncoderLift):
            yield from _encoder(name, tokenizer, owner, tokens[name])
            lift = owner.linear
        flops, adapted = _lift_flops(tokenizer, lift, tokens[name]), _adapters(lift)
        own = [p for p in lift.parameters() if p.ndim > 1 and not any(p is each for each in adapted)]
        yield Component(part, name, flops=flops, is_matrix=True), own
        yield Component(part, ADAPTERS), adapted
        yield Component(part, "biases"), [p for p in lift.parameters() if p.ndim == 1]
    yield Component(part, "types"), list(embeddings.types.parameters())
    yield Component(part, "masks"), list(embeddings.masks.parameters())
    for config, positions in zip(embeddings.placed, embeddings.positions, strict=True):
        yield Component(part, f"positions on {', '.join(config.axes)}"), list(positions.parameters())
    yield Component(part, "norm"), list(embeddings.norm.parameters())


def _encoder(name: str, tokenizer: Tokenizer, lift: EncoderLift, n: int) -> Counted:
    """What encodes a field before it is lifted, by itself.

    n: the field's tokens; of one that is pooled the encoder's are as many as there can be, where that is known.
    """
    model, inner = lift.encoder, tokenizer.inside[lift.field]
    if lift.pool != "tokens" and inner.axes and all(axis in inner.sizes for axis in inner.axes):
        n = math.prod(inner.sizes[axis] for axis in inner.axes)
    counts = {each: own.n if isinstance(own, LearnedTokens) else n for each, own in tokenizer.inside.items()}
    for component, parameters in (
        *_embeddings(model, counts),
        *_stack("", model.transformer, sum(counts.values()), 0),
        *_biases(model),
    ):
        yield replace(component, part=f"{name}, pretrained"), parameters


def _lift_flops(tokenizer: Tokenizer, lift: nn.Module, n: int) -> int:
    """Of lifting n tokens, by running it on content of the size that gives so many."""
    if isinstance(lift, Lookup):
        return 0
    if isinstance(lift, nn.Linear):
        return 2 * n * lift.weight.numel()
    empty, sizes = tokenizer.empty(), tokenizer.sizes
    grid = tuple(sizes.get(axis, 0) for axis in tokenizer.axes)
    if math.prod(grid) != n or len(grid) != len(empty.extent):
        grid = (1,) * (len(empty.extent) - 1) + (n,)
    device = next((p.device for p in lift.parameters()), "cpu")
    # With stride a token stands for several pieces of content on each side.
    for stride in (1, 2, 4, 8, 16, 32, 64):
        extent = tuple(stride * side for side in grid)
        content = torch.zeros(math.prod(extent), *empty.content.shape[1:], dtype=empty.content.dtype, device=device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            lifted = lift(content, (extent,))
        if len(lifted) == n:
            return counter.get_total_flops()
    return 0


def _stack(part: str, stack: Transformer, n: int, m: int) -> Counted:
    """A stack on n tokens, which may attend to m others."""
    every = [each for block in stack.blocks for each in _block(part, block, n, m)]
    n_blocks = Counter(component.name for component, _ in every)
    for component, parameters in every:
        yield replace(component, n_blocks=n_blocks[component.name]), parameters
    yield Component(part, "norms around"), [*stack.first_norm.parameters(), *stack.final_norm.parameters()]


def _block(part: str, block: Block, n: int, m: int) -> Counted:
    yield from _attention(part, "", block.attention, n, n)
    if hasattr(block, "cross"):
        yield from _attention(part, "cross ", block.cross, n, m)
    yield from _experts(part, block.mlp, n) if isinstance(block.mlp, Experts) else _mlp(part, "MLP", block.mlp, n)
    of_experts = {*block.mlp.experts.parameters()} if isinstance(block.mlp, Experts) else set()
    of_adapters = [p for p in _adapters(block) if p not in of_experts]
    yield Component(part, ADAPTERS, flops=2 * n * sum(p.numel() for p in of_adapters)), of_adapters
    compression = block.attention.compression
    of_keys = [] if compression is None else [p for p in compression.parameters() if p.ndim == 1]
    yield Component(part, "biases"), [*of_keys, *(bias for bias in _biases_of(block) if bias not in of_experts)]
    scales = [p for name, p in block.named_parameters() if name.endswith("residual.scale")]
    yield Component(part, "layer scales"), scales
    named = {*scales, *(p for layer in _linears(block) for p in layer.parameters())}
    for apart in (block.attention.vectors, block.attention.compression):
        named |= set() if apart is None else {*apart.parameters()}
    yield Component(part, "norms"), [p for p in block.parameters() if p not in named]


def _mlp(part: str, name: str, mlp: MLP, n: int) -> Counted:
    for kind, matrix in mlp.named_children():
        yield Component(part, f"{name} {kind}", flops=2 * n * matrix.weight.numel(), is_matrix=True), [matrix.weight]


def _experts(part: str, layer: Experts, n: int) -> Counted:
    """Of each token those experts count that it goes through."""
    n_experts, n_active = layer.config.n, layer.config.active
    weights: dict[str, list[Tensor]] = {}
    for expert in layer.experts:
        for kind, matrix in expert.named_children():
            weights.setdefault(f"experts {kind}", []).append(matrix.weight)
    parts = weights | {f"{ADAPTERS} of experts": _adapters(layer.experts)}
    for name, parameters in parts.items():
        flops = 2 * n * sum(p.numel() for p in parameters) * n_active // n_experts
        is_matrix = name in weights
        yield Component(part, name, 0, flops, is_matrix, n_experts=n_experts, n_active=n_active), parameters
    biases = _biases_of(layer.experts)
    yield Component(part, "biases of experts", n_experts=n_experts, n_active=n_active), biases
    yield from _mlp(part, "shared experts", layer.shared, n) if layer.shared is not None else ()
    router = layer.router.weight
    yield Component(part, "router", flops=2 * n * router.numel(), is_matrix=True), [router]


def _attention(part: str, prefix: str, attention: Attention, n: int, m: int) -> Counted:
    for letter, name in PROJECTIONS.items():
        weight = getattr(attention, letter).weight
        flops = 2 * (n if letter in "qo" else m) * weight.numel()
        yield Component(part, prefix + name, flops=flops, is_matrix=True), [weight]
    n_keys = m if attention.compression is None else attention.compression.n_keys(m)
    pairs = 2 * 2 * n * n_keys * attention.n_heads * attention.d_head
    yield Component(part, f"{prefix}products of all pairs", flops=pairs), []
    if attention.compression is not None:
        matrices = [p for p in attention.compression.parameters() if p.ndim > 1]
        flops = 2 * attention.compression.n_products(m)
        yield Component(part, "compression of keys and values", flops=flops, is_matrix=True), matrices
    if attention.vectors is not None:
        vectors = [*attention.vectors.parameters()]
        flops = 2 * n * attention.n_heads * sum(each.numel() for each in vectors)
        yield Component(part, f"{prefix}relative positions", flops=flops), vectors


def _biases(model: Anyformer) -> Counted:
    for part, stack in (("encoder", model.encoder), ("transformer", model.transformer)):
        biases = (None, None) if stack is None else model.biases(stack)
        for name, bias in zip(("relations", "relative positions"), biases, strict=True):
            yield Component(part, name), [] if bias is None else list(bias.parameters())


def _rest(module: nn.Module, model: Anyformer, n: int, m: int) -> Counted:
    """What a task holds beside its model. Heads over ids run on every token, those of CTC on what is read, all else
    once a sample."""
    heads = [inner for inner in module.modules() if isinstance(inner, Head)]
    runs_of = {layer: n for head in heads for layer in head.modules()}
    readers = [inner for inner in module.modules() if isinstance(inner, CTCHead)]
    runs_of |= {layer: n if model.encoder is None else m for head in readers for layer in head.modules()}
    known = {*model.modules()}
    for path, inner in module.named_modules():
        part, runs = path.split(".")[0] or "task", runs_of.get(inner, 1)
        if inner in known:
            continue
        if isinstance(inner, Head):
            matrix = inner.weight if inner.output is None else inner.output.weight
            yield Component(part, "output", flops=2 * n * matrix.numel(), is_matrix=True), [matrix]
            yield Component(part, "biases"), [] if inner.bias is None else [inner.bias]
            yield Component(part, ADAPTERS), [] if inner.output is None else _adapters(inner.output)
            known.add(inner.output)
        elif isinstance(inner, nn.Linear):
            yield Component(part, ADAPTERS, flops=2 * runs * sum(p.numel() for p in _adapters(inner))), _adapters(inner)
            yield Component(part, "matrices", flops=2 * runs * inner.weight.numel(), is_matrix=True), [inner.weight]
            yield Component(part, "biases"), [] if inner.bias is None else [inner.bias]
        else:
            name = "norms" if "Norm" in type(inner).__name__ else "other"
            yield Component(part, name), list(inner.parameters(recurse=False))


def _adapters(module: nn.Module) -> list[Tensor]:
    return [p for layer in adapters(module).values() for p in (layer.lora_a, layer.lora_b)]


def _biases_of(module: nn.Module) -> list[Tensor]:
    return [layer.bias for layer in _linears(module) if layer.bias is not None]


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _flops(components: Sequence[Component]) -> int:
    return sum(component.flops for component in components)


def _number(n: int) -> str:
    return f"{n:,}" if n else ""


def _short(n: int) -> str:
    """
    >>> _short(1_234_567), _short(999), _short(0)
    ('1.23 M', '999', '')
    """
    power = min((len(str(n)) - 1) // 3, 6)
    return "" if not n else str(n) if not power else f"{n / 1000**power:.3g} {' kMGTPE'[power]}"
