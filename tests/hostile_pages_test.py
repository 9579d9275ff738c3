"""Names, labels, paths and figures of strangers in every page: text only."""

import dataclasses
import getpass
import html.parser
import os
import re
import socket

import chromium
import fake_results
import numpy as np
import prepare
import pytest
import tiny_run

from vie_jax.evaluation import (
  filled_tables,
  found_results,
  gallery,
  paper_roles,
  paper_tables,
  report,
)
from vie_jax.input_pipeline import frame_store
from vie_jax.results import findings
from vie_jax.retrieval import page as retrieval_page

ATTACK = 'window.owned=document.title=1'
PAYLOADS = (
  f'<script>{ATTACK}</script>',
  f'</script><script>{ATTACK}</script>',
  f'</title><script>{ATTACK}</script>',
  f'</style><script>{ATTACK}</script>',
  f'</textarea><script>{ATTACK}</script>',
  f'--><script>{ATTACK}</script><!--',
  f']]><script>{ATTACK}</script>',
  f'<img src=x onerror="{ATTACK}">',
  f"<img src=x onerror='{ATTACK}'>",
  f'<img src=`x` onerror={ATTACK}>',
  f'"><svg onload="{ATTACK}">',
  f"'><svg/onload='{ATTACK}'>",
  f'" onfocus="{ATTACK}" autofocus="',
  f"' onmouseover='{ATTACK}' x='",
  f'<iframe srcdoc="<script>{ATTACK}</script>">',
  '<meta http-equiv="refresh" content="0;url=https://example.com/">',
  '<base href="https://example.com/">',
  '<link rel="stylesheet" href="https://example.com/x.css">',
  '<form action="https://example.com/"><input name="x"><button>',
  'javascript:window.owned=1',
  '[x](javascript:window.owned=1) ![y](https://example.com/z.png)',
  '{{ 7 * 7 }}{% raw %}${7*7}#{7*7}<%= 7*7 %>',
  f'&lt;script&gt;{ATTACK}&#60;/script&#x3e;',
  'a;}body{background:url(https://example.com/x.png)}',
  '\ufeff+ADw-script+AD4-\u202e\x1b]8;;https://example.com/\x1b\\\r\n# x | y',
)
ACTIVE = {
  *('applet', 'base', 'embed', 'frame', 'iframe', 'link', 'math', 'object'),
  *('audio', 'source', 'textarea', 'video'),
}
# Attributes that lead to a place.
PLACES = ('action', 'background', 'data', 'formaction', 'href', 'poster')
PLACES += ('ping', 'src', 'srcdoc', 'srcset', 'xlink:href')


class Elements(html.parser.HTMLParser):
  """All (tag, attributes) of a page."""

  def __init__(self, text):
    super().__init__()
    self.found = []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attributes):
    self.found.append((tag, attributes))


def check_passive(text, *, num_scripts):
  """Checks that a page has no node but its own, and leads nowhere."""
  elements = Elements(text).found
  tags = [tag for tag, _ in elements]
  assert not ACTIVE & set(tags)
  assert tags.count('script') == num_scripts
  refreshing = [dict(a).get('http-equiv') for t, a in elements if t == 'meta']
  assert [name for name in refreshing if name] == ['Content-Security-Policy']
  (policy,) = (
    dict(attributes)['content']
    for tag, attributes in elements
    if tag == 'meta' and dict(attributes).get('http-equiv')
  )
  assert policy.startswith("default-src 'none';")
  assert "form-action 'none'" in policy
  assert "base-uri 'none'" in policy
  for tag, attributes in elements:
    for name, value in attributes:
      assert not name.startswith('on'), (tag, name)
      if name in PLACES:
        assert value.startswith(('#', 'data:image/jpeg;base64,')), value
        assert value == value.strip()
        assert not re.search(r'[<>"\'\s]', value)
      # Numbers alone are put into styles.
      if name == 'style':
        assert not re.search(r'url|expression|owned|example', value), value
  return len(elements)


def strip(text):
  frames = np.zeros((2, 8, 8, 3), np.uint8)
  return gallery.FilmStrip(frames, text, {text: text})


def write_gallery(path, text):
  """A page with the text in every place that takes one."""
  hostile = strip(text)
  page = gallery.Page(
    title=text,
    introduction=[text],
    tables=[gallery.Table(text, [text, text], [[text, 1.0]], note=text)],
    curves=[gallery.Curve(text, text, {text: ([0, 1], [0, 1])}, {text: 0.5})],
    queries=[
      gallery.Query(
        hostile, {text: [gallery.Neighbor(hostile, 0.5)]}, {text: {text: text}}
      )
    ],
    label_columns=[text],
    facts={text: text},
    table_caption=text,
    curve_caption=text,
    query_caption=text,
  )
  gallery.write_html(path, page)


def everywhere(value, text):
  """The same facts with this text in place of every text in them."""
  if isinstance(value, dict):
    return {name: everywhere(inside, text) for name, inside in value.items()}
  return text if isinstance(value, str) else value


