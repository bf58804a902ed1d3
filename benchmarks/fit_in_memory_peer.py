"""A contender of fit_in_memory.py in a process of its own: loop, fit or in_memory."""

import sys

from benchmarks import common

common.one_thread()

from benchmarks import fit_in_memory as benchmark  # noqa: E402


def loop():
    """What a PyTorch user writes: tensors, randperm, Adam, no DataLoader."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.from_numpy(benchmark.digits())
    encoder = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 16)
    )
    decoder = nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)
    )
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def run():
        for _ in range(benchmark.EPOCHS):
            order = torch.randperm(len(x))
            total = torch.zeros(())
            for start in range(0, len(x), benchmark.BATCH):
                batch = x[order[start : start + benchmark.BATCH]]
                mean, log_variance = encoder(batch).chunk(2, dim=-1)
                noise = torch.randn_like(mean)
                logits = decoder(mean + torch.exp(0.5 * log_variance) * noise)
                bits = nn.functional.softplus(logits) - batch * logits
                kl = torch.exp(log_variance) + mean**2 - 1.0 - log_variance
                loss = bits.sum(-1).mean() + 0.5 * kl.sum(-1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(batch)
            float(total / len(x))

    return run


if __name__ == "__main__":
    kinds = {
        "loop": loop,
        "fit": benchmark.keras_fit,
        "in_memory": benchmark.in_memory,
    }
    common.serve(kinds[sys.argv[1]]())
