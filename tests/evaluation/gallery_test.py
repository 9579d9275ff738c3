"""The result page is self-contained, safe, complete and small enough."""

import base64
import hashlib
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from vie_jax.evaluation import gallery, gallery_plot, gallery_png

PAYLOADS = (
  '"><img src=x onerror="document.title=\'owned\'">',
  "</script><script>document.title='owned'</script>",
  '</style><svg onload="document.title=\'owned\'">',
  "' onfocus=document.title='owned' autofocus x='",
  '{{ 7 * 7 }}${7*7}<!--',
)
VOID = {'meta', 'img', 'br', 'hr', 'input', 'link'}


class Parsed(html.parser.HTMLParser):
  """Elements with their attributes, and the text under each class."""

  def __init__(self, path):
    super().__init__(convert_charrefs=True)
    self.source = path.read_text('utf-8')
    self.elements = []
    self.texts = []
    self._open = []
    self.feed(self.source)
    self.close()

  def handle_starttag(self, tag, attributes):
    element = {'tag': tag, 'text': '', **dict(attributes)}
    self.elements.append(element)
    if tag not in VOID:
      self._open.append(element)

  def handle_startendtag(self, tag, attributes):
    self.elements.append({'tag': tag, 'text': '', **dict(attributes)})

  def handle_endtag(self, tag):
    assert self._open[-1]['tag'] == tag, (tag, self._open[-1])
    self._open.pop()

  def handle_data(self, data):
    for element in self._open:
      element['text'] += data

  def having(self, name):
    return [e for e in self.elements if name in (e.get('class') or '').split()]


def moving_texture(rng, *, frames=8, height=64, width=64):
  """Returns uint8 [frames, height, width, 3]: noisy stripes that move."""
  y, x = np.mgrid[:height, :width]
  slope, speed = rng.uniform(0.2, 0.9, 2), rng.uniform(-1, 1)
  waves = [
    np.sin(slope[0] * x + slope[1] * y + speed * t)[..., None]
    for t in range(frames)
  ]
  colours = rng.uniform(0, 255, (2, 3))
  video = np.where(np.stack(waves) > 0, colours[0], colours[1])
  return np.clip(video + rng.normal(0, 8, video.shape), 0, 255).astype(np.uint8)


def make_page(num_queries=4, *, text='', columns=('appearance', 'motion')):
  """Makes a page whose first model is always right, whose second never is."""
  rng = np.random.default_rng(0)

  def strip(index, labels):
    shown = dict(zip(columns, labels, strict=False))
    return gallery.FilmStrip(moving_texture(rng), f'video {index}{text}', shown)

  queries = []
  for index in range(num_queries):
    own = f'texture {index % 3}{text}', f'up{text}'
    other = f'another texture{text}', f'down{text}'
    queries.append(
      gallery.Query(
        strip(index, own),
        {
          f'always right{text}': [
            gallery.Neighbor(strip(100 + k, own), 0.9) for k in range(3)
          ],
          f'always wrong{text}': [
            gallery.Neighbor(strip(200 + k, other), 0.8) for k in range(3)
          ],
        },
        predictions={
          f'always right{text}': dict(zip(columns, own, strict=False)),
          f'always wrong{text}': dict(zip(columns, other, strict=False)),
        },
      )
    )
  steps = np.arange(0, 2000, 10)
  return gallery.Page(
    title=f'A page{text}',
    introduction=[f'First paragraph.{text}', 'Second paragraph.'],
    tables=[
      gallery.Table(
        f'Accuracy{text}',
        ['network', f'appearance{text}', 'motion'],
        [
          [f'random{text}', 16.0, 13.25],
          ['VIE', 64.0, 88.0],
          ['reported', 'n/a', float('nan')],
        ],
        note=f'A note.{text}',
        bar_maximum=100.0,
      )
    ],
    curves=[
      gallery.Curve(
        f'Loss{text}',
        f'nats{text}',
        {f'VIE{text}': (steps, 5 - steps / 1000)},
        {f'chance{text}': 4.0},
      )
    ],
    queries=queries,
    label_columns=columns,
    facts={f'seed{text}': f'0{text}'},
    query_caption=f'What the neighbours are.{text}',
  )


