"""Two Rooms: a dot in a square that a wall with one door divides; seen as two 65x65 pictures, without velocity.

Geometry, task sampling and transition are those of the evaluation environment of the EB-JEPA benchmark
(arXiv 2602.03604, datasets/two_rooms), the same here for training and for evaluation, with two differences that are
said out loud: actions are scaled back to norm 2.45 (there the limit is declared, not enforced), and the collision noise
comes from the generator that is passed in (there from torch's global one).

Shapes: N worlds, S = 4 state numbers (x, y, wall_x, door_y) in pixels, A = 2 displacement in pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.api import Array, Percepts, ProprioSpec, Tasks

SIZE = 65
LOW, HIGH = 4.0, 60.0  # the border lines
MAX_NORM = 2.45
DOT_SIGMA = 1.3
WALL_HALF, DOOR_HALF = 1.0, 4.0
HIT_NOISE = 0.5
INSIDE = 0.3  # a coordinate that ends on a limit is moved this far inside
MARGIN = 2 * DOT_SIGMA  # tasks keep the dot this clear of walls
WALL_X, DOOR_Y = np.arange(20, 45), np.arange(10, 55)
FIXED_LAYOUT = (32, 18)

_WINDOW = np.arange(-6, 7)  # 255 * exp(-d^2 / 2 sigma^2) is below 1, so 0 as a uint8, beyond 4.4 pixels


def _is_held_out(wall_x: NDArray, door_y: NDArray) -> NDArray[np.bool_]:
    """A fixed fifth of the layouts, scattered: tasks use only these, training never does."""
    mixed = (np.asarray(wall_x, np.uint64) * np.uint64(45) + np.asarray(door_y, np.uint64)) * np.uint64(2654435761)
    return (mixed >> np.uint64(8)) % np.uint64(5) == 0


def _wall_pictures() -> NDArray[np.uint8]:
    """Channel 1 for every layout, (25, 45, 65, 65)."""
    pictures = np.zeros((len(WALL_X), len(DOOR_Y), SIZE, SIZE), np.uint8)
    for i, wall_x in enumerate(WALL_X):
        pictures[i, :, :, wall_x - 1 : wall_x + 2] = 255
        for j, door_y in enumerate(DOOR_Y):
            pictures[i, j, door_y - 4 : door_y + 5, wall_x - 1 : wall_x + 2] = 0
    pictures[..., [4, 60], :] = 255
    pictures[..., :, [4, 60]] = 255
    return pictures


class TwoRooms:
    """The laws of Two Rooms; see `envs.simulator.Simulator` for what each function means."""

    action_low = np.full(2, -MAX_NORM, np.float32)
    action_high = np.full(2, MAX_NORM, np.float32)
    action_max_norm: float | None = MAX_NORM
    proprio: tuple[ProprioSpec, ...] = ()
    pixel_shape: tuple[int, int, int] | None = (2, SIZE, SIZE)
    sensor_low = sensor_high = None
    success_radius = 4.5
    max_steps = 200

    def __init__(self, random_wall: bool = False) -> None:
        """random_wall draws wall and door anew at every reset; otherwise wall x = 32 and door y = 18."""
        self.random_wall = self.has_scenes = random_wall
        self._walls = _wall_pictures()
        grid_x, grid_y = (a.ravel() for a in np.meshgrid(WALL_X, DOOR_Y, indexing="ij"))
        held_out = _is_held_out(grid_x, grid_y)
        layouts = np.stack([grid_x, grid_y], 1).astype(np.float64)
        self._training_layouts, self._task_layouts = layouts[~held_out], layouts[held_out]

    def _draw_layouts(self, rng: np.random.Generator, n: int, layouts: Array) -> Array:
        if not self.random_wall:
            return np.tile(np.array(FIXED_LAYOUT, np.float64), (n, 1))
        return layouts[rng.integers(len(layouts), size=n)]

    def reset(self, rng: np.random.Generator, n: int) -> Array:
        """A dot anywhere it can be, the doorway included; layouts that tasks use are left out."""
        layout = self._draw_layouts(rng, n, self._training_layouts)
        return self.reset_within_scene(rng, np.concatenate([np.zeros((n, 2)), layout], 1))

    def reset_within_scene(self, rng: np.random.Generator, states: Array) -> Array:
        """The dot elsewhere in the same layouts."""
        n, layout = len(states), states[:, 2:]
        position = rng.uniform(LOW + 1, HIGH - 1, (n, 2))
        in_wall = np.abs(position[:, 0] - layout[:, 0]) <= WALL_HALF + INSIDE
        in_door = np.abs(position[:, 1] - layout[:, 1]) <= DOOR_HALF - INSIDE
        shift = np.where(position[:, 0] < layout[:, 0], -1.0, 1.0) * (WALL_HALF + INSIDE + rng.uniform(0, 4, n))
        position[:, 0] = np.where(in_wall & ~in_door, layout[:, 0] + shift, position[:, 0])
        return np.concatenate([position, layout], 1)

    def step(self, states: Array, actions: NDArray, rng: np.random.Generator | None) -> Array:
        """One move; a wall that is hit throws the dot back by half-normal noise (0.5 px) on the side it came from."""
        position, wall_x, door_y = states[:, :2], states[:, 2], states[:, 3]
        action = np.asarray(actions, np.float64)
        if not np.isfinite(action).all():
            raise ValueError(f"actions must be finite, got {actions[~np.isfinite(action).all(1)][0]}")
        action = action * (MAX_NORM / np.maximum(np.linalg.norm(action, axis=1, keepdims=True), MAX_NORM))
        x, y = position.T
        dx, dy = action.T
        nx, ny = x + dx, y + dy
        # The noise is drawn for every world at every step, hit or not, so that one world's draws do not depend on
        # another's collisions. Without a generator its mean is used: 0 along the wall, sigma sqrt(2/pi) off it.
        if rng is None:
            along = np.zeros_like(position)
            off = np.full_like(position, HIT_NOISE * np.sqrt(2 / np.pi))
        else:
            along = HIT_NOISE * rng.standard_normal(position.shape)
            off = np.abs(along)

        in_left = x < wall_x
        left = np.where(in_left, LOW, wall_x + WALL_HALF)
        right = np.where(in_left, wall_x - WALL_HALF, HIGH)
        safe_dx, safe_dy = (np.where(d == 0, 1e-12, d) for d in (dx, dy))

        # 1. The edges of the doorway, met from inside it.
        edge = np.where(dy > 0, door_y + DOOR_HALF, door_y - DOOR_HALF)
        edge_time = (edge - y) / safe_dy
        edge_x = x + edge_time * dx
        hit_edge = (dy != 0) & ((y - edge) * (ny - edge) <= 0) & (np.abs(edge_x - wall_x) <= WALL_HALF)

        # 2. Vertical limits; the wall's face has a hole where the door is.
        limit_x = np.where(np.sign(x - left) * np.sign(nx - left) <= 0, left, right)
        crosses_x = np.sign(x - limit_x) * np.sign(nx - limit_x) <= 0
        time_x = np.clip((limit_x - x) / safe_dx, 0, 1)
        is_face = np.where(in_left, limit_x == right, limit_x == left)
        hit_x = crosses_x & ~(is_face & (np.abs(y + time_x * dy - door_y) <= DOOR_HALF))

        # 3. Horizontal limits.
        limit_y = np.where(np.sign(y - LOW) * np.sign(ny - LOW) <= 0, LOW, HIGH)
        hit_y = np.sign(y - limit_y) * np.sign(ny - limit_y) <= 0
        time_y = np.clip((limit_y - y) / safe_dy, 0, 1)

        # 4. The nearer hit counts; thrown back to where the dot came from, then kept inside the room.
        first_x = hit_x & (~hit_y | (time_x <= time_y))
        first_y = hit_y & ~first_x
        back_x = np.where(limit_x == left, 1.0, -1.0) * off[:, 0]
        back_y = np.where(limit_y == LOW, 1.0, -1.0) * off[:, 1]
        hit_px = np.where(first_x, limit_x + back_x, x + time_y * dx + along[:, 0])
        hit_py = np.where(first_x, y + time_x * dy + along[:, 1], limit_y + back_y)
        hit_px = np.clip(hit_px, left, right)
        hit_px = np.where(hit_px == left, left + INSIDE, np.where(hit_px == right, right - INSIDE, hit_px))
        hit_py = np.clip(hit_py, LOW, HIGH)
        hit_py = np.where(hit_py == LOW, LOW + INSIDE, np.where(hit_py == HIGH, HIGH - INSIDE, hit_py))

        hit = first_x | first_y
        out = states.copy()
        out[:, 0] = np.where(hit_edge, edge_x + along[:, 0], np.where(hit, hit_px, nx))
        out[:, 1] = np.where(hit_edge, edge - np.sign(dy) * off[:, 1], np.where(hit, hit_py, ny))
        return out

    def observe(self, states: Array) -> Percepts:
        """`pixels` (N, 2, 65, 65) uint8: the dot, and the walls."""
        n, layout = len(states), states[:, 2:].astype(int)
        low, high = (WALL_X[0], DOOR_Y[0]), (WALL_X[-1], DOOR_Y[-1])
        wrong = ((layout < low) | (layout > high) | (layout != states[:, 2:])).any(1)
        if wrong.any():
            raise ValueError(
                f"no layout has its wall at x and its door at y = {states[wrong][0, 2:]}: "
                f"whole numbers from {low} to {high} are expected"
            )
        outside = ((states[:, :2] < LOW) | (states[:, :2] > HIGH)).any(1)
        if outside.any():
            raise ValueError(
                f"no dot can be at {states[outside][0, :2]}: x and y from {LOW:g} to {HIGH:g} are expected"
            )
        pixels = np.empty((n, 2, SIZE, SIZE), np.uint8)
        pixels[:, 0] = 0
        pixels[:, 1] = self._walls[layout[:, 0] - WALL_X[0], layout[:, 1] - DOOR_Y[0]]
        corner = np.clip(np.rint(states[:, :2]).astype(int), 6, SIZE - 7)
        columns, rows = (corner[:, i, None] + _WINDOW for i in (0, 1))
        gauss_x = np.exp(-((columns - states[:, 0, None]) ** 2) / (2 * DOT_SIGMA**2))
        gauss_y = np.exp(-((rows - states[:, 1, None]) ** 2) / (2 * DOT_SIGMA**2))
        dot = (255 * gauss_y[:, :, None] * gauss_x[:, None, :]).astype(np.uint8)
        pixels[np.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]] = dot
        return {"pixels": pixels}

    def positions(self, states: Array) -> Array:
        """(N, 2) x (column) and y (row) of the dot."""
        return states[:, :2]

    def factors(self, states: Array) -> dict[str, Array]:
        """agent_x, agent_y and, where they vary, wall_x and door_y."""
        names = ("agent_x", "agent_y", "wall_x", "door_y")[: 4 if self.random_wall else 2]
        return {name: states[:, i] for i, name in enumerate(names)}

    def sample_tasks(self, rng: np.random.Generator, n: int) -> Tasks:
        """Start and goal in different rooms, clear of walls by two dot sigmas, sides swapped half the time."""
        layout = self._draw_layouts(rng, n, self._task_layouts)
        left = np.stack([rng.uniform(LOW + MARGIN, layout[:, 0] - WALL_HALF - MARGIN), rng.uniform(6.6, 57.4, n)], 1)
        right = np.stack([rng.uniform(layout[:, 0] + WALL_HALF + MARGIN, HIGH - MARGIN), rng.uniform(6.6, 57.4, n)], 1)
        swap = rng.random((n, 1)) < 0.5
        start, goal = np.where(swap, right, left), np.where(swap, left, right)
        return Tasks(np.concatenate([start, layout], 1), np.concatenate([goal, layout], 1))

    def success(self, states: Array, goals: Array) -> NDArray[np.bool_]:
        """Nearer than 4.5 px to the goal."""
        return np.linalg.norm(states[:, :2] - goals[:, :2], axis=1) < self.success_radius

    def greedy_action(self, states: Array, goals: Array) -> NDArray:
        """The straight line at full speed."""
        return _towards(states[:, :2], goals[:, :2])

    def expert_action(self, states: Array, goals: Array) -> NDArray:
        """Through the middle of the door, then straight."""
        position, goal = states[:, :2], goals[:, :2]
        wall_x, door_y = states[:, 2], states[:, 3]
        side = np.where(position[:, 0] < wall_x, -1.0, 1.0)
        goal_side = np.where(goal[:, 0] < wall_x, -1.0, 1.0)
        at_door = (np.abs(position[:, 1] - door_y) < DOOR_HALF - 1) & (np.abs(position[:, 0] - wall_x) < 4.5)
        lane = np.clip(position[:, 1], door_y - 2, door_y + 2)
        entry = np.stack([wall_x + side * 3.0, lane], 1)
        exit_ = np.stack([wall_x + goal_side * 4.0, lane], 1)
        in_wall = np.abs(position[:, 0] - wall_x) <= WALL_HALF + 1
        detour = np.where(at_door[:, None], exit_, entry)
        needs_door = (side != goal_side) | (in_wall & at_door)
        return _towards(position, np.where(needs_door[:, None], detour, goal))

    def render_map(self, state: Array) -> NDArray[np.uint8]:
        """(65, 65, 3) the walls of one world, for pictures; one pixel is one unit of length."""
        wall = self.observe(state[None])["pixels"][0, 1]
        return np.repeat(np.where(wall > 0, 90, 250).astype(np.uint8)[..., None], 3, -1)

    def to_map(self, positions: Array) -> Array:
        """(N, 2) column and row in `render_map`'s picture."""
        return positions


def _towards(position: Array, target: Array) -> NDArray:
    """The step to the target, at most at full speed."""
    step = target - position
    return (step * np.minimum(1.0, MAX_NORM / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9))).astype(
        np.float32
    )
