from vie_jax.classifiers.plateau import Plateau


def run(accuracies, **options):
  """Drops after each evaluation, and whether it ended there."""
  state, history = Plateau(), []
  for accuracy in accuracies:
    state = state.after(accuracy, **options)
    history.append((state.drops, state.is_over))
    if state.is_over:
      break
  return history


def test_the_rate_drops_after_patience_and_the_training_ends_after_the_last():
  history = run([0.5] * 10, patience=2, num_drops=2)
  drops = [0, 0, 1, 1, 2, 2, 2]
  assert history == [(d, False) for d in drops[:-1]] + [(2, True)]


def test_a_better_accuracy_starts_the_wait_anew_and_an_equal_one_does_not():
  history = run([0.1, 0.1, 0.2, 0.2, 0.1, 0.3], patience=3, num_drops=1)
  assert [drops for drops, _ in history] == [0] * 6
  history = run([0.1, 0.2, 0.2, 0.1, 0.2], patience=3, num_drops=1)
  assert [drops for drops, _ in history] == [0, 0, 0, 0, 1]


def test_without_drops_saturation_is_the_end():
  assert run([0.5, 0.4, 0.4], patience=2, num_drops=0)[-1] == (0, True)
