"""The result page in a real browser: it plays, filters, and runs no names."""

import time

import chromium
import numpy as np
import pytest
from PIL import Image

from vie_jax.evaluation import gallery

pytestmark = pytest.mark.skipif(
  not chromium.PATH,
  reason='needs an installed Chromium: chromium or google-chrome on PATH',
)
ATTACK = 'window.owned = document.title = 1'
HOSTILE = {
  'script': f'<script>{ATTACK}</script>.mp4',
  'end of script': f'</script><script>{ATTACK}</script>.mp4',
  'end of style': f'</style><img src=x onerror="{ATTACK}">.mp4',
  'quotes': f'" onfocus="{ATTACK}" autofocus x=\'" onload=\'{ATTACK}\'.mp4',
  'template': '{{ 7 * 7 }}{% raw %}${7*7}&lt;b&amp;.mp4',
  'address': 'javascript:alert(1)//https://example.com/x.png.mp4',
  'newlines': 'one\ntwo\r\n\tthree.mp4',
  'right to left': 'abc \u202egpj.exe\u202c \u0634\u0631\u064a\u0637.mp4',
  'long': 'x' * 296 + '.mp4',
}
# What the first strip shows at the moment, in percent of its width.
PLACE = (
  '(number => parseFloat(getComputedStyle(document.querySelectorAll(".film")'
  '[number]).backgroundPosition))'
)
FOCUS = 'document.activeElement.id'
SHOWN = (
  '[...document.querySelectorAll(".query")].filter((q) => q.offsetHeight)'
  '.map((q) => q.id)'
)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  running = chromium.Browser(tmp_path_factory.mktemp('profile'))
  yield running
  running.close()


@pytest.fixture
def open_tab(browser):
  tabs = []

  def open_page(path, **options):
    tabs.append(chromium.Tab(browser, path.as_uri(), **options))
    return tabs[-1]

  yield open_page
  for tab in tabs:
    tab.close()


def strip(index, labels, *, name=None):
  """A strip whose frames become brighter, of a colour of its own."""
  frames = np.zeros((8, 24, 32, 3), np.uint8)
  frames += np.arange(8, dtype=np.uint8)[:, None, None, None] * 25
  frames[..., index % 3] += np.uint8(10 + index)
  return gallery.FilmStrip(frames, name or f'video {index}', labels)


def make_page(num_queries=6, *, names=()):
  """Networks `one`, right on the first two queries, and `two`, on all."""
  queries = []
  for index in range(num_queries):
    labels = {'kind': f'class {index % 3}'}
    other = {'kind': 'another'}
    found = {'one': labels if index < 2 else other, 'two': labels}
    queries.append(
      gallery.Query(
        strip(index, labels, name=names[index] if names else None),
        {
          network: [
            gallery.Neighbor(strip(20 + 3 * index + k, near), 0.9 - 0.1 * k)
            for k in range(3)
          ]
          for network, near in found.items()
        },
        found,
      )
    )
  return gallery.Page(
    'A page',
    introduction=['One paragraph.'],
    tables=[
      gallery.Table(
        'kind, in %', ['network', 'recall@1'], [['one', 33.3], ['two', 100.0]]
      )
    ],
    queries=queries,
    label_columns=['kind'],
    facts={'seed': '0'},
  )


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  path = tmp_path_factory.mktemp('page') / 'index.html'
  gallery.write_html(path, make_page())
  return path


def places(tab, number=0, *, seconds=0.7):
  """The places that a strip shows within some time."""
  seen, end = set(), time.monotonic() + seconds
  while time.monotonic() < end:
    seen.add(round(tab.run(f'{PLACE}({number})'), 2))
  return seen


@pytest.mark.parametrize('width', [1280, 700, 690, 500, 320])
def test_a_query_is_as_large_as_its_neighbours(page, open_tab, width):
  tab = open_tab(page, width=width)
  sizes = tab.run("""['.film', '.frames'].map((kind) => ['.asked', '.neighbor']
    .map((video) => document.querySelector(`#query-2 ${video} ${kind}`))
    .map((element) => element.getBoundingClientRect())
    .map((box) => [box.width, box.height]))""")
  for asked, near in sizes:
    assert asked == pytest.approx(near, abs=0.5)


def test_pointing_at_an_entry_plays_its_strips_and_no_others(page, open_tab):
  tab = open_tab(page)
  other = tab.run(
    '[...document.querySelectorAll(".film")].findIndex('
    '(film) => film.closest("#query-2"))'
  )
  assert places(tab, seconds=0.2) == {0.0}
  tab.point_at('#query-1 .film')
  seen = places(tab)
  # Only whole frames: sevenths of the way from the first to the last.
  assert len(seen) > 2
  assert seen <= {round(100 * k / 7, 2) for k in range(8)}
  assert places(tab, other, seconds=0.2) == {0.0}
  tab.point_at('#query-2 .neighbor .film')
  assert len(places(tab, other)) > 2
  assert places(tab, seconds=0.2) == {0.0}


