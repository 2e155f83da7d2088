"""Messages that all stages share: values in a few words, and arguments that a function lacks."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, cast

ELSEWHERE = {
    "observed obs data": "to hold a variable at data, condition the model: model.condition(x=data)",
    "num_samples n_samples": "the number of draws is draws=",
    "num_warmup tune": "the number of warmup steps is warmup=",
    "num_chains": "the number of chains is chains=",
    "thinning": "the number of steps per draw is thin=",
    "progress_bar": "the progress bar is switched off by progress=False",
    "init_params": "the initial configuration is start=",
    "seed random_seed rng_key": "the random key is key=jax.random.key(0)",
    "num_steps max_steps iterations": "the number of updates is steps=",
    "num_epochs n_epochs max_epochs": "the number of epochs is epochs=",
    "validation_data validation val_data eval_set": "data to judge by are held_out=",
    "early_stopping": "give held_out=data and patience=5",
    "ema ema_decay": "an average of the parameters is asked for by average=0.999",
    "weight_decay l2 penalty": (
        "the optimizer decays weights: optimizer=optax.adamw(0.01, weight_decay=1e-4)"
    ),
    "batch_size": "the number of examples per step is batch=",
    "learning_rate lr": "give the learning rate to the optimizer: optimizer=optax.adam(0.01)",
    "constraint constraints": "a constraint has its own name, such as positive=True",
    "nonnegative non_negative": "numbers above 0 are positive=True",
    "rank": "the rank of a matrix is low_rank=",
    "trainable learnable requires_grad": "to freeze a parameter, write ed.fixed(parameter)",
    "max_terms": "the limit of exact sums is budget=",
    "target_accept target_accept_prob": "the acceptance rate is target=",
    "temperature beta": "a temperature divides the energy: ed.compile(model / T)",
    "nu num_noise noise_ratio": "the number of draws of noise per example is ratio=",
    "num_particles": "the number of particles is particles=",
    "energy energies": "energies are given without a name: ed.Model(energy)",
}
"""What to write for arguments that other libraries have."""

CALLED = {
    "LogDensity": "parameters stand after the view: ed.LogDensity(dist.Normal)(x, mean, deviation)",
    "Neural Table": "views are given to what it returns: ed.{name}(...)(x)",
}
"""What to write where a constructor is given too many arguments."""

ABSENT = {
    "explain": "write ebm.explain()",
    "condition": "write model.condition(x=value)",
    "hmc nuts": "write ed.HMC() or ed.NUTS()",
    "GWG gwg": "write ed.GibbsWithGradients()",
    "DLP DMALA DULA": "write ed.DiscreteLangevin()",
    "MH Metropolis": "write ed.MetropolisHastings(proposal)",
    "MALA ULA": "write ed.Langevin()",
    "ParallelTempering parallel_tempering": "write ed.ReplicaExchange(kernel, hottest=5.0)",
    "anneal annealing": "write ed.lowest_seen(ebm, ed.SimulatedAnnealing(...), key=key)",
    "CD PCD": "write ed.ContrastiveDivergence()",
    "ReplayBuffer SampleBuffer": "write ed.ContrastiveDivergence(start=ed.Buffer(2000))",
    "NCE": "write ed.NoiseContrastive()",
    "SSM SlicedScoreMatching": 'write ed.ScoreMatching("sliced")',
    "MaxEnt": "write ed.MaximumEntropy(moments)",
    "Ising ising": "write the energy of s = ed.spin('s', n): ed.Model(-J * (s[1:] * s[:-1]).sum())",
    "RBM": "write the energy: ed.Model(-(x @ W @ h) - b @ x - c @ h)",
    "Variable": 'declare it over its domain, such as ed.spin("s", 4)',
    "Factor": "a factor is a term of the energy; a table of energies is ed.Table(table)(x, y)",
    "map argmax": "write ed.map_configuration(ebm)",
    "partition_function logz logZ log_z": "write ed.log_partition(ebm)",
    "energy log_prob score conditional free_energy replace freeze unfreeze": (
        "write ebm.{name}(...)"
    ),
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


QUESTIONS = (
    "sample fit log_partition estimate_log_partition log_likelihood marginals map_configuration "
    "entropy expectation report"
)
"""The functions of the package that take an EBM first."""

ON_EBM = {
    QUESTIONS: "write ed.{name}(ebm, ...)",
    "map mode argmax": "write ed.map_configuration(ebm)",
    "partition_function log_z logz logZ log_Z Z": (
        "write ed.log_partition(ebm), which is exact, or ed.estimate_log_partition(ebm, key=key)"
    ),
    "train learn": "write ed.fit(ebm, ed.MaximumLikelihood(), data, key=key)",
    "predict": "write ed.predict(ebm, inputs), or ed.marginals(ebm) of a model without inputs",
    "infer query": "write ebm.conditional(view, x) or ed.marginals(ebm)",
    "save": "write ed.save(ebm, path)",
    "draw generate simulate": "write ed.sample(ebm, key=key)",
    "params weights state_dict": "write ebm.parameters",
    "condition graph variables expression": "it is the model's: ebm.model.{name}",
    "clamp observe": "condition the model and compile it: ed.compile(model.condition(x=data))",
    "plot draw_graph": "ebm.model.graph() draws the factors, ed.plot_energy(chains) the energy",
}
"""What to write for methods that users look for on an EBM."""

ON_MODEL = {
    QUESTIONS: "compile the model first: ebm = ed.compile(model), ed.{name}(ebm, ...)",
    "log_prob score conditional free_energy log_ratio explain normalizer start": (
        "compile the model first: ebm = ed.compile(model), ebm.{name}"
    ),
    "compile": "write ed.compile(model)",
    "add add_factor add_factors add_node add_nodes_from add_edge add_edges_from": (
        "energies add: ed.Model(energy_1, energy_2), or model_1 + model_2"
    ),
    "clamp observe do": "to hold a variable at data, write model.condition(x=data)",
    "params weights": "write model.parameters",
    "plot draw": "write model.graph()",
}
"""What to write for methods that users look for on a model."""

ON_CHAINS = {
    "samples get_samples posterior": 'the draws are chains.draws["name"]',
    "energy energies log_prob lp": 'write chains.stats["energy"]',
    "summary print_summary rhat ess": (
        "write ed.diagnose(chains), or az.summary(ed.to_arviz(chains))"
    ),
    "plot plot_trace": "write ed.plot_energy(chains), or az.plot_trace(ed.to_arviz(chains))",
    "to_arviz to_netcdf diagnose": "write ed.{name}(chains)",
    "save": "write ed.to_netcdf(chains, path)",
    "state final": "write chains.last",
}
"""What to write for attributes that users look for on chains."""

ON_HISTORY = {
    "plot": "write ed.plot_history(history)",
    "loss": 'write history["loss"]',
    "params parameters": "ed.fit returns the learnt EBM, too: learnt, history = ed.fit(...), "
    "learnt.parameters",
    "guide": "a guide learns beside the model in ed.fit(ebm, ed.Variational(guide), data, key=key)",
    "generator": "a generator learns beside the model by ed.Adversarial(generator)",
}
"""What to write for attributes that users look for on a history."""

ON_EXPRESSION = {
    "abs exp expm1 log log1p sqrt sin cos sinh cosh tanh sign clip var cumsum diff trace square": (
        "write np.{name}(x)"
    ),
    "dot matmul mm bmm": "write a @ b",
    "flatten ravel flat": "write x.reshape(-1)",
    "view": "write x.reshape(...)",
    "squeeze swapaxes permute t": "write x.reshape(...) or x.transpose(...)",
    "std": "write np.sqrt(np.var(x))",
    "prod argmax argmin any all sort norm cumprod": (
        "write ed.apply(jnp.{name}, x), one factor over all sites of x"
    ),
    "astype dtype float int long": "energies are computed in floating point; leave it out",
    "item tolist numpy values value data detach at copy": (
        "its values are not known yet: draws are arrays, ed.sample(ebm, key=key).draws"
    ),
    "log_prob energy": "it is a method of the compiled model: ed.compile(ed.Model(x)).{name}",
}
"""What to write for methods that users look for on an expression."""


def hinted[C: type](hints: dict[str, str]) -> Callable[[C], C]:
    """A decorator of classes: a missing attribute raises an error that says what to write.

    Args:
        hints: names with spaces between them, and what to write for each.
    """
    by_name = {name: text for names, text in hints.items() for name in names.split()}

    def missing(self: object, name: str) -> NoReturn:
        kind = type(self).__name__
        said = f": {by_name[name].format(name=name)}." if name in by_name else ""
        # With the name and the object, Python suggests an attribute that is spelt alike.
        raise AttributeError(f"{kind!r} has no attribute {name!r}{said}", name=name, obj=self)

    def decorate(kind: C) -> C:
        kind.__getattr__ = missing
        return kind

    return decorate


def described[F: Callable[..., Any]](function: F) -> F:
    """A decorator: a call with wrong arguments raises an error that shows those expected.

    A class is decorated as its constructor.
    """
    signature, made = inspect.signature(function), isinstance(function, type)
    called: Callable[..., Any] = function.__init__ if made else function

    @functools.wraps(called)
    def checked(*args: Any, **settings: Any) -> Any:
        try:
            signature.bind(*args[made:], **settings)
        except TypeError as error:
            raise TypeError(_misfit(function.__name__, signature, settings, error)) from None
        return called(*args, **settings)

    if not made:
        return cast(F, checked)
    function.__init__ = checked
    return function


def _misfit(
    name: str, signature: inspect.Signature, settings: Iterable[str], error: TypeError
) -> str:
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    expected = signature.replace(parameters=plain, return_annotation=signature.empty)
    unknown = [s for s in settings if s not in signature.parameters]
    hints = [_listed(ELSEWHERE, s) for s in unknown]
    if "too many" in str(error):
        hints.append(_listed(CALLED, name))
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
    if isinstance(value, type):
        return f"{value.__name__} (the class; an instance of it is {value.__name__}())"
    if inspect.isroutine(value):
        return f"{type(value).__name__} {value.__name__}"
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else type(value).__name__
