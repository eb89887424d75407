"""The plain reference of a whole epoch: a data loader, the steps, and a PGD validation.

As in published repositories, images are cropped and flipped one by one on the CPU, each batch is
moved to the device when it is needed, the loss is read after every step, and student and average
are validated in eager float32.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from adrbench.config.settings import TrainConfig
from adrbench.data import Dataset, Images
from benchmarks.reference.training_step import Trainer, draw_uniform_start, run_pgd

VALIDATION_BATCH = 250


class CroppedImages(TorchDataset[tuple[Tensor, Tensor]]):
    """Labelled images, each cropped and flipped at random on access."""

    def __init__(self, images: Images, padding: int) -> None:
        self.images = images
        self.padding = padding

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = self.images.pixels[index]
        height, width = pixels.shape[1:]
        image = F.pad(pixels.float() / 255, [self.padding] * 4)
        top, left = torch.randint(2 * self.padding + 1, (2,)).tolist()
        image = image[:, top : top + height, left : left + width]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return image, self.images.labels[index]


class EpochTrainer:
    """Trains epochs of the plain reference.

    `workers` is the number of processes that crop and flip; 0 uses this process.
    """

    def __init__(
        self,
        trainer: Trainer,
        dataset: Dataset,
        directory: Path,
        *,
        workers: int,
        device: torch.device,
    ) -> None:
        self.trainer = trainer
        self.device = device
        self.file = directory / "last.pt"
        batch_size = trainer.config.batch_size
        pinned = device.type == "cuda"
        self.train = DataLoader(
            CroppedImages(dataset.train, trainer.config.crop_padding),
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=pinned,
        )
        images = TensorDataset(dataset.val.pixels / 255, dataset.val.labels)
        self.val = DataLoader(images, batch_size=VALIDATION_BATCH, pin_memory=pinned)
        self.num_done = 0

    def run(self) -> dict[str, int]:
        """Train, validate and save one epoch; return the counts of correct images."""
        total = 0.0
        for index, (x, y) in enumerate(self.train):
            step = self.num_done * len(self.train) + index
            loss = self.trainer.step(x.to(self.device), y.to(self.device), step)
            total += loss.item()
        models = {"student": self.trainer.model, "average": self.trainer.average}
        counts: dict[str, int] = {}
        for name, model in models.items():
            if model is not None:
                model.eval()
                counts |= self.validate(name, model)
        self.trainer.model.train()
        state = {name: model.state_dict() for name, model in models.items() if model is not None}
        torch.save(state | {"optimizer": self.trainer.optimizer.state_dict()}, self.file)
        self.num_done += 1
        return counts

    def validate(self, name: str, model: nn.Module) -> dict[str, int]:
        """Count the images that a model classifies correctly, clean and under PGD."""
        clean = robust = 0
        for images, labels in self.val:
            x, y = images.to(self.device), labels.to(self.device)
            x_adv = attack(self.trainer.config, model, x, y)
            with torch.no_grad():
                clean += count_correct(model(x), y)
                robust += count_correct(model(x_adv), y)
        return {f"{name}_clean": clean, f"{name}_robust": robust}


def count_correct(logits: Tensor, labels: Tensor) -> int:
    """Count the images whose logits (N, num_classes) are finite and predict `labels` (N,)."""
    correct = logits.isfinite().all(1) & (logits.argmax(1) == labels)
    return int(correct.sum().item())


def attack(config: TrainConfig, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return adversarial examples by the training attack against a model in eval mode."""
    start = draw_uniform_start(config, x)
    return run_pgd(config, x, start, lambda x_adv: F.cross_entropy(model(x_adv), y))