def test_the_picture_shown_is_the_frame_of_its_place(page, open_tab, tmp_path):
  tab = open_tab(page)
  # The frames become brighter by 25 each; the animation is held still.
  tab.run("""(() => {
    document.getElementById('play').click();
    for (const animation of document.getAnimations()) {
      animation.pause();
      animation.currentTime = 5.5 * 150;
    }
  })()""")
  tab.screenshot(tmp_path / 'page.png')
  x, y = tab.run("""(() => {
    const box = document.querySelector('.film').getBoundingClientRect();
    return [box.x + box.width / 2 + scrollX, box.y + box.height / 2 + scrollY];
  })()""")
  with Image.open(tmp_path / 'page.png') as picture:
    red, green, blue = picture.convert('RGB').getpixel((int(x), int(y)))
  assert abs(red - (5 * 25 + 10)) < 6
  assert abs(green - 5 * 25) < 6
  assert abs(blue - 5 * 25) < 6


def test_less_motion_is_respected_until_it_is_asked_for(page, open_tab):
  tab = open_tab(page, reduced_motion=True)
  tab.point_at('#query-1 .film')
  tab.run('document.getElementById("query-1").focus()')
  assert places(tab, seconds=0.4) == {0.0}
  tab.press('Enter')
  assert len(places(tab)) > 2
  tab.press('Enter')
  assert places(tab, seconds=0.2) == {0.0}
  tab.click('#play')
  assert len(places(tab)) > 2
  assert tab.run('document.getElementById("play").ariaPressed') == 'true'


def test_the_tab_key_reaches_everything_and_shows_where_it_is(page, open_tab):
  tab = open_tab(page)
  seen = []
  for _ in range(20):
    tab.press('Tab')
    seen.append(
      tab.run("""(() => {
        const element = document.activeElement;
        const style = getComputedStyle(element);
        const box = element.getBoundingClientRect();
        return [
          element.id || element.type || element.className,
          parseFloat(style.outlineWidth),
          style.outlineStyle,
          box.bottom > 0 && box.top < innerHeight,
        ];
      })()""")
    )
    if seen[-1][0] == 'query-6':
      break
  assert [name for name, *_ in seen] == [
    'scroll',
    'select-one',
    'select-one',
    'reset',
    'play',
    *(f'query-{k}' for k in range(1, 7)),
  ]
  assert all(width >= 2 and kind == 'solid' for _, width, kind, _ in seen)
  assert all(is_visible for *_, is_visible in seen)
  # The entry that has the focus plays.
  last = 'document.querySelectorAll(".film").length - 7'
  assert len(places(tab, last)) > 2
  for _ in range(3):
    tab.press('Tab', shift=True)
  assert tab.run(FOCUS) == 'query-3'


def test_arrow_keys_go_from_entry_to_entry_that_is_shown(page, open_tab):
  tab = open_tab(page)
  tab.run('document.getElementById("query-1").focus()')
  seen = []
  for key in ('ArrowDown', 'ArrowDown', 'ArrowUp', 'End', 'ArrowDown', 'Home'):
    tab.press(key)
    seen.append(tab.run(FOCUS))
  assert seen == [f'query-{k}' for k in (2, 3, 2, 6, 6, 1)]
  choose(tab, 'select[data-column]', '0')
  tab.run('document.getElementById("query-1").focus()')
  tab.press('ArrowDown')
  assert tab.run(FOCUS) == 'query-4'


@pytest.mark.parametrize(('width', 'height'), [(1280, 500), (800, 700)])
def test_an_entry_with_the_focus_is_not_behind_the_filters(
  page, open_tab, width, height
):
  tab = open_tab(page, width=width, height=height)
  tab.run('document.getElementById("query-1").focus()')
  for key in ('End', *['ArrowUp'] * 5):
    tab.press(key)
    top, filters = tab.run("""[document.activeElement, document.forms[0]].map(
      (element) => element.getBoundingClientRect())
      .map((box, index) => index ? box.bottom : box.top)""")
    assert filters <= top < height


def choose(tab, selector, value):
  """Chooses an option as the event of a user's choice does."""
  tab.run(f"""(() => {{
    const select = document.querySelector('{selector}');
    select.value = '{value}';
    if (select.value !== '{value}') throw 'no such option';
    select.dispatchEvent(new Event('change', {{bubbles: true}}));
  }})()""")
  return [int(name.removeprefix('query-')) for name in tab.run(SHOWN)]


def count(tab):
  return tab.run('document.getElementById("count").textContent')


def test_filters_hide_and_show_entries(page, open_tab):
  tab = open_tab(page)
  classes, errors = 'select[data-column]', 'select[data-errors]'
  assert count(tab) == '6 of 6 shown'
  assert choose(tab, classes, '1') == [2, 5]
  assert count(tab) == '2 of 6 shown'
  assert choose(tab, errors, 'predicted.0.0') == [5]
  assert choose(tab, classes, '') == [3, 4, 5, 6]
  assert choose(tab, errors, 'near.0.0') == [3, 4, 5, 6]
  assert choose(tab, errors, 'only.1.0') == [3, 4, 5, 6]
  assert choose(tab, errors, 'only.0.0') == []
  assert tab.run('document.getElementById("none").offsetHeight') > 0
  assert choose(tab, errors, 'predicted.1.0') == []
  tab.click('button[type=reset]')
  tab.until('document.getElementById("count").textContent[0] === "6"')
  assert len(tab.run(SHOWN)) == 6
  assert tab.run('document.getElementById("none").offsetHeight') == 0


