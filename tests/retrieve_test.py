"""Retrieval of a data set and of a video file, through the real parts."""

import json
import re
import shutil

import fault_runs
import numpy as np
import pytest
import tiny_run

from vie_jax import checkpoint, experiment, retrieve, weights
from vie_jax.config import config_check
from vie_jax.input_pipeline import dataset_folder
from vie_jax.processes import preemption
from vie_jax.retrieval import page

COLUMNS = ('appearance', 'motion')


@pytest.fixture(scope='module')
def done(demo_dataset, tmp_path_factory):
  """A run of the mode: its folder of results, and what it returned."""
  workdir = tmp_path_factory.mktemp('runs') / 'first'
  config = tiny_run.config(demo_dataset, init_from='random')
  written = retrieve.retrieve(config, str(workdir))
  return workdir / 'retrieve' / 'demo_random', written


@pytest.fixture(scope='module')
def parts(demo_dataset):
  with experiment.open_experiment(tiny_run.config(demo_dataset)) as opened:
    yield opened


def mean_of(clips):
  """The mean of a video's clips [G, D], on the sphere."""
  mean = clips.sum(axis=0) / len(clips)
  return mean / np.sqrt((mean**2).sum())


def products_of(folder):
  """Cosine of each validation with each training video, by loops."""
  train, val = (
    [mean_of(clips) for clips in np.load(folder / f'embeddings_{split}.npy')]
    for split in ('train', 'val')
  )
  return np.array([[float(a @ b) for b in train] for a in val])


def run_with_files_of(kilobytes, workdir, dataset):
  """Runs the mode where no file may be larger."""
  command = tiny_run.command(
    workdir, dataset, mode='retrieve', init_from='random', num_devices=1
  )
  limit = f'ulimit -f {kilobytes}; exec "$@"'
  return fault_runs.finish(['bash', '-c', limit, 'bash', *command])


def test_embeddings_that_are_too_large_for_a_file_are_named(
  demo_dataset, tmp_path
):
  ended = run_with_files_of(8, tmp_path, demo_dataset)
  assert ended.code == fault_runs.REFUSED, ended.output
  last = ended.output.splitlines()[-1]
  assert 'embeddings_train.npy.part cannot be used: File too large.' in last


