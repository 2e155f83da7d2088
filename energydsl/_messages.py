"""Messages that all stages share: values in a few words, and arguments that a function lacks."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

ELSEWHERE = {
    "observed obs data": "to hold a variable at data, condition the model: model.condition(x=data)",
    "num_samples n_samples": "the number of draws is draws=",
    "num_warmup tune": "the number of warmup steps is warmup=",
    "num_chains": "the number of chains is chains=",
    "thinning": "the number of steps per draw is thin=",
    "progress_bar": "the progress bar is switched off by progress=False",
    "init_params": "the initial configuration is start=",
    "seed random_seed rng_key": "the random key is key=jax.random.key(0)",
    "epochs num_steps": "the number of updates is steps=",
    "batch_size": "the number of examples per step is batch=",
    "learning_rate lr": "give the learning rate to the optimizer: optimizer=optax.adam(0.01)",
    "max_terms": "the limit of exact sums is budget=",
}
"""What to write for arguments that other libraries have."""

ABSENT = {
    "explain": "write ebm.explain()",
    "condition": "write model.condition(x=value)",
    "energy log_prob score conditional free_energy replace": "write ebm.{name}(...)",
    "abs": "write abs(x) or np.abs(x)",
    "sum mean max min": "write x.{name}() or np.{name}(x)",
    "dot matmul": "write a @ b",
    "square": "write x**2",
    "bernoulli Bernoulli": 'a variable of 0 and 1 is declared by ed.binary("x")',
    "Categorical": 'labels are declared by ed.categorical("k", levels=3)',
    "normal Normal": 'write ed.LogDensity(dist.Normal)(ed.real("x"), mean, deviation)',
    "observe": "model.condition(x=data) holds a variable at data",
}
"""What to write for names that users look for in the package."""


def described[F: Callable[..., Any]](function: F) -> F:
    """A decorator: a call with wrong arguments raises an error that shows those expected."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: Any, **settings: Any) -> Any:
        try:
            signature.bind(*args, **settings)
        except TypeError as error:
            raise TypeError(_misfit(function.__name__, signature, settings, error)) from None
        return function(*args, **settings)

    return called  # type: ignore[return-value]


def _misfit(
    name: str, signature: inspect.Signature, settings: Iterable[str], error: TypeError
) -> str:
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    expected = signature.replace(parameters=plain, return_annotation=signature.empty)
    unknown = [s for s in settings if s not in signature.parameters]
    hints = [_listed(ELSEWHERE, s) for s in unknown]
    if any(p.kind == p.KEYWORD_ONLY for p in plain):
        hints.append("what stands after * is given by name")
    said = "; ".join(hint for hint in hints if hint)
    return f"{name}: {error}. Expected {name}{expected}" + (f": {said}." if said else ".")


def absent(name: str, present: Iterable[str]) -> str:
    """The message for a name that the package does not have."""
    hint = _listed(ABSENT, name)
    close = difflib.get_close_matches(name, present, 3)
    if hint is None and close:
        hint = f"it has {' and '.join(f'ed.{c}' for c in close)}"
    return f"energydsl has no {name!r}" + (f": {hint}." if hint else ".")


def _listed(table: dict[str, str], name: str) -> str | None:
    """The entry of a table whose keys are names with spaces between them."""
    found = (text for names, text in table.items() if name in names.split())
    text = next(found, None)
    return None if text is None else text.format(name=name)


def brief(value: object) -> str:
    """A value in a few words: the type and shape of an array, the start of other texts."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {shape}"
    if inspect.isroutine(value) or isinstance(value, type):
        return f"{type(value).__name__} {value.__name__}"
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else type(value).__name__
