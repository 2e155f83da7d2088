"""Identity by content: one digest of type, settings, arrays and code, for caches and checkpoints.

The digest of a thing is the same in every process and for every copy of the thing: nothing of it
comes from an address, from Python's `hash` of strings, or from the order in which things were made.

- Numbers, strings, arrays and keys: their type and their value.
- Classes, functions and modules of installed libraries: the name by which they are imported.
- Functions of the user's own: bytecode, constants, defaults, what closures captured, and the
  globals that they read. Classes of the user's own: their attributes and methods.
- Objects: their class with their dataclass fields, their pytree children, or what `pickle` keeps.
- Jaxprs: the equations, with the constants of nested ones.

What shows none of these (a lock, a generator) has no content that can be read. It is reported as
opaque: caches take it as equal to itself alone, checkpoints refuse it.
"""

from __future__ import annotations

import abc
import dataclasses
import dis
import functools
import hashlib
import site
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer

SIZE = 16
"""Bytes of a digest."""

DERIVATIVES = ("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd")
"""What equations hold of derivatives: a program that is only run is the same whatever they are."""

GENERATED = "<string>"
"""Where Python says that the methods which `dataclass` writes come from."""

HEAP_TYPE = 1 << 9
"""The flag of classes that Python code made: the others have nothing to read."""

SCALARS = (type(None), bool, int, complex, str, bytes, type(...), type(NotImplemented))


class Content(NamedTuple):
    """What something is: the digest of all that can be read, and the objects that cannot."""

    digest: str
    opaque: tuple[Any, ...] = ()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Content)
            and self.digest == other.digest
            and len(self.opaque) == len(other.opaque)
            and all(a is b for a, b in zip(self.opaque, other.opaque, strict=True))
        )

    def __hash__(self) -> int:
        return hash(self.digest)


class Known(abc.ABC):
    """An object that tells its own content, such as one with caches beside it."""

    @property
    @abc.abstractmethod
    def content(self) -> Content:
        """What tells it from others."""


def content(*things: object) -> Content:
    """What these things are."""
    reader = _Reader()
    return Content(reader.digest(things).hex(), tuple(reader.opaque))


def digest(thing: object, what: str) -> str:
    """The digest of something that must be known by content.

    Args:
        thing: what to read.
        what: a word for it in the message.

    Raises:
        TypeError: a part of it has no content that can be read; the message says which.
    """
    found = content(thing)
    if found.opaque:
        raise TypeError(
            f"A checkpoint cannot tell {what} from another: it holds {found.opaque[0]!r}, whose "
            "content cannot be read. Give it as arrays, numbers or a function of your own, or "
            "leave checkpoint= out."
        )
    return found.digest


