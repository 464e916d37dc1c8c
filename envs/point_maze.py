"""Point maze: a ball with momentum, pushed by a force through a maze of walls, seen from above. Physics by MuJoCo.

The layouts `u`, `medium` and `large` have the topology of the D4RL mazes (arXiv 2004.07219) and success is DINO-WM's,
nearer than 0.5 (arXiv 2411.04983). The ball, the forces, the clock and the tasks are this file's own, so success rates
are not comparable with theirs: here speed is limited by drag instead of a clip, walls are frictionless, and a task
always asks for a way of several cells.

Units: one cell is 1 length unit; seconds; x to the right, y up, (0, 0) the middle of the arena.
Shapes: N worlds, S = 4 state numbers (x, y, vx, vy), A = 2 force in [-1, 1]^2, F free cells, W wall boxes.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from mujoco import MjData, MjModel  # pyright: ignore[reportAttributeAccessIssue] (compiled, without stubs)
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from envs.api import Array, Percepts, ProprioSpec, Tasks

LAYOUTS: dict[str, tuple[str, ...]] = {
    "u": (
        "#####",
        "#...#",
        "###.#",
        "#...#",
        "#####",
    ),
    "medium": (
        "########",
        "#..##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#..#",
        "########",
    ),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#...#",
        "############",
    ),
}
MIN_DISTANCE = {"u": 3, "medium": 5, "large": 6}  # cells from start to goal along the shortest way

RADIUS = 0.15
MASS, FORCE, DRAG = 1.0, 7.0, 2.0  # so the ball forgets its speed in MASS / DRAG = 0.5 s = 10 steps
TOP_SPEED = FORCE / DRAG  # along one axis: a cell in 6 steps; 4.95 along the diagonal
TIMESTEP, FRAME_SKIP = 0.01, 5
STEP_SECONDS = TIMESTEP * FRAME_SKIP
RESET_SPEED = 1.0  # per axis, at most
TASK_MARGIN = 0.05  # tasks keep the ball this clear of walls
PIXELS = 64
MAP_PIXELS_PER_CELL = 32
WALL_COLOUR, FLOOR_COLOUR, BALL_COLOUR = (90, 90, 90), (250, 250, 250), (214, 39, 40)
SMALLEST_BALL = 1.5  # pixels of radius: a smaller one would flicker in the large mazes

# The solver starts cold in every step (no warm start), so that position and velocity are the whole state: whatever
# continues from them is bit-exact. Only the ball collides with walls, and without friction: it slides, it cannot roll.
_MJCF = """
<mujoco model="point_maze">
  <option timestep="{timestep}" integrator="Euler" solver="Newton" iterations="10" cone="pyramidal" jacobian="dense">
    <flag warmstart="disable" gravity="disable"/>
  </option>
  <size memory="1M"/>
  <default>
    <geom condim="1" solref="0.02 1" solimp="0.95 0.99 0.001"/>
    <default class="wall"><geom type="box" contype="1" conaffinity="0" rgba="0.35 0.35 0.35 1"/></default>
  </default>
  <worldbody>
    <light pos="0 0 10"/>
    {walls}
    <body name="ball">
      <joint name="x" type="slide" axis="1 0 0" damping="{drag}"/>
      <joint name="y" type="slide" axis="0 1 0" damping="{drag}"/>
      <geom name="ball" type="sphere" size="{radius}" mass="{mass}" contype="0" conaffinity="1" rgba="0.8 0.2 0.2 1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x" gear="{force}"/>
    <motor joint="y" gear="{force}"/>
  </actuator>