def test_a_page_stays_as_it_was_if_a_new_one_fails(
  done, demo_dataset, tmp_path
):
  folder = tmp_path / 'retrieve' / 'demo_random'
  shutil.copytree(done[0], folder)
  page = folder / 'index.html'
  before = page.read_bytes()
  # All else is smaller than the page.
  ended = run_with_files_of(len(before) // 2**10, tmp_path, demo_dataset)
  assert ended.code == fault_runs.REFUSED, ended.output
  last = ended.output.splitlines()[-1]
  assert f'{page} cannot be used: File too large.' in last
  assert 'ulimit -f' in last
  assert page.read_bytes() == before


def test_neighbours_are_the_training_videos_at_the_smallest_angle(done, parts):
  folder, _ = done
  products = products_of(folder)
  assert products.shape == (12, 36)
  kept = np.load(folder / 'neighbors.npz')
  assert kept['index'].shape == kept['similarity'].shape == (12, 36)
  for query, row in enumerate(products):
    best = np.sort(row)[::-1]
    np.testing.assert_allclose(kept['similarity'][query], best, atol=1e-5)
    np.testing.assert_allclose(row[kept['index'][query]], best, atol=1e-5)
  train, val = parts.train.store, parts.val.store
  assert kept['fingerprint'] == train.fingerprint
  assert [name.decode() for name in kept['query_ids']] == val.ids
  assert kept['ids'][3, 5].decode() == train.ids[kept['index'][3, 5]]


def test_figures_are_those_of_loops_over_the_neighbours(done, parts):
  folder, written = done
  index = np.load(folder / 'neighbors.npz')['index']
  products = products_of(folder)
  assert set(written['recall']) == set(COLUMNS)
  for column in COLUMNS:
    train, names = parts.train.label(column)
    val, _ = parts.val.label(column)
    for k in (1, 5, 10, 20, 50):
      hits = sum(
        val[query] in [train[video] for video in near[:k]]
        for query, near in enumerate(index)
      )
      assert written['recall'][column][str(k)] == pytest.approx(hits / 12)
    hits = 0
    for query, near in enumerate(index):
      votes = [0.0] * len(names)
      for video in near[:10]:
        votes[train[video]] += np.exp(products[query, video] / 0.07)
      hits += int(np.argmax(votes) == val[query])
    accuracy = written['accuracy'][column]['knn']
    assert accuracy['top1'] == pytest.approx(hits / 12)
    assert accuracy['top1'] <= accuracy['top5'] <= 1


def test_clip_accuracy_lets_each_clip_look_for_itself(done, parts):
  folder, written = done
  train = [mean_of(c) for c in np.load(folder / 'embeddings_train.npy')]
  labels, names = parts.train.label('appearance')
  truth, _ = parts.val.label('appearance')
  hits = 0
  for video, clips in enumerate(np.load(folder / 'embeddings_val.npy')):
    for clip in clips:
      similar = np.array([float(clip @ mean) for mean in train])
      votes = [0.0] * len(names)
      for near in np.argsort(-similar)[:10]:
        votes[labels[near]] += np.exp(similar[near] / 0.07)
      hits += int(np.argmax(votes) == truth[video])
  found = written['accuracy']['appearance']['knn']['clip_top1']
  assert found == pytest.approx(hits / 60)


def test_result_says_what_is_needed_to_repeat_it(done, parts):
  folder, written = done
  assert json.loads((folder / 'result.json').read_text()) == written
  assert written['mode'] == 'retrieve'
  assert written['network']['training'] == 'random'
  assert written['views'] == {
    'clips': 5,
    'crop': 'center',
    'average': 'embedding',
  }
  dataset = written['dataset']
  assert dataset['fingerprint'] == parts.train.store.fingerprint
  assert (dataset['train'], dataset['val'], dataset['split']) == (36, 12, 'val')
  assert written['heading'] == 'first, random'
  for column in COLUMNS:
    train, val = (v.label(column)[0].tolist() for v in (parts.train, parts.val))
    frequent = max(sorted(set(train)), key=train.count)
    chance = max(val.count(frequent) / 12, 1 / len(set(train)))
    assert written['chance'][column] == pytest.approx(chance)
    expected = sum(train.count(label) for label in val) / (12 * 36)
    assert written['chance_recall'][column]['1'] == pytest.approx(expected)


def page_of(folder):
  return (folder / 'index.html').read_text()


def test_page_shows_every_query_with_its_true_and_predicted_label(done, parts):
  folder, _ = done
  page = page_of(folder)
  assert page.count('<article class="query"') == 12
  assert page.count('<li class="neighbor') == 36
  assert page.count('<div class="predicted">') == 12
  kept = np.load(folder / 'neighbors.npz')
  _, names = parts.train.label('motion')
  predicted = dict(zip(kept['columns'], kept['predicted'], strict=True))
  articles = page.split('<article')[1:]
  for query, article in enumerate(articles):
    assert parts.val.store.paths[query] in article
    truth = names[parts.val.label('motion')[0][query]]
    assert f'<dt>true motion</dt><dd><bdi>{truth}</bdi>' in article
    guess = names[predicted['motion'][query]]
    verdict = 'right' if guess == truth else 'wrong'
    assert f'{verdict} motion: <bdi>{guess}</bdi>' in article
    near = re.findall(r'class="name" title="([^"]*)"', article)
    paths = parts.train.store.paths
    assert near == [paths[video] for video in kept['index'][query][:3]]


def test_several_networks_are_shown_side_by_side(done, demo_dataset, tmp_path):
  folder, first = done
  config = tiny_run.config(
    demo_dataset,
    init_from='random',
    seed=1,
    retrieve__beside=f'{folder.parents[1]}, {folder}',
    retrieve__num_queries=4,
    retrieve__num_neighbors=2,
    retrieve__name='another <seed>',
  )
  workdir = tmp_path / 'second'
  written = retrieve.retrieve(config, str(workdir))
  assert written['heading'] == 'another <seed>'
  page = page_of(workdir / 'retrieve' / 'demo_random_seed1')
  assert page.count('<article class="query"') == 4
  assert page.count('<section class="model">') == 12
  assert page.count('<li class="neighbor') == 24
  headings = re.findall(r'<h4><bdi>(.*?)</bdi>', page)
  assert headings[:3] == [
    'another &lt;seed&gt;',
    'first, random',
    'first, random (2)',
  ]
  # The table has the figures of each network.
  for result in (written, first):
    share = 100 * result['recall']['motion']['5']
    assert re.search(rf'<td class="number[^>]*>{share:.1f}', page)
  similarity = np.load(folder / 'neighbors.npz')['similarity'][0, 0]
  article = page.split('<article')[1]
  others = article.split('<section class="model">')[2]
  assert f'{similarity:.2f}</span>' in others


def test_again_it_embeds_nothing_and_makes_the_page_anew(
  done, demo_dataset, tmp_path
):
  folder, written = done
  workdir = tmp_path / 'first'
  shutil.copytree(folder.parents[1], workdir)
  folder = workdir / 'retrieve' / 'demo_random'
  before = {path.name: path.stat().st_mtime_ns for path in folder.glob('*.npy')}
  (folder / 'index.html').unlink()
  config = tiny_run.config(
    demo_dataset, init_from='random', retrieve__num_queries=1
  )
  again = retrieve.retrieve(config, str(workdir))
  assert again['recall'] == written['recall']
  assert page_of(folder).count('<article class="query"') == 1
  assert before == {
    path.name: path.stat().st_mtime_ns for path in folder.glob('*.npy')
  }


def test_fewer_training_videos_than_neighbours_are_all_found(
  demo_dataset, tmp_path, caplog
):
  config = tiny_run.config(
    demo_dataset,
    init_from='random',
    dataset__share=0.2,
    knn__num_neighbors=50,
    retrieve__num_neighbors=9,
  )
  with caplog.at_level('INFO'):
    written = retrieve.retrieve(config, str(tmp_path))
  folder = tmp_path / 'retrieve' / 'demo_random'
  kept = np.load(folder / 'neighbors.npz')
  assert kept['index'].shape == (12, 7)
  assert written['dataset']['train'] == 7
  # The rows are those of the whole data set, and only of the share.
  assert len(set(kept['index'].ravel().tolist())) == 7
  assert kept['index'].max() > 7
  recall = written['recall']['motion']
  assert recall['10'] == recall['20']
  # Of seven, ten are all.
  (line,) = (x for x in caplog.messages if x.startswith('Recall on motion'))
  assert re.findall('@[0-9]+', line) == ['@1', '@5']
  assert page_of(folder).count('<li class="neighbor') == 12 * 7


def test_embeddings_made_elsewhere_are_searched_like_a_network_s(
  demo_dataset, parts, tmp_path
):
  # They say the motion and nothing else, so that every neighbour is right.
  stores = (parts.train.store, parts.val.store)
  vectors = [
    np.eye(9, dtype=np.float32)[store.label('motion')[0]] for store in stores
  ]
  np.save(tmp_path / 'oracle.npy', np.concatenate(vectors))
  ids = [name for store in stores for name in store.ids]
  (tmp_path / 'oracle.ids.txt').write_text('\n'.join(ids) + '\n')
  config = tiny_run.config(
    demo_dataset, embeddings=str(tmp_path / 'oracle.npy')
  )
  written = retrieve.retrieve(config, str(tmp_path / 'W'))
  known = np.isin(*(s.label('motion')[0] for s in reversed(stores))).mean()
  assert written['recall']['motion']['1'] == pytest.approx(known)
  assert written['accuracy']['motion']['knn']['top1'] == pytest.approx(known)
  assert written['network']['training'] == 'foreign'
  assert written['heading'] == 'oracle'
  page = page_of(tmp_path / 'W' / 'retrieve' / 'demo_oracle')
  assert page.count('<article class="query"') == 12


@pytest.fixture(scope='module')
def unlabelled(demo_dataset, tmp_path_factory):
  """A data set of videos without labels."""
  folder = tmp_path_factory.mktemp('unlabelled')
  (folder / 'videos').mkdir()
  videos = sorted((demo_dataset.parent / 'demo-videos').rglob('*.mp4'))
  for path in videos[:16]:
    shutil.copy(path, folder / 'videos')
  tiny_run.prepare(
    'folder',
    f'--videos={folder / "videos"}',
    f'--out={folder / "prepared"}',
    '--name=plain',
    '--val-percent=30',
    '--processes=2',
  )
  return folder / 'prepared'


def test_videos_without_labels_have_neighbours_and_no_verdicts(
  unlabelled, tmp_path
):
  config = tiny_run.config(unlabelled, init_from='random')
  written = retrieve.retrieve(config, str(tmp_path))
  assert written['recall'] == written['accuracy'] == written['chance'] == {}
  page = page_of(tmp_path / 'retrieve' / 'plain_random')
  assert page.count('<article class="query"') == written['dataset']['val'] > 0
  body = page.partition('<body>')[2]
  assert 'class="mark' not in body
  assert 'class="predicted"' not in body
  assert 'have no labels' in body


def test_without_validation_videos_only_a_file_can_be_asked_for(
  demo_dataset, tmp_path
):
  tiny_run.prepare_without_val(demo_dataset, tmp_path / 'prepared')
  config = tiny_run.config(tmp_path / 'prepared', init_from='random')
  with pytest.raises(
    dataset_folder.DatasetError, match='no validation videos'
  ) as caught:
    retrieve.retrieve(config, str(tmp_path / 'W'))
  assert not (tmp_path / 'W').exists()
  assert 'to another --out, with a larger --val-percent' in str(caught.value)
  assert '--config.retrieve.query=FILE does without' in str(caught.value)
  query = demo_dataset.parent / 'demo-videos' / 'video_0000.mp4'
  config.retrieve.query = str(query)
  answer = retrieve.retrieve(config, str(tmp_path / 'W'))
  assert answer['answers'][0]['neighbors'][0]['path'] == query.name


def test_a_video_of_one_s_own_finds_itself_among_the_training_videos(
  demo_dataset, parts, tmp_path
):
  path = parts.train.store.paths[5]
  name = 'my "clip" <1>\udcff.MP4'  # with a byte that is not UTF-8
  shutil.copy(demo_dataset.parent / 'demo-videos' / path, tmp_path / name)
  config = tiny_run.config(
    demo_dataset, init_from='random', retrieve__query=str(tmp_path / name)
  )
  written = retrieve.retrieve(config, str(tmp_path / 'W'))
  [answer] = written['answers']
  nearest = answer['neighbors'][0]
  assert nearest['path'] == path
  assert nearest['id'] == parts.train.store.ids[5]
  assert nearest['similarity'] == pytest.approx(1, abs=1e-4)
  for column in COLUMNS:
    labels, names = parts.train.label(column)
    assert nearest['labels'][column] == names[labels[5]]
    votes = dict.fromkeys(names, 0.0)
    for neighbor in answer['neighbors'][:10]:
      weight = np.exp(neighbor['similarity'] / 0.07)
      votes[neighbor['labels'][column]] += weight
    assert answer['predicted'][column] == max(votes, key=votes.get)
  similarities = [found['similarity'] for found in answer['neighbors']]
  assert similarities == sorted(similarities, reverse=True)
  assert len(similarities) == 36
  (folder,) = (tmp_path / 'W' / 'retrieve' / 'demo_random').glob('query-*')
  assert re.fullmatch(r'query-my--clip---1---[0-9a-f]{8}', folder.name)
  assert sorted(p.name for p in folder.iterdir()) == [
    'index.html',
    'result.json',
  ]
  assert json.loads((folder / 'result.json').read_text()) == written
  page = page_of(folder)
  assert page.count('<article class="query"') == 1
  assert '<title>Nearest training videos of my &#34;clip&#34; &lt;1&gt;' in page
  # The file is where it was.
  assert (tmp_path / name).is_file()


def test_queries_of_the_same_name_have_an_answer_each(
  demo_dataset, parts, tmp_path, caplog
):
  videos = demo_dataset.parent / 'demo-videos'
  answers = {}
  for row, name in ((5, 'a/x.mp4'), (6, 'b/x.mp4'), (7, 'a/x.avi')):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    shutil.copy(videos / parts.train.store.paths[row], path)
    config = tiny_run.config(
      demo_dataset, init_from='random', retrieve__query=str(path)
    )
    answers[str(path)] = retrieve.retrieve(config, str(tmp_path / 'W'))
  found = [
    json.loads(path.read_text())
    for path in tmp_path.glob('W/retrieve/*/query-x-*/result.json')
  ]
  # An answer does not replace the result of the validation videos.
  config.retrieve.query = ''
  retrieve.retrieve(config, str(tmp_path / 'W'))
  config.retrieve.query = str(path)
  with caplog.at_level('INFO'):
    retrieve.retrieve(config, str(tmp_path / 'W'))
  assert 'Replacing' not in caplog.text
  assert {answer['query']: answer for answer in found} == answers


def test_a_folder_of_queries_has_one_answer(demo_dataset, parts, tmp_path):
  videos = demo_dataset.parent / 'demo-videos'
  queries = tmp_path / 'queries'
  rows = {'b/last.mp4': 7, 'first.mp4': 4, 'x.mp4': 5}
  for name, row in rows.items():
    (queries / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(videos / parts.train.store.paths[row], queries / name)
  (queries / '<broken>.mp4').write_bytes(b'this is no video')
  config = tiny_run.config(
    demo_dataset,
    init_from='random',
    retrieve__query=str(queries),
    retrieve__num_queries=2,
  )
  written = retrieve.retrieve(config, str(tmp_path / 'W'))
  assert [each['path'] for each in written['answers']] == sorted(rows)
  for each in written['answers']:
    nearest = each['neighbors'][0]
    assert nearest['path'] == parts.train.store.paths[rows[each['path']]]
    assert nearest['similarity'] == pytest.approx(1, abs=1e-4)
    assert each['predicted'].keys() == set(COLUMNS)
  assert [each['path'] for each in written['skipped']] == ['<broken>.mp4']
  [folder] = (tmp_path / 'W' / 'retrieve' / 'demo_random').glob(
    'query-queries-*'
  )
  assert json.loads((folder / 'result.json').read_text()) == written
  page = page_of(folder)
  assert page.count('<article class="query"') == 2
  assert '2 of 3 videos, evenly spread' in page
  assert '&lt;broken&gt;.mp4: ' in page
  assert '<broken>' not in page
  # Alone, a video has the same answer.
  config.retrieve.query = str(queries / 'x.mp4')
  [alone] = retrieve.retrieve(config, str(tmp_path / 'W'))['answers']
  for one, other in zip(
    alone['neighbors'], written['answers'][2]['neighbors'], strict=True
  ):
    assert one['similarity'] == pytest.approx(other['similarity'], abs=1e-5)
  assert alone['predicted'] == written['answers'][2]['predicted']


@pytest.mark.parametrize(
  'error', [preemption.Stopped, checkpoint.CheckpointError]
)
def test_a_folder_of_queries_goes_on_after_a_stop(
  demo_dataset, parts, tmp_path, monkeypatch, error
):
  queries = tmp_path / 'queries'
  queries.mkdir()
  path = demo_dataset.parent / 'demo-videos' / parts.train.store.paths[4]
  shutil.copy(path, queries)
  config = tiny_run.config(
    demo_dataset, init_from='random', retrieve__query='.'
  )
  monkeypatch.chdir(queries)

  def stop(*unused_arguments, **unused_options):
    raise error

  with monkeypatch.context() as patch:
    patch.setattr(weights, 'load', stop)
    with pytest.raises(error):
      retrieve.retrieve(config, str(tmp_path / 'W'))
  [kept] = (tmp_path / 'W').glob('retrieve/*/query-*.videos')
  made = (kept / 'prepared' / 'dataset.json').stat().st_mtime_ns
  seen = []
  write = page.write

  def look(*arguments):
    seen.append((kept / 'prepared' / 'dataset.json').stat().st_mtime_ns)
    write(*arguments)

  monkeypatch.setattr(page, 'write', look)
  retrieve.retrieve(config, str(tmp_path / 'W'))
  assert seen == [made]
  assert not kept.exists()
  [folder] = (tmp_path / 'W').glob('retrieve/*/query-queries-*')
  assert 'Nearest training videos of queries' in page_of(folder)


def test_queries_need_no_labels_and_links_no_option(
  demo_dataset, parts, tmp_path, caplog
):
  queries = tmp_path / 'queries'
  queries.mkdir()
  videos = demo_dataset.parent / 'demo-videos'
  shutil.copy(videos / parts.train.store.paths[4], queries / 'a.mp4')
  (queries / 'link.mp4').symlink_to(videos / parts.train.store.paths[5])
  (queries / 'labels.csv').write_text('path,kind\nelsewhere.mp4,cat\n')
  config = tiny_run.config(
    demo_dataset, init_from='random', retrieve__query=str(queries)
  )
  with caplog.at_level('INFO'):
    written = retrieve.retrieve(config, str(tmp_path / 'W'))
  assert [answer['path'] for answer in written['answers']] == ['a.mp4']
  reason = (
    'a symlink that leads out of the folder (copy it there, or name what it '
    'leads to)'
  )
  assert written['skipped'] == [{'path': 'link.mp4', 'reason': reason}]
  assert f'Skipped: link.mp4: {reason}' in caplog.text
  (queries / 'a.mp4').unlink()
  with pytest.raises(dataset_folder.DatasetError) as error:
    retrieve.retrieve(config, str(tmp_path / 'W'))
  assert f"such as 'link.mp4': {reason}" in str(error.value)


def test_a_prepared_data_set_is_no_query(demo_dataset, tmp_path):
  config = tiny_run.config(
    demo_dataset, init_from='random', retrieve__query=str(demo_dataset)
  )
  with pytest.raises(dataset_folder.DatasetError, match='a prepared data set'):
    retrieve.retrieve(config, str(tmp_path / 'W'))


def test_a_folder_without_videos_is_refused(demo_dataset, tmp_path):
  (tmp_path / 'queries').mkdir()
  config = tiny_run.config(
    demo_dataset,
    init_from='random',
    retrieve__query=str(tmp_path / 'queries'),
  )
  with pytest.raises(dataset_folder.DatasetError, match='no video') as error:
    retrieve.retrieve(config, str(tmp_path / 'W'))
  assert str(tmp_path / 'queries') in str(error.value)
  assert 'scratch' not in str(error.value)


def test_a_query_that_is_no_video_is_refused_in_one_line(
  demo_dataset, tmp_path
):
  (tmp_path / 'broken.mp4').write_bytes(b'\0\1\2 this is no video' * 99)
  (tmp_path / 'notes.txt').write_text('neither is this')
  for name, words in {
    'broken.mp4': 'cannot be used: of 1 video file none could be used',
    'notes.txt': 'is not named like a video',
    'missing.mp4': 'There is no video file or folder',
  }.items():
    config = tiny_run.config(
      demo_dataset, init_from='random', retrieve__query=str(tmp_path / name)
    )
    with pytest.raises(dataset_folder.DatasetError, match=words) as error:
      retrieve.retrieve(config, str(tmp_path / 'W'))
    message = str(error.value)
    assert str(tmp_path / name) in message
    assert 'config.retrieve.query' in message
    assert '\n' not in message
    assert 'scratch' not in message
    assert not list(tmp_path.glob('W/**/query-*'))


@pytest.mark.parametrize(
  'field', ['embeddings', 'retrieve.beside'], ids=['embeddings', 'beside']
)
def test_a_query_goes_with_one_network_only(demo_dataset, tmp_path, field):
  config = tiny_run.config(
    demo_dataset,
    init_from='random',
    retrieve__query='clip.mp4',
    **{field.replace('.', '__'): 'X'},
  )
  with pytest.raises(config_check.ConfigError, match=f'config.{field} is'):
    retrieve.retrieve(config, str(tmp_path))