def write(tmp_path, page, **options):
  path = tmp_path / 'index.html'
  gallery.write_html(path, page, **options)
  return Parsed(path)


def write_picture(tmp_path, page, **options):
  path = tmp_path / 'page.png'
  gallery_png.write_png(path, page, **options)
  data = path.read_bytes()
  return len(data), Image.open(io.BytesIO(data))


def sprites(page):
  """Decodes the pictures that a page embeds."""
  found = re.findall(r'url\(data:image/jpeg;base64,([^)]*)\)', page.source)
  return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_page_asks_for_nothing_outside_itself(tmp_path):
  page = write(tmp_path, make_page())
  for element in page.elements:
    for name in ('src', 'srcset', 'poster', 'action', 'data', 'ping'):
      assert name not in element
    if 'href' in element:
      assert element['href'].startswith('#')
    assert element['tag'] not in {'link', 'base', 'iframe', 'object', 'embed'}
  text = re.sub(r'base64,[^)]*', '', page.source)
  assert not re.search(r'https?:|@import|//[a-z]', text)
  assert set(re.findall(r'url\(([a-z/]*[:/])', page.source)) == {'data:'}


def test_policy_admits_only_the_script_of_the_page(tmp_path):
  page = write(tmp_path, make_page(text=PAYLOADS[1]))
  policy = next(
    e['content']
    for e in page.elements
    if e.get('http-equiv') == 'Content-Security-Policy'
  )
  (script,) = [e for e in page.elements if e['tag'] == 'script']
  digest = hashlib.sha256(script['text'].encode()).digest()
  assert "default-src 'none'" in policy
  assert 'img-src data:' in policy
  assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy


@pytest.mark.parametrize('payload', PAYLOADS)
def test_text_never_becomes_markup(tmp_path, payload):
  plain = write(tmp_path, make_page(text='x'))
  page = write(tmp_path, make_page(text=payload))
  assert [e['tag'] for e in page.elements] == [e['tag'] for e in plain.elements]
  names = {name for e in page.elements for name in e}
  assert names == {name for e in plain.elements for name in e}
  assert not any(name.startswith('on') for name in names)
  (title,) = [e for e in page.elements if e['tag'] == 'title']
  assert title['text'] == f'A page{payload}'
  assert page.having('self')[0]['text'].count(payload) >= 3


def test_every_query_has_its_neighbours_with_right_and_wrong_in_words(tmp_path):
  page = write(tmp_path, make_page(5))
  assert len(page.having('query')) == 5
  assert len(page.having('model')) == 10
  models = page.having('model')
  for right, wrong in zip(models[::2], models[1::2], strict=True):
    assert 'always right' in right['text']
    assert right['text'].count('same appearance: texture') == 3
    assert right['text'].count('same motion: up') == 3
    assert right['text'].count('right motion: up') == 1
    assert wrong['text'].count('other appearance: another texture') == 3
    assert wrong['text'].count('other motion: down') == 3
    assert wrong['text'].count('wrong appearance: another texture') == 1
    assert not re.search(r'other|wrong', right['text'])
    assert not re.search(r'same|right', wrong['text'])
  assert len(page.having('neighbor')) == 30
  (tally,) = page.having('tally')
  assert '15 of 15' in tally['text']
  assert '0 of 15' in tally['text']


def test_filters_see_the_class_of_the_query_and_who_was_wrong(tmp_path):
  page = write(tmp_path, make_page(4))
  queries = page.having('query')
  assert [q['data-classes'] for q in queries] == ['0 0', '1 0', '2 0', '0 0']
  assert {q['data-errors'] for q in queries} == {
    'any near.1.0 near.1.1 only.0.0 only.0.1 predicted.1.0 predicted.1.1'
  }
  options = [e['text'] for e in page.elements if e['tag'] == 'option']
  assert 'texture 2' in options
  assert 'always wrong: motion predicted wrong' in options
  assert 'motion right in always right only' in options
  assert 'always wrong: a neighbour of other motion' in options


