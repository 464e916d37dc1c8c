"""Pictures for people: what the decoder's loss weighs, and what it gives back."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from modules.decoder import Config, Decoder, decoder_loss
from modules.types import Observation, State

CONFIG = Config(hidden=8, width=4)


def born(pixels: tuple[int, int, int] | None = (1, 17, 19), sensors: int = 0) -> Decoder:
    torch.manual_seed(0)
    return Decoder(CONFIG, 12, 2, (3, 2, 2), pixels, sensors)


def test_the_loss_by_hand_weighs_bright_pixels_and_their_neighbours():
    decoder = born()
    state = State(torch.randn(2, 12), torch.zeros(2, 2))
    pixels = torch.zeros(2, 1, 17, 19, dtype=torch.uint8)
    pixels[0, 0, 8, 5], pixels[1, 0, 0, 18] = 255, 51
    weight = torch.ones(2, 1, 17, 19)
    weight[0, 0, 6:11, 3:8] = 21
    weight[1, 0, :3, 16:] = 1 + 20 * 0.2
    painted = decoder(state)[0].detach().double().sigmoid()
    errors = binary_cross_entropy(painted, pixels.double() / 255, reduction="none")
    expected = (errors * weight).mean().item()
    assert decoder_loss(decoder, state, Observation(pixels)).item() == pytest.approx(expected, rel=1e-5)


def test_sensors_are_squared_errors_and_states_get_no_gradient():
    decoder = born(None, sensors=3)
    state, sensors = State(torch.randn(4, 12, requires_grad=True), torch.randn(4, 2)), torch.randn(4, 3)
    loss = decoder_loss(decoder, state, Observation(sensors=sensors))
    assert loss.item() == pytest.approx((decoder(state)[1] - sensors).square().mean().item(), rel=1e-5)
    loss.backward()
    assert state.latent.grad is None and all(p.grad is not None for p in decoder.parameters())


@pytest.mark.parametrize("map_shape", [None, (3, 2, 2)])
def test_pictures_have_the_worlds_shape_whatever_the_latent(map_shape):
    torch.manual_seed(0)
    decoder = Decoder(CONFIG, 12, 2, map_shape, (2, 33, 20), 3)
    seen = decoder.picture(State(torch.randn(5, 12), torch.randn(5, 2)))
    assert seen.pixels is not None and seen.pixels.shape == (5, 2, 33, 20) and seen.pixels.dtype == torch.uint8
    assert seen.sensors is not None and seen.sensors.shape == (5, 3)
