import hashlib

import pytest
from errors import InputError
from media import segments
from sources import labels_and_splits
from sources.find_videos import VideoFile

from vie_jax.input_pipeline import dataset_folder


def _labels(tmp_path, text):
  file = tmp_path / 'labels.csv'
  file.write_bytes(text if isinstance(text, bytes) else text.encode())
  return labels_and_splits.read_labels(file, str(tmp_path))


def test_the_first_folder_is_the_class_and_the_top_has_none():
  labels = labels_and_splits.folder_labels(
    ['dog/1.mp4', 'cat/x/2.mp4', 'top.mp4', 'dog/3.mp4']
  )
  names, numbers = labels_and_splits.number_classes(
    labels, ['cat/x/2.mp4', 'dog/1.mp4', 'top.mp4', 'dog/3.mp4']
  )
  assert names == {'label': ['cat', 'dog']}
  assert numbers == {'label': [0, 1, -1, 1]}


def test_a_flat_folder_has_no_label_column():
  assert labels_and_splits.folder_labels(['a.mp4', 'b.mp4']) == {}


def test_columns_of_a_table_are_read_with_quotes_and_a_byte_order_mark(
  tmp_path,
):
  labels = _labels(
    tmp_path,
    '\ufeffpath,what,how\r\n'
    'a.mp4,cup,left\r\n'
    '\r\n'
    '"b, ""c"".mp4", ball ,\r\n'
    './d/../e.mp4,cup,right\r\n',
  )
  assert labels == {
    'what': {'a.mp4': 'cup', 'b, "c".mp4': 'ball', 'e.mp4': 'cup'},
    'how': {'a.mp4': 'left', 'e.mp4': 'right'},
  }


def test_columns_may_have_any_order_and_paths_be_absolute(tmp_path):
  (tmp_path / 'link').symlink_to('.')
  text = f'what,path,how\ncup,{tmp_path}/d/a.mp4,left\n'
  text += f'dog,{tmp_path}/./b.mp4,\nball,{tmp_path}/link/c.mp4,\n'
  assert _labels(tmp_path, text) == {
    'what': {'d/a.mp4': 'cup', 'b.mp4': 'dog', 'link/c.mp4': 'ball'},
    'how': {'d/a.mp4': 'left'},
  }


def test_a_table_of_a_spreadsheet_is_read(tmp_path):
  """Commas for columns without a name end its lines; it begins with a capital."""
  text = 'Path,What,,\na.mp4,cup,,\n,,,\nb.mp4,dog, ,\n , ,,\n'
  assert _labels(tmp_path, text) == {'What': {'a.mp4': 'cup', 'b.mp4': 'dog'}}


def test_absolute_paths_may_lead_through_a_link_to_the_folder(tmp_path):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'link').symlink_to('real')
  file = tmp_path / 'list.txt'
  file.write_text(f'{tmp_path}/link/a.mp4\n{tmp_path}/real/b.mp4\n')
  paths = labels_and_splits.read_path_list(file, str(tmp_path / 'real'))
  assert paths == {'a.mp4', 'b.mp4'}


@pytest.mark.parametrize(
  'text, message',
  [
    ('', 'is empty'),
    ('file,label\na.mp4,x\n', 'line 1: the header'),
    ('path\na.mp4\n', 'line 1: the header'),
    ('path,x,x\na.mp4,1,2\n', 'line 1: column names'),
    ('path,,x\na.mp4,1,2\n', 'line 1: column names'),
    ('path,x,\na.mp4,1,2\n', "line 2: '2' is in a column without a name"),
    ('path,x,,\na.mp4,1,2,\n', "line 2: '2' is in a column without a name"),
    ('path,,\na.mp4,,\n', 'line 1: the header'),
    ('path,x\na.mp4\n', 'line 2: 1 cell instead of 2'),
    ('path,x\na.mp4,1\nb.mp4,1,2\n', 'line 3: 3 cells'),
    ('path,x\na.mp4,1\n\na.mp4,2\n', "line 4: 'a.mp4' is already on line 2"),
    ('path,x\n/etc/a.mp4,1\n', 'line 2: .* not a path relative'),
    ('path,x\n../a.mp4,1\n', 'line 2: .* not a path relative'),
    ('path,x\n"/a\0.mp4",1\n', 'line 2: .* not a path relative'),
    ('path,x\n,1\n', 'line 2: .* not a path relative'),
    ('path,x\n"a.mp4,1\n', 'line 2: unexpected end'),
    (b'path,x\na.mp4,1\n\xff.mp4,2\n', 'line 3: not UTF-8'),
  ],
)
def test_a_mistake_in_a_table_is_named_with_its_line(tmp_path, text, message):
  with pytest.raises(InputError, match=message) as caught:
    _labels(tmp_path, text)
  assert 'labels.csv' in str(caught.value)


