"""One run of contributions: what is asked, cut into blocks of samples that are computed apart."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec._common.provenance import provenance
from retina_codec.attribution import methods, targets
from retina_codec.attribution.block_run import BlockRun
from retina_codec.attribution.budget import bytes_of_sample, passes
from retina_codec.attribution.integration import RULES, Decomposition, integrate, sum_dtype
from retina_codec.attribution.local import activations_and_gradients, at_input
from retina_codec.attribution.methods import Ablation, IntegratedGradients, Method
from retina_codec.attribution.path import Path, Question
from retina_codec.attribution.plan import (
    PROBE,
    Plan,
    bypassed,
    elementwise_after,
    front_of,
    make_plan,
)
from retina_codec.attribution.reduction import SIGNS, LayerResult, Reduction, layout_of
from retina_codec.attribution.silencing import silenced
from retina_codec.attribution.targets import Target
from retina_codec.models.model import Batch, Model, Samples

PRECISIONS = {"model": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Samples that precisions, and places to collect at, are compared on.
TRIED = 8
# Samples over which the standard deviation of the target is taken.
SPREAD = 2048


@dataclass(frozen=True)
class Options:
    """How a run is done; none of it changes what is meant by the result."""

    memory_budget: float
    batch_size: int | None = None
    precision: str = "model"
    collect: str = "layer"
    allow_bypass: bool = False
    extras: tuple[str, ...] = ()


class Run(BlockRun):
    """A decomposition that was checked and planned, ready to be computed block by block.

    The network must be frozen (`retina_codec.models.model.frozen`) while a run is made and used.
    """

    what = "contributions"
    files = ("layers/.zgroup", "target/.zarray")
    opened_by = "retina_codec.open_contributions"
    smaller = "sum_over=('y', 'x'), fewer layers"

    def __init__(
        self,
        model: Model,
        samples: Samples,
        layers: Mapping[str, nn.Module],
        target: Target,
        method: Method,
        reduction: Reduction,
        layer_dims: Mapping[str, Sequence[str]],
        options: Options,
    ) -> None:
        self.model, self.samples = model, samples
        self.target_given, self.method, self.options = target, method, options
        self.reduction = reduction
        self.target = target.bind(model, samples)
        probe = self._first(PROBE)
        shape = tuple(probe.inputs.shape[1 if probe.history is None else 2 :])
        baselines = methods.baselines_of(method, shape, samples.input_dims)
        self.baselines = baselines.to(model.device, model.dtype)
        self.probe = probe.inputs
        plan = self._plan(layers)
        if isinstance(method, IntegratedGradients) and not options.allow_bypass:
            around = bypassed(model.network, layers, self.probe)
            if around:
                raise ValueError(
                    f"layer {around[0]!r} does not cut the network: outputs also depend on the "
                    "input by ways around it, so that its contributions do not add up; take "
                    "the block that contains it, or allow_bypass=True to have the part that "
                    "passes through it"
                )
        # The numbers of a double-precision network are kept as they are.
        self.dtype = np.float64 if model.dtype == torch.float64 else np.float32
        precision = PRECISIONS[options.precision]
        self.question = Question(model.network, plan, self.target, precision)
        self.notes: dict[str, Any] = {}
        path = self._path(probe, 0)
        per_sample = bytes_of_sample(
            path, 1 if self.target.labels is None else len(self.target.labels)
        )
        fitting, self.together = passes(
            len(samples), per_sample, options.memory_budget, device=model.device
        )
        self.batch_size = options.batch_size or fitting
        self.passes_of = max(1, int(options.memory_budget // max(1, per_sample)))
        self.asked = self.question
        if options.collect == "best":
            if not isinstance(method, IntegratedGradients):
                raise ValueError(
                    f"collect='best' with {type(method).__name__}: only integrated gradients are "
                    "the same before and after an elementwise map; use collect='layer'"
                )
            self._collect_where_residual_is_least(self._first(TRIED))
        nodes = self._path(probe, 0).evaluate((1.0,), gradients=False)
        self.results = {
            name: LayerResult(
                name,
                tuple(a.shape),
                layout_of(name, tuple(a.shape), model, layer_dims),
                samples,
                reduction,
            )
            for name, a in nodes.layers.items()
        }
        self.fronts = (
            {name: front_of(model.network, layer, self.probe) for name, layer in layers.items()}
            if isinstance(method, Ablation)
            else {}
        )
        if precision is not None:
            self.notes["precision_error"] = self._precision_error(self._first(TRIED))
        self.scale = self._spread() if getattr(method, "tolerance", None) is not None else None
        self.unresolved = 0

    def _first(self, n: int) -> Batch:
        """Give the first samples, at most `n` of them."""
        return next(iter(self.samples.batches(min(n, len(self.samples)))))

    def _plan(self, layers: Mapping[str, nn.Module]) -> Plan:
        baseline = self.baselines[0].expand_as(self.probe)
        return make_plan(self.model.network, layers, self.probe, baseline)

    def _path(self, batch: Batch, baseline: int, question: Question | None = None) -> Path:
        return Path(
            question or self.question,
            batch.inputs,
            self.baselines[baseline],
            torch.arange(batch.index.start, batch.index.stop),
            batch.history,
        )

    def _collect_where_residual_is_least(self, probe: Batch) -> None:
        """Collect each layer where its residual is smallest: there, or after elementwise maps."""
        network, plan = self.model.network, self.question.plan
        collected = dict(plan.layers)
        for name, layer in plan.layers.items():
            candidates = {"0": layer}
            for i, module in enumerate(elementwise_after(network, layer, self.probe)):
                candidates[str(i + 1)] = module
            trial = self._plan(candidates)
            path = Path(
                replace(self.question, plan=trial),
                probe.inputs,
                self.baselines[0],
                torch.arange(probe.index.start, probe.index.stop),
                probe.history,
            )
            found = self._decompose_path(path)
            errors = {key: float(found.residual(key).square().mean()) for key in candidates}
            best = min(errors, key=lambda key: errors[key])
            collected[name] = candidates[best]
        names = {module: path for path, module in network.named_modules()}
        self.notes["collected_at"] = {
            name: names.get(module, name) for name, module in collected.items()
        }
        self.question = replace(self.question, plan=self._plan(collected))

    def _precision_error(self, probe: Batch) -> float:
        """Largest difference to the model's own precision, relative to the largest contribution."""
        coarse = self._decompose_path(self._path(probe, 0))
        question = self.question
        self.question = replace(question, precision=None)
        fine = self._decompose_path(self._path(probe, 0))
        self.question = question
        return max(
            float((coarse.contribution[name] - c).abs().max() / c.abs().max().clamp(min=1e-30))
            for name, c in fine.contribution.items()
        )

    def _spread(self) -> Tensor:
        """Take the standard deviation of each target over samples spread over the data."""
        n, parts = len(self.samples), []
        stretches = np.linspace(0, max(0, n - SPREAD // 8), 8).astype(int)
        for start in np.unique(stretches):
            stop = min(int(start) + SPREAD // 8, n)
            for batch in self.samples.batches(self.batch_size, int(start), stop):
                nodes = self._path(batch, 0).evaluate((1.0,), gradients=False)
                parts.append(nodes.targets[0].double().cpu())
        spread = torch.cat(parts).std(0, unbiased=False)
        if not bool(torch.isfinite(spread).all()):
            raise ValueError(
                "tolerance: model gives NaN or infinite targets for some of the data, so that a "
                "tolerance relative to their standard deviation is not defined; use tolerance=None "
                "to see for which"
            )
        if not bool((spread > 0).all()):
            raise ValueError(
                "tolerance: the target does not vary over the data, so that a tolerance relative "
                "to its standard deviation is not defined; use tolerance=None"
            )
        self.notes["target_sd"] = spread.tolist()
        return spread.to(self.model.device, torch.float32)

    # Computing

    def batches(self, block: slice) -> Iterator[tuple[slice, dict[str, dict[str, np.ndarray]]]]:
        """Compute a block: for each batch its samples, and variables by group (``""`` the root)."""
        for batch in self.samples.batches(self.batch_size, block.start, block.stop):
            yield batch.index, self._variables(batch)

    def _variables(self, batch: Batch) -> dict[str, dict[str, np.ndarray]]:
        found, steps = self._decompose(batch)
        scalar = self.target.labels is None

        def labelled(values: Tensor) -> np.ndarray:
            # Single precision at least: numpy has no bfloat16.
            array: np.ndarray = values.to(sum_dtype(values)).cpu().numpy()
            return array[:, 0] if scalar else array

        root = {
            "target": labelled(found.target),
            "target_baseline": labelled(found.target_baseline),
        }
        if steps is not None:
            root["steps"] = steps.cpu().numpy().astype(np.int32)
        groups = {"": root}
        for name, result in self.results.items():
            variables = {
                key: values[:, 0] if scalar else values
                for key, values in result.reduce(found.contribution[name]).items()
            }
            variables["completeness_error"] = labelled(found.residual(name))
            groups[f"layers/{name}"] = variables
        if self.options.extras:
            activation, gradient = activations_and_gradients(self._path(batch, 0, self.asked))
            for name, result in self.results.items():
                group = groups[f"layers/{name}"]
                if "activation" in self.options.extras:
                    group["activation"] = result.summed_up(activation[name][:, None])[:, 0]
                if "gradient" in self.options.extras:
                    values = result.summed_up(gradient[name])
                    group["gradient"] = values[:, 0] if scalar else values
        return groups

    def _decompose(self, batch: Batch) -> tuple[Decomposition, Tensor | None]:
        """Decompose a batch, averaged over baselines; with a tolerance, give the steps taken."""
        whole: Decomposition | None = None
        most: Tensor | None = None
        above: set[int] = set()
        n = len(self.baselines)
        for i in range(n):
            found = self._decompose_path(self._path(batch, i))
            if self.scale is not None:
                steps, rows = self._refine(found, batch, i)
                most = steps if most is None else torch.maximum(most, steps)
                # A sample counts once, whatever the number of baselines.
                self.unresolved += len(set(rows.tolist()) - above)
                above.update(rows.tolist())
            if n == 1:
                return found, most
            if whole is None:
                whole = Decomposition(
                    {name: c / n for name, c in found.contribution.items()},
                    found.target,
                    found.target_baseline / n,
                )
                continue
            whole.target_baseline += found.target_baseline / n
            for name, c in found.contribution.items():
                whole.contribution[name] += c / n
        if whole is None:
            raise ValueError("a method needs at least one baseline")
        return whole, most

    def _decompose_path(self, path: Path) -> Decomposition:
        method = self.method
        if isinstance(method, IntegratedGradients):
            return integrate(path, method.steps, RULES[method.rule], self.together)
        if isinstance(method, Ablation):
            return silenced(path, method, self.fronts, self.passes_of)
        return at_input(path, method)

    def _refine(self, found: Decomposition, batch: Batch, baseline: int) -> tuple[Tensor, Tensor]:
        """Decompose samples anew, with twice the steps, while their residual is too large.

        Gives the steps that each took, and the samples whose residual stayed too large.
        """
        method = self.method
        if not isinstance(method, IntegratedGradients) or method.tolerance is None:
            raise TypeError("only integrated gradients have a tolerance")
        steps = method.steps
        taken = torch.full((len(found.target),), steps, device=found.target.device)
        rows = self._above(found, method.tolerance)
        while len(rows) and 2 * steps <= method.max_steps:
            steps *= 2
            path = Path(
                self.question,
                batch.select(rows),
                self.baselines[baseline],
                rows.cpu() + batch.index.start,
                batch.history,
            )
            finer = integrate(path, steps, RULES[method.rule], self.together)
            for name, c in finer.contribution.items():
                found.contribution[name][rows] = c
            taken[rows] = steps
            rows = rows[self._above(finer, method.tolerance)]
        return taken, rows

    def _above(self, found: Decomposition, tolerance: float) -> Tensor:
        """Find samples of which a layer's completeness error is above the tolerance."""
        scale = self.scale if self.scale is not None else torch.ones(1)
        worst = torch.stack(
            [(found.residual(name).abs() / scale).amax(1) for name in self.results]
        ).amax(0)
        return torch.nonzero(~(worst <= tolerance)).flatten()  # what is not a number is above

    def say_what_is_unresolved(self) -> None:
        """Warn of samples that stayed above the tolerance."""
        if self.unresolved:
            warnings.warn(
                f"{self.unresolved} of {len(self.samples)} samples have a completeness error "
                f"above tolerance={self.method.tolerance} after max_steps="  # type: ignore[attr-defined]
                f"{self.method.max_steps}: raise it, or see completeness_error; "  # type: ignore[attr-defined]
                "an error that does not fall with the steps is that of a layer that does not cut "
                "the network",
                UserWarning,
                stacklevel=4,
            )

    # Labels

    def template(
        self, zeros: Callable[[tuple[int, ...], Any], Any] = np.zeros
    ) -> dict[str, xr.Dataset]:
        """Give the groups (``""`` the root) of the result, all values still to be filled in."""
        labels = self.target.labels
        sample, n = self.model.sample_dim, len(self.samples)
        dims: tuple[str, ...] = (sample,)
        shape: tuple[int, ...] = (n,)
        coords = dict(self.samples.coords)
        if labels is not None:
            dims, shape = (sample, self.model.output_dim), (n, len(labels))
            coords[self.model.output_dim] = xr.DataArray(labels, dims=self.model.output_dim)
        units = {"units": self.target.units}

        def empty(dims: tuple[str, ...], shape: tuple[int, ...], attrs: dict[str, str]) -> Any:
            return dims, zeros(shape, self.dtype), attrs

        root = {
            "target": empty(dims, shape, {**units, "long_name": "target"}),
            "target_baseline": empty(dims, shape, {**units, "long_name": "target at the baseline"}),
        }
        if self.scale is not None:
            attrs = {"units": "1", "long_name": "steps along the path"}
            root["steps"] = ((sample,), zeros((n,), np.int32), attrs)
        groups = {"": xr.Dataset(root, coords, self.attrs())}
        error = {**units, "long_name": "sum of contributions minus change of the target"}
        for name, result in self.results.items():
            variables = {
                key: empty(
                    (*(dims if key != "activation" else (sample,)), *variable.dims),
                    (*(shape if key != "activation" else (n,)), *variable.shape),
                    variable.attrs,
                )
                for key, variable in result.variables(
                    self.target.units, self.options.extras
                ).items()
            }
            variables["completeness_error"] = empty(dims, shape, error)
            own = dict(result.coords)
            if self.reduction.split_sign:
                own["sign"] = xr.DataArray(list(SIGNS), dims="sign")
            # Only indexed coordinates are inherited; each group is to open alone.
            groups[f"layers/{name}"] = xr.Dataset(variables, {**self.samples.coords, **own})
        return groups

    def attrs(self) -> dict[str, str]:
        """Say what made the result."""
        return {
            "model_fingerprint": self.model.fingerprint,
            **provenance(
                target=targets.described(self.target_given),
                method=methods.described(self.method),
                layers=list(self.results),
                split_sign=self.reduction.split_sign,
                sum_over=list(self.reduction.sum_over),
                keep_lag=self.reduction.keep_lag,
                batch_size=self.batch_size,
                steps_in_a_pass=self.together,
                precision=self.options.precision,
                extras=list(self.options.extras),
                **self.notes,
            ),
        }
