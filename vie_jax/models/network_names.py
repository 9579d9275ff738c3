"""What networks and their layers are called; imports nothing.

Apart from the networks themselves, so that a config is checked where JAX is
not installed, as on a machine that only starts runs elsewhere.
"""

NAMES = (
  'vie_single',
  'vie_3dresnet',
  'vie_trn',
  'vie_slow',
  'vie_slowfast',
  'vie_twostream_s',
  'vie_twostream_sf',
)
STREAMS = {
  'vie_twostream_s': {'single': 'vie_single', 'motion': 'vie_slow'},
  'vie_twostream_sf': {'single': 'vie_single', 'motion': 'vie_slowfast'},
}
"""Two-stream networks -> stream -> the network that it is."""
FRAME_WISE = ('vie_single', 'vie_trn')
"""Networks whose readouts see each frame for itself."""
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
"""What readouts are trained on."""


def has_slowfast(name: str) -> bool:
  """Whether a network is, or has as a stream, VIE-SlowFast."""
  return 'vie_slowfast' in (name, *STREAMS.get(name, {}).values())
