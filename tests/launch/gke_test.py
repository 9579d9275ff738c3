"""GKE: the JobSet that is written, by its schemas and by running its command."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import gke
import jsonschema
import kubernetes_validate
import pytest
import yaml
from job import training_command
from job.training_command import LaunchError

OPTIONS = ('--name=vie', '--image=registry.example/vie_jax:tpu')
TPU = ('--tpu=v5litepod', '--topology=4x4', '--bucket=my-bucket')
GPU = (
  '--gpu=nvidia-h100-80gb',
  '--gpus-per-node=8',
  '--nodes=2',
  '--claim=my-claim',
)
TRAINING = (
  '--',
  '--config=configs/vie_slowfast.py',
  '--workdir=/mnt/bucket/vie',
  '--config.dataset.dir=gs://my-bucket/data',
)
# Versions of Kubernetes that GKE has had lately.
KUBERNETES = ('1.31', '1.33', '1.35')
# The part of JobSet's own schema that is used here, closed against anything
# else. Source: api/jobset/v1alpha2/jobset_types.go and the CRD of
# kubernetes-sigs/jobset, September 2026.
SCHEMA = json.loads(
  pathlib.Path(__file__).with_name('jobset_schema.json').read_text()
)


def shown(capsys, *options, training=TRAINING):
  """The YAML of a dry run."""
  assert gke.main(['run', *OPTIONS, '--dry-run', *options, *training]) == 0
  output = capsys.readouterr().out
  return output[output.index('# Written by') : output.index('# end of ')]


def job_set(capsys, *options, **keywords):
  return yaml.safe_load(shown(capsys, *options, **keywords))


def job_of(document):
  (replicated,) = document['spec']['replicatedJobs']
  return replicated['template']['spec']


def pod_of(document):
  return job_of(document)['template']['spec']


def train_of(document):
  (container,) = pod_of(document)['containers']
  return container


CASES = {
  'tpu': TPU,
  'one host': ('--tpu=v6e', '--topology=2x4', '--claim=c'),
  'cubes': ('--tpu=v5p', '--topology=2x2x2', '--bucket=bbb', '--spot'),
  'gpu': GPU,
  'everything': (
    *GPU[:2],
    *('--bucket=bbb', '--mount=/mnt', '--service-account=trainer', '--spot'),
    *('--namespace=ml', '--cpu=90', '--memory=200Gi', '--shared-memory=16Gi'),
    *('--max-restarts=3', '--grace-seconds=90'),
  ),
}


@pytest.mark.parametrize('options', CASES.values(), ids=CASES)
def test_it_fits_the_schemas(capsys, options):
  document = job_set(capsys, *options)
  jsonschema.validate(document, SCHEMA)
  job = {
    'apiVersion': 'batch/v1',
    'kind': 'Job',
    'metadata': {'name': 'worker'},
    'spec': job_of(document),
  }
  for version in KUBERNETES:
    kubernetes_validate.validate(job, version, strict=True)


def test_the_schemas_find_mistakes(capsys):
  document = job_set(capsys, *TPU)
  document['spec']['failurePolicy']['maxRestart'] = 3
  with pytest.raises(jsonschema.ValidationError, match='maxRestart'):
    jsonschema.validate(document, SCHEMA)
  job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'w'}}
  pod_of(document)['terminationGracePeriod'] = 3
  with pytest.raises(kubernetes_validate.ValidationError):
    kubernetes_validate.validate(
      job | {'spec': job_of(document)}, KUBERNETES[-1], strict=True
    )


def test_a_tpu_slice(capsys):
  document = job_set(capsys, *TPU)
  job, pod = job_of(document), pod_of(document)
  assert (job['parallelism'], job['completions']) == (4, 4)
  assert train_of(document)['resources']['limits'] == {'google.com/tpu': '4'}
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': 'tpu-v5-lite-podslice',
    'cloud.google.com/gke-tpu-topology': '4x4',
  }
  assert 'tolerations' not in pod


def test_nodes_with_gpus(capsys):
  document = job_set(capsys, *GPU, '--spot')
  assert job_of(document)['parallelism'] == 2
  assert train_of(document)['resources']['limits'] == {'nvidia.com/gpu': '8'}
  assert pod_of(document)['nodeSelector'] == {
    'cloud.google.com/gke-accelerator': 'nvidia-h100-80gb',
    'cloud.google.com/gke-spot': 'true',
  }
  (toleration,) = pod_of(document)['tolerations']
  assert toleration['key'] == 'cloud.google.com/gke-spot'


def test_processes_find_each_other(capsys):
  """Names as Kubernetes gives them: JOBSET-JOB-0-INDEX.SUBDOMAIN."""
  document = job_set(capsys, *TPU)
  environment = {v['name']: v for v in train_of(document)['env']}
  network = document['spec']['network']
  assert network['enableDNSHostnames'] is True
  (replicated,) = document['spec']['replicatedJobs']
  host = f'vie-{replicated["name"]}-0-0.{network["subdomain"]}'
  (port,) = train_of(document)['ports']
  assert environment['JAX_COORDINATOR_ADDRESS']['value'] == (
    f'{host}:{port["containerPort"]}'
  )
  assert environment['JAX_NUM_PROCESSES']['value'] == '4'
  assert environment['JAX_PROCESS_ID']['valueFrom']['fieldRef'] == {
    'fieldPath': "metadata.annotations['batch.kubernetes.io/job-completion-index']"
  }
  assert job_of(document)['completionMode'] == 'Indexed'


def outcome(document, exit_code):
  """What the controllers do with a pod that ends so, by their references."""
  if exit_code == 0:
    return 'goes on'
  job, policy = job_of(document), document['spec']['failurePolicy']
  assert job['backoffLimit'] == 0
  assert pod_of(document)['restartPolicy'] == 'Never'
  reason = 'BackoffLimitExceeded'
  for rule in job['podFailurePolicy']['rules']:
    codes = rule['onExitCodes']
    assert codes['containerName'] == train_of(document)['name']
    if (exit_code in codes['values']) == (codes['operator'] == 'In'):
      reason = {'FailJob': 'PodFailurePolicy'}[rule['action']]
      break
  for rule in policy['rules']:
    if reason in rule['onJobFailureReasons']:
      return rule['action']
  return 'RestartJobSet'


@pytest.mark.parametrize(
  'exit_code, expected',
  [
    (0, 'goes on'),
    (2, 'FailJobSet'),
    (75, 'RestartJobSet'),
    (134, 'RestartJobSet'),
    (137, 'RestartJobSet'),
    (1, 'RestartJobSet'),
  ],
)
def test_exit_codes(capsys, exit_code, expected):
  assert outcome(job_set(capsys, *TPU), exit_code) == expected


def test_restarts_have_an_end_and_leave_time_for_a_save(capsys):
  document = job_set(capsys, *TPU)
  assert document['spec']['failurePolicy']['maxRestarts'] == 100
  # Two trainings must not write to one workdir.
  assert document['spec']['failurePolicy']['restartStrategy'] == (
    'BlockingRecreate'
  )
  assert pod_of(document)['terminationGracePeriodSeconds'] == 180
  document = job_set(capsys, *TPU, '--max-restarts=3', '--grace-seconds=60')
  assert document['spec']['failurePolicy']['maxRestarts'] == 3
  assert pod_of(document)['terminationGracePeriodSeconds'] == 60


def test_the_workdir_is_in_a_bucket(capsys):
  document = job_set(capsys, *TPU, '--service-account=trainer')
  volumes = {v['name']: v for v in pod_of(document)['volumes']}
  csi = volumes['workdir']['csi']
  assert csi['driver'] == 'gcsfuse.csi.storage.gke.io'
  assert csi['volumeAttributes']['bucketName'] == 'my-bucket'
  assert f'uid={gke.USER}' in csi['volumeAttributes']['mountOptions']
  annotations = job_of(document)['template']['metadata']['annotations']
  assert annotations == {'gke-gcsfuse/volumes': 'true'}
  assert pod_of(document)['serviceAccountName'] == 'trainer'


def test_the_workdir_is_in_a_claim(capsys):
  document = job_set(capsys, *GPU)
  volumes = {v['name']: v for v in pod_of(document)['volumes']}
  assert volumes['workdir']['persistentVolumeClaim'] == {
    'claimName': 'my-claim'
  }
  assert 'metadata' not in job_of(document)['template']


def test_shared_memory_is_not_the_64_megabytes_of_docker(capsys):
  document = job_set(capsys, *GPU, '--shared-memory=16Gi')
  (mount,) = [
    m
    for m in train_of(document)['volumeMounts']
    if m['mountPath'] == '/dev/shm'
  ]
  volumes = {v['name']: v for v in pod_of(document)['volumes']}
  assert volumes[mount['name']]['emptyDir'] == {
    'medium': 'Memory',
    'sizeLimit': '16Gi',
  }


def given(word, variables):
  """What Kubernetes makes of a word: $$ is $, and $(NAME) a variable."""
  return re.sub(
    r'\$(?:(\$)|\((.*?)\))',
    lambda found: found[1] or variables.get(found[2], found[0]),
    word,
  )


def test_words_arrive_as_they_are(capsys):
  odd = 'a: "b" # $HOME \\n é 🎬 {{c}} $(JAX_PROCESS_ID) a$$b $$(X)$'
  words = (*TRAINING[1:], f'--config.retrieve.name={odd}')
  container = train_of(job_set(capsys, *TPU, training=('--', *words)))
  assert container['command'] == ['python', 'main.py']
  variables = {'JAX_PROCESS_ID': '3', 'X': 'x', 'HOME': '/root'}
  assert [given(word, variables) for word in container['args']] == list(words)


def test_a_dry_run_writes_and_applies_nothing(capsys, stand_ins, monkeypatch):
  monkeypatch.setattr(gke, 'MANIFESTS', stand_ins.folder / 'manifests')
  stand_ins.install('kubectl')
  shown(capsys, *TPU)
  assert stand_ins.calls == []
  assert not gke.MANIFESTS.exists()


def test_what_is_applied_is_what_a_dry_run_shows(capfd, stand_ins, monkeypatch):
  monkeypatch.setattr(gke, 'MANIFESTS', stand_ins.folder / 'manifests')
  stand_ins.install('kubectl', answers={'': [{'out': 'jobset created\n'}]})
  expected = shown(capfd, *TPU)
  place = ('--namespace=ml', '--context=mine')
  assert gke.main(['run', *OPTIONS, *TPU, *place, *TRAINING]) == 0
  path = gke.MANIFESTS / 'vie.yaml'
  namespace = '  namespace: "ml"\n'
  assert path.read_text().replace(namespace, '') == expected
  assert stand_ins.calls == [['kubectl', 'apply', f'--filename={path}', *place]]
  assert 'jobset created' in capfd.readouterr().out


def test_other_verbs(stand_ins):
  stand_ins.install('kubectl')
  for verb in ('status', 'logs', 'delete'):
    assert gke.main([verb, '--name=vie', '--namespace=ml']) == 0
  verbs = [call[1] for call in stand_ins.calls]
  assert verbs == ['get', 'get', 'logs', 'delete']
  assert all('--namespace=ml' in call for call in stand_ins.calls)


def test_kubectl_refuses(capfd, stand_ins, monkeypatch):
  monkeypatch.setattr(gke, 'MANIFESTS', stand_ins.folder / 'manifests')
  error = 'no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"\n'
  stand_ins.install('kubectl', answers={'': [{'err': error, 'code': 1}]})
  assert gke.main(['run', *OPTIONS, *TPU, *TRAINING]) == 2
  assert 'no matches for kind "JobSet"' in capfd.readouterr().err


@pytest.mark.parametrize('verb', ['status', 'logs', 'delete'])
@pytest.mark.parametrize(
  'said, code',
  [
    (
      'E1128 memcache.go:265] couldn\'t get the list: Get "https://10.0.0.1/api"'
      '\nThe connection to the server 10.0.0.1 was refused - did you specify '
      'the right host or port?',
      75,
    ),
    ('Unable to connect to the server: net/http: TLS handshake timeout', 75),
    ('Unable to connect to the server: dial tcp 10.0.0.1:443: i/o timeout', 75),
    ('Unable to connect to the server: EOF', 75),
    ('Error from server: etcdserver: request timed out', 75),
    ('Error from server (InternalError): an error on the server', 75),
    (
      'Error from server (ServiceUnavailable): the server is currently unable '
      'to handle the request',
      75,
    ),
    ('Error from server (NotFound): jobsets "vie" not found', 2),
    ('Error from server (Forbidden): jobsets is forbidden', 2),
    # There is no kubeconfig.
    (
      'E1128 memcache.go:265] dial tcp 127.0.0.1:8080: connect: connection '
      'refused\nThe connection to the server localhost:8080 was refused - did '
      'you specify the right host or port?',
      2,
    ),
    (
      'Unable to connect to the server: x509: certificate signed by unknown '
      'authority',
      2,
    ),
    (
      'Unable to connect to the server: getting credentials: exec: executable '
      'gke-gcloud-auth-plugin not found',
      2,
    ),
    ('', 2),
  ],
)
def test_what_passes_by_itself_may_be_tried_again(
  capfd, stand_ins, verb, said, code
):
  stand_ins.install('kubectl', answers={'': [{'err': f'{said}\n', 'code': 1}]})
  assert gke.main([verb, '--name=vie']) == code
  *above, last = capfd.readouterr().err.splitlines()
  assert above == said.split('\n')
  assert 'failed with exit code 1: what it said is above' in last
  assert last.endswith('try the same command again.') == (code == 75)


@pytest.mark.parametrize(
  'mount, hidden',
  [
    ('/app', '/app'),
    ('/app/v', '/app'),
    ('/dev', '/dev'),
    ('/dev/shm', '/dev'),
    ('/dev/shm/v', '/dev'),
    ('/usr/local', '/usr'),
    ('/var', '/var'),
    ('/tmp', '/tmp'),
    ('/home/vie/.cache', '/home'),
  ],
)
def test_a_mount_must_not_hide_what_the_container_has(capsys, mount, hidden):
  options = (*GPU, f'--mount={mount}', '--dry-run')
  training = ('--', TRAINING[1], f'--workdir={mount}/vie', TRAINING[3])
  assert gke.main(['run', *OPTIONS, *options, *training]) == 2
  captured = capsys.readouterr()
  (line,) = captured.err.splitlines()
  assert f'--mount={mount} would hide {hidden}' in line
  assert captured.out == ''


def test_whatever_the_manifest_mounts_is_no_place_for_the_bucket(capsys):
  document = job_set(capsys, *GPU)
  places = [m['mountPath'] for m in train_of(document)['volumeMounts']]
  places += [train_of(document)['workingDir']]
  places.remove('/mnt/bucket')
  assert len(places) == 2
  for place in places:
    with pytest.raises(LaunchError):
      training_command.check_mount(place, gke.FOLDER)


@pytest.mark.parametrize(
  'options, words',
  [
    ((), 'either --tpu or --gpu'),
    ((*TPU, '--gpu=nvidia-l4'), 'either --tpu or --gpu'),
    (TPU[:1], '--tpu needs --topology'),
    ((*TPU, '--nodes=2'), '--nodes and --gpus-per-node go with --gpu'),
    ((*TPU, '--topology=3x3'), '--topology=3x3: v5litepod has'),
    ((*TPU, '--tpu=v3'), '--tpu=v3 must be one of'),
    (GPU[:1], '--gpu needs --gpus-per-node'),
    (GPU[:3], 'either --bucket or --claim'),
    ((*GPU, '--bucket=bbb'), 'either --bucket or --claim'),
    ((*GPU, '--mount=/else'), 'must lie below /else'),
    ((*GPU, '--mount=/mnt/../app'), 'without "." and ".."'),
    ((*TPU, '--topology=４x４'), '--topology=４x４: write numbers'),
    ((*GPU, '--nodes=２'), 'is not a whole number'),
    ((*GPU, '--name=V'), 'is not a name'),
    ((*GPU, '--namespace=a.b'), 'is not a name'),
    ((*GPU, f'--name={"v" * 41}'), 'is not a name'),
    ((*GPU, '--memory=lots'), 'is not an amount'),
    ((*GPU, '--memory=10ki'), 'is not an amount'),
    ((*GPU, '--memory=0.0Gi'), 'is not an amount'),
    ((*GPU, '--shared-memory=0Gi'), 'is not an amount'),
    ((*GPU, '--cpu=0'), 'is not a number of CPUs'),
    ((*GPU, f'--max-restarts={2**31}'), f'at most {2**31 - 1}'),
    ((*GPU, '--grace-seconds=86401'), 'at most 86400'),
    ((*GPU, '--grace-seconds=5'), 'at least 30'),
    ((*GPU, '--image=a b'), 'is not the name of an image'),
  ],
)
def test_mistakes(capsys, options, words):
  try:
    code = gke.main(['run', *OPTIONS, *options, '--dry-run', *TRAINING])
  except SystemExit as end:
    code = end.code
  assert code == 2
  assert words in capsys.readouterr().err


@pytest.mark.parametrize('verb', ['status', 'logs'])
def test_there_is_no_kubectl(capsys, tmp_path, monkeypatch, verb):
  monkeypatch.setenv('PATH', str(tmp_path))
  assert gke.main([verb, '--name=vie']) == 2
  said = capsys.readouterr().err
  assert said == (
    'Error: kubectl cannot be run (No such file or directory). Is it '
    'installed?\n'
  )


def test_ctrl_c_ends_the_logs_without_a_word(stand_ins):
  stand_ins.install_script('kubectl', 'echo line of a log; sleep 60')
  process = subprocess.Popen(
    [sys.executable, 'launch/gke.py', 'logs', '--name=vie'],
    cwd=pathlib.Path(gke.__file__).parents[1],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  while process.stdout.readline() != 'line of a log\n':
    assert process.poll() is None
  os.killpg(process.pid, signal.SIGINT)
  _, errors = process.communicate(timeout=60)
  assert (process.returncode, errors) == (0, '')
