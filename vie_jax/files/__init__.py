"""Files that others write, too: full disks, slow ones, one writer per folder."""
