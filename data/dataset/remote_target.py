"""A data set on its way to an object store.

What is made is made here, in a staging folder. Each finished file goes to the
store and leaves the folder; dataset.json goes last, and says that the rest is
complete.

A store has no lock. While a data set is incomplete, the object .preparing.json
says who prepares it, by a random name that is kept in the staging folder. Two
that start in the same moment both write it; the one whose name stands there
afterwards goes on, the other stops, at its next file at the latest. What both
have written until then is the same, file by file, if their input is.
"""

import datetime
import hashlib
import os
import pathlib
import socket
import uuid

from errors import InputError

from dataset.dataset_layout import is_dataset_file
from dataset.dataset_writer import remove_dataset
from dataset.staging import (
  DIRECTORY_NAME,
  OutputError,
  Staging,
  read_json,
  write_json,
)

NOTE = '.preparing.json'
_OWNER = 'owner.json'
_MANIFEST = 'dataset.json'


class RemoteTarget:
  """Where `write_dataset` delivers what it has written.

  Attributes:
    place: RemoteFolder.
    folder: pathlib.Path of the staging folder.
  """

  def __init__(self, place, folder):
    """Notes both; nothing is requested yet.

    Args:
      place: RemoteFolder.
      folder: pathlib.Path of the staging folder, which exists and is locked.
    """
    self.place = place
    self.folder = folder
    self._owner_path = folder / _OWNER

  def check_folder(self):
    """Looks whether the staging folder is empty, or that of this target.

    Raises:
      InputError: if it is neither.
    """
    owner = read_json(self._owner_path)
    if owner is not None and owner['url'] != self.place.url:
      raise InputError(
        f'{self.folder} holds the preparation of {owner["url"]}; choose '
        'another --staging'
      )
    names = {path.name for path in self.folder.iterdir()}
    if owner is None and names - {DIRECTORY_NAME}:
      raise InputError(
        f'{self.folder} is not empty and holds no preparation of '
        f'{self.place}; choose another --staging'
      )

  def begin(self, *, restart):
    """Says that the data set is prepared from here, or goes on with that.

    Args:
      restart: whether to throw away what is there.

    Raises:
      InputError: if foreign files are there, or somebody else prepares it.
      OutputError: if the store cannot be reached.
    """
    names = self.place.sizes()
    if names and NOTE not in names and _MANIFEST not in names:
      raise InputError(
        f'{self.place} is not empty and holds no prepared data set; choose '
        'another --out'
      )
    owner = self._owner()
    note = self.place.read_json(NOTE)
    if note is not None and note['token'] != owner['token'] and not restart:
      raise InputError(
        f'{self.place} is being prepared on {note["host"]}, in '
        f'{note["staging"]}, since {note["since"]}; go on there, or add '
        '--restart to throw it away and start here'
      )
    if note is None or note['token'] != owner['token']:
      self.place.write_json(NOTE, owner)
    self._check_owner()
    if restart:
      self._remove(names)

  def holds(self, name, entry):
    """Tells whether a finished file was delivered before, and is there.

    Args:
      name: of the file.
      entry: dict with its 'bytes'.

    Returns:
      bool.
    """
    if read_json(self._mark(name)) != entry:
      return False
    return self.place.sizes().get(name) == entry['bytes']

  def deliver(self, name, entry):
    """Moves a finished file to the store.

    Args:
      name: of the file.
      entry: dict with its 'bytes' and what else dataset.json says of it.

    Raises:
      OutputError: if that fails, or somebody else has taken over.
    """
    self._check_owner()
    self.place.upload(self.folder / name, name)
    write_json(self._mark(name), entry, aside=Staging(self.folder).directory)
    (self.folder / name).unlink()

  def finish(self, files):
    """Delivers dataset.json, when all the rest is there.

    Args:
      files: dict from name to entry of all other files.

    Raises:
      OutputError: if something is missing, or somebody else has taken over.
    """
    sizes = self.place.sizes()
    wrong = [name for name in files if sizes.get(name) != files[name]['bytes']]
    if wrong:
      raise OutputError(
        f'{self.place / wrong[0]} is gone or was changed meanwhile; start '
        'again with --restart'
      )
    self._remove(sizes.keys() - files.keys())
    self._check_owner()
    self.place.upload(self.folder / _MANIFEST, _MANIFEST)

  def clean_up(self):
    """Removes what only a preparation needs, here and there."""
    note, owner = self.place.read_json(NOTE), read_json(self._owner_path)
    if note is not None and owner is not None and note == owner:
      self.place.remove([NOTE])
    Staging(self.folder).remove()
    remove_dataset(self.folder)
    self._owner_path.unlink(missing_ok=True)
    if not any(self.folder.iterdir()):
      self.folder.rmdir()

  def _owner(self):
    """Who we are; the same when a killed run goes on from its folder."""
    owner = read_json(self._owner_path)
    if owner is None:
      now = datetime.datetime.now(datetime.UTC)
      owner = {
        'url': self.place.url,
        'token': uuid.uuid4().hex,
        'host': socket.gethostname(),
        'staging': os.path.abspath(self.folder),
        'since': now.isoformat(timespec='seconds'),
      }
      aside = Staging(self.folder).directory
      write_json(self._owner_path, owner, aside=aside)
    return owner

  def _check_owner(self):
    note = self.place.read_json(NOTE)
    if note != read_json(self._owner_path):
      by = f'on {note["host"]}, in {note["staging"]}' if note else 'elsewhere'
      raise OutputError(
        f'{self.place} is now prepared {by}; this run has stopped'
      )

  def _remove(self, names):
    """Removes files of a data set; dataset.json first, foreign ones never."""
    ours = [name for name in names if is_dataset_file(name)]
    self.place.remove(sorted(ours, key=lambda name: name != _MANIFEST))

  def _mark(self, name):
    staging = Staging(self.folder)
    return staging.directory / f'{name.replace("/", "-")}.delivered'


def default_staging(url):
  """Returns the folder in which a data set for a URL is made.

  Args:
    url: str.

  Returns:
    pathlib.Path, the same for the same URL: below $XDG_CACHE_HOME, or
    ~/.cache.
  """
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  url = url.rstrip('/')
  digest = hashlib.sha256(url.encode()).hexdigest()[:12]
  return pathlib.Path(cache) / 'vie_jax' / f'staging-{digest}'
