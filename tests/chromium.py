"""Drives an installed Chromium over its DevTools pipe, without a library."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time

PATH = next(
  filter(
    None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))
  ),
  None,
)
PATIENCE_SECONDS = 60
# Chromium reads commands from descriptor 3 and writes answers to 4. Each number
# may be that of the other pipe, so both move away first.
_LAUNCH = """
import fcntl, os, sys
reading, writing = (
  fcntl.fcntl(int(name), fcntl.F_DUPFD, 10) for name in sys.argv[1:3]
)
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_KEYS = {
  'Tab': 9,
  'Enter': 13,
  'End': 35,
  'Home': 36,
  'ArrowUp': 38,
  'ArrowDown': 40,
}


class Browser:
  """A headless Chromium with an empty profile.

  Args:
    profile: folder for the profile.
  """

  def __init__(self, profile):
    commands, self._commands = os.pipe()
    self._answers, answers = os.pipe()
    self._process = subprocess.Popen(
      [
        *(sys.executable, '-c', _LAUNCH, str(commands), str(answers), PATH),
        *('--headless=new', '--remote-debugging-pipe', '--no-sandbox'),
        *('--disable-gpu', '--no-first-run', '--disable-sync'),
        *('--disable-background-networking', '--disable-component-update'),
        f'--user-data-dir={profile}',
        'about:blank',
      ],
      pass_fds=(commands, answers),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    self._buffer = b''
    self._number = 0
    self.events = []

  def close(self):
    """Ends the browser."""
    with contextlib.suppress(Exception):
      self.call('Browser.close')
    try:
      self._process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    os.close(self._commands)
    os.close(self._answers)

  def call(self, method, session=None, **parameters):
    """Sends a command and returns its result; keeps events on the way."""
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': parameters}
    if session:
      message['sessionId'] = session
    os.write(self._commands, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._receive()
      if answer.get('id') != self._number:
        self.events.append(answer)
      elif 'error' in answer:
        raise RuntimeError(f'{method}: {answer["error"]}')
      else:
        return answer['result']

  def wait_for(self, method, session):
    """Waits for an event of a session, also if it has been already."""
    while True:
      for event in self.events:
        if (event['method'], event.get('sessionId')) == (method, session):
          return event['params']
      self.events.append(self._receive())

  def _receive(self):
    while b'\0' not in self._buffer:
      ready, _, _ = select.select([self._answers], [], [], PATIENCE_SECONDS)
      data = os.read(self._answers, 1 << 20) if ready else b''
      if not data:
        raise RuntimeError('Chromium does not answer.')
      self._buffer += data
    message, _, self._buffer = self._buffer.partition(b'\0')
    return json.loads(message)


class Tab:
  """A page in a browser.

  Args:
    browser: that shows it.
    uri: of the page.
    width: of the window, in pixels.
    height: likewise.
    reduced_motion: whether the user prefers less of it.
  """

  def __init__(
    self, browser, uri, *, width=1280, height=900, reduced_motion=False
  ):
    self._browser = browser
    target = browser.call('Target.createTarget', url='about:blank')['targetId']
    self._target = target
    self._session = browser.call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Page', 'Runtime', 'Network', 'Log'):
      self._call(f'{domain}.enable')
    preference = 'reduce' if reduced_motion else 'no-preference'
    self._call(
      'Emulation.setEmulatedMedia',
      features=[{'name': 'prefers-reduced-motion', 'value': preference}],
    )
    self._call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=False,
    )
    self._call('Page.navigate', url=uri)
    browser.wait_for('Page.loadEventFired', self._session)

  def _call(self, method, **parameters):
    return self._browser.call(method, self._session, **parameters)

  def _events(self, *methods):
    return [
      event['params']
      for event in self._browser.events
      if event.get('sessionId') == self._session and event['method'] in methods
    ]

  def close(self):
    """Closes the page."""
    self._browser.call('Target.closeTarget', targetId=self._target)

  def run(self, expression):
    """Evaluates JavaScript, also where the page's policy forbids it."""
    answer = self._call(
      'Runtime.evaluate',
      expression=expression,
      returnByValue=True,
      awaitPromise=True,
    )
    if 'exceptionDetails' in answer:
      raise RuntimeError(str(answer['exceptionDetails']))
    return answer['result'].get('value')

  def press(self, key, *, shift=False):
    """Presses a key and lets it go."""
    names = {'key': key, 'code': key, 'windowsVirtualKeyCode': _KEYS.get(key)}
    if key not in _KEYS:
      # A letter, digit or space, which also writes itself.
      names = {'key': key, 'text': key, 'windowsVirtualKeyCode': ord(key)}
    if key == 'Enter':
      names['text'] = '\r'
    for kind in ('keyDown', 'keyUp'):
      self._call(
        'Input.dispatchKeyEvent', type=kind, modifiers=8 * shift, **names
      )

  def point_at(self, selector):
    """Moves the mouse to the middle of an element."""
    x, y = self.run(f"""(() => {{
      const element = document.querySelector({json.dumps(selector)});
      element.scrollIntoView({{block: 'center'}});
      const box = element.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    }})()""")
    self._call('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)
    return x, y

  def click(self, selector):
    """Clicks on the middle of an element."""
    x, y = self.point_at(selector)
    for kind in ('mousePressed', 'mouseReleased'):
      self._call(
        'Input.dispatchMouseEvent',
        type=kind,
        x=x,
        y=y,
        button='left',
        clickCount=1,
      )

  def until(self, expression):
    """Waits until an expression is true, and returns it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (value := self.run(expression)):
      assert time.monotonic() < end, f'never true: {expression}'
      time.sleep(0.02)
    return value

  def complaints(self):
    """What the console shows: messages, violated policies, exceptions."""
    return self._events(
      'Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded'
    )

  def requests(self):
    """Addresses that the page has asked for, those inside it left out."""
    return [
      event['request']['url']
      for event in self._events('Network.requestWillBeSent')
      if not event['request']['url'].startswith('data:')
    ]

  def screenshot(self, path):
    """Writes a picture of the whole page."""
    picture = self._call('Page.captureScreenshot', captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(picture['data']))
