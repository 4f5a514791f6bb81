"""Directions in w without labels: where the styles change most, in closed form.

Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs" (SeFa), sec. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from model import SynthesisLayer
from sampling.sampler import Faces

COUNT = 10  # directions on the sheet of all


def factorise(faces: Faces) -> Tensor:
    """Return all directions [w_dim, w_dim], one a row, of length 1, the strongest first.

    They maximise the change of the styles ||A n||^2 in turn, each at right angles to those
    before (Shen and Zhou 2021, eq. 7 to 9): the eigenvectors of A^T A, A being the weights of the
    style of every layer in use. The largest element of each is positive, as its sign is free.
    """
    layers = list(faces.G.synthesis.layers)[: faces.layers]
    styles = [cast(SynthesisLayer, layer).style.effective_weight() for layer in layers]
    weights = torch.cat(styles).double().cpu()
    _, vectors = torch.linalg.eigh(weights.T @ weights)
    found = vectors.T.flip(0)
    largest = found.gather(1, found.abs().argmax(dim=1, keepdim=True))
    return (found * largest.sign()).float().to(faces.device)


def moved(faces: Faces, ws: Tensor, direction: Tensor, strengths: Sequence[float]) -> Tensor:
    """Return `ws` [1, num_ws, w_dim] moved along `direction` [w_dim] in every layer: [S, ...].

    A strength of 1 is one standard deviation of w.
    """
    steps = torch.tensor(strengths, device=ws.device)[:, None, None] * faces.spread()
    return ws + steps * direction