def test_only_what_alone_is_right_counts_as_right_alone(tmp_path):
  strip = gallery.FilmStrip(np.zeros((2, 8, 8, 3), np.uint8), 'v', {'x': 'p'})
  names = {'both': ('p', 'p'), 'one': ('p', 'q'), 'none': ('q', None)}
  queries = [
    gallery.Query(
      strip,
      {'a': [], 'b': []},
      {
        model: {'x': label}
        for model, label in zip('ab', labels, strict=True)
        if label
      },
    )
    for labels in names.values()
  ]
  page = write(
    tmp_path, gallery.Page('T', queries=queries, label_columns=['x'])
  )
  assert [q['data-errors'] for q in page.having('query')] == [
    '',
    'any only.0.0 predicted.1.0',
    'any predicted.0.0',
  ]
  assert gallery.prediction(queries[2], 'b', 'x') is None
  assert gallery.prediction(queries[1], 'b', 'x') == ('wrong', 'q')


def test_a_query_without_labels_is_not_judged_but_has_predictions(tmp_path):
  unknown = gallery.FilmStrip(np.zeros((2, 8, 8, 3), np.uint8), 'own video')
  known = gallery.FilmStrip(np.ones((2, 8, 8, 3), np.uint8), 'v', {'x': 'p'})
  query = gallery.Query(
    unknown, {'m': [gallery.Neighbor(known, 0.5)]}, {'m': {'x': 'p'}}
  )
  page = gallery.Page('T', queries=[query], label_columns=['x'])
  parsed = write(tmp_path, page)
  assert parsed.having('predicted')[0]['text'].split() == [
    'predicts',
    'x:',
    'p',
  ]
  assert [e['text'] for e in parsed.having('unknown')] == ['x: p', 'x: p']
  for name in ('right', 'wrong', 'tally', 'labels'):
    assert parsed.having(name) == []
  assert not any('data-errors' in e for e in parsed.elements if 'id' not in e)
  write_picture(tmp_path, page)


def test_a_missing_label_is_neither_right_nor_wrong(tmp_path):
  known = gallery.FilmStrip(np.zeros((2, 8, 8, 3), np.uint8), 'a', {'x': 'p'})
  unknown = gallery.FilmStrip(np.ones((2, 8, 8, 3), np.uint8), 'b')
  page = gallery.Page(
    'T',
    label_columns=['x'],
    queries=[
      gallery.Query(known, {'m': [gallery.Neighbor(unknown, 0.5)]}),
      gallery.Query(unknown, {'m': [gallery.Neighbor(known, 0.5)]}),
    ],
  )
  parsed = write(tmp_path, page)
  assert [len(parsed.having(k)) for k in ('unknown', 'right', 'wrong')] == [
    2,
    1,  # The explanation of the marks.
    1,
  ]
  assert [e['text'] for e in parsed.having('unknown')] == [
    'x: not labelled',
    'x: p',
  ]
  assert gallery.tally(page, 'm', 'x') == (0, 0)
  write_picture(tmp_path, page)


def test_best_of_each_column_is_bold_and_only_numbers_compete(tmp_path):
  page = write(tmp_path, make_page())
  assert [e['text'].split()[0] for e in page.having('best')] == ['64.0', '88.0']
  bars = [e['style'] for e in page.elements if 'width' in e.get('style', '')]
  assert 'width:64.00%' in bars
  assert 'n/a' in page.source


@pytest.mark.parametrize('text', ['', 'ab'])
def test_empty_page_is_a_page(tmp_path, text):
  page = write(tmp_path, gallery.Page(f'Nothing{text}'))
  assert page.having('query') == []
  assert 'filters' not in {e.get('id') for e in page.elements}
  size, picture = write_picture(tmp_path, gallery.Page(f'Nothing{text}'))
  assert picture.width == 1400
  assert size < 700_000


