"""Lloyd's iterations in PyTorch, a chunk of vectors at a time."""

import torch

_CHUNK = 16_384


def prepare(points, first, iterations):
  """Makes the function that clusters.

  Args:
    points: float32 [N, D] of NumPy.
    first: float32 [C, D], the first centroids.
    iterations: of Lloyd.

  Returns:
    A function without arguments to (centroids float32 [C, D], labels int64 [N])
    of NumPy. An empty cluster keeps its centroid.
  """
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  points, first = (torch.from_numpy(x).to(device) for x in (points, first))

  @torch.no_grad()
  def fit():
    centroids = first
    for _ in range(iterations):
      centroids = _move(points, _assign(points, centroids), centroids)
    label = _assign(points, centroids).cpu()
    return centroids.cpu().numpy(), label.numpy()

  return fit


def _assign(points, centroids):
  half = -0.5 * centroids.square().sum(dim=1)
  return torch.cat(
    [
      torch.addmm(half, chunk, centroids.T).max(dim=1).indices
      for chunk in points.split(_CHUNK)
    ]
  )


def _move(points, label, centroids):
  sums = torch.zeros_like(centroids).index_add_(0, label, points)
  sizes = torch.bincount(label, minlength=len(centroids))[:, None]
  return torch.where(sizes > 0, sums / sizes.clamp(min=1), centroids)
