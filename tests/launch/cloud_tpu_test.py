"""Cloud TPU: the commands of gcloud, whatever the cloud answers."""

import shlex

import cloud_tpu
import pytest
from tpu import queued_resource, tpu_launch

from vie_jax.processes import exit_codes

OPTIONS = (
  '--name=vie',
  '--zone=us-central2-b',
  '--project=my-project',
)
RUN = (
  'run',
  *OPTIONS,
  '--accelerator-type=v5litepod-16',
  '--bucket=my-bucket',
  '--poll-seconds=0',
)
TRAINING = (
  '--',
  '--config=configs/vie_slowfast.py',
  '--workdir=/mnt/bucket/it is here',
  '--config.dataset.dir=gs://my-bucket/data',
)
STATE = '--format=value(state.state)'
WORKERS = 'tpu_worker.sh state'
NOT_FOUND = {
  'err': 'ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: '
  "Resource 'projects/my-project/locations/us-central2-b/queuedResources/vie' "
  'was not found\n',
  'code': 1,
}
UNAVAILABLE = {'err': 'ERROR: (gcloud) HTTPError 503\n', 'code': 1}


def states(*names):
  """Answers to the question for the state; None is none of that name."""
  return [{'out': f'{name}\n'} if name else NOT_FOUND for name in names]


def workers(*answers):
  """Answers of four workers: 'running', 'none' or an exit code."""
  lines = []
  for answer in answers:
    is_code = answer.lstrip('-').isdigit()
    lines.append(f'vie_jax exited {answer}' if is_code else f'vie_jax {answer}')
  return {'out': '\n'.join(lines) + '\n'}


DONE = workers('0', '0', '0', '0')
BUSY = workers('running', 'running', '0', 'running')


@pytest.fixture
def cloud(stand_ins, tmp_path, monkeypatch):
  """Sets what gcloud answers; runs the command."""
  monkeypatch.setattr(tpu_launch, 'ARCHIVES', tmp_path / 'archives')

  def run(*options, answers, command=RUN, training=TRAINING):
    stand_ins.install('gcloud', answers=answers)
    return cloud_tpu.main([*command, *options, *training])

  return run


def verbs(stand_ins):
  """What was done, in a word each, without questions for states."""
  names = []
  for _, *words in stand_ins.calls:
    command = ' '.join(words)
    if 'tpu_worker.sh' in command and ' ssh ' in command:
      verb = command.split('tpu_worker.sh ')[1].split()[0]
    else:
      verb = words[3]
    if verb not in ('describe', 'state'):
      names.append(verb)
  return names


ONCE = ['create', 'scp', 'bootstrap', 'start']


def test_from_nothing_to_the_end(cloud, stand_ins, capsys):
  code = cloud(
    answers={
      STATE: states(None, 'ACCEPTED', 'PROVISIONING', 'ACTIVE'),
      WORKERS: [BUSY, DONE],
      'hostname': [{'out': '[host-0]\nthe end\n'}],
    }
  )
  assert code == 0
  assert verbs(stand_ins) == [*ONCE, 'ssh', 'delete']
  output = capsys.readouterr().out
  assert 'PROVISIONING' in output
  assert 'the end' in output


def test_a_dry_run_shows_the_commands_and_runs_none(cloud, stand_ins, capsys):
  answers = {STATE: states(None, 'ACTIVE'), WORKERS: [DONE]}
  assert cloud('--dry-run', '--spot', answers=answers) == 0
  assert stand_ins.calls == []
  shown = [
    shlex.split(line.removeprefix('$ '))
    for line in capsys.readouterr().out.splitlines()
    if line.startswith('$ gcloud')
  ]
  assert cloud('--spot', answers=answers) == 0
  done = stand_ins.calls
  # The questions for states are asked once in the dry run.
  assert [c for c in done if STATE not in c] == [
    c for c in shown if STATE not in c and not is_a_resubmission(c, shown)
  ]
  assert {tuple(c) for c in done} <= {tuple(c) for c in shown}


def is_a_resubmission(command, shown):
  """Of the two commands that delete, one is for a preemption."""
  return 'delete' in command and command is next(
    c for c in shown if 'delete' in c
  )