def test_data_set_without_labels_shows_neighbours_without_verdicts(tmp_path):
  page = write(tmp_path, make_page(columns=()))
  assert len(page.having('neighbor')) == 24
  assert page.having('mark') == []
  assert not any('data-column' in e for e in page.elements)
  write_picture(tmp_path, make_page(columns=()))


def test_a_model_may_lack_a_query_and_a_curve_its_values(tmp_path):
  rng = np.random.default_rng(1)
  strip = gallery.FilmStrip(moving_texture(rng), 'v')
  near = [gallery.Neighbor(strip, 1.0)]
  nan = float('nan')
  page = gallery.Page(
    'T',
    curves=[
      gallery.Curve('none', 'y', {'a': ([0, 1], [nan, nan])}, {'r': nan}),
      gallery.Curve('one', 'y', {'a': ([7], [3.0]), 'b': ([], [])}),
      gallery.Curve('flat', 'y', {'a': ([0, 1, 2], [0.0, nan, 0.0])}),
      gallery.Curve('large', 'y', {'a': ([0, 450_000], [1e9, 2e9])}),
    ],
    queries=[
      gallery.Query(strip, {'a': near}),
      gallery.Query(strip, {'b': []}),
    ],
  )
  parsed = write(tmp_path, page)
  assert 'no value' in parsed.source
  assert 'nan' not in ''.join(e.get('points', '') for e in parsed.elements)
  assert len(parsed.having('model')) == 4
  assert parsed.source.count('No neighbours were given.') == 3
  write_picture(tmp_path, page)


@pytest.mark.parametrize(
  ('frames', 'height', 'width'),
  [(8, 36, 64), (8, 64, 36), (1, 64, 64), (3, 5, 7), (16, 300, 400), (2, 1, 1)],
)
def test_frames_of_any_shape_keep_it(tmp_path, frames, height, width):
  rng = np.random.default_rng(0)
  sizes = {'frames': frames, 'height': height, 'width': width}
  strip = gallery.FilmStrip(moving_texture(rng, **sizes), 'odd')
  square = gallery.FilmStrip(moving_texture(rng), 'square')
  page = gallery.Page(
    'T', queries=[gallery.Query(strip, {'m': [gallery.Neighbor(square, 0.1)]})]
  )
  parsed = write(tmp_path, page)
  first, second = sprites(parsed)
  assert first.width / first.height == pytest.approx(
    frames * width / height, rel=0.02
  )
  assert first.height == min(height, 128)
  assert second.size == (8 * 64, 64)
  thumb = parsed.having('thumb')[0]
  assert f'--n:{frames};--r:{width / height:.4f}' in thumb['style']
  # One frame is neither played nor shown twice.
  assert len(parsed.having('frames')) == (2 if frames > 1 else 1)
  assert len(parsed.having('moves')) == (2 if frames > 1 else 1)
  write_picture(tmp_path, page)


def test_a_string_among_numbers_stands_where_they_do():
  table = gallery.Table(
    't', ['n', 'a', 'b'], [['x', 1.0, 'p'], ['y', '2', 'q']]
  )
  cells = gallery.table_cells(table)
  assert [[c['is_number'] for c in row] for row in cells] == [
    [False, True, False],
    [False, True, False],
  ]
  assert [c['bar'] for c in cells[1]] == [None, None, None]


def test_queries_are_as_sharp_as_neighbours_where_room_is_short(tmp_path):
  rng = np.random.default_rng(0)
  large = {'height': 128, 'width': 128}
  first, second = (
    gallery.FilmStrip(moving_texture(rng, **large), name) for name in 'ab'
  )
  page = gallery.Page(
    'T', queries=[gallery.Query(first, {'m': [gallery.Neighbor(second, 0.5)]})]
  )
  heights = [s.height for s in sprites(write(tmp_path, page, image_budget=1))]
  assert heights == [48, 48]


