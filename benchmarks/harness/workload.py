"""Random images, configurations and models of CIFAR-10's shape for the benchmarks."""

import torch
from torch import Tensor, nn

from adrbench.config.method import parse_method
from adrbench.config.presets import find_preset
from adrbench.config.settings import TrainConfig
from adrbench.data import Dataset, Images, epoch_batches
from adrbench.models.architectures import build_model

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
NUM_CLASSES = 10
#: Presets are those of the whole training set, however many images a benchmark uses.
NUM_TRAIN = 50_000
#: A small learning rate keeps the weights finite on random labels, and no benchmark reaches the
#: end of so many epochs.
SCHEDULE = {"lr": 0.001, "epochs": 10_000}


def random_images(num: int, *, seed: int = 0) -> Images:
    """Return `num` random images of CIFAR-10's size with random labels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (num, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(NUM_CLASSES, (num,), generator=generator))


def random_dataset(num_train: int, num_val: int) -> Dataset:
    """Return a data set of random images of CIFAR-10's size."""
    return Dataset(
        name="random",
        num_classes=NUM_CLASSES,
        mean=MEAN,
        std=STD,
        published=False,
        train=random_images(num_train, seed=0),
        val=random_images(num_val, seed=1),
        test=random_images(num_val, seed=2),
    )


def make_config(
    arch: str, method: str, *, batch_size: int, steps: int, num_val: int
) -> TrainConfig:
    """Return CIFAR-10's published configuration of a method with the given sizes."""
    parsed = parse_method(method)
    preset = find_preset("cifar10", arch, parsed, num_train=NUM_TRAIN)
    sizes = {"batch_size": batch_size, "steps": steps, **SCHEDULE}
    return TrainConfig.of(
        dataset="random",
        arch=arch,
        method=str(parsed),
        val_size=num_val,
        **{**preset.values, **sizes},
    )


def make_batches(images: Images, config: TrainConfig) -> list[tuple[Tensor, Tensor]]:
    """Return one epoch of training batches (N, C, H, W) and labels (N,), as a run draws them."""
    batches = epoch_batches(
        images,
        batch_size=config.batch_size,
        seed=config.seed,
        epoch=1,
        padding=config.crop_padding,
        flip=config.flip,
    )
    return list(batches)


def random_model(arch: str, *, seed: int = 0) -> nn.Module:
    """Return a model with random weights, for pixels in [0, 1], on the CPU."""
    torch.manual_seed(seed)
    return build_model(arch, num_classes=NUM_CLASSES, mean=MEAN, std=STD)


def evaluation_model(arch: str) -> nn.Module:
    """Return a random model in eval mode whose BatchNorm layers are not the identity.

    Their scales and shifts are random, their statistics those of random images.
    """
    model = random_model(arch)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
    with torch.no_grad():
        for seed in range(3):
            model(random_images(16, seed=seed).pixels / 255)
    return model.eval()
