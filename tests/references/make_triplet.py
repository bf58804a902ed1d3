"""Vectors of the triplet losses, from pytorch-metric-learning 2.9.0.

Every case states what that library leaves to its defaults: it normalizes embeddings
(``LpDistance(normalize_embeddings=True)``) and averages over the triplets with a
loss above zero (``AvgNonZeroReducer``).
"""

import json
from pathlib import Path

import numpy as np
import pytorch_metric_learning
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

generator = torch.Generator().manual_seed(6)
embeddings = torch.randn(12, 6, generator=generator)
labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
# For the semi-hard case every anchor has one positive, so that "hardest positive,
# nearest farther negative" is the pair's semi-hard triplet.
pairs = torch.arange(6).repeat_interleave(2)
close = embeddings[::2].repeat_interleave(2, 0) + 0.9 * embeddings


def batch_hard(distance):
    return miners.BatchHardMiner(distance=distance)


def semi_hard(distance):
    return miners.BatchEasyHardMiner(
        pos_strategy="hard", neg_strategy="semihard", distance=distance
    )


def every(distance):
    return lambda x, y: None


settings = {  # name: (margin, normalise, power, smooth)
    "unit": (0.2, True, 1, False),
    "euclidean": (1.0, False, 1, False),
    "squared": (4.0, False, 2, False),
    "soft": (0.0, False, 1, True),
}
minings = {
    "hard": (batch_hard, embeddings, labels),
    "semi": (semi_hard, close, pairs),
    "all": (every, embeddings, labels),
}
means = {"mean": reducers.MeanReducer, "nonzero": reducers.AvgNonZeroReducer}

arrays = {
    "in/embeddings": embeddings.numpy(),
    "in/labels": labels.numpy(),
    "in/close": close.numpy(),
    "in/pairs": pairs.numpy(),
}
for mining, (make_miner, x, y) in minings.items():
    for setting, (margin, normalise, power, smooth) in settings.items():
        distance = distances.LpDistance(
            normalize_embeddings=normalise, p=2, power=power
        )
        mined = make_miner(distance)(x, y)
        if mining == "semi":
            anchors = len(set(mined[0].tolist()))
            assert anchors == len(x), "each anchor needs a farther negative"
        for name, reducer in means.items():
            loss = losses.TripletMarginLoss(
                margin=margin, smooth_loss=smooth, distance=distance, reducer=reducer()
            )
            leaf = x.clone().requires_grad_(True)
            value = loss(leaf, y, mined)
            value.backward()
            arrays[f"out/{mining}/{setting}/{name}"] = value.detach().numpy()
            arrays[f"g/{mining}/{setting}/{name}"] = leaf.grad.numpy()
arrays["meta"] = np.array(
    json.dumps(
        {
            "library": "pytorch-metric-learning",
            "version": pytorch_metric_learning.__version__,
            "torch": torch.__version__,
            "margin": {name: value[0] for name, value in settings.items()},
        }
    )
)
path = Path(__file__).with_name("triplet.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes")
for key, value in arrays.items():
    if key.startswith("out/"):
        print(f"{key:32s} {float(value):.6f}")