class _Reader:
    """One pass over things that may hold each other; each is read once."""

    def __init__(self) -> None:
        self.opaque: list[Any] = []
        self.done: dict[int, bytes] = {}
        self.alive: list[Any] = []

    def digest(self, thing: Any) -> bytes:
        if isinstance(thing, SCALARS):
            return _seal(type(thing).__name__, repr(thing))
        if isinstance(thing, float):
            return _seal("float", thing.hex())
        if id(thing) not in self.done:
            # What holds itself is met again before it is done.
            self.done[id(thing)] = _seal("itself", type(thing).__qualname__)
            self.alive.append(thing)
            self.done[id(thing)] = _seal(*self.parts(thing))
        return self.done[id(thing)]

    def all(self, things: Iterable[Any]) -> Iterator[bytes]:
        return (self.digest(t) for t in things)

    def parts(self, thing: Any) -> Iterator[str | bytes]:
        """What tells this thing from others: words, bytes, digests."""
        array = _is_array(thing)
        yield "array" if array else f"{type(thing).__module__}.{type(thing).__qualname__}"
        if isinstance(thing, Known):
            yield thing.content.digest
            self.opaque += thing.content.opaque
        elif isinstance(thing, Tracer):
            self.opaque.append(thing)
        elif array:
            yield from self.array(thing)
        elif isinstance(thing, np.dtype):
            yield str(thing)
        elif isinstance(thing, types.ModuleType):
            yield thing.__name__
        elif isinstance(thing, tuple | list):
            yield from self.all(thing)
        elif isinstance(thing, Mapping):
            pairs = ((self.digest(k), self.digest(v)) for k, v in thing.items())
            yield from (part for pair in sorted(pairs) for part in pair)
        elif isinstance(thing, set | frozenset):
            yield from sorted(self.all(thing))
        elif isinstance(thing, types.CodeType):
            yield from self.code(thing)
        elif isinstance(thing, jex.Jaxpr):
            yield from self.jaxpr(thing)
        elif (name := _imported(thing)) is not None:
            yield name
        elif isinstance(thing, types.FunctionType):
            yield from self.function(thing)
        elif isinstance(thing, type):
            yield from self.type(thing)
        else:
            yield self.digest(type(thing))
            yield from self.object(thing)

    def array(self, array: Any) -> Iterator[str | bytes]:
        if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            yield str(jax.random.key_impl(array))
            array = jax.random.key_data(array)
        plain = np.asarray(array)
        yield f"{plain.shape} {plain.dtype}"
        if plain.dtype == object:
            yield from self.all(plain.ravel().tolist())
        else:
            yield np.array(plain, order="C").tobytes()

    def code(self, code: types.CodeType) -> Iterator[str | bytes]:
        yield code.co_code
        yield code.co_exceptiontable
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        yield from self.all((shape, names, code.co_consts))

    def function(self, function: types.FunctionType) -> Iterator[str | bytes]:
        yield from self.code(function.__code__)
        yield from self.all((function.__defaults__, function.__kwdefaults__))
        yield from (self.cell(c) for c in function.__closure__ or ())
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            yield self.digest(wrapped)
        read, named = _names(function.__code__)
        for name in sorted(read & function.__globals__.keys()):
            value = function.__globals__[name]
            yield name
            yield self.digest(value)
            yield from self.attributes(value, named)

    def attributes(self, value: Any, names: Iterable[str]) -> Iterator[str | bytes]:
        """Of a module of the user's own: what a function may read from it."""
        if isinstance(value, types.ModuleType) and not _is_library(value.__name__):
            for name in sorted(names):
                if hasattr(value, name):
                    yield name
                    yield self.digest(getattr(value, name))

    def cell(self, cell: types.CellType) -> bytes:
        try:
            held = cell.cell_contents
        except ValueError:
            return _seal("an empty cell")
        return self.digest(held)

    def type(self, kind: type) -> Iterator[str | bytes]:
        yield kind.__qualname__
        if not kind.__flags__ & HEAP_TYPE:
            return
        yield from self.all(kind.__bases__)
        for name, value in sorted(kind.__dict__.items()):
            if isinstance(value, types.FunctionType) and value.__code__.co_filename == GENERATED:
                continue
            # Equinox keeps methods in wrappers that can be called; the other special names are of
            # Python's own making.
            special = name.startswith(("__", "_abc_"))
            if not special or (callable(value) and not name.startswith("__annotat")):
                yield name
                yield self.digest(value)

    def jaxpr(self, jaxpr: jex.Jaxpr) -> Iterator[str | bytes]:
        yield from self.all(jaxpr.consts)
        numbers: dict[Any, int] = {}

        def name(atom: Any) -> str | bytes:
            if isinstance(atom, jex.Literal):
                return _seal(self.digest(atom.val), str(atom.aval))
            return f"{numbers.setdefault(atom, len(numbers))}:{atom.aval.str_short()}"

        yield from map(name, (*jaxpr.constvars, *jaxpr.invars))
        for equation in jaxpr.eqns:
            yield equation.primitive.name
            yield from map(name, (*equation.invars, *equation.outvars))
            for key, value in sorted(equation.params.items()):
                if key not in DERIVATIVES:
                    yield key
                    yield self.digest(value)
        yield from map(name, jaxpr.outvars)

    def object(self, thing: Any) -> Iterator[str | bytes]:
        if isinstance(thing, types.MethodType):
            yield from self.all((thing.__func__, thing.__self__))
        elif isinstance(thing, staticmethod | classmethod):
            yield self.digest(thing.__func__)
        elif isinstance(thing, functools.cached_property):
            yield self.digest(thing.func)
        elif isinstance(thing, property):
            yield from self.all((thing.fget, thing.fset, thing.fdel))
        elif isinstance(thing, jtu.PyTreeDef):
            yield from self.all((thing.node_data(), thing.children()))
        elif dataclasses.is_dataclass(thing):
            for field in dataclasses.fields(thing):
                yield field.name
                yield self.digest(getattr(thing, field.name, None))
        elif not jtu.all_leaves([thing]):
            yield from self.node(thing)
        elif callable(getattr(thing, "__wrapped__", None)):
            # A function in a wrapper of JAX's: jit's computes the same, others have derivatives.
            rules = (getattr(thing, name, None) for name in ("jvp", "fwd", "bwd"))
            yield from self.all((thing.__wrapped__, *rules))
        else:
            yield from self.pickled(thing)

    def node(self, thing: Any) -> Iterator[str | bytes]:
        """A pytree's node; its children by the names of attributes, as their order may change."""
        children, rest = jtu.default_registry.flatten_one_level(thing)
        parts = [*children, *(rest if isinstance(rest, tuple) else (rest,))]
        if not hasattr(thing, "__dict__"):
            yield from self.all(parts)
            return
        kept = {id(part) for part in parts}
        for name, value in sorted(vars(thing).items()):
            if id(value) in kept:
                yield name
                yield self.digest(value)
        yield from sorted(self.all(parts))

    def pickled(self, thing: Any) -> Iterator[str | bytes]:
        """What `pickle` would keep of an object."""
        try:
            reduced = thing.__reduce_ex__(4)
        except Exception:
            self.opaque.append(thing)
            return
        if isinstance(reduced, str):
            yield reduced
            return
        make, arguments, *state = reduced
        yield from self.all((make, arguments))
        yield from self.all(list(s) if isinstance(s, Iterator) else s for s in state)