def write_report(path, text):
  cell = paper_tables.CELLS['table1.vie_slow.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  hostile = everywhere(facts, text)
  hostile['accuracy'][text] = {text: facts['accuracy']['label']['conv5']}
  hostile['settings'] = {'augmentation': text}
  results = [
    found_results.Result('sound', path.parent, facts),
    found_results.Result(text, path.parent, hostile),
  ]
  curves = {'train/loss': ([0, 1], [1, 2]), f'knn/{text}_top1': ([0], [0.5])}
  runs = [found_results.Run(text, curves, results[1])]
  skipped = [found_results.Skipped(text, text)]
  roles = paper_roles.ROLES | {
    'ucf101': paper_roles.Role(text, text),
  }
  filled = filled_tables.fill(
    found_results.Found(results, runs, skipped),
    filled_tables.Options(title=text, notes=[text], command=text, roles=roles),
  )
  return report.write(filled, path)


def visible(text):
  """The words of a payload that a page must show."""
  return re.search(r'[a-z7][\w:.]*', text)[0]


@pytest.mark.parametrize('number', range(len(PAYLOADS)))
def test_pages_of_results_and_of_neighbours_are_passive(tmp_path, number):
  text = PAYLOADS[number]
  write_gallery(tmp_path / 'plain.html', 'plain')
  write_gallery(tmp_path / 'index.html', text)
  pages = {
    name: (tmp_path / f'{name}.html').read_text() for name in ('plain', 'index')
  }
  sizes = {n: check_passive(p, num_scripts=1) for n, p in pages.items()}
  assert sizes['plain'] == sizes['index']
  assert visible(text) in pages['index']
  page, plain = write_report(tmp_path / 'report.html', text)
  check_passive(page.read_text(), num_scripts=0)
  check_markdown(plain.read_text())


def check_markdown(text):
  """Checks that Markdown has no markup but its own."""
  # What a backslash takes the meaning from, and code, are no markup.
  plain = re.sub(r'\\.', '', text)
  plain = re.sub(r'`[^`\n]*`', '', plain)
  assert '<' not in plain
  links = re.findall(r'\]\(([^)]*)\)', plain)
  assert set(links) <= {
    '#not-run-yet',
    '#evaluations-that-are-in-no-table-of-the-paper',
  }
  assert '\x1b' not in text
  assert '\r' not in text
  headings = re.findall(r'(?m)^# .*$', text)
  assert len(headings) == 1


@pytest.mark.slow
def test_fifty_files_are_shown_by_a_browser_that_runs_none(tmp_path):
  if not chromium.PATH:
    pytest.skip('needs an installed Chromium')
  browser = chromium.Browser(tmp_path / 'profile')
  try:
    for number, text in enumerate(PAYLOADS):
      paths = [tmp_path / f'{number}{kind}.html' for kind in 'gr']
      write_gallery(paths[0], text)
      write_report(paths[1], text)
      for path in paths:
        tab = chromium.Tab(browser, path.as_uri())
        assert tab.run('window.owned === undefined'), text
        assert tab.requests() == [path.as_uri()], text
        assert tab.complaints() == [], text
        tab.close()
  finally:
    browser.close()


def personal_words():
  """What names this person, machine and home folder, as far as it is long."""
  words = {os.path.expanduser('~'), socket.gethostname(), getpass.getuser()}
  return {word for word in words if len(word) > 4 or word.startswith('/')}


def test_pages_that_are_given_away_have_no_home_folder(tmp_path, demo_dataset):
  home = os.path.join(os.path.expanduser('~'), 'videos', 'of_a_person')
  cell = paper_tables.CELLS['table1.vie_slow.kinetics.conv5']
  facts = fake_results.facts_of(cell, {'conv5': 0.5})
  facts['dataset']['path'] = facts['network']['source'] = home
  facts['network']['trained_on']['path'] = home
  facts['network']['started_from'] = [{'training': 'finetuned', 'source': home}]
  workdir = tmp_path / 'runs' / 'slow'
  fake_results.write(workdir / 'linear_eval' / 'k', facts, curve=10)
  (tmp_path / 'other' / 'slow').mkdir(parents=True)
  found = found_results.collect(
    [workdir, tmp_path / 'other' / 'slow', f'{home}/nothing']
  )
  filled = filled_tables.fill(found, filled_tables.Options())
  files = [*report.write(filled, tmp_path / 'report.html')]
  with (
    frame_store.FrameStore.open(demo_dataset, 'train') as train,
    frame_store.FrameStore.open(demo_dataset, 'val') as val,
  ):
    own = findings.Findings(
      np.zeros((val.num_videos, 2), np.int32),
      np.zeros((val.num_videos, 2), np.float32),
      heading='network',
      result=facts
      | {
        'recall': {},
        'chance_recall': {},
        'settings': {'num_voters': 1, 'temperature': 1},
      },
    )
    page = retrieval_page.validation_page(
      train, val, [own], columns=[], num_queries=2, num_neighbors=1
    )
  files.append(tmp_path / 'index.html')
  gallery.write_html(files[-1], dataclasses.replace(page, curves=[]))
  files.append(tmp_path / 'show.html')
  config = str(tiny_run.REPOSITORY / 'configs' / 'demo.py:single')
  shown = ['show', str(demo_dataset), f'--out={files[-1]}', '--num-clips=1']
  shown += [f'--config={config}', f'--config.init_from={home}']
  assert prepare.main(shown) == 0
  for path in files:
    text = re.sub(r'base64,[^")]*', '', path.read_text())
    # The last part of a path says what it is.
    assert 'of_a_person' in text or path.name != 'index.html'
    for word in (*personal_words(), home, str(tmp_path), str(demo_dataset)):
      assert word not in text, (path.name, word)
    assert 'PATH=' not in text
