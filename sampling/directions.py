"""Directions in w along which the styles change most: in closed form, without labels.

Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs" (SeFa), sec. 2.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from model import SynthesisLayer
from sampling.sampler import Faces

COUNT = 10  # directions that are shown


def factorise(faces: Faces) -> Tensor:
    """Return all directions [w_dim, w_dim] as rows of unit length, the strongest first.

    Each maximises the change of the styles, ||A n||^2, among all directions orthogonal to the
    previous ones (Shen and Zhou 2021, eq. 7 to 9): they are the eigenvectors of A^T A, where A
    stacks the style weights of every layer in use. Their signs are arbitrary; the largest element
    of each is made positive.
    """
    layers = list(faces.G.synthesis.layers)[: faces.layers]
    styles = [cast(SynthesisLayer, layer).style.effective_weight() for layer in layers]
    weights = torch.cat(styles).double().cpu()
    _, vectors = torch.linalg.eigh(weights.T @ weights)
    found = vectors.T.flip(0)
    largest = found.gather(1, found.abs().argmax(dim=1, keepdim=True))
    return (found * largest.sign()).float().to(faces.device)


def move_along(ws: Tensor, direction: Tensor, strengths: Sequence[float], w_std: Tensor) -> Tensor:
    """Return `ws` [1, num_ws, w_dim] moved along `direction` [w_dim], the same in every layer.

    Returns [S, num_ws, w_dim], one for each strength, in units of `w_std`.
    """
    steps = torch.tensor(strengths, device=ws.device)[:, None, None] * w_std
    return ws + steps * direction