@pytest.mark.slow
def test_many_strips_fit_the_budget_without_being_small_for_nothing(tmp_path):
  rng = np.random.default_rng(0)
  large = {'height': 128, 'width': 170}

  def strip():
    return gallery.FilmStrip(moving_texture(rng, **large), 'v')

  page = gallery.Page(
    'T',
    queries=[
      gallery.Query(strip(), {'m': [gallery.Neighbor(strip(), 0.5)] * 2})
      for _ in range(20)
    ],
  )
  sizes = {}
  for budget in (800_000, 1_600_000):
    encoded = sprites(write(tmp_path, page, image_budget=budget))
    size = (tmp_path / 'index.html').stat().st_size
    assert size < budget + 60_000
    sizes[budget] = encoded[1].height
  assert 48 <= sizes[800_000] < sizes[1_600_000] <= 128


@pytest.mark.slow
def test_page_of_50_queries_and_two_networks_is_under_8_mb(tmp_path):
  rng = np.random.default_rng(0)
  videos = [
    gallery.FilmStrip(moving_texture(rng, height=128, width=170), f'{k}.mp4')
    for k in range(350)
  ]
  page = gallery.Page(
    'T',
    queries=[
      gallery.Query(
        videos[7 * k],
        {
          name: [gallery.Neighbor(videos[7 * k + j], 0.5) for j in places]
          for name, places in {'a': (1, 2, 3), 'b': (4, 5, 6)}.items()
        },
      )
      for k in range(50)
    ],
  )
  parsed = write(tmp_path, page, image_budget=7_000_000)
  assert len(sprites(parsed)) == 350
  assert (tmp_path / 'index.html').stat().st_size < 7_500_000


def test_a_name_that_is_no_text_is_shown_all_the_same(tmp_path):
  strip = gallery.FilmStrip(np.zeros((2, 8, 8, 3), np.uint8), 'a\udcff.mp4')
  page = gallery.Page('T', queries=[gallery.Query(strip, {'m': []})])
  assert write(tmp_path, page).having('name')[0]['text'] == 'a?.mp4'


def test_sprite_holds_the_frames_in_order(tmp_path):
  frames = np.zeros((3, 16, 16, 3), np.uint8)
  frames[0, ..., 0] = frames[1, ..., 1] = frames[2, ..., 2] = 255
  page = gallery.Page(
    'T', queries=[gallery.Query(gallery.FilmStrip(frames, 'rgb'), {'m': []})]
  )
  (sprite,) = sprites(write(tmp_path, page))
  pixels = np.asarray(sprite)[8, 8::16]
  np.testing.assert_allclose(pixels, 255 * np.eye(3), atol=12)


def test_a_strip_that_occurs_often_is_embedded_once(tmp_path):
  frames = moving_texture(np.random.default_rng(0))
  copies = [gallery.FilmStrip(frames.copy(), f'copy {k}') for k in range(9)]
  page = gallery.Page(
    'T',
    queries=[
      gallery.Query(copies[0], {'m': [gallery.Neighbor(s, 1) for s in copies]})
    ],
  )
  parsed = write(tmp_path, page)
  assert len(parsed.having('neighbor')) == 9
  assert len(sprites(parsed)) == 1


def test_page_of_the_demo_is_under_3_mb_even_for_noise(tmp_path):
  rng = np.random.default_rng(0)

  def strip():
    frames = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    return gallery.FilmStrip(frames, 'noise', {'a': 'x'})

  near = [gallery.Neighbor(strip(), 0.5) for _ in range(6)]
  queries = [
    gallery.Query(
      strip(),
      {'p': [gallery.Neighbor(strip(), 0) for _ in range(3)], 'q': near},
    )
    for _ in range(24)
  ]
  write(tmp_path, gallery.Page('T', queries=queries, label_columns=['a']))
  assert (tmp_path / 'index.html').stat().st_size < 3_000_000


