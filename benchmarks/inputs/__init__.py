"""What is measured: videos, the clips of a training, where they are stored."""
