"""Optimisers: rules by which a gradient changes the weights. All but gradient descent remember earlier gradients.

Legend: theta a weight, g its gradient, eta the learning rate of the step, t the number of the step, from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, TypeVar

import numpy as np

from minitx.base.checks import instance, not_negative, whole_number
from minitx.base.shown import Shown
from minitx.model.parameters import Array, read_only

Self = TypeVar("Self", bound="Optimiser")


@dataclass(frozen=True, kw_only=True)
class Optimiser(Shown):
    """A rule theta <- theta - change(g). It is not modified: a step returns the changes and the rule of the next step.

    Parameters
    ----------
    decay : float
        The coefficient lambda of weight decay: lambda theta is added to g, as if lambda |theta|^2 / 2 were added to the
        loss.
    steps : int
        The number of steps that were taken with the rule.
    memory : dict {name of the weight: tuple of arrays, each of the weight's shape}
        What the rule remembers; empty at the start.
    """

    MADE_BY: ClassVar[str] = "minitx.GradientDescent(), minitx.Momentum(), minitx.Adam() or minitx.AdamW()"

    decay: float = 0.0
    steps: int = 0
    memory: Mapping[str, tuple[Array, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if type(self) is Optimiser:
            raise TypeError(f"Optimiser is what all rules have in common; give {self.MADE_BY}")
        whole_number("steps", self.steps, 0)
        instance("memory", self.memory, Mapping)
        for name in [setting.name for setting in fields(self) if setting.name not in ("steps", "memory")]:
            value = not_negative(name, getattr(self, name))
            if name.startswith("beta") and value >= 1:
                raise ValueError(f"{name} is {value:g}; it must be below 1, or no gradient would ever be forgotten")
            object.__setattr__(self, name, value)

    def step(self: Self, weights: Mapping[str, Array], slopes: Mapping[str, Array],
             learning_rate: float) -> tuple[dict[str, Array], Self]:
        """Return what is to be subtracted from each weight with a slope, and the rule with its memory after this step.

        Raises ValueError for a rule that remembers other weights than those that have a slope, and for a slope of a
        weight that is missing or has another shape.
        """
        instance("weights", weights, Mapping)
        instance("slopes", slopes, Mapping)
        for name, slope in slopes.items():
            if name not in weights or np.shape(slope) != np.shape(weights[name]):
                found = f"{name} has shape {np.shape(weights[name])}" if name in weights else f"there is no {name}"
                raise ValueError(f"a slope of {name} has shape {np.shape(slope)}, but {found} among the weights; give "
                                 "both as {name: array}, of one shape")
        if self.memory and self.memory.keys() != slopes.keys():
            raise ValueError(f"the optimiser remembers a run that trained {', '.join(self.memory)}, and this one "
                             f"trains {', '.join(slopes)}; give a new {type(self).__name__}(), or freeze as before")
        for name, kept in self.memory.items():
            if any(np.shape(array) != weights[name].shape for array in kept):
                raise ValueError(f"the optimiser remembers {name} of another shape than {weights[name].shape}; give a "
                                 f"new {type(self).__name__}()")
        changes: dict[str, Array] = {}
        memory: dict[str, tuple[Array, ...]] = {}
        for name, slope in slopes.items():
            changes[name], *kept = self._change(weights[name], slope, learning_rate, self.steps + 1,
                                                self.memory.get(name))
            memory[name] = tuple(map(read_only, kept))
        return changes, replace(self, steps=self.steps + 1, memory=memory if any(memory.values()) else {})

    def _change(self, theta, g, eta, t, memory):
        """The change of one weight, followed by what is to be remembered; ``memory`` is None at the first step."""
        raise NotImplementedError

    def _decayed(self, theta, g):
        return g + self.decay * theta if self.decay else g


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Optimiser):
    """theta <- theta - eta g. The theories of associations and of next tokens hold for this rule, without decay."""

    def _change(self, theta, g, eta, t, memory):
        return (eta * self._decayed(theta, g),)


@dataclass(frozen=True, kw_only=True)
class Momentum(Optimiser):
    """m <- beta m + g,  theta <- theta - eta m  (Polyak 1964; in the form of Sutskever et al., ICML 2013, with eta
    outside of m), from m = 0.
    """

    beta: float = 0.9

    def _change(self, theta, g, eta, t, memory):
        g = self._decayed(theta, g)
        m = g if memory is None else self.beta * memory[0] + g
        return eta * m, m


@dataclass(frozen=True, kw_only=True)
class Adam(Optimiser):
    """Kingma and Ba, ICLR 2015, Algorithm 1, from m = v = 0.

        m <- beta_1 m + (1 - beta_1) g,      v <- beta_2 v + (1 - beta_2) g^2
        theta <- theta - eta (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def _change(self, theta, g, eta, t, memory):
        return self._adam(self._decayed(theta, g), eta, t, memory)

    def _adam(self, g, eta, t, memory):
        m, v = (np.zeros_like(g), np.zeros_like(g)) if memory is None else memory
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g**2
        size = np.sqrt(v / (1 - self.beta_2**t)) + self.epsilon
        change = np.divide(eta * (m / (1 - self.beta_1**t)), size, out=np.zeros_like(g), where=size > 0)
        return change, m, v


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with the decay apart from the gradient (Loshchilov and Hutter, ICLR 2019, Algorithm 2).

    theta <- theta - eta decay theta - Adam's change. A schedule of learning rates multiplies both parts.
    """

    decay: float = 0.01

    def _change(self, theta, g, eta, t, memory):
        change, m, v = self._adam(g, eta, t, memory)
        return change + eta * self.decay * theta, m, v
