"""How many videos and classes the named data sets are known to have.

A prepared data set is compared with these numbers; a difference is reported,
and is no error: the videos of Kinetics vanish, and a part is enough for many.
"""

# Kay et al. 2017, arXiv:1705.06950, has 400 classes; the numbers of videos are
# those that the VIE paper trained and tested on (Zhuang et al. 2020,
# arXiv:1905.11954): what was left on the web when it was downloaded. The
# official lists name more, so that a few more than these are no mistake.
KINETICS400 = {'train': 239_888, 'val': 19_653, 'classes': 400}

# Soomro, Zamir and Shah 2012, CRCV-TR-12-01: 13,320 videos in 101 classes.
# Videos by split: the lines of trainlist0N.txt and testlist0N.txt.
UCF101 = {
  1: {'train': 9_537, 'val': 3_783, 'classes': 101},
  2: {'train': 9_586, 'val': 3_734, 'classes': 101},
  3: {'train': 9_624, 'val': 3_696, 'classes': 101},
}

# Kuehne et al. 2011, "HMDB: A large video database for human motion
# recognition", ICCV: 6,766 videos in 51 classes; each split takes 70 videos of
# a class for training and 30 for testing, and leaves the others out.
HMDB51 = {'train': 3_570, 'val': 1_530, 'classes': 51}
