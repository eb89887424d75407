"""Small models and images for several test modules."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adrbench.data import Images
from adrbench.models.architectures import build_model


class Linear(nn.Module):
    """Logits that are linear in the pixels, so that attacks have known optima."""

    def __init__(self, classes: int = 3, size: int = 4, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, size * size, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = (x.flatten(1) - 0.5) @ self.weight.T
        return logits


def make_images(n: int, classes: int = 3, size: int = 4, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(classes, (n,), generator=generator))


def labelled_by(model: nn.Module, images: Images) -> Images:
    """Return the images with the predictions of `model` as labels."""
    with torch.no_grad():
        return Images(images.pixels, model(images.pixels / 255).argmax(1))


def train_small_net(images: Images, classes: int, steps: int = 60) -> nn.Module:
    """Return a small network trained on the images, robust enough to have survivors."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(images.pixels.shape[1], 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(32),
        nn.ReLU(),
        nn.Linear(32, classes),
    )
    x = images.pixels / 255
    model(x[:1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        noise = 0.1 * torch.rand_like(x).sub(0.5).sign()
        loss = F.cross_entropy(model((x + noise).clamp(0, 1)), images.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def build_trained(arch: str) -> nn.Module:
    """Return a model whose BatchNorm statistics and weights differ from their initial values."""
    torch.manual_seed(0)
    model = build_model(arch, num_classes=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    for layer in batch_norms(model):
        for parameter in (layer.weight, layer.bias):
            nn.init.uniform_(parameter, 0.5, 1.5)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.normal_(0, 0.5)
        layer.running_var.uniform_(0.5, 2)
    return model.train()


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
