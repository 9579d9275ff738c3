"""The official steps of Local Aggregation in PyTorch, one after the other."""

import torch


def prepare(make, sizes, temperature, momentum):
  """A step on what `make(**sizes)` gives, for `turns.take_turns`.

  Returns:
    (run, facts): run returns (loss, length of the gradient by the vectors that
    the embeddings are normalised from).
  """
  given = make(**sizes)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  bank, labels, vectors, index = (
    torch.from_numpy(given[name]).to(device)
    for name in ('bank', 'labels', 'embedding', 'index')
  )
  index, k = index.long(), given['k']

  def run():
    shift = torch.zeros_like(vectors, requires_grad=True)
    embedding = torch.nn.functional.normalize(vectors + shift, dim=1)
    loss = _loss(bank, labels, embedding, index, k, temperature)
    loss.backward()
    with torch.no_grad():
      mixed = momentum * bank[index] + (1 - momentum) * embedding
      bank[index] = torch.nn.functional.normalize(mixed, dim=1)
    return float(loss.detach()), float(shift.grad.norm())

  return run, {}


def _loss(bank, labels, embedding, index, k, temperature):
  """Mean loss of Local Aggregation; only the k rows carry a gradient."""
  with torch.no_grad():
    neighbor = torch.topk(embedding @ bank.T, k, dim=1).indices
    close = labels[neighbor] == labels[index][:, None]
  logits = torch.einsum('bkd,bd->bk', bank[neighbor], embedding) / temperature
  nearby = logits.masked_fill(~close, float('-inf')).logsumexp(dim=1)
  ratio = (nearby - logits.logsumexp(dim=1)).exp()
  return -torch.log(ratio + 1e-7).mean()
