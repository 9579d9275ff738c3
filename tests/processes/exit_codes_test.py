from vie_jax.processes import exit_codes


def test_codes_that_end_all_tries_are_told_from_the_one_that_does_not():
  assert exit_codes.RETRY not in exit_codes.FINAL
  assert {*exit_codes.FINAL} == {0, 2, 130}
