"""The PatchGAN discriminator: is each 70x70 patch of this IHC image real, given its H&E?

Source: Isola et al. 2017 (arXiv 1611.07004), section 3.2.2. With the defaults it has 2,768,705 parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ihc.generators.networks import norm_layer
from wsi_ihc.training.config import DiscriminatorSettings


class PatchDiscriminator(nn.Module):
    """4x4 convolutions: ``layers`` halvings, one more at full stride, one logit per patch.

    ``forward(he, ihc)`` takes two ``(n, 3, h, w)`` tensors in [-1, 1] and gives ``(n, 1, h', w')`` logits, no sigmoid.
    With three layers a logit sees 70x70 pixels; sides must be at least 24.
    """

    def __init__(self, settings: DiscriminatorSettings) -> None:
        super().__init__()
        channels = settings.base_channels
        layers: list[nn.Module] = [nn.Conv2d(6 if settings.conditional else 3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for depth in range(1, settings.layers + 1):
            wider = settings.base_channels * min(2**depth, 8)
            stride = 2 if depth < settings.layers else 1
            layers += [
                nn.Conv2d(channels, wider, 4, stride, 1, bias=settings.norm != "batch"),
                norm_layer(wider, settings.norm),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        layers.append(nn.Conv2d(channels, 1, 4, 1, 1))
        self.model = nn.Sequential(*layers)
        self.conditional = settings.conditional

    def forward(self, he: Tensor, ihc: Tensor) -> Tensor:
        logits: Tensor = self.model(torch.cat((he, ihc), dim=1) if self.conditional else ihc)
        return logits
