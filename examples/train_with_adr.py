"""Adversarial training with ADR's labels in a plain PyTorch loop. It takes 20 seconds on a CPU."""

import torch
from torch import nn
from torch.nn import functional as F

import adrbench


def train(epochs: int = 10, batch_size: int = 64) -> nn.Module:
    """Train a small network on 8x8 digits and return the model with averaged weights."""
    x, y = adrbench.load_examples("digits", split="train")  # (1437, 1, 8, 8) in [0, 1], (1437,)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten()),
        nn.Linear(64 * 4 * 4, 10),
    )
    total_steps = epochs * (len(x) // batch_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    average = adrbench.EMA(model, decay=0.98)
    rectify = adrbench.ADR(
        total_steps=total_steps, temperature=(1.0, 0.7), interpolation=(0.3, 0.9)
    )
    threat = adrbench.ThreatModel(norm="Linf", eps=0.1)
    noise = torch.Generator().manual_seed(0)
    for step in range(total_steps):
        batch = torch.randint(len(x), (batch_size,))
        clean, labels = x[batch], y[batch]
        with torch.no_grad():  # the average of the weights is the teacher
            targets = rectify(average.model(clean), labels, step)  # (N, 10), rows sum to 1
        adversarial = threat.project(clean, clean + threat.draw(clean, noise))
        for _ in range(10):  # PGD on the loss with the rectified labels
            adversarial.requires_grad_()
            loss = F.cross_entropy(model(adversarial), targets)
            (gradient,) = torch.autograd.grad(loss, adversarial)
            adversarial = threat.step(clean, adversarial.detach(), gradient, 0.025)
        loss = F.cross_entropy(model(adversarial), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model)
    return average.model


if __name__ == "__main__":
    torch.manual_seed(0)
    x_test, y_test = adrbench.load_examples("digits")
    result = adrbench.evaluate(train(), x_test, y_test, suite="pgd-20", eps=0.1, name="my loop")
    print(f"clean {result.clean_accuracy:.1%}, robust {result.robust_accuracy:.1%}")  # noqa: T201
