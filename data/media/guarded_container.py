"""Opens containers of video files within limits.

A video file is untrusted input: its name could be taken for a URL, its text
for a playlist of other files, its header for a picture of any size. All of
that is refused here.
"""

import errno

import av

from media.file_ends import cut_box
from media.video_errors import VideoError, reason_of

# Suffixes that make a file a candidate; compared in lower case.
VIDEO_SUFFIXES = frozenset(
  [
    '.264',
    '.265',
    '.3g2',
    '.3gp',
    '.3gp2',
    '.3gpp',
    '.asf',
    '.avc',
    '.avi',
    '.divx',
    '.dv',
    '.f4v',
    '.flv',
    '.gif',
    '.h264',
    '.h265',
    '.hevc',
    '.ivf',
    '.m1v',
    '.m2p',
    '.m2t',
    '.m2ts',
    '.m2v',
    '.m4v',
    '.mj2',
    '.mjpeg',
    '.mjpg',
    '.mk3d',
    '.mkv',
    '.mov',
    '.mp4',
    '.mpe',
    '.mpeg',
    '.mpg',
    '.mpv',
    '.mts',
    '.mxf',
    '.nut',
    '.ogg',
    '.ogm',
    '.ogv',
    '.qt',
    '.rm',
    '.rmvb',
    '.tp',
    '.trp',
    '.ts',
    '.vob',
    '.vro',
    '.webm',
    '.wmv',
    '.y4m',
  ]
)

# Demuxers that read one file and nothing else. Left out on purpose: concat,
# hls, dash, sdp, image2 and their kin, which open what their text names.
_DEMUXERS = (
  'asf,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,'
  'mpegvideo,mpjpeg,mxf,nut,ogg,rm,webm,yuv4mpegpipe'
)

# FFmpeg's own decoders of these codecs leave the transparency out.
_ALPHA_DECODERS = {'vp8': 'libvpx', 'vp9': 'libvpx-vp9'}

# JPEG pictures one after the other: FFmpeg takes larger ones for a picture, in
# a format that it would read other files with.
_MJPEG_SUFFIXES = ('.mjpeg', '.mjpg')


def open_container(path, max_pixels):
  """Opens a file as a container of one of the known formats, as nothing else.

  Args:
    path: str, of a regular file in the local file system.
    max_pixels: largest width times height that is decoded.

  Returns:
    av.container.InputContainer, to be closed by the caller.

  Raises:
    VideoError: if it is a playlist, an unknown format, or cut off.
    FFmpegError: if FFmpeg says that a file of JPEG pictures is none.
  """

  def opened(demuxer):
    return av.open(
      f'file:{path}',
      format=demuxer,
      options={
        'format_whitelist': _DEMUXERS,
        'protocol_whitelist': 'file',
        'max_pixels': str(max_pixels),
      },
      metadata_errors='replace',
    )

  try:
    return opened(None)
  except av.error.ArgumentError as error:
    # How FFmpeg says that the format is not on the white list.
    if path.lower().endswith(_MJPEG_SUFFIXES):
      return opened('mjpeg')
    raise VideoError(path, 'a playlist, a picture or no video') from error
  except av.error.FFmpegError as error:
    reason = cut_box(path) or _reason_of_header(error)
    raise VideoError(path, reason) from error


def video_stream(path, container, max_pixels):
  """Picks the video stream of an open container.

  Args:
    path: str, of the file.
    container: as from `open_container`.
    max_pixels: largest width times height that is decoded.

  Returns:
    av.video.stream.VideoStream, not the picture of a cover.

  Raises:
    VideoError: if there is none, no decoder for it, or if its pictures are
      above `max_pixels`.
  """
  cover = av.stream.Disposition.attached_pic
  streams = [s for s in container.streams.video if not s.disposition & cover]
  if not streams:
    raise VideoError(path, cut_box(path) or 'no video stream')
  stream = container.streams.best('video')
  if stream not in streams:
    stream = streams[0]
  context = stream.codec_context
  if context is None:
    raise VideoError(path, cut_box(path) or 'no decoder for its video codec')
  if not (context.width and context.height):
    raise VideoError(
      path,
      cut_box(path)
      or f'no picture size: damaged, or above {max_pixels} pixels (--max-pixels)',
    )
  if context.width * context.height > max_pixels:
    raise VideoError(
      path,
      f'pictures of {context.width} x {context.height}, above {max_pixels} '
      'pixels (--max-pixels)',
    )
  return stream


def bounded_decoder(stream, max_pixels):
  """Gives the decoder of a stream, of one thread, that refuses large pictures.

  Args:
    stream: as from `video_stream`.
    max_pixels: largest width times height that is decoded.

  Returns:
    av.CodecContext, the stream's own where that decodes transparency, too.
  """
  context = stream.codec_context
  metadata = {key.lower(): value for key, value in stream.metadata.items()}
  name = _ALPHA_DECODERS.get(context.codec.name)
  if name and metadata.get('alpha_mode') == '1':
    context = av.CodecContext.create(name, 'r')
    context.extradata = stream.codec_context.extradata
  context.options = {'max_pixels': str(max_pixels)}
  context.thread_count = 1
  return context


def _reason_of_header(error):
  """Says why a file cannot be opened."""
  if isinstance(error, av.error.InvalidDataError):
    return 'no video, damaged, or cut off in its header'
  # How FFmpeg says that there is nothing where more was to come.
  if isinstance(error, av.error.EOFError) or error.errno == errno.EIO:
    return f'the file ends early, or cannot be read ({reason_of(error)})'
  return reason_of(error)
