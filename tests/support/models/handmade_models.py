"""Tiny handmade classifiers: architectures and head shapes that transformers lacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support.models.families import CLASSES, Family


def _conv(width_in: int, width_out: int, kernel: int = 3, **more: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=False, **more),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


def _classifier(width: int, *body: nn.Module) -> nn.Sequential:
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 20), nn.Tanh(), nn.Linear(20, CLASSES))


def vgg() -> nn.Module:
    return nn.Sequential(
        _conv(3, 8),
        nn.MaxPool2d(2),
        _conv(8, 8),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 24),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(24, CLASSES),
    )


class _DenseLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], dim=1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), _DenseLayer(8), _DenseLayer(12), nn.BatchNorm2d(16)
        )
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.body(x), inplace=True)
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Inception(nn.Module):
    """Parallel branches, and an auxiliary head of the same shape in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 8, stride=2)
        self.branches = nn.ModuleList([_conv(8, 4, 1), _conv(8, 4, 3), _conv(8, 4, 5)])
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.auxiliary = nn.Linear(20, CLASSES)
        self.fc = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        x = torch.cat([*(branch(x) for branch in self.branches), self.pool(x)], dim=1)
        auxiliary = self.auxiliary(x.amax(dim=(2, 3)))
        return self.fc(x.mean(dim=(2, 3))), auxiliary


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.unit = _conv(3, 8, stride=2), _conv(4, 4)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat((left, self.unit(right)), dim=1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.fc(x.mean([2, 3]))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = _conv(3, 8, stride=2), nn.Conv2d(8, 8, 3, padding=1)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(x)
        gate = torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return self.fc(F.relu_(y * gate + x).mean((2, 3)))


class MlpMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 8, 8)
        self.tokens = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16))
        self.channels = nn.Sequential(nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2)
        x = (x + self.tokens(x)).mT
        return self.head(self.norm(x + self.channels(x)).mean(1))


class Highway(nn.Module):
    """Gates with the shape of the head, so that shapes do not identify the head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3072, CLASSES)
        self.change, self.gate = nn.Linear(CLASSES, CLASSES), nn.Linear(CLASSES, CLASSES)
        self.last = nn.Linear(CLASSES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.flatten(1)))
        gate = torch.sigmoid(self.gate(x))
        return self.last(gate * F.relu(self.change(x)) + (1 - gate) * x)


class Transformer(nn.Module):
    """Torch's encoder, whose fast path runs only without hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(192, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.reshape(-1, 16, 192)))[:, 0])


class Recurrent(nn.Module):
    """Reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(96, 12, batch_first=True)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(x.transpose(1, 2).flatten(2))
        return self.head(states[:, -1])


class PreActivation(nn.Module):
    """A residual net with its activations before the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(n, 8, 3, padding=1) for n in (3, 8, 8))
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(self.a(x.relu()).relu())
        return self.fc(F.avg_pool2d(self.norm(x).relu(), 32).view(len(x), -1))


class ConvMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.deep = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in range(3)])
        self.point, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](F.gelu(self.embed(x)))
        x = x + self.norms[1](F.gelu(self.deep(x)))
        return self.head(self.norms[2](F.gelu(self.point(x))).mean((2, 3)))


class Maxout(nn.Module):
    """The maximum of two linear maps instead of an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3072, 12), nn.Linear(3072, 12)
        self.out = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.out(torch.maximum(self.a(x), self.b(x)))


class NetInNet(nn.Module):
    """A 1x1 convolution gives a map of logits, which is averaged over space."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(3, 8, stride=2), _conv(8, 8, 1))
        self.score, self.pool = nn.Conv2d(8, CLASSES, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.score(self.body(x))).flatten(1)


class MobileNetV3(nn.Module):
    """A head that is a 1x1 convolution after pooling, followed by a reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Hardswish(), nn.AdaptiveAvgPool2d(1))
        self.wide, self.head = nn.Conv2d(8, 16, 1), nn.Conv2d(16, CLASSES, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.hardswish(self.wide(self.body(x)))).squeeze((2, 3))


def wave_net() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(2),
        nn.Conv1d(3, 8, 9, 4),
        nn.ReLU(),
        nn.Conv1d(8, CLASSES, 1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )


def resnext() -> nn.Module:
    return _classifier(16, _conv(3, 8, stride=2), _conv(8, 8, groups=4), _conv(8, 16, 1))


def all_convolutional() -> nn.Module:
    """Return a model whose head is a 1x1 convolution after pooling."""
    return nn.Sequential(
        _conv(3, 8, stride=2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, CLASSES, 1), nn.Flatten()
    )


FAMILIES = {
    "MLP": Family(mlp, "3", False),
    "VGG": Family(vgg, "8", True),
    "DenseNet": Family(DenseNet, "classifier", True),
    "Inception": Family(Inception, "fc", True, output=0),
    "ShuffleNet": Family(ShuffleNet, "fc", True),
    "SE-ResNet": Family(SqueezeExcite, "fc", True),
    "MLP-Mixer": Family(MlpMixer, "head", False),
    "Highway": Family(Highway, "last", False),
    "Transformer": Family(Transformer, "head", False),
    "LSTM": Family(Recurrent, "head", False),
    "PreAct-ResNet": Family(PreActivation, "fc", True),
    "ConvMixer": Family(ConvMixer, "head", False),
    "Maxout": Family(Maxout, "out", False),
    "Network in network": Family(NetInNet, "score", True, pooled=True),
    "MobileNetV3": Family(MobileNetV3, "head", False),
    "1-D convolutions": Family(wave_net, "3", True, pooled=True),
    "ResNeXt": Family(resnext, "5", True),
    "All-convolutional": Family(all_convolutional, "2", True),
}
"""Families by name, each with a different architecture."""