def test_more_class_names_than_a_data_set_holds_are_refused():
  captions = {f'{n}.mp4': f'{n} ' + 'x' * 10**5 for n in range(400)}
  labels = {'label': {'0.mp4': 'cup'}, 'caption': captions}
  with pytest.raises(
    InputError, match=r"401 class names .* is 'caption', with"
  ):
    labels_and_splits.check_class_names(labels)
  same = dict.fromkeys(captions, captions['1.mp4'])
  labels_and_splits.check_class_names({'caption': same})


def test_readers_take_all_class_names_that_are_prepared():
  half = dataset_folder._MAX_MANIFEST_BYTES // 2
  assert half >= labels_and_splits.MAX_NAME_BYTES


def _videos(count):
  return [
    VideoFile(f'{number}.mp4', f'{number}.mp4', 1, 1) for number in range(count)
  ]


def test_the_split_by_hash_is_close_to_its_share_and_stable():
  videos = _videos(2000)
  splits = labels_and_splits.split_by_hash(videos, val_percent=10)
  assert 150 < len(splits['val']) < 250
  assert len(splits['train']) + len(splits['val']) == 2000
  fewer = labels_and_splits.split_by_hash(videos[:500], val_percent=10)
  assert set(fewer['val']) <= set(splits['val'])


def _clips(count):
  """Videos of whose first twelve the hashes put none into val."""
  names = [f'video{number}.mp4' for number in range(count)]
  return [VideoFile(name, name, 1, 1) for name in names]


@pytest.mark.parametrize('percent', [1, 10, 50, 90, 99])
def test_both_splits_have_half_of_their_share_and_at_least_a_video(percent):
  for count in (*range(2, 62), 100, 150, 200, 500):
    videos = _clips(count)
    splits = labels_and_splits.split_by_hash(videos, val_percent=percent)
    for split, share in (('val', percent), ('train', 100 - percent)):
      assert len(splits[split]) >= max(1, count * share // 200), count
    in_order = [v for v in videos if v in splits['val']]
    assert splits['val'] == in_order
    assert len(splits['train']) == count - len(in_order)


def test_twelve_videos_have_the_one_with_the_lowest_hash_in_val():
  videos = _clips(12)

  def number(video):
    digest = hashlib.sha256(video.name.encode()).hexdigest()
    return int(digest[:8], 16) % 100

  lowest = min(videos, key=number)
  assert number(lowest) >= 10
  splits = labels_and_splits.split_by_hash(videos, val_percent=10)
  assert splits['val'] == [lowest]


def test_a_video_alone_is_not_moved():
  splits = labels_and_splits.split_by_hash(_videos(1), val_percent=10)
  assert splits == {'train': _videos(1), 'val': []}
  assert labels_and_splits.split_by_hash([], val_percent=10) == {
    'train': [],
    'val': [],
  }


def test_parts_of_a_file_stay_together_where_few_files_are_shared_out():
  parts = [
    VideoFile(
      name, name, 1, 1, segments.parse_segment(str(start), str(start + 1))
    )
    for name in ('a.mp4', 'b.mp4')
    for start in range(5)
  ]
  splits = labels_and_splits.split_by_hash(parts, val_percent=10)
  assert {len(split) for split in splits.values()} == {5}
  for split in splits.values():
    assert len({part.name for part in split}) == 1
  of_one_file = labels_and_splits.split_by_hash(parts[:5], val_percent=10)
  assert sorted(map(len, of_one_file.values())) == [0, 5]


@pytest.mark.parametrize('percent, in_val', [(0, 0), (100, 50)])
def test_the_share_of_val_may_be_nothing_or_everything(percent, in_val):
  splits = labels_and_splits.split_by_hash(_videos(50), val_percent=percent)
  assert len(splits['val']) == in_val


def test_lists_decide_and_leave_the_rest_out(tmp_path):
  (tmp_path / 'train.txt').write_text('1.mp4\r\n\n./2.mp4\nabsent.mp4\n')
  paths = labels_and_splits.read_path_list(
    tmp_path / 'train.txt', str(tmp_path)
  )
  assert paths == {'1.mp4', '2.mp4', 'absent.mp4'}
  splits = labels_and_splits.split_by_lists(
    _videos(5), train=paths, val={'4.mp4'}
  )
  assert [video.path for video in splits['train']] == ['1.mp4', '2.mp4']
  assert [video.path for video in splits['val']] == ['4.mp4']


def test_a_file_in_both_lists_is_an_error():
  with pytest.raises(InputError, match=r"both.*'1\.mp4'"):
    labels_and_splits.split_by_lists(
      _videos(3), train={'1.mp4', '2.mp4'}, val={'1.mp4'}
    )


def test_lists_that_name_no_video_are_an_error():
  with pytest.raises(InputError, match='relative'):
    labels_and_splits.split_by_lists(_videos(3), train={'x.mp4'}, val=set())


def test_folders_of_splits_have_many_names():
  found = labels_and_splits.split_folders(
    ['Training/dog/1.mp4', 'validate/dog/2.mp4', 'testing/dog/3.mp4']
  )
  assert found == {'Training': 'train', 'validate': 'val', 'testing': None}