def _seal(*parts: str | bytes) -> bytes:
    """A digest that tells where each part ends."""
    seal = hashlib.blake2b(digest_size=SIZE)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        seal.update(len(raw).to_bytes(8, "little"))
        seal.update(raw)
    return seal.digest()


def _is_array(thing: Any) -> bool:
    """Whether NumPy can read it, JAX's own kinds of constants among them."""
    known = isinstance(thing, np.ndarray | np.generic | jax.Array)
    return known or (hasattr(type(thing), "__array__") and hasattr(thing, "dtype"))


def _imported(thing: Any) -> str | None:
    """The name by which a library's function, class or module constant is imported."""
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if module is None and isinstance(getattr(thing, "__self__", None), types.ModuleType):
        module = thing.__self__.__name__
    if isinstance(thing, np.ufunc):
        module = "numpy"
    if not (isinstance(module, str) and isinstance(name, str) and _is_library(module)):
        return None
    if isinstance(thing, type):
        return f"{module}.{name}"
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name}" if found is thing else None


@functools.cache
def _is_library(module: str) -> bool:
    """Whether a module was installed, and so is known by its name."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names or top == "energydsl":
        return True
    # Modules that a library makes in C++ have no file of their own.
    paths = (getattr(sys.modules.get(name), "__file__", None) for name in (module, top))
    path = next((p for p in paths if p is not None), None)
    return path is not None and any(Path(path).is_relative_to(f) for f in _installed())


@functools.cache
def _installed() -> tuple[str, ...]:
    """The folders of installed packages."""
    own = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return (*own, *site.getsitepackages(), site.getusersitepackages())


@functools.cache
def _names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The globals that code reads, and all names in it, in nested functions too."""
    read = {
        i.argval
        for i in dis.get_instructions(code)
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME") and isinstance(i.argval, str)
    }
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    named = frozenset(code.co_names).union(*(n for _, n in inner))
    return frozenset(read).union(*(r for r, _ in inner)), named