@pytest.mark.slow
def test_picture_is_1400_wide_under_700_kb_and_not_blank(tmp_path):
  page = make_page(12)
  size, picture = write_picture(tmp_path, page)
  assert picture.format == 'PNG'
  assert picture.width == 1400
  assert 900 < picture.height < 2400
  assert size < 700_000
  pixels = np.asarray(picture.convert('RGB')).astype(int)
  assert pixels.std() > 20
  # Right and wrong are both written, in their colours.
  for colour in ((0x00, 0x56, 0x8F), (0xA0, 0x3C, 0x00)):
    assert (np.abs(pixels - colour).max(axis=2) < 24).sum() > 50


@pytest.mark.slow
@pytest.mark.parametrize('max_bytes', [10_000_000, 300_000, 1])
def test_paper_stays_white_with_few_colours(tmp_path, max_bytes):
  page = make_page(4, text=''.join(PAYLOADS))
  size, picture = write_picture(tmp_path, page, max_bytes=max_bytes)
  assert size < max(max_bytes, 300_000)
  assert picture.convert('RGB').getpixel((2, 2)) == (255, 255, 255)


def test_picture_takes_any_text(tmp_path):
  text = '$x_1^{$ \\frac \u6f22\u5b57 \n ' + 'very long ' * 40
  size, picture = write_picture(tmp_path, make_page(2, text=text))
  assert picture.width == 1400
  assert size < 700_000


def test_writing_twice_gives_the_same_bytes(tmp_path):
  for name in 'ab':
    gallery.write_html(tmp_path / f'{name}.html', make_page(2))
    gallery_png.write_png(tmp_path / f'{name}.png', make_page(2))
  for kind in ('html', 'png'):
    first, second = (tmp_path / f'{name}.{kind}' for name in 'ab')
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
  'frames',
  [
    np.zeros((8, 4, 4), np.uint8),
    np.zeros((0, 4, 4, 3), np.uint8),
    np.zeros((8, 4, 4, 4), np.uint8),
    np.zeros((8, 4, 4, 3), np.float32),
  ],
)
def test_frames_of_another_kind_are_refused_by_name(frames):
  with pytest.raises(ValueError, match=r"frames of 'clip\.mp4' must be"):
    gallery.FilmStrip(frames, 'clip.mp4')


def test_table_row_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='has 1 cells, the header has 2'):
    gallery.Table('t', ['a', 'b'], [['x']])


@pytest.mark.parametrize(
  ('low', 'high'), [(0, 1), (-3, 17), (0.001, 0.0012), (0, 450_000), (5, 105)]
)
def test_ticks_are_round_and_inside(low, high):
  found = gallery_plot.ticks(low, high)
  assert 2 <= len(found) <= 7
  assert low - 1e-9 <= found[0]
  assert found[-1] <= high + 1e-9
  np.testing.assert_allclose(np.diff(found), found[1] - found[0])


def test_axis_holds_every_value_and_starts_at_zero_when_near():
  points = gallery_plot.finite_points({'a': ([0, 1, 2], [16, np.inf, 88])})
  assert len(points['a']) == 2
  low, high = gallery_plot.value_range(points, {'chance': 12.5})
  assert low == 0
  assert high > 88
  low, high = gallery_plot.value_range(points, {'below': -5.0})
  assert low < -5


def test_long_series_keep_their_ends():
  steps = np.arange(100_000)
  points = gallery_plot.finite_points({'a': (steps, steps * 2.0)})['a']
  assert len(points) <= 1000
  assert points[0].tolist() == [0, 0]
  assert points[-1].tolist() == [99_999, 199_998]


def test_noise_is_encoded_even_where_it_takes_more_than_a_byte_a_pixel(
  tmp_path,
):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (8, 128, 170, 3), dtype=np.uint8)
  strip = gallery.FilmStrip(noise, 'noise')
  page = gallery.Page('T', queries=[gallery.Query(strip, {'m': []})])
  (sprite,) = sprites(write(tmp_path, page))
  assert sprite.size == (8 * 170, 128)
