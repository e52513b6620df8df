"""The memory of a stage as a low-rank Gaussian of each block: mean and largest principal components (idea 5)."""

from typing import Any

import torch
from pydantic import Field

from moextend.extension.router_memory import Memory
from moextend.extension.tensor_files import read_tensors, write_tensors

from ._base import OpenProblem

FILE = "gaussian.safetensors"


class GaussianMemory(OpenProblem):
    """Samples of a Gaussian stand for the kept router inputs."""

    class Config(OpenProblem.Config):
        """What can be set."""

        rank: int = Field(16, ge=0)
        """Number of principal components that are kept."""

    config: Config

    def write(self, kept: Any, folder: Any) -> None:
        """Writes mean and components of each block."""
        write_tensors(
            folder / FILE,
            {str(layer): fitted(x, self.config.rank) for layer, x in kept.router_inputs.items()},
        )

    def read(self, folder: Any) -> Any:
        """Samples of the Gaussians."""
        found = read_tensors(folder / FILE)
        return Memory({int(layer): drawn(rows, self.config.memory_tokens) for layer, rows in found.items()})


def fitted(x: torch.Tensor, rank: int) -> torch.Tensor:
    """[1 + rank, H]: mean of x [N, H], and its `rank` largest principal components, each as long as its deviation."""
    mean = x.mean(0)
    _, sizes, directions = torch.linalg.svd(x - mean, full_matrices=False)
    scale = (sizes / max(1, len(x) - 1) ** 0.5).unsqueeze(-1)
    return torch.cat([mean.unsqueeze(0), (scale * directions)[:rank]]).contiguous()


def drawn(rows: torch.Tensor, count: int, seed: int = 0) -> torch.Tensor:
    """`count` samples [count, H] of the Gaussian with mean and components `rows` [1 + rank, H]."""
    noise = torch.randn(count, len(rows) - 1, generator=torch.Generator().manual_seed(seed))
    return rows[0] + noise @ rows[1:]
