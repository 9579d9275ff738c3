"""What is prepared: folders, lists, archives, Kinetics, UCF101, HMDB51, TFDS."""