def test_filters_are_operated_by_the_keyboard_alone(page, open_tab):
  tab = open_tab(page)
  tab.press('Tab')
  tab.press('Tab')
  assert tab.run('document.activeElement.dataset.column') == '0'
  # Typing chooses the option that begins like this.
  for letter in 'class 2':
    tab.press(letter)
  tab.until('document.getElementById("count").textContent[0] === "2"')
  assert tab.run(SHOWN) == ['query-3', 'query-6']
  for _ in range(2):
    tab.press('Tab')
  tab.press('Enter')
  tab.until('document.getElementById("count").textContent[0] === "6"')
  tab.press('Tab')
  tab.press('Enter')
  assert tab.run('document.getElementById("play").ariaPressed') == 'true'
  assert len(places(tab)) > 2


def test_right_and_wrong_have_words_and_a_symbol(page, open_tab):
  tab = open_tab(page)
  marks = tab.run("""[...document.querySelectorAll('.query .mark')].map(
    (mark) => [mark.classList[1], mark.innerText.trim(),
      mark.querySelector('use').getAttribute('href'),
      mark.querySelector('svg').getBoundingClientRect().width])""")
  assert len(marks) == 6 * 2 * 4
  for kind, text, symbol, width in marks:
    words = {'right': ('same ', 'right '), 'wrong': ('other ', 'wrong ')}[kind]
    assert text.startswith(words)
    assert symbol == f'#{kind}'
    assert width > 5


def test_page_is_silent_and_asks_for_nothing(page, open_tab):
  tab = open_tab(page)
  tab.point_at('#query-1 .film')
  tab.click('#play')
  choose(tab, 'select[data-errors]', 'any')
  assert tab.complaints() == []
  assert tab.requests() == [page.as_uri()]
  # And it could not if it wanted to.
  refused = tab.run("""new Promise((resolve) => {
    const seen = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      seen.push(event.effectiveDirective);
      if (seen.length === 3) resolve(seen.sort());
    });
    const add = (tag, properties) => document.body.append(
      Object.assign(document.createElement(tag), properties));
    add('img', {src: 'x.png'});
    add('script', {textContent: 'window.ran = true'});
    fetch('https://example.com/').catch(() => 0);
  })""")
  assert refused == ['connect-src', 'img-src', 'script-src-elem']
  assert tab.run('window.ran === undefined')


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_name_is_text(tmp_path, open_tab, kind):
  name = HOSTILE[kind]
  hostile = strip(0, {'kind': name}, name=name)
  page = gallery.Page(
    name,
    introduction=[name],
    tables=[gallery.Table(name, [name, name], [[name, 1.0]], note=name)],
    queries=[
      gallery.Query(
        hostile,
        {name: [gallery.Neighbor(hostile, 0.5)]},
        {name: {'kind': name}},
      )
    ],
    label_columns=['kind'],
    facts={name: name},
  )
  gallery.write_html(tmp_path / 'index.html', page)
  tab = open_tab(tmp_path / 'index.html')
  tab.point_at('.query .film')
  tab.run('document.querySelector(".query").focus()')
  choose(tab, 'select[data-column]', '0')
  shown = ' '.join(name.split())
  assert tab.run('document.title') == shown
  assert tab.run('window.owned === undefined')
  assert tab.complaints() == []
  assert tab.requests() == [(tmp_path / 'index.html').as_uri()]
  texts = tab.run("""
    [...document.querySelectorAll('h1, h4, .name, dd, caption, .mark bdi')].map(
      (element) => element.textContent.replace(/\\s+/g, ' ').trim())""")
  assert texts.count(shown) >= 9
  # Where a name turns the direction of its letters, it does so alone.
  assert tab.run('document.scrollingElement.scrollWidth <= innerWidth')
  isolated = tab.run(
    "getComputedStyle(document.querySelector('.name')).unicodeBidi"
  )
  assert isolated == 'isolate'


@pytest.mark.parametrize('width', [320, 390, 768, 1280, 2560])
def test_nothing_is_wider_than_the_window(tmp_path, open_tab, width):
  page = make_page(2, names=['x' * 300, 'a name with spaces ' * 15])
  gallery.write_html(tmp_path / 'index.html', page)
  tab = open_tab(tmp_path / 'index.html', width=width)
  assert tab.run('document.scrollingElement.scrollWidth') <= width
  small = tab.run("""[...document.querySelectorAll('.film, .frames')].filter(
    (film) => film.getBoundingClientRect().width < 40).length""")
  assert small == 0