def test_what_is_asked_for(cloud, stand_ins):
  answers = {STATE: states(None, 'ACTIVE'), WORKERS: [DONE]}
  cloud('--spot', '--network=net', answers=answers)
  (create,) = [call for call in stand_ins.calls if 'create' in call]
  assert create == [
    *('gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'vie'),
    '--node-id=vie',
    '--accelerator-type=v5litepod-16',
    '--runtime-version=v2-alpha-tpuv5-lite',
    '--spot',
    '--network=net',
    '--async',
    '--zone=us-central2-b',
    '--project=my-project',
    '--quiet',
  ]


def test_all_workers_are_told_the_same_command(cloud, stand_ins):
  answers = {STATE: states('ACTIVE'), WORKERS: [DONE]}
  cloud(answers=answers)
  (start,) = [
    c for c in stand_ins.calls if 'tpu_worker.sh start' in ' '.join(c)
  ]
  assert '--worker=all' in start
  (command,) = [w for w in start if w.startswith('--command=')]
  words = shlex.split(command.removeprefix('--command='))
  commit = tpu_launch.commit_of('HEAD')
  assert words == [
    'bash',
    'tpu_worker.sh',
    'start',
    'vie',
    commit,
    *TRAINING[1:],
  ]


def test_the_code_of_the_commit_is_copied(cloud, stand_ins):
  cloud(answers={STATE: states('ACTIVE'), WORKERS: [DONE]})
  (copy,) = [call for call in stand_ins.calls if 'scp' in call]
  archive = (
    tpu_launch.ARCHIVES / f'vie_jax-{tpu_launch.commit_of("HEAD")}.tar.gz'
  )
  assert str(archive) in copy
  assert archive.stat().st_size > 10_000
  assert 'vie:' in copy


def test_one_that_is_there_is_gone_on_with(cloud, stand_ins):
  """The same command again, after Ctrl-C or a restart of this machine."""
  code = cloud(answers={STATE: states('ACTIVE'), WORKERS: [DONE]})
  assert code == 0
  assert 'create' not in verbs(stand_ins)


def test_preempted_twice_then_done(cloud, stand_ins, capsys):
  code = cloud(
    '--spot',
    answers={
      STATE: states(
        *(None, 'PROVISIONING', 'ACTIVE', 'SUSPENDED', 'SUSPENDED'),
        *(None, 'WAITING_FOR_RESOURCES', 'ACTIVE', 'ACTIVE', 'SUSPENDING'),
        *('SUSPENDED', None, 'ACTIVE'),
      ),
      WORKERS: [BUSY, DONE],
    },
  )
  assert code == 0
  assert verbs(stand_ins) == [
    *(*ONCE, 'delete', *ONCE, 'delete', *ONCE),
    *('ssh', 'delete'),
  ]
  assert 'taken away (2)' in capsys.readouterr().out


def test_preempted_before_it_is_active(cloud, stand_ins):
  code = cloud(
    answers={
      STATE: states(
        None, 'PROVISIONING', 'SUSPENDED', 'SUSPENDED', None, 'ACTIVE'
      ),
      WORKERS: [DONE],
    }
  )
  assert code == 0
  assert verbs(stand_ins) == ['create', 'delete', *ONCE, 'ssh', 'delete']


def test_taken_away_too_often(cloud, stand_ins, capsys):
  code = cloud(
    '--max-preemptions=1',
    answers={
      STATE: states(
        *('ACTIVE', 'SUSPENDED', 'SUSPENDED', None),
        *('ACTIVE', 'FAILED'),
      ),
      WORKERS: [BUSY],
    },
  )
  assert code == 75
  error = capsys.readouterr().err
  assert 'Given up after 2 preemptions' in error
  assert 'cloud_tpu.py delete --name=vie --zone=us-central2-b' in error


def test_no_quota(cloud, stand_ins, capsys):
  reason = (
    'ERROR: (gcloud...create) RESOURCE_EXHAUSTED: Quota limit '
    "'TPUV5sLitepodPerProjectPerZone' has been exceeded. Limit: 0.\n"
  )
  code = cloud(
    answers={STATE: states(None), ' create ': [{'err': reason, 'code': 1}]}
  )
  assert code == 2
  error = capsys.readouterr().err
  assert 'Quota limit' in error
  assert len(error.splitlines()) == 1


BUSY_CLOUD = {'err': 'ERROR: UNAVAILABLE: try again later\n', 'code': 1}


@pytest.mark.parametrize('verb', [' delete ', ' create '])
def test_the_cloud_fails_for_a_while_after_a_preemption(
  cloud, stand_ins, capsys, verb
):
  code = cloud(
    answers={
      STATE: states(
        *('ACTIVE', 'SUSPENDING', 'SUSPENDING', 'SUSPENDING', 'SUSPENDED'),
        *(None, None, 'ACTIVE'),
      ),
      verb: [BUSY_CLOUD, {}],
      WORKERS: [DONE],
    }
  )
  assert code == 0
  assert verbs(stand_ins).count('start') == 2
  assert 'UNAVAILABLE' in capsys.readouterr().err


def test_the_cloud_gives_no_other_one(cloud, stand_ins, capsys):
  code = cloud(
    answers={
      STATE: states('ACTIVE', 'SUSPENDED', None),
      ' create ': [BUSY_CLOUD],
    }
  )
  assert code == 75
  assert verbs(stand_ins).count('create') == tpu_launch.PATIENCE
  assert 'costs until it is deleted' in capsys.readouterr().err


@pytest.mark.parametrize('state', [None, 'DELETING'])
def test_what_was_deleted_by_hand_is_not_asked_for_again(
  cloud, stand_ins, capsys, state
):
  code = cloud(answers={STATE: states('ACTIVE', state), WORKERS: [BUSY]})
  assert code == 2
  assert 'create' not in verbs(stand_ins)
  (error,) = capsys.readouterr().err.splitlines()
  assert 'vie has been deleted' in error
  assert 'If it is still there, it costs: python launch/cloud_tpu.py' in error


def test_a_request_that_fails_is_not_made_again(cloud, stand_ins, capsys):
  code = cloud(
    answers={
      STATE: states(None, 'ACCEPTED', 'FAILED'),
      'failedData': [{'out': 'The zone has no such TPU.\n'}],
    }
  )
  assert code == 2
  assert verbs(stand_ins) == ['create']
  assert 'The zone has no such TPU' in capsys.readouterr().err


def test_a_failed_one_of_before_is_made_anew(cloud, stand_ins):
  code = cloud(
    answers={STATE: states('FAILED', None, 'ACTIVE'), WORKERS: [DONE]}
  )
  assert code == 0
  assert verbs(stand_ins)[:2] == ['delete', 'create']


def test_a_worker_that_does_not_answer_at_first(cloud, stand_ins, capsys):
  refused = {'err': 'ssh: connect to host: Connection refused\n', 'code': 255}
  code = cloud(
    answers={
      STATE: states('ACTIVE'),
      'bootstrap': [refused, refused, {}],
      WORKERS: [refused, BUSY, refused, DONE],
    }
  )
  assert code == 0
  assert verbs(stand_ins).count('bootstrap') == 3
  assert 'Connection refused' in capsys.readouterr().err


def test_a_worker_that_cannot_be_set_up(cloud, stand_ins, capsys):
  broken = {'err': 'worker 3: No space left on device\n', 'code': 1}
  code = cloud(answers={STATE: states('ACTIVE'), 'bootstrap': [broken]})
  assert code == 75
  error = capsys.readouterr().err
  assert 'worker 3: No space left on device' in error
  assert 'costs until it is deleted' in error
  assert 'start' not in verbs(stand_ins)


def test_preempted_during_the_set_up(cloud, stand_ins):
  broken = {'err': 'ssh: timed out\n', 'code': 255}
  code = cloud(
    answers={
      STATE: states('ACTIVE', 'SUSPENDED', 'SUSPENDED', None, 'ACTIVE'),
      'bootstrap': [broken, {}],
      WORKERS: [DONE],
    }
  )
  assert code == 0
  assert verbs(stand_ins).count('create') == 1


@pytest.mark.parametrize('state', [75, 134])
def test_main_stops_early_and_is_started_on_all_workers(
  cloud, stand_ins, state
):
  code = cloud(
    answers={
      STATE: states('ACTIVE'),
      WORKERS: [workers(str(state), '134', '134', '134'), DONE],
    }
  )
  assert code == 0
  assert verbs(stand_ins).count('start') == 2
  assert verbs(stand_ins).count('delete') == 1


def test_main_stops_early_too_often(cloud, stand_ins, capsys):
  early = workers('75', '75', '75', '75')
  code = cloud(
    '--max-restarts=2', answers={STATE: states('ACTIVE'), WORKERS: [early]}
  )
  assert code == 75
  assert verbs(stand_ins).count('start') == 3
  assert 'at last with exit code 75' in capsys.readouterr().err


def test_a_worker_whose_machine_was_restarted(cloud, stand_ins):
  code = cloud(
    answers={
      STATE: states('ACTIVE'),
      WORKERS: [workers('none', '134', '134', '134'), DONE],
    }
  )
  assert code == 0
  assert verbs(stand_ins).count('start') == 2


def test_what_cannot_be_helped_is_not_tried_again(cloud, stand_ins):
  code = cloud(
    answers={STATE: states('ACTIVE'), WORKERS: [workers('2', '2', '2', '134')]}
  )
  assert code == 2
  assert verbs(stand_ins) == ['scp', 'bootstrap', 'start', 'ssh', 'delete']


def test_kept(cloud, stand_ins, capsys):
  code = cloud('--keep', answers={STATE: states('ACTIVE'), WORKERS: [DONE]})
  assert code == 0
  assert 'delete' not in verbs(stand_ins)
  assert 'The TPU is kept, and costs' in capsys.readouterr().out


def test_it_is_given_back_even_if_its_log_cannot_be_read(cloud, stand_ins):
  code = cloud(
    answers={
      STATE: states('ACTIVE'),
      WORKERS: [DONE],
      'hostname': [{'err': 'gone\n', 'code': 255}],
    }
  )
  assert code == 0
  assert verbs(stand_ins)[-1] == 'delete'


def test_the_cloud_does_not_take_it_at_first(cloud, stand_ins, capsys):
  code = cloud(
    answers={
      STATE: states('ACTIVE'),
      WORKERS: [DONE],
      'queued-resources delete': [UNAVAILABLE, UNAVAILABLE, {}],
    }
  )
  assert code == 0
  assert verbs(stand_ins)[-3:] == ['delete'] * 3
  # Once, as the words are the same.
  assert capsys.readouterr().err.count('HTTPError 503') == 1


def test_the_cloud_never_takes_it(cloud, stand_ins, capsys):
  code = cloud(
    answers={
      STATE: states('ACTIVE'),
      WORKERS: [DONE],
      'queued-resources delete': [UNAVAILABLE],
    }
  )
  assert code == exit_codes.RETRY
  last = capsys.readouterr().err.splitlines()[-1]
  assert 'has ended with exit code 0, but the TPU cannot be given back' in last
  assert 'costs until it is deleted: python launch/cloud_tpu.py delete' in last


def test_it_is_gone_although_the_cloud_says_it_failed(cloud, stand_ins):
  code = cloud(
    answers={
      STATE: states('ACTIVE', 'ACTIVE', 'DELETING'),
      WORKERS: [DONE],
      'queued-resources delete': [UNAVAILABLE],
    }
  )
  assert code == 0
  assert verbs(stand_ins).count('delete') == 1


@pytest.mark.parametrize(
  'said', [workers('0'), {'out': ''}, {'out': 'vie_jax exited 0' * 4}]
)
def test_workers_that_say_nothing_have_not_ended(
  cloud, stand_ins, capsys, said
):
  code = cloud(answers={STATE: states('ACTIVE'), WORKERS: [said, BUSY, DONE]})
  assert code == 0
  assert 'of 4 workers say how they are' in capsys.readouterr().err
  code = cloud(answers={STATE: states('ACTIVE'), WORKERS: [said]})
  assert code == exit_codes.RETRY
  assert 'A worker does not answer, 10 times in a row' in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize(
  'words',
  [
    'Your credentials were not found.',
    'HttpError 404: /v2/queuedResources/vie was not found on this proxy.',
    "NOT_FOUND: Resource 'projects/p/locations/z/nodes/other' was not found",
  ],
)
def test_what_else_is_not_found_is_no_tpu_that_is_gone(cloud, stand_ins, words):
  lost = {'err': f'ERROR: {words}\n', 'code': 1}
  code = cloud(
    answers={
      STATE: [*states('ACTIVE'), lost, lost, *states('ACTIVE')],
      WORKERS: [DONE],
    }
  )
  assert code == 0
  assert 'create' not in verbs(stand_ins)


DOWN = {'err': 'ERROR: Unable to reach the server\n', 'code': 1}


def test_gcloud_fails_for_a_while(cloud, stand_ins, capsys):
  slow = {'err': 'ERROR: Deadline exceeded\n', 'code': 1}
  code = cloud(
    answers={
      STATE: [DOWN, DOWN, *states('ACTIVE'), *[DOWN] * 4, slow, slow]
      + states('ACTIVE'),
      WORKERS: [DONE],
    }
  )
  assert code == 0
  lines = capsys.readouterr().err.splitlines()
  assert [line.rpartition(': ')[2] for line in lines] == [
    'Unable to reach the server',
    'Unable to reach the server',
    'Deadline exceeded',
  ]


@pytest.mark.parametrize('seen', ['ACTIVE', 'ACCEPTED'])
def test_gcloud_fails_for_good_in_the_middle(cloud, stand_ins, capsys, seen):
  assert cloud(answers={STATE: [*states(seen), DOWN]}) == 75
  error = capsys.readouterr().err
  assert 'Unable to reach the server. The same command resumes' in error
  asked = [call for call in stand_ins.calls if STATE in call]
  assert len(asked) == 1 + tpu_launch.PATIENCE


def test_gcloud_fails_for_good_after_the_request(cloud, stand_ins, capsys):
  assert cloud(answers={STATE: [*states(None), DOWN]}) == 75
  assert 'costs until it is deleted' in capsys.readouterr().err


def test_gcloud_never_answers(cloud, stand_ins, capsys):
  assert cloud(answers={STATE: [DOWN]}) == 75
  shown, end = capsys.readouterr().err.splitlines()
  assert shown.endswith('ERROR: Unable to reach the server')
  assert 'ERROR: Unable to reach the server. The same command resumes' in end
  # Of an earlier run, for all that is known.
  assert 'A TPU that is there costs until it is deleted' in end
  assert len(stand_ins.calls) == tpu_launch.PATIENCE


NO_PROJECT = (
  'ERROR: (gcloud.compute.tpus.queued-resources.describe) The required '
  'property [project] is not currently set.\n'
  'You may set it for your current workspace by running:\n\n'
  '  $ gcloud config set project VALUE\n\n'
  'or it can be set by the environment variable [CLOUDSDK_CORE_PROJECT]\n'
)
NO_ACCOUNT = (
  'ERROR: (gcloud.compute.tpus.queued-resources.describe) You do not '
  'currently have an active account selected.\n'
  'Please run:\n\n  $ gcloud auth login\n\nto obtain new credentials.\n'
)


@pytest.mark.parametrize(
  'said, words',
  [
    (NO_PROJECT, 'property [project] is not currently set. This command'),
    (NO_ACCOUNT, 'have an active account selected. This command'),
    (
      'ERROR: (gcloud) PERMISSION_DENIED: Cloud TPU API is disabled.\n',
      'Cloud TPU API is disabled.',
    ),
  ],
)
@pytest.mark.parametrize('verb', ['describe', 'create'])
def test_a_gcloud_that_is_not_set_up(
  cloud, stand_ins, capsys, verb, said, words
):
  refused = [{'err': said, 'code': 1}]
  answers = {
    'describe': {STATE: refused},
    'create': {STATE: states(None), ' create ': refused},
  }
  assert cloud(answers=answers[verb]) == 2
  (error,) = capsys.readouterr().err.splitlines()
  assert words in error
  assert '"gcloud auth login"' in error
  assert '"gcloud config set project PROJECT"' in error
  assert 'costs' not in error
  assert verb in stand_ins.calls[-1]
  assert len(stand_ins.calls) == 1 + (verb == 'create')


def test_a_state_that_nobody_knows(cloud, stand_ins, capsys):
  assert cloud(answers={STATE: states('PONDERING')}) == 75
  shown, end = capsys.readouterr().err.splitlines()
  assert "'PONDERING', which is not known" in shown
  assert 'costs until it is deleted: python launch/cloud_tpu.py delete' in end


def test_a_state_that_is_missing_once(cloud, stand_ins, capsys):
  empty = {'out': '\n'}
  code = cloud(
    answers={STATE: [*states('ACTIVE'), empty, *states('ACTIVE')]}
    | {WORKERS: [DONE]}
  )
  assert code == 0
  assert "in the state ''" in capsys.readouterr().err


def test_an_ssh_that_hangs_hides_no_preemption(cloud, stand_ins, monkeypatch):
  monkeypatch.setattr(queued_resource, 'ANSWER_SECONDS', 2)
  code = cloud(
    answers={
      STATE: states('ACTIVE', 'ACTIVE', 'SUSPENDED', 'SUSPENDED')
      + states(None, 'ACTIVE'),
      WORKERS: [{'seconds': 600}, DONE],
    }
  )
  assert code == 0
  assert verbs(stand_ins).count('create') == 1


def test_ssh_notices_that_a_worker_is_gone(cloud, stand_ins):
  cloud(answers={STATE: states('ACTIVE'), WORKERS: [DONE]})
  for call in stand_ins.calls:
    for verb in {'ssh', 'scp'} & {*call}:
      assert f'--{verb}-flag=-o ServerAliveInterval=30' in call


@pytest.mark.parametrize('verb', ['status', 'stop', 'delete', 'run'])
def test_what_passes_by_itself_may_be_tried_again(
  cloud, stand_ins, capsys, verb
):
  busy = [{'err': 'ERROR: (gcloud) UNAVAILABLE: 503\n', 'code': 1}]
  answers = {STATE: states(None) if verb == 'run' else busy, '': busy}
  command, training = (
    ((verb, *OPTIONS), ()) if verb != 'run' else (RUN, TRAINING)
  )
  assert cloud(answers=answers, command=command, training=training) == 75
  assert 'UNAVAILABLE' in capsys.readouterr().err


def test_ctrl_c_leaves_the_tpu_alone(cloud, stand_ins, capsys, monkeypatch):
  def interrupt(unused_self):
    raise KeyboardInterrupt

  monkeypatch.setattr(tpu_launch.Launch, '_wait', interrupt)
  code = cloud(answers={STATE: states('ACTIVE'), WORKERS: [BUSY]})
  assert code == 130
  assert 'delete' not in verbs(stand_ins)
  output = capsys.readouterr().out
  assert 'goes on, and costs' in output
  assert 'cloud_tpu.py delete --name=vie' in output


def test_other_verbs(cloud, stand_ins, capsys):
  answers = {STATE: states('ACTIVE'), WORKERS: [BUSY]}
  for verb in ('status', 'logs', 'stop', 'delete'):
    assert cloud(answers=answers, command=(verb, *OPTIONS), training=()) == 0
  assert verbs(stand_ins) == ['ssh', 'stop', 'delete']
  output = capsys.readouterr().out
  assert 'vie: ACTIVE' in output
  assert 'vie_jax running' in output


@pytest.mark.parametrize(
  'options, words',
  [
    (('--zone=us',), 'is not a zone'),
    (('--name=Vie',), 'is not a name'),
    (('--name=a b',), 'is not a name'),
    (('--project=x',), 'is not the id of a project'),
    (('--bucket=gs://b',), 'is not a bucket'),
    (('--accelerator-type=v9-8',), '--accelerator-type=v9-8: write one of'),
    (('--commit=no-such',), '--commit=no-such is no commit'),
    (('--mount=/other',), 'must lie below /other'),
    (('--mount=/home',), '--mount=/home would hide /home'),
    (('--mount=/home/me/vie_jax',), 'would hide /home'),
    (('--mount=/root',), 'would hide /root'),
    (('--mount=/opt',), 'would hide /opt'),
    (('--mount=/tmp',), 'would hide /tmp'),
    (('--spot', '--reserved'), 'not allowed with'),
    (('--poll-seconds=-1',), 'at least 0'),
  ],
)
def test_mistakes(stand_ins, capsys, options, words):
  stand_ins.install('gcloud')
  try:
    code = cloud_tpu.main([*RUN, *options, *TRAINING])
  except SystemExit as end:
    code = end.code
  assert code == 2
  assert words in capsys.readouterr().err
  assert stand_ins.calls == []
