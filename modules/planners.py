# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Planners: search for the action sequence with the least energy, by asking and telling.

Step 5 of the Mode-2 episode (LeCun 2022, section 3.1.2). A planner proposes candidates, is told their energies, and
improves; it knows neither agent, world model nor cost.

Shapes: E episodes, N candidates, H imagined steps, K primitive actions in a step, A action, V searched variables (one
for every `action_repeat` primitive actions, V = H * K / action_repeat). Widths and steps of the Config are in units of
half the range of every action dimension.

The noise of one iteration is drawn once, for N candidates, and shared by all E episodes (common random numbers). So the
plan of an episode depends on its own energies and the generator only, not on the episodes that are planned beside it: a
batched evaluation gives the same numbers as one episode at a time.

Discrete actions are searched by the same names, with a categorical distribution in place of the Gaussian, and by beam
search. A width is then the share of a distribution that is uniform over all choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor

from modules.actions import DiscreteActions
from modules.types import Actions, Float, Plan, Planner, State


@dataclass(frozen=True)
class Config:
    """How to search. How much to search (samples, iterations, horizon) is the directive's business."""

    initial_std: float = 1.0
    """Width of the first proposals around the start, in half action ranges. Discrete: their uniform share, up to 1."""
    min_std: float = 0.05
    """The search never becomes narrower than this, in half action ranges. Discrete: the uniform share of proposals, so
    that no choice dies out."""
    elites: float = 0.1
    """CEM: fraction of the candidates, at least two, to which the next proposals are fitted."""
    momentum: float = 0.0
    """CEM and MPPI: share of the old mean (CEM: and of the old width) that is kept, from 0 to below 1."""
    temperature: float = 0.1
    """MPPI: softness of the weights, in standard deviations of the energy over the candidates."""
    action_repeat: int | None = None
    """Primitive actions for which one searched action is held; divides K. None holds it for the whole block."""
    learning_rate: float = 0.4
    """Gradient: first step of Adam, in half action ranges; the steps shrink linearly over the iterations."""
    noise_beta: float = 0.3
    """Correlation of the noise of one searched action with the next, from 0 (white) to below 1 (smooth plans).
    Discrete: not used."""
    merge: float = 0.25
    """Beam: of prefixes that lead to the same state only the best goes on. States are the same if they are closer than
    this share of what one action makes of a state, compared with another action. 0 keeps them all; below 1."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            share = name in ("momentum", "noise_beta", "merge")
            if value is not None and not (0 <= value < 1 if share else value > 0):
                raise ValueError(f"planner setting {name}={value}: expected {'from 0 to below 1' if share else '> 0'}")
        if self.elites > 1 or self.min_std > self.initial_std:
            raise ValueError(f"planner settings {self}: expected elites <= 1 and min_std <= initial_std")


class Grid:
    """The searched variables (..., V, A) and the candidates (..., H, K, A) that they stand for."""

    def __init__(self, config: Config, actions: Actions, start: Float[Tensor, "E H K A"]) -> None:
        _, self.steps, self.block, size = start.shape
        self.repeat = self.block if config.action_repeat is None else config.action_repeat
        if self.block % self.repeat:
            given = f"planner setting action_repeat={self.repeat}"
            raise ValueError(f"{given} must divide the action block of {self.block} actions")
        assert size == actions.size, f"the start has {size} action dimensions, the action space has {actions.size}"
        self.actions, self.unit = actions, actions.unit(start)
        self.variables = self.steps * self.block // self.repeat
        if not self.unit.isfinite().all():
            raise ValueError(f"a planner needs a bounded action space; {actions} is not bounded")
        # x[v] = beta x[v-1] + sqrt(1 - beta^2) e[v], x[0] = e[0], written as one matrix: unit variance everywhere.
        index = torch.arange(self.variables, device=start.device, dtype=start.dtype)
        smooth = (config.noise_beta ** (index - index[:, None]).clamp(min=0)).triu()
        smooth[1:] *= (1 - config.noise_beta**2) ** 0.5
        self.smooth = torch.kron(smooth, torch.eye(size).to(smooth)) if config.noise_beta else None

    def noise(self, samples: int, generator: Generator) -> Float[Tensor, "N V A"]:
        """Unit noise (N, V, A), one draw for all episodes."""
        size = (samples, self.variables * len(self.unit))
        noise = torch.empty(size, dtype=self.unit.dtype, device=generator.device).normal_(generator=generator)
        noise = noise.to(self.unit.device)
        return (noise if self.smooth is None else noise @ self.smooth).view(samples, self.variables, -1)

    def expand(self, variables: Float[Tensor, "*E V A"]) -> Float[Tensor, "*E H K A"]:
        """Project (..., V, A) into the action space and hold every action: (..., H, K, A)."""
        held = torch.cat((self.actions.project(variables),) * self.repeat, -1)  # much faster than expand and contiguous
        return held.view(*variables.shape[:-2], self.steps, self.block, variables.shape[-1])

    def fold(self, actions: Float[Tensor, "*E H K A"]) -> Float[Tensor, "*E V A"]:
        """Mean over every hold: (..., H, K, A) -> (..., V, A). The inverse of `expand` where actions are held."""
        return actions.reshape(*actions.shape[:-3], self.variables, self.repeat, actions.shape[-1]).mean(-2)


def first(actions: Actions, start: Float[Tensor, "E H K A"], samples: int, iterations: int) -> Plan:
    """The start (E, H, K, A) inside the action space, as a plan that any finite energy beats."""
    if samples < 1 or iterations < 1:
        raise ValueError(f"a planner needs samples >= 1 and iterations >= 1, got {samples} and {iterations}")
    return Plan(actions.project(start.detach()), start.new_full(start.shape[:1], float("inf")))


def usable(energy: Float[Tensor, "E N"]) -> tuple[Float[Tensor, "E N"], int]:
    """Energies (E, N) with +inf for what is not finite, and how many those are."""
    energy = energy.detach()
    if math.isfinite(energy.sum()):  # the usual case, in one pass
        return energy, 0
    finite = energy.isfinite()
    lost = (~finite.any(1)).nonzero().flatten().tolist()
    if lost:  # a made-up plan would hide that the model or the cost has broken
        raise FloatingPointError(
            f"the energies of all {energy.shape[1]} candidate plans of episode(s) {lost} are non-finite; "
            "look for NaN or infinity in the world model's rollout and in the cost"
        )
    return energy.masked_fill(~finite, float("inf")), int((~finite).sum())


def better(plan: Plan, candidates: Float[Tensor, "E N H K A"], energy: Float[Tensor, "E N"]) -> Plan:
    """The best of the plan so far and the candidates (E, N, H, K, A) with energies (E, N), per episode."""
    least, index = energy.min(1)
    index = index.view(-1, 1, 1, 1, 1).expand(-1, 1, *candidates.shape[2:])
    actions = torch.where((least < plan.energy).view(-1, 1, 1, 1), candidates.gather(1, index).squeeze(1), plan.actions)
    return Plan(actions, torch.minimum(least, plan.energy))


def fit_elites(
    candidates: Float[Tensor, "E N H K A"], energy: Float[Tensor, "E N"], config: Config
) -> tuple[Float[Tensor, "E H K A"], Float[Tensor, "E H K A"]]:
    """CEM: mean and standard deviation of the elites, (E, H, K, A) each."""
    count = max(2, round(config.elites * energy.shape[1]))
    least, index = energy.topk(min(count, energy.shape[1]), dim=1, largest=False)
    index = torch.where(least < float("inf"), index, index[:, :1])  # the best stands in for what has no finite energy
    elites = candidates.gather(1, index[:, :, None, None, None].expand(-1, -1, *candidates.shape[2:]))
    spread, mean = torch.std_mean(elites, 1, correction=0)
    return mean, spread


def fit_softmin(
    candidates: Float[Tensor, "E N H K A"], energy: Float[Tensor, "E N"], config: Config
) -> tuple[Float[Tensor, "E H K A"], Float[Tensor, "E H K A"]]:
    """MPPI: mean and standard deviation under weights ~ exp(-(F - Fmin) / (temperature * std F)), (E, H, K, A) each.

    With the std over the episode's finite energies, scaling or shifting the cost does not change the search.
    """
    excess = energy - energy.amin(1, keepdim=True)
    finite = excess < float("inf")
    peak = torch.where(finite, excess, 0).amax(1, keepdim=True).clamp(min=1e-37)
    # Shares cover 0 to 1 (or are all 0), which keeps this difference of moments far from cancellation and overflow.
    share = torch.where(finite, excess / peak, 0)
    count = finite.sum(1, keepdim=True)
    variance = share.square().sum(1, keepdim=True) / count - (share.sum(1, keepdim=True) / count).square()
    softness = (config.temperature * peak * variance.sqrt()).clamp(min=1e-37)
    weights = (-excess / softness).softmax(1).to(candidates.dtype)[:, :, None, None, None]
    mean = (weights * candidates).sum(1)
    return mean, (weights * (candidates - mean[:, None]).square()).sum(1).sqrt()


class Sampling:
    """CEM and MPPI: search with a Gaussian over action sequences that follows the weighted candidates.

    CEM fits mean and width to the elites. MPPI moves the mean by soft weights; its width shrinks from `initial_std` to
    `min_std` over the iterations in equal ratios, because a width estimated from few effective candidates collapses.
    Candidate 0 is the start, later the best plan so far, and candidate 1 is from the second iteration on the mean.
    All planners of this file that search raise FloatingPointError when all energies of an episode are non-finite.
    """

    needs_gradient = False

    def __init__(
        self,
        fit: Callable[[Tensor, Tensor, Config], tuple[Tensor, Tensor]],
        anneal: bool,
        config: Config,
        actions: Actions,
        start: Float[Tensor, "E H K A"],
        samples: int,
        iterations: int,
        generator: Generator,
    ) -> None:
        """Start (E, H, K, A); `samples` is N; the generator advances once per iteration."""
        self.fit, self.config, self.samples, self.generator = fit, config, samples, generator
        self.rounds = iterations
        self.grid = Grid(config, actions, start)
        self.plan = first(actions, start, samples, iterations)
        self.mean = self.grid.fold(self.plan.actions)
        self.std = (config.initial_std * self.grid.unit).expand_as(self.mean)
        self.floor = config.min_std * self.grid.unit
        self.shrink = (config.min_std / config.initial_std) ** (1 / max(1, iterations - 1)) if anneal else None
        self.iteration = 0
        self.candidates, self.energy = self.plan.actions[:, None], self.plan.energy[:, None]

    def ask(self) -> Float[Tensor, "E N H K A"]:
        """Candidates (E, N, H, K, A)."""
        noise = self.grid.noise(self.samples, self.generator)
        if self.iteration:
            noise[1:2] = 0
        candidates = self.grid.expand(self.mean[:, None] + self.std[:, None] * noise)
        candidates[:, 0] = self.plan.actions
        return candidates

    @torch.no_grad()
    def tell(self, candidates: Float[Tensor, "E N H K A"], energy: Float[Tensor, "E N"]) -> None:
        """Move the distribution towards the candidates (E, N, H, K, A) with low energies (E, N)."""
        energy, _ = usable(energy)
        self.candidates, self.energy, self.plan = candidates, energy, better(self.plan, candidates, energy)
        mean, spread = self.grid.fold(torch.stack(self.fit(candidates, energy, self.config)))
        keep = self.config.momentum
        if keep:
            mean, spread = mean + keep * (self.mean - mean), spread + keep * (self.std - spread)
        std = spread if self.shrink is None else self.shrink * self.std
        self.mean, self.std = mean, torch.maximum(std, self.floor)
        self.iteration += 1

    def best(self) -> Plan:
        """The best plan seen so far; before any `tell` the start, with infinite energy."""
        return self.plan


class Categorical:
    """CEM and MPPI for discrete actions: every searched variable has a distribution over the choices of each group.

    The mean of weighted one-hot candidates is the distribution that fits them, so the fits are those of the Gaussian
    search. A part of every distribution is uniform: for CEM `initial_std` at first and `min_std` after, for MPPI it
    shrinks from one to the other in equal ratios. Candidate 0 is the start, later the best plan so far, and candidate 1
    is from the second iteration on the mode.
    """

    needs_gradient = False

    def __init__(
        self,
        fit: Callable[[Tensor, Tensor, Config], tuple[Tensor, Tensor]],
        anneal: bool,
        config: Config,
        actions: DiscreteActions,
        start: Float[Tensor, "E H K A"],
        samples: int,
        iterations: int,
        generator: Generator,
    ) -> None:
        """Start (E, H, K, A); `samples` is N; the generator advances once per iteration."""
        self.fit, self.config, self.samples, self.generator = fit, config, samples, generator
        self.rounds = iterations
        self.grid = Grid(replace(config, noise_beta=0.0), actions, start)
        self.plan = first(actions, start, samples, iterations)
        self.even = torch.cat([start.new_full((n,), 1 / n) for n in actions.counts])
        self.mean = self.grid.fold(self.plan.actions)
        """(E, V, A) shares of the choices, before the uniform part."""
        ratio = config.min_std / config.initial_std
        self.shrink = ratio ** (1 / max(1, iterations - 1)) if anneal else ratio
        self.iteration = 0
        self.candidates, self.energy = self.plan.actions[:, None], self.plan.energy[:, None]

    @property
    def probability(self) -> Float[Tensor, "E V A"]:
        """Of every choice in the next proposals, (E, V, A)."""
        width = max(self.config.initial_std * self.shrink**self.iteration, self.config.min_std)
        return torch.lerp(self.mean, self.even, min(width, 1.0))

    def ask(self) -> Float[Tensor, "E N H K A"]:
        """Candidates (E, N, H, K, A)."""
        noise = _gumbel(self.grid, self.samples, self.generator)
        if self.iteration:
            noise[1:2] = 0
        # The largest of log-probabilities with Gumbel noise is a draw; the noise is the same for all episodes.
        candidates = self.grid.expand(self.probability.log()[:, None] + noise)
        candidates[:, 0] = self.plan.actions
        return candidates

    @torch.no_grad()
    def tell(self, candidates: Float[Tensor, "E N H K A"], energy: Float[Tensor, "E N"]) -> None:
        """Move the distribution towards the candidates (E, N, H, K, A) with low energies (E, N)."""
        energy, _ = usable(energy)
        self.candidates, self.energy, self.plan = candidates, energy, better(self.plan, candidates, energy)
        mean = self.grid.fold(self.fit(candidates, energy, self.config)[0])
        self.mean = mean + self.config.momentum * (self.mean - mean)
        self.iteration += 1

    def best(self) -> Plan:
        """The best plan seen so far; before any `tell` the start, with infinite energy."""
        return self.plan


def _gumbel(grid: Grid, samples: int, generator: Generator) -> Float[Tensor, "N V A"]:
    """Standard Gumbel noise (N, V, A), one draw for all episodes."""
    size = (samples, grid.variables, len(grid.unit))
    noise = torch.empty(size, dtype=grid.unit.dtype, device=generator.device).exponential_(generator=generator)
    return -noise.log().to(grid.unit.device)


class Beam:
    """Beam search over discrete actions, without random numbers: the best prefixes of plans grow by a step each round.

    The first round asks for the start, so that no plan is worse. Round d asks for the best prefixes of length d - 1,
    each followed by every block of actions; there are as many prefixes as `samples` allows, and at least one. Energies
    are compared between prefixes of one length. With room for all states that can be reached in d steps the search is
    exact, if costs add up over states: prefixes that lead to the same state have the same future, and only the best of
    them goes on (a breadth-first search).
    """

    needs_gradient = False

    def __init__(
        self,
        config: Config,
        actions: Actions,
        start: Float[Tensor, "E H K A"],
        samples: int,
        iterations: int,
        generator: Generator,
    ) -> None:
        """As the others; `iterations` and the generator change nothing."""
        if not isinstance(actions, DiscreteActions):
            raise ValueError("planner beam searches discrete actions only; these are continuous: plan with cem")
        self.config = config
        self.plan = first(actions, start, samples, iterations)
        self.blocks = _blocks(Grid(replace(config, noise_beta=0.0), actions, start), actions, samples)
        self.width, self.steps = max(1, samples // len(self.blocks)), start.shape[1]
        self.rounds = self.steps + 1
        self.depth = 0
        """Length of the prefixes that are asked for next; 0 for the start."""
        self.prefixes = self.plan.actions[:, None, :0]  # E W d-1 K A
        self.alive = torch.ones(len(start), 1, dtype=torch.bool, device=start.device)
        """(E, N) False for what fills up an episode that has fewer prefixes to go on from than another."""
        self.parents: Tensor | None = None
        self.ends: Tensor | None = None
        self.candidates, self.energy = self.plan.actions[:, None], self.plan.energy[:, None]

    def ask(self) -> Float[Tensor, "E N d K A"]:
        """The start (E, 1, H, K, A), then prefixes (E, N, d, K, A): the children of one prefix are side by side."""
        if not 0 < self.depth <= self.steps:
            return self.plan.actions[:, None]
        count = len(self.blocks)
        before = self.prefixes.repeat_interleave(count, 1)
        last = self.blocks.repeat(self.prefixes.shape[1], 1, 1).expand(len(before), -1, -1, -1)
        return torch.cat([before, last[:, :, None]], 2)

    def reached(self, ends: State) -> None:
        """The imagined states (E, N, ...) in which the candidates end."""
        self.ends = torch.cat([ends.latent, ends.proprio], -1)

    @torch.no_grad()
    def tell(self, candidates: Float[Tensor, "E N d K A"], energy: Float[Tensor, "E N"]) -> None:
        """Choose by their energies (E, N) which of the candidates (E, N, d, K, A) go on."""
        energy, _ = usable(energy.masked_fill(~self.alive, float("inf")))
        self.candidates, self.energy = candidates, energy
        if candidates.shape[2] == self.steps:
            self.plan = better(self.plan, candidates, energy)
        if 0 < self.depth < self.steps:
            self._select(candidates, energy)
        else:
            self.parents = None
            self.alive = self.alive.new_ones(len(energy), 1 if self.depth else len(self.blocks))
        self.depth += 1

    def best(self) -> Plan:
        """The best whole plan seen so far; before any `tell` the start, with infinite energy."""
        return self.plan

    def _select(self, candidates: Float[Tensor, "E N d K A"], energy: Float[Tensor, "E N"]) -> None:
        """The best candidates become the prefixes of the next round."""
        fresh = energy.isfinite() & ~self._repeats(energy)
        order = energy.masked_fill(~fresh, float("inf")).argsort(dim=1, stable=True)
        chosen = order[:, : min(self.width, int(fresh.sum(1).max()))]
        rows = torch.arange(len(chosen), device=chosen.device)[:, None]
        self.prefixes = candidates[rows, chosen]
        self.parents = chosen.repeat_interleave(len(self.blocks), 1)
        self.alive = fresh[rows, chosen].repeat_interleave(len(self.blocks), 1)

    def _repeats(self, energy: Float[Tensor, "E N"]) -> Tensor:
        """(E, N) candidates that end in the same state as one with less energy."""
        found = torch.zeros_like(energy, dtype=torch.bool)
        if self.ends is None or not self.config.merge:
            return found
        for e, here in enumerate(self.alive):  # one episode at a time: what fills it up must not change its bits
            points, order = self.ends[e, here], energy[e, here].argsort(stable=True)
            siblings = points.unflatten(0, (-1, len(self.blocks)))
            apart = (siblings - siblings.mean(1, keepdim=True)).square().sum(-1).mean().sqrt()
            points = points[order]
            same = torch.cdist(points, points) <= self.config.merge * apart
            repeats = torch.zeros_like(here[here])
            repeats[order] = same.tril(-1).any(1)
            found[e, here] = repeats
        return found


def _blocks(grid: Grid, actions: DiscreteActions, samples: int) -> Float[Tensor, "M K A"]:
    """All blocks of one step (M, K, A): every primitive action, or every sequence of them where a block has several."""
    primitives = actions.primitives().to(grid.unit)
    several, count = grid.block // grid.repeat, len(primitives)
    if several > 1 and count**several > samples:
        raise ValueError(
            f"planner beam has {count**several} different blocks of {grid.block} actions for {samples} samples: hold "
            "actions longer (planner setting action_repeat), or allow more samples"
        )
    index = torch.cartesian_prod(*[torch.arange(count, device=primitives.device)] * several).view(-1, several)
    return primitives[index].repeat_interleave(grid.repeat, 1)


class Gradient:
    """N descents from the start and from noise around it: Adam on the actions through the differentiable energy.

    Every step is projected into the action space. A descent without a finite energy begins again at the best plan.
    """

    needs_gradient = True

    def __init__(
        self,
        config: Config,
        actions: Actions,
        start: Float[Tensor, "E H K A"],
        samples: int,
        iterations: int,
        generator: Generator,
    ) -> None:
        if isinstance(actions, DiscreteActions):
            raise ValueError("planner gradient needs continuous actions; plan discrete ones with cem or beam")
        self.config, self.rounds = config, iterations
        self.grid = Grid(config, actions, start)
        self.plan = first(actions, start, samples, iterations)
        noise = config.initial_std * self.grid.unit * self.grid.noise(samples, generator)
        noise[0] = 0
        self.variables = actions.project(self.grid.fold(self.plan.actions)[:, None] + noise)
        self.slope = self.curvature = torch.zeros_like(self.variables)
        self.iteration = 0
        self.candidates, self.energy = self.plan.actions[:, None], self.plan.energy[:, None]

    def ask(self) -> Float[Tensor, "E N H K A"]:
        """Candidates (E, N, H, K, A), leaves of the graph that require grad."""
        candidates = self.grid.expand(self.variables)
        if self.iteration == 0:
            candidates[:, 0] = self.plan.actions  # the start itself, also where it does not hold its actions
        return candidates.requires_grad_()

    def tell(self, candidates: Float[Tensor, "E N H K A"], energy: Float[Tensor, "E N"]) -> None:
        """One step of Adam on the candidates (E, N, H, K, A) from their energies (E, N)."""
        assert energy.requires_grad, "the gradient planner needs energies computed with autograd: leave torch.no_grad()"
        (gradient,) = torch.autograd.grad(energy.sum(), candidates)
        with torch.no_grad():
            energy, lost = usable(energy)
            self.candidates, self.energy = candidates.detach(), energy
            self.plan = better(self.plan, self.candidates, energy)
            # A mean over the hold, not the sum: Adam ignores the factor. NaN, as from the root of zero, makes no step.
            gradient = self.grid.fold(gradient).nan_to_num(0.0, 0.0, 0.0)
            self.slope = self.slope + 0.1 * (gradient - self.slope)
            self.curvature = self.curvature + 0.01 * (gradient.square() - self.curvature)
            # A constant step would circle around the minimum at the distance of one step.
            rate = self.config.learning_rate * max(1 - self.iteration / self.rounds, 1 / self.rounds)
            self.iteration += 1
            rate *= (1 - 0.99**self.iteration) ** 0.5 / (1 - 0.9**self.iteration)  # Adam's correction of its start at 0
            moved = self.variables - rate * self.grid.unit * (self.slope / (self.curvature.sqrt() + 1e-12))
            if lost:
                again = self.grid.fold(self.plan.actions)[:, None]
                moved = torch.where(energy.isfinite()[:, :, None, None], moved, again)
            self.variables = self.grid.actions.project(moved)

    def best(self) -> Plan:
        """The best plan seen so far; before any `tell` the start, with infinite energy."""
        return self.plan


class Unsearched:
    """One random plan, whatever it costs: the baseline of a search."""

    needs_gradient = False

    def __init__(
        self,
        config: Config,
        actions: Actions,
        start: Float[Tensor, "E H K A"],
        samples: int,
        iterations: int,
        generator: Generator,
    ) -> None:
        """As the others; `samples` changes nothing."""
        self.rounds = iterations
        grid = Grid(config, actions, start)
        if isinstance(actions, DiscreteActions):  # every choice is as likely as any other
            drawn = _gumbel(grid, 1, generator).expand(len(start), 1, -1, -1)
        else:
            noise = config.initial_std * grid.unit * grid.noise(1, generator)
            drawn = noise + grid.fold(actions.project(torch.zeros_like(start)))[:, None]
        self.candidates = grid.expand(drawn)
        self.energy = start.new_full((len(start), 1), float("inf"))

    def ask(self) -> Float[Tensor, "E N H K A"]:
        """The plan, (E, 1, H, K, A)."""
        return self.candidates

    def tell(self, candidates: Float[Tensor, "E N H K A"], energy: Float[Tensor, "E N"]) -> None:
        """Note what it costs."""
        self.energy = energy.detach()

    def best(self) -> Plan:
        """The plan."""
        return Plan(self.candidates[:, 0], self.energy[:, 0])


def sampling(
    fit: Callable[[Tensor, Tensor, Config], tuple[Tensor, Tensor]],
    anneal: bool,
    config: Config,
    actions: Actions,
    start: Float[Tensor, "E H K A"],
    samples: int,
    iterations: int,
    generator: Generator,
) -> Planner:
    """CEM or MPPI, with the distribution that fits the actions."""
    if isinstance(actions, DiscreteActions):
        return Categorical(fit, anneal, config, actions, start, samples, iterations, generator)
    return Sampling(fit, anneal, config, actions, start, samples, iterations, generator)


CEM = partial(sampling, fit_elites, False)
MPPI = partial(sampling, fit_softmin, True)
PLANNERS: dict[str, Callable[..., Planner]] = {
    "cem": CEM,
    "mppi": MPPI,
    "gradient": Gradient,
    "random": Unsearched,
    "beam": Beam,
}