</mujoco>
"""
_WALL = '<geom class="wall" pos="{} {} 0" size="{} {} 0.3"/>'


def _parse_layout(layout: str | Sequence[str]) -> tuple[str, ...]:
    """The grid of a layout's name, or a user's own grid, checked. ValueError for what is no maze."""
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            near = difflib.get_close_matches(layout.lower(), LAYOUTS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown layout {layout!r}, did you mean {near!r}? Expected one of {', '.join(LAYOUTS)}, or your own "
                "grid as a sequence of strings of '#' (wall) and '.' (free)"
            )
        return LAYOUTS[layout]
    grid = tuple(layout)
    if not all(isinstance(row, str) for row in grid):
        raise ValueError(f"the rows of a layout are strings of '#' (wall) and '.' (free), got {grid!r}")
    for i, row in enumerate(grid):
        if len(row) != len(grid[0]):
            raise ValueError(
                f"ragged layout: row {i} {row!r} has {len(row)} cells and row 0 has {len(grid[0])}; "
                "make all rows equally long"
            )
        if set(row) - set("#."):
            raise ValueError(f"layout row {i} {row!r} has {sorted(set(row) - set('#.'))}; use only '#' and '.'")
    if not any("." in row for row in grid):
        raise ValueError(f"layout {grid!r} has no free cell; put at least one '.' inside the walls")
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            if cell == "." and (i in (0, len(grid) - 1) or j in (0, len(row) - 1)):
                raise ValueError(
                    f"layout is not closed by walls: row {i} column {j} on the border is free; make it '#'"
                )
    return grid


def _wall_boxes(free: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """The wall cells as few long boxes (top, left, bottom, right), ends excluded: fewer collisions, no seams."""
    left_over = ~free
    boxes = []
    for i, j in np.ndindex(free.shape):
        if left_over[i, j]:
            right, bottom = j + 1, i + 1
            while right < free.shape[1] and left_over[i, right]:
                right += 1
            while bottom < free.shape[0] and left_over[bottom, j:right].all():
                bottom += 1
            left_over[i:bottom, j:right] = False
            boxes.append((i, j, bottom, right))
    return boxes


def _distances(cells: NDArray[np.int_]) -> NDArray[np.int_]:
    """(F, F) steps of the shortest way from cell to cell, -1 where there is none: breadth-first from all at once."""
    neighbour = (np.abs(cells[:, None] - cells[None]).sum(-1) == 1).astype(np.float32)
    distance = np.full((len(cells), len(cells)), -1)
    front, steps = np.eye(len(cells), dtype=bool), 0
    while front.any():
        distance[front] = steps
        front, steps = (front @ neighbour > 0) & (distance < 0), steps + 1
    return distance


def _straights(cells: NDArray[np.int_], distance: NDArray[np.int_]) -> NDArray[np.int_]:
    """(F, F) for each cell and goal cell: the last cell on the longest straight piece of a shortest way to the goal."""
    index = {tuple(cell): i for i, cell in enumerate(cells)}
    everywhere = np.broadcast_to(np.arange(len(cells))[:, None], distance.shape)
    goal = everywhere.T
    best, best_length = everywhere, np.zeros_like(distance)
    for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        following = np.array([index.get((i + di, j + dj), -1) for i, j in cells])
        here, length, goes_on = everywhere, np.zeros_like(distance), np.ones_like(distance, bool)
        while goes_on.any():
            ahead = following[here]
            goes_on = goes_on & (ahead >= 0) & (distance[ahead, goal] == distance[here, goal] - 1)
            here, length = np.where(goes_on, ahead, here), length + goes_on
        best, best_length = np.where(length > best_length, here, best), np.maximum(length, best_length)
    return best


class PointMaze:
    """The laws of the point maze; see `envs.simulator.Simulator` for what each function means.

    One instance owns one buffer of MuJoCo: do not step the same instance from two Python threads at once.
    """

    MAX_STEPS: ClassVar[dict[str, int]] = {"u": 150, "medium": 250, "large": 375}
    """Steps that a task may take: about three times what the oracle needs in 95 of 100 tasks."""

    action_low = np.full(2, -1, np.float32)
    action_high = np.full(2, 1, np.float32)
    action_max_norm: float | None = None
    has_scenes = False
    success_radius = 0.5

    def __init__(
        self, layout: str | Sequence[str] = "u", pixels: bool = False, contact: bool = False, threads: int = 1
    ) -> None:
        """layout: a name in LAYOUTS or rows of '#' and '.'; pixels and contact add those senses; threads that step.

        ValueError for an unknown name and for a grid that is ragged, not closed by walls or without a free cell.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.grid = _parse_layout(layout)
        named = isinstance(layout, str)
        self._arguments = (layout if named else self.grid, pixels, contact, threads)
        self.has_contact = contact
        self.free = np.array([[cell == "." for cell in row] for row in self.grid])
        self._middle = np.array([self.free.shape[1], self.free.shape[0]]) / 2
        self._cells = np.argwhere(self.free)
        self._centres = self._from_grid(self._cells[:, ::-1] + 0.5)
        self._distance = _distances(self._cells)
        self._straight = _straights(self._cells, self._distance)
        farthest = int(self._distance.max())
        self.min_distance = MIN_DISTANCE[layout] if named else min(6, farthest // 2)
        self.max_steps = self.MAX_STEPS[layout] if named else 50 + 20 * farthest

        boxes = np.array(_wall_boxes(self.free), np.float64)
        self._wall_centres = self._from_grid((boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2)
        self._wall_halves = (boxes[:, [3, 2]] - boxes[:, [1, 0]]) / 2
        walls = [_WALL.format(*c, *h) for c, h in zip(self._wall_centres, self._wall_halves, strict=True)]
        self.mjcf = _MJCF.format(
            timestep=TIMESTEP, drag=DRAG, radius=RADIUS, mass=MASS, force=FORCE, walls="\n    ".join(walls)
        )
        """The MuJoCo model, to look at with any MuJoCo viewer."""
        self.model = MjModel.from_xml_string(self.mjcf)
        self._data = [MjData(self.model) for _ in range(threads)]
        self._rollout = Rollout(nthread=threads if threads > 1 else 0)

        # One scale for both axes, so that distance between proprio is distance in the maze.
        reach = float(self._middle.max() - 1)
        proprio = [ProprioSpec("x", 0, 0.0, reach, is_goal=True), ProprioSpec("y", 1, 0.0, reach, is_goal=True)]
        proprio += [ProprioSpec("vx", 2, 0.0, TOP_SPEED), ProprioSpec("vy", 3, 0.0, TOP_SPEED)]
        high = [*self._middle, 5.0, 5.0]  # the diagonal's speed: a wall's corner can turn it into one axis
        self.proprio: tuple[ProprioSpec, ...] = (*proprio, ProprioSpec("contact", 4)) if contact else tuple(proprio)
        self.sensor_high = np.array([*high, 1.0] if contact else high, np.float32)
        self.sensor_low = np.array([*(-self.sensor_high[:4]), 0.0] if contact else -self.sensor_high, np.float32)

        self.pixel_shape: tuple[int, int, int] | None = (3, PIXELS, PIXELS) if pixels else None
        self._pixels_per_cell = PIXELS / max(self.free.shape)
        self._background = self._draw_walls(PIXELS, PIXELS, self._pixels_per_cell).transpose(2, 0, 1)

    def __reduce__(self) -> tuple:
        """Copies and pickles are built anew, because MuJoCo's rollout object can be neither copied nor sent."""
        return PointMaze, self._arguments

    def _from_grid(self, points: NDArray) -> Array:
        """(..., 2) column and row in cells to x and y."""
        return (points - self._middle) * (1.0, -1.0)

    def _clearance(self, positions: Array) -> Array:
        """(N,) from each point to the nearest wall; 0 inside one."""
        outside = np.abs(positions[:, None] - self._wall_centres) - self._wall_halves  # (N, W, 2)
        return np.linalg.norm(np.maximum(outside, 0), axis=-1).min(1)

    def _nearest_cells(self, positions: Array) -> NDArray[np.int_]:
        """(N,) index of the free cell that each point is in."""
        return ((positions[:, None] - self._centres) ** 2).sum(-1).argmin(1)

    def _draw_positions(self, rng: np.random.Generator, n: int, clear: float) -> tuple[Array, NDArray[np.int_]]:
        """n candidates uniform over the free cells; those with the ball less than `clear` off a wall are NaN."""
        cell = rng.integers(len(self._cells), size=n)
        position = self._centres[cell] + rng.uniform(-0.5, 0.5, (n, 2))
        position[self._clearance(position) < RADIUS + clear] = np.nan
        return position, cell

    def reset(self, rng: np.random.Generator, n: int) -> Array:
        """Anywhere that the ball fits, uniformly, moving at up to RESET_SPEED along each axis."""
        found = np.empty((0, 2))
        while len(found) < n:
            position, _ = self._draw_positions(rng, 2 * n, 0.0)
            found = np.concatenate([found, position[~np.isnan(position).any(1)]])
        return np.concatenate([found[:n], rng.uniform(-RESET_SPEED, RESET_SPEED, (n, 2))], 1)

    def reset_within_scene(self, rng: np.random.Generator, states: Array) -> Array:
        """The maze is always the same."""
        return self.reset(rng, len(states))

    def step(self, states: Array, actions: NDArray, rng: np.random.Generator | None) -> Array:
        """0.05 s under a constant force, clipped to [-1, 1]^2. Deterministic: rng is not used.

        Each world's result depends on its own state and action only, to the last bit. ValueError for numbers that are
        not finite.
        """
        force, n = np.asarray(actions, np.float64), len(states)
        if force.shape != (n, 2):
            raise ValueError(f"actions must have shape ({n}, 2), one force per state, got {force.shape}")
        for name, values in (("actions", force), ("states", states)):
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
                raise ValueError(f"{name} must be finite, got {values[row]} in row {row}; look for NaN in what made it")
        if n == 0:
            return states.copy()
        start = np.zeros((n, 5))  # MuJoCo's full physics state: time, on which nothing depends, then ours
        start[:, 1:] = states
        control = np.repeat(np.clip(force, -1, 1)[:, None], FRAME_SKIP, axis=1)
        path = np.empty((n, FRAME_SKIP, 5))
        self._rollout.rollout(self.model, self._data, start, control, state=path)
        return path[:, -1, 1:].copy()

    def observe(self, states: Array) -> Percepts:
        """`sensors` (N, 4 or 5) float32: x, y, vx, vy, contact; `pixels` (N, 3, 64, 64) uint8 from above, if wanted."""
        sensors = states.astype(np.float32)
        if self.has_contact:
            touches = self._clearance(states[:, :2]) < RADIUS
            sensors = np.concatenate([sensors, touches[:, None]], 1, dtype=np.float32)
        return {"sensors": sensors} if self.pixel_shape is None else {"pixels": self._draw(states), "sensors": sensors}

    def _draw(self, states: Array) -> NDArray[np.uint8]:
        """(N, 3, 64, 64) the walls and an anti-aliased ball."""
        radius = max(RADIUS * self._pixels_per_cell, SMALLEST_BALL)
        centre = states[:, :2] * (self._pixels_per_cell, -self._pixels_per_cell) + (PIXELS - 1) / 2
        half = int(np.ceil(radius + 1))
        corner = np.clip(np.rint(centre).astype(int), half, PIXELS - 1 - half)
        columns, rows = (corner[:, i, None] + np.arange(-half, half + 1) for i in (0, 1))
        across, down = columns - centre[:, :1], rows - centre[:, 1:]
        distance = np.sqrt(across[:, None, :] ** 2 + down[:, :, None] ** 2)
        cover = np.clip(radius + 0.5 - distance, 0, 1)[:, None]  # (N, 1, 2 half + 1, 2 half + 1)
        where = np.arange(len(states))[:, None, None, None], np.arange(3)[:, None, None]
        where = *where, rows[:, None, :, None], columns[:, None, None, :]
        pixels = np.repeat(self._background[None], len(states), axis=0)
        ball = np.array(BALL_COLOUR, np.float64)[:, None, None]
        pixels[where] = np.rint(pixels[where] * (1 - cover) + ball * cover)
        return pixels

    def _draw_walls(self, height: int, width: int, scale: float) -> NDArray[np.uint8]:
        """(height, width, 3) the maze in the middle at `scale` pixels per cell; edges shaded by how much is covered."""

        def overlap(pixels: int, cells: int) -> Array:
            edges = (np.arange(pixels + 1) - pixels / 2) / scale + cells / 2
            low, high = edges[:-1, None], edges[1:, None]
            return (np.minimum(high, np.arange(1, cells + 1)) - np.maximum(low, np.arange(cells))).clip(0) * scale

        floor = overlap(height, self.free.shape[0]) @ self.free @ overlap(width, self.free.shape[1]).T
        wall_colour, floor_colour = np.array(WALL_COLOUR), np.array(FLOOR_COLOUR)
        return np.rint(wall_colour + floor[..., None] * (floor_colour - wall_colour)).astype(np.uint8)

    def positions(self, states: Array) -> Array:
        """(N, 2) x and y of the ball."""
        return states[:, :2]

    def factors(self, states: Array) -> dict[str, Array]:
        """agent_x, agent_y, velocity_x and velocity_y."""
        return dict(zip(("agent_x", "agent_y", "velocity_x", "velocity_y"), states.T, strict=True))

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Tasks:
        """Start and goal at rest, uniform over the free space, at least `min_distance` cells of way apart."""
        found = np.empty((0, 4))
        while len(found) < n:
            start, start_cell = self._draw_positions(rng, 4 * n, TASK_MARGIN)
            goal, goal_cell = self._draw_positions(rng, 4 * n, TASK_MARGIN)
            pair = np.concatenate([start, goal], 1)
            found = np.concatenate(
                [found, pair[(self._distance[start_cell, goal_cell] >= self.min_distance) & ~np.isnan(pair).any(1)]]
            )
        rest = np.zeros((n, 2))
        return Tasks(np.concatenate([found[:n, :2], rest], 1), np.concatenate([found[:n, 2:], rest], 1))

    def success(self, states: Array, goals: Array) -> NDArray[np.bool_]:
        """Nearer than 0.5 to the goal, at any speed."""
        return np.linalg.norm(states[:, :2] - goals[:, :2], axis=1) < self.success_radius

    def greedy_action(self, states: Array, goals: Array) -> NDArray:
        """Straight at the goal at full force, braking near it; blind to walls."""
        return _steer(states, goals[:, :2])

    def expert_action(self, states: Array, goals: Array) -> NDArray:
        """To the end of the straight piece of the shortest way that the ball is on; to the goal if it is on that."""
        goal_cell = self._nearest_cells(goals[:, :2])
        corner = self._straight[self._nearest_cells(states[:, :2]), goal_cell]
        return _steer(states, np.where((corner == goal_cell)[:, None], goals[:, :2], self._centres[corner]))

    def render_map(self, state: Array | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) the walls for pictures, 32 pixels per cell; the same for every state."""
        height, width = (MAP_PIXELS_PER_CELL * cells for cells in self.free.shape)
        return self._draw_walls(height, width, MAP_PIXELS_PER_CELL)

    def to_map(self, positions: Array) -> Array:
        """(N, 2) column and row in `render_map`'s picture; whole numbers are the middles of pixels."""
        return (positions * (1.0, -1.0) + self._middle) * MAP_PIXELS_PER_CELL - 0.5


def _steer(states: Array, targets: Array) -> NDArray:
    """(N, 2) force that brings the ball to the targets (N, 2) and stops it there, as far as forces allow."""
    way = targets - states[:, :2]
    distance = np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-9)
    wanted = way * np.minimum(3.0, TOP_SPEED / distance)  # per second: slows down within the last 1.2 units
    force = (DRAG * wanted + MASS * (wanted - states[:, 2:]) / (2 * STEP_SECONDS)) / FORCE
    return (force / np.maximum(np.abs(force).max(1, keepdims=True), 1.0)).astype(np.float32)
